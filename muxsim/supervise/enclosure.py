"""What a backend is enclosed in: the bounds of its spec, turned into what the guardian and the kernel understand.

And the way back: which of them a backend met, when it has ended.
"""

from __future__ import annotations

import os
import resource
import signal
from dataclasses import dataclass, field
from typing import Final

from muxsim.spec import Confinement, Launch
from muxsim.supervise.process import Command

# A process that handles the first signal (SIGXCPU) and goes on is killed after as many more seconds.
_LAST_CPU_SECONDS: Final = 1


@dataclass(frozen=True, slots=True)
class Enclosure:
    """The bounds of one backend."""

    confinement: Confinement = field(default_factory=Confinement)

    def command(self, launch: Launch) -> Command:
        """What the launcher is to start."""
        own = self.confinement
        return Command(
            launch.argv, launch.env, launch.cwd, rlimits=rlimits(own), nice=own.nice, no_new_privs=own.no_new_privs
        )

    def verdict(self, pid: int, returncode: int | None) -> str | None:
        """The bound that ended the backend, as a sentence; None if it was none of them.

        ``pid`` has to be the backend's still: a zombie's, or one that runs.
        """
        spent = cpu_seconds(pid) if returncode == -signal.SIGKILL else 0.0
        return verdict(self.confinement, returncode, spent)


def rlimits(confinement: Confinement) -> dict[int, tuple[int, int]]:
    """The bounds that setrlimit takes, as (soft, hard)."""
    wanted = {
        resource.RLIMIT_NOFILE: confinement.max_open_files,
        resource.RLIMIT_FSIZE: confinement.max_file_size,
        resource.RLIMIT_AS: confinement.max_address_space,
    }
    limits = {number: (limit, limit) for number, limit in wanted.items() if limit is not None}
    if (seconds := confinement.max_cpu_seconds) is not None:
        limits[resource.RLIMIT_CPU] = (seconds, seconds + _LAST_CPU_SECONDS)
    return limits


def verdict(confinement: Confinement, returncode: int | None, cpu_spent: float) -> str | None:
    """Which bound a backend met that ended so, having spent that many seconds of CPU time."""
    seconds, size = confinement.max_cpu_seconds, confinement.max_file_size
    out_of_time = returncode == -signal.SIGXCPU or (returncode == -signal.SIGKILL and cpu_spent >= (seconds or 0))
    if seconds is not None and out_of_time:
        return f"the backend was killed: it used up its {seconds} s of CPU time (max_cpu_seconds)"
    if size is not None and returncode == -signal.SIGXFSZ:
        return f"the backend was killed: it wrote a file larger than {shown_size(size)} (max_file_size)"
    return None


def shown_size(size: int) -> str:
    """Bytes as the config has them: `64 MiB`."""
    units = ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"))
    return next((f"{size // unit} {name}" for unit, name in units if size % unit == 0), f"{size} bytes")


def cpu_seconds(pid: int) -> float:
    """The CPU time that a process has spent, which its zombie still tells; 0 if there is none."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            line = file.read()
    except OSError:
        return 0.0
    # The name, in brackets before these, may hold spaces and brackets of its own.
    fields = line[line.rindex(b")") + 2 :].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
