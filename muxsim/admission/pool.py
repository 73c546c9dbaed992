"""Leases turned into running backends: who has to wait, waits here; what is needed before a start, is made here."""

from __future__ import annotations

import errno
import math
import os
import secrets
import shutil
import tempfile
from collections.abc import AsyncIterator, Collection, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

import trio

from muxsim.admission.admission import Admission, Answer, Capacity, LeaseStatistics, MemoryReading, Refusal, Verdict
from muxsim.admission.memory import MemoryMeter
from muxsim.config import ServerSettings
from muxsim.errors import Busy, StartError, TooMuch
from muxsim.observe.events import Events, MachineExhausted
from muxsim.placement.backend import Backend, BackendListener
from muxsim.processes import descriptors
from muxsim.processes.command import ProcessStartError
from muxsim.processes.enclosure import CgroupMode, Enclosure, Enclosures, open_enclosures
from muxsim.processes.folders import own_folder
from muxsim.processes.launcher import Launcher, LauncherStatistics
from muxsim.processes.process import AT_ONCE, Process
from muxsim.provision.packages import Packages
from muxsim.runtime.bell import Bell
from muxsim.runtime.boundary import open_boundary
from muxsim.spec import EnvSpec, passed_variables
from muxsim.start.fork.fleet import ZygoteStatistics
from muxsim.start.fork.zygotes import Zygotes, zygotes_behind
from muxsim.start.slots.policy import SlotStatistics
from muxsim.start.slots.shelf import LaunchIn, Taken, Warm, warm_behind
from transports.interfaces import Watch

# What a process cannot be started for that is the machine's fault, and may be over soon.
_EXHAUSTED: Final = frozenset(
    {errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ENOMEM, errno.ENOSPC, errno.EDQUOT, errno.ETOOMANYREFS}
)
# More of them would only wait for each other; fewer would leave a processor idle while a start waits for the disk.
_STARTS_PER_CPU: Final = 4
# Seconds to come back after, when the machine had no more to give.
_EXHAUSTED_RETRY: Final = 5.0
# Seconds between two looks at the memory while somebody waits for some to become free.
_MEMORY_LOOK: Final = 1.0


@dataclass(frozen=True)
class PoolStatistics:
    """What the pool and its launcher hold now."""

    leases: LeaseStatistics
    processes: LauncherStatistics
    warm: Mapping[str, SlotStatistics] = field(default_factory=dict)
    zygotes: ZygoteStatistics = field(default_factory=ZygoteStatistics)


@dataclass(slots=True)
class Lease:
    """A session's right to one backend at a time, and its folder once it has one. `Pool.release` takes both back."""

    number: int
    spec: EnvSpec
    workspace: Path | None = None


