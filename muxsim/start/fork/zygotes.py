"""Starts Python backends by forking them from zygotes (inside/zygote.py), and leaves it to others where that fails.

The first backend of an environment learns what it imports (learning.py). When it has answered its first request there
is a zygote for those that come after it (keeper.py).
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path
from types import NoneType

from muxsim.observe.events import Events, NotForkable, StartedFresh
from muxsim.processes.command import Command, ProcessStartError
from muxsim.processes.launcher import Launcher
from muxsim.processes.process import Process
from muxsim.provision.cache import cache_folder
from muxsim.runtime.boundary import Boundary, optional
from muxsim.spec import EnvSpec
from muxsim.start.fork.fleet import Fleet, ZygoteStatistics
from muxsim.start.fork.forkable import Forkable
from muxsim.start.fork.keeper import IMPORT_LIMIT, Keeper
from muxsim.start.fork.learned import LearnedModules
from muxsim.start.fork.reading import read_program
from muxsim.start.prepared import Prepared


class Zygotes:
    """The zygotes of a pool, which the launcher ends with everything else of its own."""

    def __init__(self, boundary: Boundary, launcher: Launcher, folder: Path, events: Events, *, enabled: bool) -> None:
        self.part = boundary.part("all zygotes")
        self.enabled = enabled
        self._environ = dict(os.environ)
        store = LearnedModules(cache_folder(self._environ) / "python", events.emit)
        self.fleet = Fleet(launcher, self.part, store, folder, events)
        self._keepers: dict[str, Keeper | None] = {}
        self._specs: dict[str, EnvSpec] = {}

    def __repr__(self) -> str:
        return f"<Zygotes: {self.statistics()}>"

    def statistics(self) -> ZygoteStatistics:
        """A snapshot."""
        return self.fleet.statistics()

    @optional(NoneType, passing=(ProcessStartError,))
    async def fork(self, spec: EnvSpec, command: Command, *, session: str) -> Process | None:
        """A fork that is ``command``, which is what ``spec`` gives for one session, or a learner; None if neither is.

        Raises ProcessStartError as `Launcher.spawn` does.
        """
        keeper = self._keeper(spec)
        if keeper is None or not _applies(keeper.program, command):
            return None
        process = await keeper.spawn(command, session)
        if process is None:
            self.fleet.events.emit(StartedFresh(spec.name))
        return process

    @optional(NoneType, passing=(ProcessStartError,))
    async def prepare(self, spec: EnvSpec, command: Command, *, session: str) -> Prepared | None:
        """A process that has all but begun, to become any command of ``spec`` confined as this one is.

        None if ``spec`` has no zygote, or one that is no use now: see `next_try`. It has none before a first session
        was played; `Fleet.on_ready` tells when it has.
        """
        keeper = self._keeper(spec)
        if keeper is None or not _applies(keeper.program, command):
            return None
        return await keeper.prepare(command, session, early=True)

    @optional(bool, passing=(ProcessStartError,))
    async def rehearse(self, spec: EnvSpec, command: Command, *, session: str) -> bool:
        """Have `prepare` work before a first session was played: runs ``command`` once, if nobody has so far.

        Whether it did: no session may have what it has left in its folder and its views.
        """
        keeper = self._keeper(spec)
        return keeper is not None and _applies(keeper.program, command) and await keeper.rehearse(command, session)

    @optional(lambda: math.inf)
    def next_try(self, name: str) -> float:
        """When `prepare` may give a fork of this environment, if `Fleet.on_ready` tells nothing before."""
        keeper = self._keepers.get(name)
        return math.inf if keeper is None or keeper.part.is_off else keeper.next_try

    @optional(NoneType)
    def hook_of(self, process: Process) -> Callable[[], bool] | None:
        """What is to be called with each thing that this process says, if anything is, until it returns False."""
        return self.fleet.hooks.pop(process, None)

    def _keeper(self, spec: EnvSpec) -> Keeper | None:
        if not self.enabled or not spec.zygote or spec.shared:
            return None
        name = spec.name
        keeper = self._keepers.get(name)
        is_outdated = keeper is not None and keeper.is_outdated()
        if is_outdated or self._specs.get(name) is not spec:
            self._specs[name] = spec
            program = read_program(spec, self._environ)
            if isinstance(program, str):
                self._replace(name, None)
                self.fleet.events.emit(NotForkable(name, program))
                return None
            if keeper is None or is_outdated or keeper.program != program:
                keeper = self._replace(name, Keeper(name, program, self.fleet))
        if keeper is not None:
            keeper.limit = min(IMPORT_LIMIT, spec.limits.start_timeout)
        return keeper

    def _replace(self, name: str, keeper: Keeper | None) -> Keeper | None:
        if (old := self._keepers.get(name)) is not None:
            old.retire()
        self._keepers[name] = keeper
        return keeper


def _applies(program: Forkable, command: Command) -> bool:
    """Whether this is the program itself, and not in something else, and can be started where it is to run."""
    return program.command_line(command.argv) is not None and os.path.isdir(command.cwd)
