"""On which core a process that is woken goes on."""

import os
import subprocess

import pytest

from muxsim.supervise.cores import woken_elsewhere

pytestmark = pytest.mark.children
several = pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="there is one core only")


@pytest.fixture
def reader():
    """A process that waits for a line."""
    process = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    yield process
    process.communicate()


@pytest.fixture
def on_one_core():
    """This thread stays where it is; gives the number of the core."""
    before = os.sched_getaffinity(0)
    here = min(before)
    os.sched_setaffinity(0, {here})
    yield here
    os.sched_setaffinity(0, before)


def core_of(pid):
    """The core that a process ran on last."""
    with open(f"/proc/{pid}/stat") as file:
        return int(file.read().rpartition(")")[2].split()[36])


@several
def test_a_woken_process_runs_on_another_core_and_may_run_anywhere_afterwards(reader, on_one_core):
    anywhere = os.sched_getaffinity(reader.pid)
    with woken_elsewhere(reader.pid):
        reader.stdin.write(b"wake up\n")
        reader.stdin.flush()
    assert reader.stdout.readline() == b"wake up\n"
    assert core_of(reader.pid) != on_one_core
    assert os.sched_getaffinity(reader.pid) == anywhere


def test_one_that_may_run_on_this_core_only_stays(reader, on_one_core):
    os.sched_setaffinity(reader.pid, {on_one_core})
    with woken_elsewhere(reader.pid):
        assert os.sched_getaffinity(reader.pid) == {on_one_core}
    assert os.sched_getaffinity(reader.pid) == {on_one_core}


@several
def test_an_error_in_the_block_leaves_the_process_as_it_was(reader):
    anywhere = os.sched_getaffinity(reader.pid)
    with pytest.raises(BrokenPipeError), woken_elsewhere(reader.pid):
        raise BrokenPipeError
    assert os.sched_getaffinity(reader.pid) == anywhere


def test_nothing_is_said_about_one_that_has_gone():
    process = subprocess.Popen(["true"])
    process.wait()
    with woken_elsewhere(process.pid):
        pass