class Pool:
    """Gives out leases and starts backends on them. Open it with `open_pool`."""

    def __init__(
        self,
        launcher: Launcher,
        enclosures: Enclosures,
        capacity: Capacity,
        meter: MemoryMeter | None,
        root: Path,
        watch: Watch | None,
        packages: Packages,
        warm: Warm,
        zygotes: Zygotes,
        events: Events,
    ) -> None:
        self._launcher = launcher
        self._events = events
        self._zygotes = zygotes
        self._enclosures = enclosures
        self._admission = Admission(capacity, events)
        self._meter = meter
        self._root = root
        self._watch = watch
        self._environ = passed_variables(os.environ)
        self._waiting: dict[int, _Waiter] = {}
        self._to_remove: list[Path] = []
        self._shortage = Bell()
        self._packages = packages
        self._warm = warm

    def __repr__(self) -> str:
        return f"<Pool {self._admission.statistics(trio.current_time())}>"

    def statistics(self) -> PoolStatistics:
        """A snapshot."""
        leases = self._admission.statistics(trio.current_time())
        return PoolStatistics(
            leases,
            self._launcher.statistics(),
            self._warm.statistics(),
            self._zygotes.statistics(),
        )

    def use(self, capacity: Capacity) -> None:
        """Have these bounds from now on. Sessions that are open stay open."""
        self._carry_out(self._admission.use(capacity, trio.current_time()))

    def turn_away(self, text: str) -> None:
        """Refuse everybody who asks for a lease from now on, and who waits for one."""
        self._carry_out(self._admission.turn_away(text))

    def keep_warm(self, specs: Collection[EnvSpec]) -> None:
        """Keep processes ready for sessions of these environments, as many as each wants, and of no others."""
        self._warm.keep(specs, has_room=lambda: self._admission.has_spare_start)

    async def acquire(self, spec: EnvSpec, client: str | None = None) -> Lease:
        """Wait for a lease. ``client`` is who asks, by which turns are taken; None is this program itself.

        Raises `Busy` when there is none to be had now, `TooMuch` when the client has its share, and `StartError` when
        the environment's package cannot be installed.
        """
        number = await self._wait_turn(spec, client)
        try:
            return Lease(number, await self._packages.ready(spec))
        except StartError:
            self._carry_out(self._admission.failed(number, trio.current_time()))
            self._give_back(number)
            raise
        except BaseException:
            self._give_back(number)
            raise

    def acquire_now(self, spec: EnvSpec, client: str | None = None) -> Lease | None:
        """As `acquire`, where there is nothing to wait for, and a process ready to start with; else None."""
        prepared = self._packages.known(spec)
        if prepared is None or not self._warm.is_ready(spec.name):  # whose descriptors are open already
            return None
        if self._meter is not None:
            reading = None if self._meter.waits else self._meter.read_now()
            if reading is None or reading.over:
                return None
            self._admission.measured(reading)
        verdict = self._admission.ask_now(spec.name, client, trio.current_time(), **_breaks_of(spec))
        if verdict is None:
            return None
        if verdict.refusal is not None:
            raise _busy(verdict.refusal)
        return Lease(verdict.number, prepared)

    def take_now(self, lease: Lease, *, seed: int, session: str) -> Taken | None:
        """A process that is ready, and has its order now; else None, and the lease is taken back."""
        launch_in = partial(lease.spec.launch, seed=seed, session_id=session, environ=self._environ)
        with self._warm.opening():
            taken = self._warm.take_now(lease.spec, launch_in)
        if taken is None:
            self._give_back(lease.number)
        return taken

    def start_now(self, lease: Lease, taken: Taken, listener: BackendListener) -> Backend | None:
        """As `start`, with what `take_now` gave; else None, and the lease is taken back."""
        try:
            backend = self._backend(lease, taken.process, taken.enclosure, listener)
        except OSError:  # another start tells what it is
            self._warm.discard_soon(taken)
            self._give_back(lease.number)
            return None
        lease.workspace = taken.workspace
        return backend

    async def start(self, lease: Lease, *, seed: int, session: str, listener: BackendListener) -> Backend:
        """Start a backend on a lease.

        Raises `StartError` if the command cannot be run, or not within the spec's ``start_timeout``, and `Busy` if the
        machine has no more descriptors, processes or memory for one.
        """
        if not descriptors.has_room() and not (await self._warm.give_up() and descriptors.has_room()):
            text = "muxsim may open no more files: raise the limit (ulimit -n), or run fewer sessions"
            raise self._exhausted(lease.spec, f"environment {lease.spec.name!r}: {text}")
        launch_in = partial(lease.spec.launch, seed=seed, session_id=session, environ=self._environ)
        limit = lease.spec.limits.start_timeout
        try:
            with trio.fail_after(limit), self._warm.opening():
                started = await self._take_warm(lease, launch_in)
                process, enclosure = started or await self._start_fresh(lease, launch_in)
        except trio.TooSlowError as error:
            self.failed(lease)
            advice = "see whether its folder and program can be read, and muxsim's helper process runs"
            raise StartError(
                f"environment {lease.spec.name!r}: no process for it within {limit:g} s (start_timeout): {advice}"
            ) from error
        except ProcessStartError as error:
            text = f"environment {lease.spec.name!r}: {error}"
            if error.stage != "exec" and error.errno in _EXHAUSTED:
                raise self._exhausted(lease.spec, text) from error
            self.failed(lease)
            raise StartError(text) from error
        try:
            return self._backend(lease, process, enclosure, listener)
        except OSError as error:
            await process.end(AT_ONCE)
            await enclosure.close()
            text = f"environment {lease.spec.name!r}: its pipes cannot be used: {error}"
            raise self._exhausted(lease.spec, text) if error.errno in _EXHAUSTED else StartError(text) from error

    def _backend(self, lease: Lease, process: Process, enclosure: Enclosure, listener: BackendListener) -> Backend:
        backend = Backend(process, lease.spec.limits, listener, self._watch, enclosure)
        backend.on_message = self._zygotes.hook_of(process)
        return backend

    async def _take_warm(self, lease: Lease, launch_in: LaunchIn) -> tuple[Process, Enclosure] | None:
        taken = None if lease.workspace else await self._warm.take(lease.spec, launch_in)
        if taken is None:
            return None
        lease.workspace = taken.workspace
        return taken.process, taken.enclosure

    async def _start_fresh(self, lease: Lease, launch_in: LaunchIn) -> tuple[Process, Enclosure]:
        if lease.workspace is None:
            lease.workspace = self._new_folder(lease.spec)
        workspace = str(lease.workspace)
        launch = launch_in(workspace=workspace)
        # The mark by which strays are found is in the child's environment; the session's id, which opens its URLs,
        # must not be.
        spawn = partial(self._zygotes.spawn, lease.spec, session=secrets.token_hex(8))
        try:
            return await self._enclosures.start(lease.spec, launch, workspace, spawn)
        except ProcessStartError as error:
            # What is kept ready must not keep a session from being opened.
            if error.stage == "exec" or error.errno not in _EXHAUSTED or not await self._warm.give_up():
                raise
            return await self._enclosures.start(lease.spec, launch, workspace, spawn)

    def _new_folder(self, spec: EnvSpec) -> Path:
        try:
            return Path(tempfile.mkdtemp(prefix=f"{spec.name}-", dir=self._root))
        except OSError as error:
            text = f"environment {spec.name!r}: no folder for its session: {error}"
            raise self._exhausted(spec, text) if error.errno in _EXHAUSTED else StartError(text) from error

    def asked(self, lease: Lease) -> None:
        """The backend on this lease has been asked for its first answer."""
        self._admission.asked(lease.number, trio.current_time())

    def answered(self, lease: Lease) -> None:
        """The backend on this lease has given its first answer: its start is over."""
        self._carry_out(self._admission.answered(lease.number, trio.current_time()))

    def failed(self, lease: Lease) -> None:
        """The backend on this lease ended, or ran out of time, before its first answer."""
        self._carry_out(self._admission.failed(lease.number, trio.current_time()))

    async def hasten(self) -> None:
        """End every process at once, also those that have been asked politely."""
        self._launcher.hasten()

    async def release(self, lease: Lease) -> None:
        """Take a lease back and remove its folder; whoever's turn it is gets the place."""
        if lease.workspace is not None:
            self._to_remove.append(lease.workspace)
        # A folder has to be opened to be emptied. Without descriptors it stays until somebody else's turn.
        if descriptors.has_room():
            folders, self._to_remove = self._to_remove, []
            with trio.CancelScope(shield=True):
                await _remove(folders)
        self._give_back(lease.number)

    def _give_back(self, number: int) -> None:
        self._carry_out(self._admission.release(number, trio.current_time()))

    def _carry_out(self, verdicts: list[Verdict]) -> None:
        for verdict in verdicts:
            waiter = self._waiting.pop(verdict.number)
            waiter.refusal = verdict.refusal
            waiter.settled.set()

    async def _wait_turn(self, spec: EnvSpec, client: str | None) -> int:
        await self.measure()
        verdict, *others = self._admission.ask(spec.name, client, trio.current_time(), **_breaks_of(spec))
        self._carry_out(others)
        if verdict.refusal is not None:
            raise _busy(verdict.refusal)
        if verdict.answer is Answer.QUEUED:
            await self._wait_in_queue(verdict.number)
        return verdict.number

    async def _wait_in_queue(self, number: int) -> None:
        waiter = self._waiting[number] = _Waiter()
        deadline = trio.current_time() + self._admission.capacity.queue_timeout
        try:
            while not waiter.settled.is_set() and trio.current_time() < deadline:
                with trio.move_on_at(min(deadline, self._next_look())):
                    await waiter.settled.wait()
                    break
                await self.measure()
                self._carry_out(self._admission.advance(trio.current_time()))
        except BaseException:
            self._leave_queue(number, waiter)
            raise
        if not waiter.settled.is_set():
            del self._waiting[number]
            raise _busy(self._admission.time_out(number))
        if waiter.refusal is not None:
            raise _busy(waiter.refusal)

    def _next_look(self) -> float:
        """When one who waits has to see for itself whether there is room by now."""
        again = trio.current_time() + _MEMORY_LOOK if self._admission.short_of_memory else math.inf
        return min(again, self._admission.next_change())

    def _leave_queue(self, number: int, waiter: _Waiter) -> None:
        self._waiting.pop(number, None)
        if waiter.settled.is_set() and waiter.refusal is None:
            self._give_back(number)
        else:
            self._admission.give_up(number)

    def _exhausted(self, spec: EnvSpec, text: str) -> Busy:
        self._events.emit(MachineExhausted(spec.name, text))
        return Busy(text, _EXHAUSTED_RETRY)

    async def measure(self) -> MemoryReading | None:
        """How much memory is in use, as of a moment ago; None without a memory_limit, or means to tell."""
        if self._meter is None:
            return None
        reading = await self._meter.read()
        # What is kept ready goes before anybody is refused for want of memory.
        if reading is not None and reading.over and await self._warm.give_up():
            reading = await self._meter.read(anew=True)
        self._admission.measured(reading)
        if reading is not None and reading.over:
            self._shortage.ring()
        return reading

    async def wait_short_of_memory(self) -> None:
        """Wait until a measurement finds too little."""
        await self._shortage.wait()


