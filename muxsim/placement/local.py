"""Backends on this machine, as children of this process."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from muxsim.errors import ConfigError, PlaceError
from muxsim.observe.events import Events
from muxsim.placement.backend import BackendListener
from muxsim.placement.child import Child
from muxsim.placement.placement import PlacementStatistics
from muxsim.processes.enclosure import open_enclosures
from muxsim.processes.folders import own_folder
from muxsim.processes.footprint import Footprint
from muxsim.processes.launcher import Launcher
from muxsim.processes.process import AT_ONCE
from muxsim.processes.trial import fault_of
from muxsim.processes.usage import ProcessUsage, Usage, Usages, tree_of
from muxsim.processes.views import NotPrivateError
from muxsim.provision.packages import Packages
from muxsim.runtime.soon import may_wait
from muxsim.spec import CgroupMode, EnvSpec
from muxsim.start.folders import Folders, remove_trees
from muxsim.start.order import Order
from muxsim.start.shortage import EXHAUSTED, no_more
from muxsim.start.starter import Starter, open_starter
from transports.interfaces import Watch


class LocalPlacement:
    """A `muxsim.placement.placement.Placement` on this machine. Open it with `open_local`."""

    def __init__(
        self, launcher: Launcher, starter: Starter, packages: Packages, folders: Folders, watch: Watch | None
    ) -> None:
        self.launcher = launcher
        self.starter = starter
        self._packages = packages
        self.folders = folders
        self._watch = watch
        self._footprint = Footprint()
        self._usages = Usages()

    def __repr__(self) -> str:
        return f"<LocalPlacement {self.launcher.statistics().alive} processes>"

    def statistics(self) -> PlacementStatistics:
        """A snapshot."""
        starter = self.starter.statistics()
        return PlacementStatistics(starter.warm, starter.zygotes, self.launcher.statistics())

    async def prepare(self, spec: EnvSpec) -> EnvSpec:
        """The spec with its package installed. Raises `PackageError`."""
        return await self._packages.ready(spec)

    async def start(self, order: Order, listener: BackendListener) -> Child:
        """Start a backend, at once where a process waits for that. Raises as `Starter.start` does, and `PlaceError`."""
        started = await self.starter.start(order)
        process, enclosure, workspace = started.process, started.enclosure, started.workspace
        try:
            backend = Child(process, order.spec.limits, listener, self._watch, enclosure, workspace)
        except OSError as error:
            await may_wait()
            await process.end(AT_ONCE)
            await enclosure.close()
            if order.workspace is None:
                await self.folders.remove(workspace)
            text = f"environment {order.spec.name!r}: its pipes cannot be used: {error}"
            raise (no_more(text) if error.errno in EXHAUSTED else PlaceError(text)) from error
        backend.on_message = started.on_message
        return backend

    def keep_ready(self, specs: Collection[EnvSpec], *, has_room: Callable[[], bool]) -> None:
        """Keep processes ready, as many as each of these wants."""
        self.starter.keep(specs, has_room=has_room)

    async def make_room(self) -> bool:
        """End what is kept ready; whether there was anything."""
        return await self.starter.give_up()

    async def remove(self, workspace: Path) -> None:
        """Remove a session's folder."""
        await self.folders.remove(workspace)

    def memory_in_use(self) -> int:
        """Bytes, pages that several processes share counted once."""
        return self._footprint.read()

    def usages(self, pids: Collection[int], now: float) -> Mapping[int, Usage]:
        """What backends with these pids use, of as many as can be looked at for little; runs in a thread."""
        return self._usages.step(pids, now)

    def processes_of(self, pid: int) -> list[ProcessUsage]:
        """The processes of the backend with this pid, itself first; runs in a thread."""
        return tree_of(pid)

    def hasten(self) -> None:
        """End every process at once."""
        self.launcher.hasten()


async def _try_views(specs: Iterable[EnvSpec], launcher: Launcher, sessions: Path) -> None:
    for spec in specs:
        with suppress(NotPrivateError):  # such a folder may be made before it is needed
            if fault := await fault_of(spec, launcher, sessions):
                raise ConfigError(f"cannot be had: {fault}", table=f"environments.{spec.name}", key="private")


@asynccontextmanager
async def open_local(
    specs: Iterable[EnvSpec],
    events: Events,
    *,
    cgroup: CgroupMode = "auto",
    watch: Watch | None = None,
    zygotes: bool = True,
    hidden: Iterable[str] = (),
) -> AsyncIterator[LocalPlacement]:
    """Backends here, for the length of a block; on the way out every process is ended, and every folder removed.

    What ``specs`` will need of cgroups is prepared as ``cgroup`` has it. Raises `ConfigError` if they, bubblewrap or
    private folders are required and cannot be had. ``events`` are told what happens. Files that are ``hidden`` are read
    by no backend under Landlock.
    """
    specs = list(specs)
    with own_folder() as root:
        try:
            with open_enclosures(specs, cgroup, events.emit, (str(root), *hidden)) as enclosures:
                async with Launcher.open(folder=str(root), cgroup=enclosures.cgroup, emit=events.emit) as launcher:
                    await _try_views(specs, launcher, root)
                    folders = Folders(root)
                    with contextlib.closing(Packages(launcher, events)) as packages:
                        async with open_starter(
                            launcher, enclosures, packages, folders, events, zygotes=zygotes
                        ) as starter:
                            yield LocalPlacement(launcher, starter, packages, folders, watch)
        finally:
            await remove_trees([root])
