"""Sees to the zygote of one environment: has it learned for, made, and made again when it is gone or outdated.

Sessions wait for a zygote that is importing, since their own import would take as long.
"""

from __future__ import annotations

import itertools
import math
import os
import secrets
from collections.abc import Iterator
from functools import partial
from types import NoneType
from typing import Final

import trio

from muxsim import inside
from muxsim.inside.as_main import TAG_BYTES
from muxsim.observe import events
from muxsim.processes.command import Command, ProcessStartError
from muxsim.processes.process import Process
from muxsim.processes.views import INSTALLED
from muxsim.runtime.boundary import optional
from muxsim.start.fork.client import Zygote, ZygoteFailed
from muxsim.start.fork.content import Content
from muxsim.start.fork.entry import own_packages
from muxsim.start.fork.fleet import Fleet
from muxsim.start.fork.forkable import Forkable
from muxsim.start.fork.learning import CannotLearn, Learning
from muxsim.start.prepared import Prepared

# Seconds for a zygote to have imported everything.
IMPORT_LIMIT: Final = 30.0
# How many modules in a row may turn out to be unfit, each costing another start of the zygote.
MOST_CULPRITS: Final = 20
# Seconds between a zygote's death and the next one; doubled each time, since one that dies again costs an import.
FIRST_REST: Final = 1.0
LONGEST_REST: Final = 60.0
# While one learner is under way so many more backends start afresh; for others it is faster to wait for the zygote.
COLD_STARTS: Final = (os.cpu_count() or 1) - 1
# Sessions wait for a zygote that imports for so many times as long as the learner needed, and at least these seconds.
IMPORT_PATIENCE: Final = 3.0
LEAST_PATIENCE: Final = 5.0
# The pages of a fork are looked at when it has said so many things: a first result, before that the answer to a
# handshake where the protocol has one, and some more.
STUDIED_AT: Final = (1, 2, 4)
# So often for each zygote: all of its forks begin alike.
MOST_STUDIES: Final = 6


def rest_after(failures: int) -> float:
    """Seconds to do without a zygote after so many failures in a row."""
    return min(LONGEST_REST, FIRST_REST * 2.0 ** (failures - 1)) if failures else 0.0


