"""What a bound becomes, and which one a process met."""

import os
import resource
import signal

import pytest

from muxsim.processes.bounds import controllers, cpu_seconds, rlimits, settings, shown_size, verdict
from muxsim.spec import Confinement, EnvSpec
from processes.enclosed import bounded

MIB = 2**20
XCPU, XFSZ, KILL = -signal.SIGXCPU, -signal.SIGXFSZ, -signal.SIGKILL


def test_what_nobody_bounds_stays_as_it_is():
    assert rlimits(Confinement()) == {}


def test_every_bound_that_setrlimit_takes_becomes_one():
    everything = Confinement(max_cpu_seconds=5, max_address_space=10 * MIB, max_open_files=20, max_file_size=MIB)
    assert rlimits(everything) == {
        resource.RLIMIT_CPU: (5, 6),
        resource.RLIMIT_AS: (10 * MIB, 10 * MIB),
        resource.RLIMIT_NOFILE: (20, 20),
        resource.RLIMIT_FSIZE: (MIB, MIB),
    }


@pytest.mark.parametrize(
    ("bounds", "returncode", "cpu", "key"),
    [
        ({"max_cpu_seconds": 5}, XCPU, 5.0, "max_cpu_seconds"),
        ({"max_cpu_seconds": 5}, KILL, 6.0, "max_cpu_seconds"),  # it had ignored SIGXCPU
        ({"max_cpu_seconds": 5}, KILL, 4.9, None),
        ({"max_cpu_seconds": 5}, 1, 6.0, None),
        ({"max_cpu_seconds": 5}, None, 0.0, None),
        ({}, XCPU, 5.0, None),  # by a limit that is not ours
        ({}, KILL, 500.0, None),
        ({"max_file_size": MIB}, XFSZ, 0.0, "max_file_size"),
        ({"max_file_size": MIB}, XCPU, 0.0, None),
        ({"max_file_size": MIB}, 0, 0.0, None),
        ({}, XFSZ, 0.0, None),
    ],
)
def test_a_bound_is_blamed_only_for_what_it_did(bounds, returncode, cpu, key):
    said = verdict(Confinement(**bounds), returncode, cpu)
    assert said is None if key is None else said.setting == key


@pytest.mark.parametrize(
    ("size", "text"), [(MIB, "1 MiB"), (3 * 2**30, "3 GiB"), (1536, "1536 bytes"), (2048, "2 KiB"), (1, "1 bytes")]
)
def test_sizes_are_told_as_the_config_has_them(size, text):
    assert shown_size(size) == text


@pytest.mark.parametrize(
    ("out_of_memory", "returncode", "key"),
    [(True, KILL, "max_memory"), (False, KILL, None), (True, 0, None), (True, XCPU, None)],
)
def test_memory_is_blamed_when_the_kernel_says_so(out_of_memory, returncode, key):
    said = verdict(Confinement(max_memory=64 * MIB), returncode, out_of_memory=out_of_memory)
    assert said is None if key is None else (said.setting == key and "64 MiB of memory" in said.text)


def test_processes_are_counted_by_a_cgroup_or_else_by_user():
    assert rlimits(Confinement(max_processes=9)) == {resource.RLIMIT_NPROC: (9, 9)}
    assert rlimits(Confinement(max_processes=9), counts_processes=True) == {}


def test_a_cgroup_is_bounded_as_far_as_there_are_controllers():
    wanted = Confinement(max_memory=64 * MIB, max_cpus=0.5, max_processes=9)
    assert settings(wanted, ["memory", "cpu", "pids"]) == {
        "memory.max": str(64 * MIB),
        "memory.swap.max": "0",
        "memory.oom.group": "1",
        "cpu.max": "50000 100000",
        "pids.max": "9",
    }
    assert settings(wanted, []) == {}
    assert settings(Confinement(), ["memory", "cpu", "pids"]) == {}
    assert settings(Confinement(max_processes=9, sandbox="bubblewrap"), ["pids"]) == {"pids.max": "11"}


def test_only_what_needs_a_cgroup_asks_for_controllers():
    spec = EnvSpec(name="a", command="a", confinement=Confinement(max_open_files=9, nice=3, max_cpu_seconds=4))
    assert controllers([spec]) == set()
    assert controllers([spec, bounded("b", max_memory=MIB), bounded("c", max_cpus=2.0)]) == {"memory", "cpu"}


def test_the_time_of_a_process_that_is_not_there_is_nothing():
    assert cpu_seconds(2**22 + 1) == 0.0
    assert cpu_seconds(os.getpid()) > 0.0
