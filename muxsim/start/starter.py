"""The one way to a process: one that waits, else a fork of one that has imported its modules, else a fresh one."""

from __future__ import annotations

import os
import secrets
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

import trio

from muxsim.errors import StartError
from muxsim.observe.events import Events
from muxsim.processes.command import Command, ProcessStartError
from muxsim.processes.enclosure import Enclosures
from muxsim.processes.launcher import Launcher
from muxsim.processes.process import Process
from muxsim.provision.packages import Packages
from muxsim.runtime import descriptors
from muxsim.runtime.boundary import open_boundary
from muxsim.runtime.soon import in_time, may_wait
from muxsim.spec import EnvSpec, passed_variables
from muxsim.start.folders import Folders
from muxsim.start.fork.fleet import ZygoteStatistics
from muxsim.start.fork.zygotes import Zygotes
from muxsim.start.fresh import Fresh
from muxsim.start.order import Order, Started
from muxsim.start.shortage import EXHAUSTED, no_more
from muxsim.start.slots.policy import SlotStatistics
from muxsim.start.slots.shelf import Warm


@dataclass(frozen=True)
class StarterStatistics:
    """What is kept ready, by environment, and what has imported modules for others."""

    warm: Mapping[str, SlotStatistics]
    zygotes: ZygoteStatistics


class Starter:
    """Starts what is ordered, by the first rung of the ladder that holds. Open it with `open_starter`."""

    def __init__(
        self, launcher: Launcher, enclosures: Enclosures, folders: Folders, zygotes: Zygotes, warm: Warm
    ) -> None:
        self.launcher = launcher
        self.zygotes = zygotes
        self.warm = warm
        self._fresh = Fresh(enclosures, folders, passed_variables(os.environ), self._spawn)

    def statistics(self) -> StarterStatistics:
        """A snapshot."""
        return StarterStatistics(self.warm.statistics(), self.zygotes.statistics())

    def keep(self, specs: Collection[EnvSpec], *, has_room: Callable[[], bool]) -> None:
        """Keep processes ready for these environments, as many as each wants, and for no others.

        While ``has_room`` says that there is none, others go first.
        """
        self.warm.keep(specs, has_room=has_room)

    async def give_up(self) -> bool:
        """End what is kept ready, for the machine is short of something; whether there was anything."""
        return bool(await self.warm.give_up())

    async def start(self, order: Order) -> Started:
        """Start what is ordered: at once where a process waits for that (see `muxsim.runtime.soon`).

        Raises `StartError` if the command cannot be run, or not within the spec's ``start_timeout``, and `Busy` if the
        machine has no more descriptors, processes or memory for one.
        """
        name, limit = order.spec.name, order.spec.limits.start_timeout
        try:
            with self.warm.opening():
                return await in_time(limit, self._climb(order))
        except trio.TooSlowError as error:
            advice = "see whether its folder and program can be read, and muxsim's helper process runs"
            raise StartError(
                f"environment {name!r}: no process for it within {limit:g} s (start_timeout): {advice}"
            ) from error
        except ProcessStartError as error:
            text = f"environment {name!r}: {error}"
            raise (no_more(text) if _is_exhaustion(error) else StartError(text)) from error

    async def _climb(self, order: Order) -> Started:
        # What waits has a folder already; a session that has one of its own stays there.
        if order.workspace is None and (taken := await self.warm.take(order)) is not None:
            return self._heard(taken)
        await may_wait()
        if not descriptors.has_room() and not (await self.give_up() and descriptors.has_room()):
            text = "muxsim may open no more files: raise the limit (ulimit -n), or run fewer sessions"
            raise no_more(f"environment {order.spec.name!r}: {text}")
        try:
            return self._heard(await self._fresh.start(order))
        except ProcessStartError as error:
            # What is kept ready must not keep a session from being opened.
            if not _is_exhaustion(error) or not await self.give_up():
                raise
        return self._heard(await self._fresh.start(order))

    async def _spawn(self, spec: EnvSpec, command: Command) -> Process:
        # The mark by which strays are found is in the child's environment; the session's id, which opens its URLs,
        # must not be.
        mark = secrets.token_hex(8)
        process = await self.zygotes.fork(spec, command, session=mark)
        return process or await self.launcher.spawn(command, session=mark)

    def _heard(self, started: Started) -> Started:
        return Started(started.process, started.enclosure, started.workspace, self.zygotes.hook_of(started.process))


def _is_exhaustion(error: ProcessStartError) -> bool:
    return error.stage != "exec" and error.errno in EXHAUSTED


@asynccontextmanager
async def open_starter(
    launcher: Launcher,
    enclosures: Enclosures,
    packages: Packages,
    folders: Folders,
    events: Events,
    *,
    zygotes: bool,
) -> AsyncIterator[Starter]:
    """A starter for the length of a block; ``zygotes`` is whether Python environments may be forked."""
    async with open_boundary(events.part_failed) as boundary:
        all_zygotes = Zygotes(boundary, launcher, folders.root, events, enabled=zygotes)
        warm = Warm(boundary, launcher, all_zygotes, enclosures, packages, folders, events)
        yield Starter(launcher, enclosures, folders, all_zygotes, warm)
