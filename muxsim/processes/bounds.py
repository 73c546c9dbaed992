"""The bounds of a spec, turned into what setrlimit and cgroup v2 take; and back: which of them a process met."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Iterable
from typing import Final, NamedTuple

from muxsim.inside.proc import stat_fields
from muxsim.spec import Confinement, EnvSpec

CONTROLLERS: Final = {"max_memory": "memory", "max_cpus": "cpu", "max_processes": "pids"}
"""The cgroup controller that a setting needs."""

# A process that handles the first signal (SIGXCPU) and goes on is killed after as many more seconds.
_LAST_CPU_SECONDS: Final = 1
# Bubblewrap's own two processes.
_BUBBLEWRAP_PROCESSES: Final = 2
# A tenth of a second is what the kernel has as its own default.
_CPU_PERIOD: Final = 100_000


class Met(NamedTuple):
    """A bound that a backend met: the setting, and what it did."""

    setting: str
    text: str


def controllers(specs: Iterable[EnvSpec]) -> set[str]:
    """The cgroup controllers that these need."""
    return {
        controller
        for spec in specs
        for key, controller in CONTROLLERS.items()
        if getattr(spec.confinement, key) is not None
    }


def settings(confinement: Confinement, available: Iterable[str]) -> dict[str, str]:
    """The control files of a backend's cgroup."""
    files: dict[str, str] = {}
    if "memory" in available and (memory := confinement.max_memory) is not None:
        # All or none are killed: half a session is of no use. Swap would only make it slow first.
        files |= {"memory.max": str(memory), "memory.swap.max": "0", "memory.oom.group": "1"}
    if "cpu" in available and (cpus := confinement.max_cpus) is not None:
        files["cpu.max"] = f"{round(cpus * _CPU_PERIOD)} {_CPU_PERIOD}"
    if "pids" in available and (processes := confinement.max_processes) is not None:
        files["pids.max"] = str(processes + (_BUBBLEWRAP_PROCESSES if confinement.sandbox == "bubblewrap" else 0))
    return files


def rlimits(confinement: Confinement, *, counts_processes: bool = False) -> dict[int, tuple[int, int]]:
    """The bounds that setrlimit takes, as (soft, hard); with ``counts_processes`` a cgroup counts those."""
    wanted = {
        resource.RLIMIT_NOFILE: confinement.max_open_files,
        resource.RLIMIT_FSIZE: confinement.max_file_size,
        resource.RLIMIT_AS: confinement.max_address_space,
        resource.RLIMIT_NPROC: None if counts_processes else confinement.max_processes,
    }
    limits = {number: (limit, limit) for number, limit in wanted.items() if limit is not None}
    if (seconds := confinement.max_cpu_seconds) is not None:
        limits[resource.RLIMIT_CPU] = (seconds, seconds + _LAST_CPU_SECONDS)
    return limits


def verdict(
    confinement: Confinement, returncode: int | None, cpu_spent: float = 0.0, *, out_of_memory: bool = False
) -> Met | None:
    """Which bound a backend met that ended so, having spent that many seconds of CPU time."""
    seconds, size, memory = confinement.max_cpu_seconds, confinement.max_file_size, confinement.max_memory
    killed = returncode == -signal.SIGKILL
    if memory is not None and killed and out_of_memory:
        return Met("max_memory", f"its processes used up their {shown_size(memory)} of memory")
    if seconds is not None and (returncode == -signal.SIGXCPU or (killed and cpu_spent >= seconds)):
        return Met("max_cpu_seconds", f"it used up its {seconds} s of CPU time")
    if size is not None and returncode == -signal.SIGXFSZ:
        return Met("max_file_size", f"it wrote a file larger than {shown_size(size)}")
    return None


def shown_size(size: int) -> str:
    """Bytes as the config has them: `64 MiB`."""
    units = ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"))
    return next((f"{size // unit} {name}" for unit, name in units if size % unit == 0), f"{size} bytes")


def cpu_seconds(pid: int, *, of_children: bool = False) -> float:
    """The CPU time that a process has spent, and its reaped children; its zombie still tells. 0 if there is none."""
    ticks = sum(map(int, stat_fields(pid)[11 : 15 if of_children else 13]))
    return ticks / os.sysconf("SC_CLK_TCK")
