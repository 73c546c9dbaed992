"""What a backend is enclosed in: its limits, a cgroup, its own views of folders and a sandbox.

As its spec says and this machine can.
"""

from __future__ import annotations

import errno
import os
import shutil
import signal
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import trio

from muxsim.errors import ConfigError, PlaceError, StartError
from muxsim.inside import landlock
from muxsim.inside.landlock import Walls
from muxsim.inside.views import View
from muxsim.observe.events import BoundsNotKept, Listener, WallsNotKept
from muxsim.processes.bounds import CONTROLLERS, Met, controllers, cpu_seconds, rlimits, settings, verdict
from muxsim.processes.cgroups import CgroupError, Cgroups
from muxsim.processes.command import Command, ProcessStartError
from muxsim.processes.process import Process
from muxsim.processes.reach import Reach, not_kept, stamps_of
from muxsim.processes.sandbox import sandboxed
from muxsim.processes.views import INSTALLED, Manner, NotPrivateError, Views, are_had, installed_of, make_views
from muxsim.spec import CgroupMode, Confinement, EnvSpec, Launch, temporary_folder

# Seconds for SIGKILL to empty a group, and between two looks at it: nothing that trio knows tells when it is.
_EMPTYING: Final = 1.0
_LOOK_AGAIN: Final = 0.005
# What a shell tells of a command that a signal ended, bubblewrap too: its number and as much more.
_SIGNALLED: Final = 128


