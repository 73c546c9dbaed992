"""Leases turned into running backends: who has to wait, waits here; what is needed before a start, is made here."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import trio

from muxsim import npm
from muxsim.errors import Busy, StartError
from muxsim.spec import EnvSpec
from muxsim.supervise.backend import Backend, BackendListener
from muxsim.supervise.enclosure import Enclosure
from muxsim.supervise.leases import Answer, Leases, LeaseStatistics
from muxsim.supervise.process import Launcher, LauncherStatistics, ProcessStartError
from transports.interfaces import Watch


@dataclass(frozen=True)
class PoolStatistics:
    """What the pool holds, and what its launcher has done."""

    leases: LeaseStatistics
    processes: LauncherStatistics


@dataclass(slots=True)
class Lease:
    """A session's right to one backend at a time, and its folder. `Pool.release` takes both back."""

    number: int
    spec: EnvSpec
    workspace: Path


class Pool:
    """Gives out leases and starts backends on them. Open it with `open_pool`."""

    def __init__(
        self, launcher: Launcher, leases: Leases, queue_timeout: float, root: Path, watch: Watch | None
    ) -> None:
        self._launcher = launcher
        self._leases = leases
        self._queue_timeout = queue_timeout
        self._root = root
        self._watch = watch
        self._environ = dict(os.environ)
        self._granted: dict[int, trio.Event] = {}
        self._prepared: dict[str, EnvSpec] = {}
        self._preparing: dict[str, trio.Lock] = {}

    def __repr__(self) -> str:
        return f"<Pool {self._leases.statistics()}>"

    def statistics(self) -> PoolStatistics:
        """A snapshot."""
        return PoolStatistics(self._leases.statistics(), self._launcher.statistics())

    async def acquire(self, spec: EnvSpec) -> Lease:
        """Wait for a lease, first come, first served.

        Raises `Busy` when the queue is full or the wait was longer than ``queue_timeout``, and `StartError` when the
        environment's package cannot be installed.
        """
        number = await self._wait_turn()
        try:
            ready = await self._prepare(spec)
            return Lease(number, ready, Path(tempfile.mkdtemp(prefix=f"{spec.name}-", dir=self._root)))
        except OSError as error:
            self._give_back(number)
            raise StartError(f"environment {spec.name!r}: no folder for its session: {error}") from error
        except BaseException:
            self._give_back(number)
            raise

    async def start(self, lease: Lease, *, seed: int, session: str, listener: BackendListener) -> Backend:
        """Start a backend on a lease. Raises `StartError` if the command cannot be run."""
        launch = lease.spec.launch(seed=seed, session_id=session, workspace=str(lease.workspace), environ=self._environ)
        enclosure = Enclosure(lease.spec.confinement)
        try:
            # The mark by which strays are found is in the child's environment; the session's id, which opens its
            # URLs, must not be.
            process = await self._launcher.spawn(enclosure.command(launch), session=secrets.token_hex(8))
        except ProcessStartError as error:
            raise StartError(f"environment {lease.spec.name!r}: {error}") from error
        return Backend(process, lease.spec.limits, listener, self._watch, enclosure)

    async def release(self, lease: Lease) -> None:
        """Take a lease back and remove its folder; whoever waits longest gets the place."""
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(_remove_tree, lease.workspace)
        self._give_back(lease.number)

    def _give_back(self, number: int) -> None:
        heir = self._leases.release(number)
        if heir is not None:
            self._granted.pop(heir).set()

    async def _wait_turn(self) -> int:
        number, answer = self._leases.ask()
        if answer is Answer.GRANTED:
            return number
        if answer is Answer.REFUSED:
            raise Busy("all sessions are taken and the queue is full (server.max_sessions, server.max_pending)", 1.0)
        granted = self._granted[number] = trio.Event()
        try:
            with trio.move_on_after(self._queue_timeout):
                await granted.wait()
        except BaseException:
            self._leave_queue(number, granted)
            raise
        if granted.is_set():
            return number
        self._leave_queue(number, granted)
        raise Busy(f"no session became free within {self._queue_timeout:g} s (server.queue_timeout)", 1.0)

    def _leave_queue(self, number: int, granted: trio.Event) -> None:
        self._granted.pop(number, None)
        if granted.is_set():
            self._give_back(number)
        else:
            self._leases.give_up(number)

    async def _prepare(self, spec: EnvSpec) -> EnvSpec:
        """The spec with its npm package installed, once; a failure is tried again by the next session."""
        if (ready := self._prepared.get(spec.name)) is not None:
            return ready
        async with self._preparing.setdefault(spec.name, trio.Lock()):
            if spec.name not in self._prepared:
                self._prepared[spec.name] = await npm.prepare(spec)
            return self._prepared[spec.name]


def _remove_tree(path: Path) -> None:
    # What a backend left read-only, or is being removed by somebody else, is not worth a session's end.
    shutil.rmtree(path, ignore_errors=True)


@asynccontextmanager
async def open_pool(
    *, limit: int, max_waiting: int, queue_timeout: float, watch: Watch | None = None
) -> AsyncIterator[Pool]:
    """A pool of at most ``limit`` leases, ``max_waiting`` in its queue for at most ``queue_timeout`` seconds.

    On the way out every process it started is ended, and every folder removed.
    """
    root = Path(tempfile.mkdtemp(prefix="muxsim-"))
    try:
        async with Launcher.open() as launcher:
            yield Pool(launcher, Leases(limit, max_waiting), queue_timeout, root, watch)
    finally:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(_remove_tree, root)
