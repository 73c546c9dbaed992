"""What a backend is enclosed in: the bounds of its spec, turned into what the guardian and the kernel understand.

And the way back: which of them a backend met, when it has ended.
"""

from __future__ import annotations

import logging
import os
import resource
import shutil
import signal
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple

import trio

from muxsim.errors import ConfigError, PlaceError
from muxsim.inside.proc import stat_fields
from muxsim.processes.cgroups import CgroupError, Cgroups
from muxsim.processes.command import Command
from muxsim.processes.process import Process
from muxsim.processes.sandbox import sandboxed
from muxsim.spec import CgroupMode, Confinement, EnvSpec, Launch

# A process that handles the first signal (SIGXCPU) and goes on is killed after as many more seconds.
_LAST_CPU_SECONDS: Final = 1
# Seconds for SIGKILL to empty a group, and between two looks at it: nothing that trio knows tells when it is.
_EMPTYING: Final = 1.0
_LOOK_AGAIN: Final = 0.005
# What a shell tells of a command that a signal ended, bubblewrap too: its number and as much more.
_SIGNALLED: Final = 128
# Bubblewrap's own two processes.
_BUBBLEWRAP_PROCESSES: Final = 2
# A tenth of a second is what the kernel has as its own default.
_CPU_PERIOD: Final = 100_000
_CONTROLLERS: Final = {"max_memory": "memory", "max_cpus": "cpu", "max_processes": "pids"}

_log = logging.getLogger(__name__)


class Met(NamedTuple):
    """A bound that a backend met: the setting, and what it did."""

    setting: str
    text: str


class Enclosure:
    """The bounds of one backend. `close` it when its processes have been ended."""

    def __init__(
        self,
        confinement: Confinement | None = None,
        *,
        groups: Cgroups | None = None,
        bubblewrap: str = "bwrap",
        workspace: str = "",
    ) -> None:
        self._confinement = Confinement() if confinement is None else confinement
        self._bubblewrap = bubblewrap
        self._workspace = workspace
        self._groups = groups
        self._group = groups.group(settings(self._confinement, groups.controllers)) if groups else None

    def __repr__(self) -> str:
        return f"<Enclosure {self._group or 'without a cgroup'}>"

    @property
    def _is_sandboxed(self) -> bool:
        return self._confinement.sandbox == "bubblewrap"

    def command(self, launch: Launch) -> Command:
        """What the launcher is to start."""
        own = self._confinement
        argv = sandboxed(self._bubblewrap, launch, self._workspace) if self._is_sandboxed else launch.argv
        return Command(
            argv,
            launch.env,
            launch.cwd,
            rlimits=rlimits(own, counts_processes=self._counts_processes()),
            nice=own.nice,
            # Bubblewrap sees to that itself, and where it is a setuid program it has to be one first.
            no_new_privs=own.no_new_privs and not self._is_sandboxed,
            cgroup=self._group.folder if self._group else "",
        )

    def _counts_processes(self) -> bool:
        return self._groups is not None and "pids" in self._groups.controllers

    def verdict(self, pid: int, returncode: int | None) -> Met | None:
        """The bound that ended the backend; None if it was none of them.

        ``pid`` has to be the backend's still: a zombie's, or one that runs.
        """
        if returncode is not None and self._is_sandboxed and returncode > _SIGNALLED:
            returncode = _SIGNALLED - returncode
        spent = cpu_seconds(pid, of_children=self._is_sandboxed) if returncode == -signal.SIGKILL else 0.0
        out_of_memory = self._group is not None and self._group.out_of_memory()
        return verdict(self._confinement, returncode, spent, out_of_memory=out_of_memory)

    async def close(self) -> None:
        """End whatever of the backend's has hidden from everything but its group, and remove that. Never raises."""
        group, self._group = self._group, None
        if group is None or self._groups is None:
            return
        with trio.CancelScope(shield=True), trio.move_on_after(_EMPTYING):
            while group.is_populated():
                group.kill()
                await trio.sleep(_LOOK_AGAIN)
        self._groups.give_back(group)