class _Waiter:
    """One in the queue, and what has become of it."""

    def __init__(self) -> None:
        self.settled = trio.Event()
        self.refusal: Refusal | None = None


def _breaks_of(spec: EnvSpec) -> dict[str, Any]:
    """After how many failed starts, in how many seconds, an environment's breaker opens."""
    return {"failures": spec.limits.max_failed_starts, "window": spec.limits.failed_start_window}


def _busy(refusal: Refusal) -> Busy:
    return (TooMuch if refusal.excessive else Busy)(refusal.text, refusal.retry_after)


async def _remove(folders: list[Path]) -> None:
    try:
        await trio.to_thread.run_sync(_remove_trees, folders)
    except RuntimeError:  # there can be no more threads
        _remove_trees(folders)


def _remove_trees(folders: list[Path]) -> None:
    for folder in folders:
        # What a backend left read-only, or is being removed by somebody else, is not worth a session's end.
        shutil.rmtree(folder, ignore_errors=True)


def capacity_of(settings: ServerSettings, *, max_sessions: int | None = None) -> Capacity:
    """The bounds in these settings."""
    return Capacity(
        max_sessions=settings.max_sessions if max_sessions is None else max_sessions,
        max_pending=settings.max_pending,
        queue_timeout=settings.queue_timeout,
        max_starting=settings.max_starting or _STARTS_PER_CPU * len(os.sched_getaffinity(0)),
        max_sessions_per_client=settings.max_sessions_per_client,
        opens_per_second=settings.opens_per_second,
        opens_burst=settings.opens_burst,
    )