class Keeper:
    """The zygote of one environment, while there is one. Its methods are called for sessions of ``program`` alone."""

    def __init__(self, env: str, program: Forkable, fleet: Fleet) -> None:
        self.env = env
        self.program = program
        self.part = fleet.part.part(f"the zygote of environment {env}", self.retire)
        self._content = Content(program)
        self._stamp = self._content.stamp()
        self.zygote: Zygote | None = None
        self.limit = IMPORT_LIMIT
        self._fleet = fleet
        self._tell = fleet.events.emit
        self._alive: set[Zygote] = set()
        self._learning = Learning(env, self._content, fleet, self.part, self._learned)
        self._unfit: str | None = None
        self._no_new_privs = False
        self._cold = 0
        self._making: trio.Event | None = None
        self._making_since = 0.0
        self._failures = 0
        self._rest_until = 0.0
        self._complained = False

    def __repr__(self) -> str:
        return f"<Keeper of {self.env}: {self.zygote!r}, {len(self._learning.learned.modules)} modules known>"

    def is_outdated(self) -> bool:
        """Whether its program is another by now, or what is installed for it."""
        return self._content.stamp() != self._stamp

    @optional(NoneType, passing=(ProcessStartError,))
    async def spawn(self, command: Command, session: str) -> Process | None:
        """A backend, forked or learning; None if it has to be a fresh one."""
        if self._unfit is not None:
            return None
        self._no_new_privs = command.no_new_privs
        learning = self._learning
        if not learning.has_begun:
            try:
                return await learning.begin(command, session)
            except CannotLearn as error:
                self._give_up(error)
                return None
        if not learning.learned.modules:
            if self._cold < COLD_STARTS:
                self._cold += 1
                return None
            await learning.wait()
        return await self._fork(command, session)

    async def rehearse(self, command: Command, session: str) -> bool:
        """Learn without a session, if nothing was learned yet; whether the script was run."""
        if self._unfit is not None or self._learning.has_begun:
            return False
        try:
            await self._learning.rehearse(command, session)
        except CannotLearn as error:
            self._give_up(error)
        return True

    def retire(self) -> None:
        """There will be no more sessions of this program."""
        self._unfit = "it has changed"
        for zygote in self._alive:
            zygote.stop()

    # forking

    @optional(NoneType, passing=(ProcessStartError,))
    async def prepare(self, command: Command, session: str, *, early: bool = False) -> Prepared | None:
        """A fork that waits for its order, see `Zygote.fork`; None if there is no zygote for it."""
        zygote = await self._a_zygote()
        if zygote is None:
            return None
        try:
            process = await zygote.fork(command, session, early=early)
        except ZygoteFailed:  # it ends, and `_follow` takes note of that
            return None
        except ProcessStartError as error:
            if error.stage == INSTALLED:  # it is to be tried without
                raise
            self._complain(str(error))
            return None
        process.way = "fork"
        self._tell(events.Forked(self.env))
        if zygote.studies < MOST_STUDIES:
            study = partial(_study, zygote, process.pid, itertools.count(1))
            self._fleet.listen(self.part, process, study)
        return Prepared(process, self.program.command_line, self.is_outdated)

    async def _fork(self, command: Command, session: str) -> Process | None:
        prepared = await self.prepare(command, session)
        if prepared is None:
            return None
        try:
            return await prepared.activate(command)
        except ProcessStartError as error:
            self._complain(str(error))
            return None

    async def _a_zygote(self) -> Zygote | None:
        if self.zygote is None and self._is_worth_a_try():
            making = self._begin_making()
            patience = max(LEAST_PATIENCE, IMPORT_PATIENCE * self._learning.learned.seconds)
            with trio.move_on_at(self._making_since + patience):
                await making.wait()
        return self.zygote

    # making

    @property
    def next_try(self) -> float:
        """When a zygote may be made."""
        return self._rest_until if self._unfit is None and self._learning.learned.modules else math.inf

    def _is_worth_a_try(self) -> bool:
        return trio.current_time() >= self.next_try

    def _learned(self, outdated: bool) -> None:
        if (self.zygote is not None) == outdated and self._is_worth_a_try():
            self._begin_making()

    def _begin_making(self) -> trio.Event:
        if self._making is None:
            self._making, self._making_since = trio.Event(), trio.current_time()
            self.part.start_soon(self._make, self._making)
        return self._making

    async def _make(self, making: trio.Event) -> None:
        try:
            before, self.zygote = self.zygote, await self._make_without_culprits(trio.current_time() + self.limit)
            if before is not None:
                self.part.start_soon(before.retire)
            self._fleet.on_ready(self.env)
        except (ZygoteFailed, ProcessStartError, OSError) as error:
            self._failed(str(error))
        finally:
            self._making = None
            making.set()

    async def _make_without_culprits(self, deadline: float) -> Zygote:
        for _ in range(MOST_CULPRITS):
            with trio.move_on_at(deadline) as starting:
                zygote = await self._start()
            if starting.cancelled_caught:
                raise ZygoteFailed("was not started in time")
            try:
                await zygote.wait_ready(deadline)
            except ZygoteFailed as error:
                if error.culprit is None:
                    raise
                self._leave_out(error.culprit, error.why)
                if trio.current_time() >= deadline:
                    raise
            else:
                return zygote
        raise ZygoteFailed(f"more than {MOST_CULPRITS} modules cannot be held")

    async def _start(self) -> Zygote:
        fleet, program, learned = self._fleet, self.program, self._learning.learned
        argv = (program.python, *program.options, *inside.ZYGOTE)
        # Of what confines the backends, this can be had before any of them is known.
        command = Command(argv, dict(program.env), program.cwd, no_new_privs=self._no_new_privs)
        process = await fleet.launcher.spawn(command, session=f"zygote of {self.env}", channel=True)
        self._tell(events.ZygoteStarted(self.env))
        zygote = Zygote(fleet.launcher, process, secrets.token_hex(TAG_BYTES))
        fleet.alive.add(zygote)
        self._alive.add(zygote)
        self.part.start_soon(self._follow, zygote)
        recipe = {
            "words": program.words,
            "options": len(program.given),
            "own": own_packages(program),
            "modules": learned.modules,
            "preload": program.preload,
            "left_out": list(learned.left_out),
            "variables": program.variables,
        }
        try:
            zygote.instruct(recipe)
        except OSError:
            zygote.stop()
            raise
        return zygote

    async def _follow(self, zygote: Zygote) -> None:
        try:
            await zygote.run()
        finally:
            self._fleet.alive.discard(zygote)
            self._alive.discard(zygote)
        if self.zygote is not zygote:
            return
        self.zygote = None
        if zygote.stale:
            self._tell(events.ZygoteOutdated(self.env, zygote.why))
            return
        if zygote.sound:
            self._failures = 0
        self._failed(zygote.why)

    # what goes wrong

    def _leave_out(self, module: str, why: str) -> None:
        self._learning.leave_out(module, why)
        self._tell(events.ZygoteLeavesOut(self.env, module, why))

    def _failed(self, why: str) -> None:
        if self._unfit is not None:
            return  # it was asked to go
        self._tell(events.ZygoteFailed(self.env, why))
        self._failures += 1
        self._rest_until = trio.current_time() + rest_after(self._failures)
        self._complain(f"its zygote {why}")

    def _give_up(self, error: CannotLearn) -> None:
        self._unfit = str(error)
        self._complain(self._unfit)

    def _complain(self, why: str) -> None:
        """Say why sessions start afresh; once, for each of them would say the same."""
        if not self._complained:
            self._complained = True
            self._tell(events.StartsAfresh(self.env, why))


def _study(zygote: Zygote, pid: int, said: Iterator[int]) -> bool:
    """Have a fork studied when it has said enough; whether it is to be listened to further."""
    count = next(said)
    if count in STUDIED_AT:
        zygote.study(pid)
    return count < STUDIED_AT[-1] and zygote.studies < MOST_STUDIES