class Enclosure:
    """The bounds of one backend. `close` it when its processes have been ended."""

    def __init__(
        self,
        confinement: Confinement | None = None,
        *,
        groups: Cgroups | None = None,
        bubblewrap: str = "bwrap",
        workspace: str = "",
        views: tuple[View, ...] = (),
        walls: Walls | None = None,
    ) -> None:
        self._confinement = Confinement() if confinement is None else confinement
        self._bubblewrap = bubblewrap
        self._workspace = workspace
        # Bubblewrap refuses to run with any capability.
        self._views = tuple(view._replace(anyway=False) for view in views) if self._is_sandboxed else views
        self._walls = walls
        self._stamps: list[tuple[int, ...]] | None = None
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
        argv = self._sandboxed(launch) if self._is_sandboxed else launch.argv
        return Command(
            argv,
            launch.env,
            launch.cwd,
            rlimits=rlimits(own, counts_processes=self._counts_processes()),
            nice=own.nice,
            # Bubblewrap sees to that itself, and where it is a setuid program it has to be one first.
            no_new_privs=own.no_new_privs and not self._is_sandboxed,
            cgroup=self._group.folder if self._group else "",
            views=self._views,
            walls=self._own_walls(),
        )

    def _own_walls(self) -> Walls | None:
        if self._walls is None:
            return None
        return self._walls._replace(write=[*self._walls.write, *(view.folder for view in self._views if view.upper)])

    def _sandboxed(self, launch: Launch) -> tuple[str, ...]:
        written = [view.folder for view in self._views if view.upper]
        network = bool(self._confinement.network)
        return sandboxed(self._bubblewrap, launch, self._workspace, written, network=network)

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

    def waits(self) -> None:
        """Its process is to be used later: from now on `is_outdated` tells whether it can be."""
        self._stamps = stamps_of(self._walls) if self._walls else None

    def is_outdated(self, pid: int) -> bool:
        """Whether one made now would have others: the kernel keeps views and walls to the folders that there were."""
        if not are_had(self._views, pid):
            return True
        return self._walls is not None and stamps_of(self._walls) != self._stamps

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

    def __init__(
        self,
        groups: Cgroups | None,
        why_none: str,
        bubblewrap: str,
        *,
        every: bool,
        tell: Listener,
        reach: Reach | None = None,
    ) -> None:
        self._groups = groups
        self._reach = Reach() if reach is None else reach
        self._tell = tell
        self._views = Views(tell)
        self._why_none = why_none
        self._bubblewrap = bubblewrap
        self._every = every
        self._told: set[str] = set()
        self._told_of_walls = False

    @property
    def cgroup(self) -> str:
        """The folder of the pool's cgroup; "" without one."""
        return self._groups.folder if self._groups else ""

    async def start(
        self,
        spec: EnvSpec,
        launch: Launch,
        workspace: str,
        spawn: Callable[[Command], Awaitable[Process]],
        *,
        session: Launch | None = None,
    ) -> tuple[Process, Enclosure]:
        """Start a backend enclosed as its spec says; ``session`` is what it is to become, if that is something else.

        Raises `StartError`, or what ``spawn`` raises.
        """
        walls = await self._walls(spec, session or launch, workspace)
        refused: ProcessStartError | None = None
        for manner in self._views.manners(spec):
            try:
                started = await self._start(spec, launch, workspace, manner, walls, spawn)
            except ProcessStartError as error:
                if error.stage != INSTALLED:
                    raise
                refused = error
            else:
                if refused is not None:
                    self._views.settle(spec, manner, refused)
                return started
        assert refused is not None
        raise refused

    async def _start(
        self,
        spec: EnvSpec,
        launch: Launch,
        workspace: str,
        manner: Manner,
        walls: Walls | None,
        spawn: Callable[[Command], Awaitable[Process]],
    ) -> tuple[Process, Enclosure]:
        enclosure = self._enclose(spec, launch, workspace, manner, walls)
        try:
            return await spawn(enclosure.command(launch)), enclosure
        except BaseException:
            await enclosure.close()
            raise

    async def _walls(self, spec: EnvSpec, launch: Launch, workspace: str) -> Walls | None:
        if spec.confinement.sandbox != "landlock":
            return None
        try:
            os.makedirs(temporary_folder(workspace), mode=0o700, exist_ok=True)
            return await self._reach.walls(spec, launch, workspace)
        except ConfigError as error:
            raise StartError(f"environment {spec.name!r}: {error}") from error
        except OSError as error:
            raise PlaceError(f"environment {spec.name!r}: no walls for its session: {error}") from error

    def _enclose(self, spec: EnvSpec, launch: Launch, workspace: str, manner: Manner, walls: Walls | None) -> Enclosure:
        self.tell_unkept(spec)
        groups = self._groups if self._every or controllers([spec]) else None
        views = self._make_views(spec, launch, workspace, manner)
        try:
            return Enclosure(
                spec.confinement,
                groups=groups,
                bubblewrap=self._bubblewrap,
                workspace=workspace,
                views=views,
                walls=walls,
            )
        except CgroupError as error:
            raise PlaceError(f"environment {spec.name!r}: no cgroup for its session: {error}") from error

    def _make_views(self, spec: EnvSpec, launch: Launch, workspace: str, manner: Manner) -> tuple[View, ...]:
        try:
            return make_views(launch.private, installed_of(spec), Path(workspace), manner)
        except NotPrivateError as error:
            raise StartError(f"environment {spec.name!r}: private: {error}") from error
        except OSError as error:
            text = f"no folder for what is written in its private ones: {error}"
            raise ProcessStartError(error.errno or errno.EIO, "prepare", text) from error

    def tell_unkept(self, spec: EnvSpec) -> None:
        """Tell, once, which bounds are not kept for want of a cgroup, and which walls this kernel lacks."""
        if spec.confinement.sandbox == "landlock" and not self._told_of_walls:
            self._told_of_walls = True
            if lacking_walls := not_kept():
                self._tell(WallsNotKept(lacking_walls, f"Landlock's ABI is {landlock.abi()}"))
        available = self._groups.controllers if self._groups else frozenset()
        lacking = controllers([spec]) - available
        if lacking and spec.name not in self._told:
            self._told.add(spec.name)
            unkept = tuple(key for key, controller in CONTROLLERS.items() if controller in lacking)
            why = f"cgroup v2 does not bound it: {self._why_none or 'muxsim was started without it; start it again'}"
            self._tell(BoundsNotKept(spec.name, unkept, why))


@contextmanager
def open_enclosures(
    specs: Iterable[EnvSpec], mode: CgroupMode, tell: Listener, hidden: Iterable[str] = ()
) -> Iterator[Enclosures]:
    """Enclosures for these specs. Raises `ConfigError` for what cannot be had and may not be done without.

    What is ``hidden``, no backend under landlock may read, wherever it lies.
    """
    specs, reach = list(specs), Reach(hidden)
    for spec in specs:
        reach.check(spec)
    bubblewrap = _find_bubblewrap(specs)
    groups, why_none = _open_groups(specs, mode)
    try:
        enclosures = Enclosures(groups, why_none, bubblewrap, every=mode == "required", tell=tell, reach=reach)
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
    wanted = set(CONTROLLERS.values()) if mode == "required" else controllers(specs)
    if mode == "off" or not wanted:
        return None, 'cgroup = "off"' if mode == "off" else ""
    try:
        return Cgroups.open(wanted), ""
    except CgroupError as error:
        if mode == "required":
            raise ConfigError(str(error), table="server", key="cgroup", value='"required"') from error
        return None, str(error)
