"""Child processes: started, signalled and ended with everything they started, through a guardian (inside/guardian.py).

Nothing else in muxsim starts a backend. A `Launcher` owns one guardian process; each `Process` has one way out, `end`,
which is bounded and also ends grandchildren, those that called setsid included. Needs Linux 5.4 and trio, which may run
as a guest of another loop.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import trio

from muxsim.inside.estate import Estate
from muxsim.inside.proc import UNKILLABLE
from muxsim.observe.events import Listener, ProcessNotStarted, unheard
from muxsim.processes.client import Client, Fork, Start
from muxsim.processes.command import Command, ProcessStartError
from muxsim.processes.owner import new_token
from muxsim.processes.process import AT_ONCE, POLITELY, EndTimes, Process
from muxsim.runtime.boundary import background

ANSWER_LIMIT = 0.5
"""Seconds that a cancelled spawn waits, so as to leave no child; an answer after that ends it in the background."""


@dataclass(frozen=True)
class LauncherStatistics:
    """What there is now."""

    guardian_pid: int | None
    starting: int
    alive: int


class Launcher:
    """Starts processes and owns every one of them, through one guardian, which it replaces if that is killed."""

    def __init__(self, nursery: trio.Nursery, python: str, end_times: EndTimes, estate: Estate, emit: Listener) -> None:
        self._nursery = nursery
        self._emit = emit
        self._python = python
        self._end_times = end_times
        self._estate = estate
        self._token = new_token()
        self._numbers = itertools.count()
        self._guardians: list[Client] = []
        self._closed = False

    def __repr__(self) -> str:
        now = self.statistics()
        state = "closed" if self._closed else f"guardian {now.guardian_pid}"
        return f"<Launcher: {state}, {now.alive} alive, {now.starting} starting>"

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        *,
        python: str = sys.executable,
        end_times: EndTimes = POLITELY,
        folder: str = "",
        cgroup: str = "",
        emit: Listener = unheard,
    ) -> AsyncIterator[Launcher]:
        """A launcher for the length of a block, after which no process of its is left.

        `python` runs the guardian. Processes not yet ended are, all at once, within `end_times`. If nobody is left
        to do so but the guardian, `folder` is removed then, and `cgroup`, a pool's group with those of its sessions.
        `emit` is told what happens.
        """
        async with background() as nursery:
            launcher = cls(nursery, python, end_times, Estate(folder, cgroup), emit)
            try:
                launcher._guardian()
                yield launcher
            finally:
                with trio.CancelScope(shield=True):
                    await launcher._close()

    @trio.lowlevel.enable_ki_protection
    async def spawn(self, command: Command, *, session: str, channel: bool = False, lent: int | None = None) -> Process:
        """Start `command`; many may be in flight at once. Returns once the program itself runs.

        With `channel` it has a SOCK_SEQPACKET socket beside its pipes, for messages both ways; a descriptor that is
        `lent` comes after these. Raises ProcessStartError, and then, as when cancelled, leaves neither a child nor a
        descriptor.
        """
        try:
            guardian = self._guardian()
            start = guardian.spawn(command, session, channel=channel, lent=lent)
        except ProcessStartError as error:
            self._failed(error)
            raise
        return await self._settled(guardian, start)

    @trio.lowlevel.enable_ki_protection
    async def adopt(self, parent: Process, fork: Fork, *, session: str) -> Process:
        """Take in a process that `parent` has forked and orphaned: from then on it is a child like any other.

        Raises ProcessStartError if it is not there or not ours, and whatever `fork` raises.
        """
        try:
            guardian = self._guardian_of(parent)
            start = await guardian.adopt(fork, session)
        except ProcessStartError as error:
            self._failed(error)
            raise
        return await self._settled(guardian, start)

    async def _settled(self, guardian: Client, start: Start) -> Process:
        try:
            await start.settled.wait()
        except trio.Cancelled:
            with trio.move_on_after(ANSWER_LIMIT, shield=True):
                await guardian.abandon(start)
            raise
        if start.error is not None:
            self._failed(start.error)
            raise start.error
        assert start.process is not None
        return start.process

    def _failed(self, error: ProcessStartError) -> None:
        self._emit(ProcessNotStarted(error.stage, error.errno))

    def hasten(self) -> None:
        """End everything at once, whoever is ending it politely already."""
        for guardian in self._guardians:
            for process in guardian.processes.values():
                self._nursery.start_soon(process.end, AT_ONCE)

    def statistics(self) -> LauncherStatistics:
        guardians = [guardian for guardian in self._guardians if not guardian.gone]
        processes = [process for guardian in self._guardians for process in guardian.processes.values()]
        return LauncherStatistics(
            guardian_pid=guardians[-1].pid if guardians else None,
            starting=sum(len(guardian.starts) for guardian in self._guardians),
            alive=sum(process.returncode is None for process in processes),
        )

    def _guardian(self) -> Client:
        """The guardian in use; a new one if there is none."""
        if self._closed:
            raise ProcessStartError(errno.ESHUTDOWN, "closed", "this launcher is closed: open another one")
        if not self._guardians or self._guardians[-1].gone:
            try:
                guardian = Client(self._python, self._token, self._estate, self._numbers, self._nursery, self._emit)
            except OSError as error:
                message = f"cannot start muxsim's helper process with {self._python!r}: {error}"
                raise ProcessStartError(error.errno or errno.EAGAIN, "guardian", message) from error
            if self._guardians:  # others were before it
                guardian.clear()
            self._guardians = [*(other for other in self._guardians if not other.finished.is_set()), guardian]
            self._nursery.start_soon(guardian.serve, self._replace)
        return self._guardians[-1]

    def _guardian_of(self, process: Process) -> Client:
        """Whose child this is; of one that is gone, and can have no fork, the one in use."""
        its = (guardian for guardian in self._guardians if guardian.processes.get(process.pid) is process)
        return next(its, None) or self._guardian()

    async def _replace(self) -> None:
        """The guardian was killed: its children die with it, but what those had started needs another to find it."""
        if self._closed:
            return
        with trio.move_on_after(UNKILLABLE), contextlib.suppress(ProcessStartError):  # the next spawn says it
            await self._guardian().cleared.wait()

    async def _close(self) -> None:
        self._closed = True
        async with trio.open_nursery() as ending:
            for guardian in self._guardians:
                for process in guardian.processes.values():
                    ending.start_soon(process.end, self._end_times)
        for guardian in self._guardians:
            guardian.shut_down()
