"""What trees of processes use, of which few are looked at a time."""

import os
import subprocess
import sys
from contextlib import contextmanager

import pytest

from muxsim.processes import usage
from muxsim.processes.usage import Usages, tree_of

# A process with a child that both say when they are there; the child works, and is waited for.
FAMILY = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-S", "-c", "sum(range(10**7)); print('ready', flush=True); input()"])
print("ready", flush=True)
input()
"""


@contextmanager
def family():
    with subprocess.Popen(
        [sys.executable, "-S", "-c", FAMILY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert [process.stdout.readline() for _ in range(2)] == ["ready\n"] * 2
            yield process.pid
        finally:
            process.communicate("\n\n")


@pytest.mark.children
def test_memory_and_cpu_of_a_tree_are_those_of_all_its_processes():
    with family() as root:
        found = Usages().step([root], 0.0)[root]
        processes = tree_of(root)
    assert found.processes == len(processes) == 2
    assert found.memory > 2 * 2**20
    assert found.cpu > 0
    assert processes[0][:2] == (root, os.getpid())
    assert processes[1].parent == root
    assert all("python" in one.name and one.memory for one in processes)


def test_what_has_gone_is_nothing():
    usages = Usages()
    assert usages.step([2**22 + 1], 0.0) == {}
    assert tree_of(2**22 + 1) == []


class Machine:
    """Trees of so many processes each, and which were looked at and weighed."""

    def __init__(self, monkeypatch, trees, size):
        self.size, self.seen, self.weighed = size, [], []
        self.roots = [1000 * (number + 1) for number in range(trees)]
        self.cpu = dict.fromkeys(self.roots, 1.0)
        monkeypatch.setattr(usage, "_below", self.below)
        monkeypatch.setattr(usage, "_proportional_size", self.weigh)

    def below(self, root):
        self.seen.append(root)
        return [usage._Seen(root + n, root, 7, self.cpu[root] / self.size) for n in range(self.size)]

    def weigh(self, pid):
        self.weighed.append(pid)
        return 10


def test_a_step_looks_at_few_processes_however_many_there_are_and_comes_to_each(monkeypatch):
    machine, usages, known = Machine(monkeypatch, trees=300, size=2), Usages(), {}
    for second in range(45):
        seen, weighed = len(machine.seen), len(machine.weighed)
        known |= usages.step(machine.roots, float(second))
        assert 2 * (len(machine.seen) - seen) <= 80
        assert len(machine.weighed) - weighed <= 15
    assert set(known) == set(machine.seen) == set(machine.roots)
    assert len(set(machine.weighed)) == 600
    assert {one.memory for one in known.values()} == {20}


def test_a_tree_is_looked_at_every_ten_seconds_and_one_larger_than_a_step_makes_the_next_ones_shorter(monkeypatch):
    machine, usages = Machine(monkeypatch, trees=2, size=250), Usages()
    at = []
    for second in range(12):
        before = len(machine.seen)
        usages.step(machine.roots, float(second))
        at += [second] * (len(machine.seen) - before)
    assert at == [0, 3, 10]


def test_cpu_of_a_tree_never_goes_back_when_one_of_its_processes_has_gone(monkeypatch):
    machine, usages = Machine(monkeypatch, trees=1, size=2), Usages()
    (root,) = machine.roots
    told = []
    for second, cpu in ((0, 1.0), (10, 5.0), (20, 2.0), (30, 3.0)):
        machine.cpu[root] = cpu
        told.append(usages.step([root], float(second))[root].cpu)
    assert told == [1, 5, 5, 6]


def test_another_process_under_the_same_pid_begins_anew(monkeypatch):
    machine, usages = Machine(monkeypatch, trees=1, size=1), Usages()
    (root,) = machine.roots
    assert usages.step([root], 0.0)[root] == (10, 1.0, 1)
    monkeypatch.setattr(usage, "_below", lambda root: [usage._Seen(root, 1, 8, 0.25)])
    assert usages.step([root], 10.0)[root].cpu == 0.25
    assert usages.step([], 20.0) == {}
    assert repr(usages) == "<Usages of 0 trees>"