@asynccontextmanager
async def open_pool(
    capacity: Capacity,
    *,
    memory_limit: int | str | None = None,
    watch: Watch | None = None,
    specs: Iterable[EnvSpec] = (),
    cgroup: CgroupMode = "auto",
    events: Events | None = None,
) -> AsyncIterator[Pool]:
    """A pool within ``capacity``, in which nothing starts past ``memory_limit`` (bytes, or as in ``"80%"``).

    What ``specs`` will need of cgroups is prepared as ``cgroup`` has it. Raises `ConfigError` if they, or bubblewrap,
    are required and cannot be had. On the way out every process it started is ended, and every folder removed.
    ``events`` are told what happens.
    """
    events = Events() if events is None else events
    meter = None if memory_limit is None else MemoryMeter(memory_limit)
    # A single session would wait for a zygote as long as for its own imports.
    several = capacity.max_sessions > 1
    with own_folder() as root:
        try:
            with open_enclosures(specs, cgroup) as enclosures:
                async with (
                    Launcher.open(folder=str(root), cgroup=enclosures.cgroup) as launcher,
                    open_boundary() as boundary,
                ):
                    zygotes = zygotes_behind(boundary, launcher, root, enabled=several)
                    packages = Packages(launcher)
                    warm = warm_behind(boundary, launcher, zygotes, enclosures, packages, root)
                    yield Pool(launcher, enclosures, capacity, meter, root, watch, packages, warm, zygotes, events)
        finally:
            with trio.CancelScope(shield=True):
                await _remove([root])