class Enclosures:
    """Encloses the backends of one pool; made by `open_enclosures`."""

    def __init__(self, groups: Cgroups | None, why_none: str, bubblewrap: str, *, every: bool) -> None:
        self._groups = groups
        self._why_none = why_none
        self._bubblewrap = bubblewrap
        self._every = every
        self._told: set[str] = set()

    @property
    def cgroup(self) -> str:
        """The folder of the pool's cgroup; "" without one."""
        return self._groups.folder if self._groups else ""

    async def start(
        self, spec: EnvSpec, launch: Launch, workspace: str, spawn: Callable[[Command], Awaitable[Process]]
    ) -> tuple[Process, Enclosure]:
        """Start a backend enclosed as its spec says. Raises `PlaceError`, or what ``spawn`` raises."""
        enclosure = self._enclose(spec, workspace)
        try:
            return await spawn(enclosure.command(launch)), enclosure
        except BaseException:
            await enclosure.close()
            raise

    def _enclose(self, spec: EnvSpec, workspace: str) -> Enclosure:
        self.tell_unkept(spec)
        groups = self._groups if self._every or controllers([spec]) else None
        try:
            return Enclosure(spec.confinement, groups=groups, bubblewrap=self._bubblewrap, workspace=workspace)
        except CgroupError as error:
            raise PlaceError(f"environment {spec.name!r}: no cgroup for its session: {error}") from error

    def tell_unkept(self, spec: EnvSpec) -> None:
        """Log, once, which bounds of an environment are not kept for want of a cgroup."""
        available = self._groups.controllers if self._groups else frozenset()
        lacking = controllers([spec]) - available
        if lacking and spec.name not in self._told:
            self._told.add(spec.name)
            unkept = ", ".join(key for key, controller in _CONTROLLERS.items() if controller in lacking)
            reason = self._why_none or "muxsim was started without it; start it again"
            _log.warning("environment %r: cgroup v2 does not bound it (%s): %s", spec.name, unkept, reason)


@contextmanager
def open_enclosures(specs: Iterable[EnvSpec], mode: CgroupMode) -> Iterator[Enclosures]:
    """Enclosures for these specs. Raises `ConfigError` for what cannot be had and may not be done without."""
    specs = list(specs)
    bubblewrap = _find_bubblewrap(specs)
    groups, why_none = _open_groups(specs, mode)
    try:
        enclosures = Enclosures(groups, why_none, bubblewrap, every=mode == "required")
        for spec in specs:
            enclosures.tell_unkept(spec)
        yield enclosures
    finally:
        if groups is not None:
            groups.close()


def _find_bubblewrap(specs: Iterable[EnvSpec]) -> str:
    found = shutil.which("bwrap")
    for spec in specs:
        if spec.confinement.sandbox == "bubblewrap" and found is None:
            raise ConfigError(
                "bwrap is not on PATH: install bubblewrap, or take this out",
                table=f"environments.{spec.name}",
                key="sandbox",
                value='"bubblewrap"',
            )
    return found or "bwrap"


def _open_groups(specs: Iterable[EnvSpec], mode: CgroupMode) -> tuple[Cgroups | None, str]:
    """Groups, or why there are none."""
    wanted = set(_CONTROLLERS.values()) if mode == "required" else controllers(specs)
    if mode == "off" or not wanted:
        return None, 'cgroup = "off"' if mode == "off" else ""
    try:
        return Cgroups.open(wanted), ""
    except CgroupError as error:
        if mode == "required":
            raise ConfigError(str(error), table="server", key="cgroup", value='"required"') from error
        return None, str(error)


def controllers(specs: Iterable[EnvSpec]) -> set[str]:
    """The cgroup controllers that these need."""
    return {
        controller
        for spec in specs
        for key, controller in _CONTROLLERS.items()
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
