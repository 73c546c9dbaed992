"""Leases turned into running backends: who has to wait, waits here."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import AsyncIterator, Collection, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import trio

from muxsim.access import ClientBounds
from muxsim.admission.admission import Admission, Answer, Capacity, LeaseStatistics, MemoryReading, Refusal, Verdict
from muxsim.admission.memory import MemoryMeter
from muxsim.config import ServerSettings
from muxsim.errors import Busy, PlaceError, StartError, TooMuch
from muxsim.observe.events import Events, MachineExhausted, OpenWaited
from muxsim.placement.backend import Backend, BackendListener
from muxsim.placement.local import open_local
from muxsim.placement.placement import Placement, PlacementStatistics, ProcessUsage, Usage
from muxsim.runtime.bell import Bell
from muxsim.runtime.soon import may_wait
from muxsim.spec import CgroupMode, EnvSpec
from muxsim.start.order import Order
from transports.interfaces import Watch

# More of them would only wait for each other; fewer would leave a processor idle while a start waits for the disk.
_STARTS_PER_CPU: Final = 4
# Seconds between two looks at the memory while somebody waits for some to become free.
_MEMORY_LOOK: Final = 1.0


@dataclass(frozen=True)
class PoolStatistics:
    """What the pool holds, and what runs on it now."""

    leases: LeaseStatistics
    placement: PlacementStatistics


@dataclass(slots=True)
class Lease:
    """A session's right to one backend at a time, and its folder once it has one. `Pool.release` takes both back."""

    number: int
    spec: EnvSpec
    workspace: Path | None = None


class Pool:
    """Gives out leases and starts backends on them. Open it with `open_pool`."""

    def __init__(self, placement: Placement, capacity: Capacity, meter: MemoryMeter | None, events: Events) -> None:
        self.placement = placement
        self.events = events
        self._admission = Admission(capacity, events)
        self._meter = meter
        self._waiting: dict[int, _Waiter] = {}
        self._shortage = Bell()

    def __repr__(self) -> str:
        return f"<Pool {self._admission.statistics(trio.current_time())}>"

    def statistics(self) -> PoolStatistics:
        """A snapshot."""
        leases = self._admission.statistics(trio.current_time())
        return PoolStatistics(leases, self.placement.statistics())

    def under_way(self) -> tuple[Counter[str], Counter[str]]:
        """Of each environment: how many sessions wait for a lease, and how many have none but a start."""
        return self._admission.under_way()

    def use(self, capacity: Capacity) -> None:
        """Have these bounds from now on. Sessions that are open stay open."""
        self._carry_out(self._admission.use(capacity, trio.current_time()))

    async def refusing(self, env: str | None) -> Refusal | None:
        """Why whoever asked for a lease now would get none, and could not wait for one either; None if they could."""
        await self.measure()
        return self._admission.refusing(env, trio.current_time())

    def turn_away(self, text: str) -> None:
        """Refuse everybody who asks for a lease from now on, and who waits for one."""
        self._carry_out(self._admission.turn_away(text))

    def keep_warm(self, specs: Collection[EnvSpec]) -> None:
        """Keep processes ready for sessions of these environments, as many as each wants, and of no others."""
        self.placement.keep_ready(specs, has_room=lambda: self._admission.has_spare_start)

    async def acquire(self, spec: EnvSpec, client: str | None = None, session: str | None = None) -> Lease:
        """Wait for a lease. ``client`` is who asks, by which turns are taken; None is this program itself.

        ``session`` is the id of the one that it is for, for those who are told that it has to wait.

        Raises `Busy` when there is none to be had now, `TooMuch` when the client has its share, and `StartError` when
        the environment's package cannot be installed.
        """
        number = await self._wait_turn(spec, client, session)
        try:
            return Lease(number, await self.placement.prepare(spec))
        except StartError:
            self._carry_out(self._admission.failed(number, trio.current_time()))
            self._give_back(number)
            raise
        except BaseException:
            self._give_back(number)
            raise

    async def start(self, lease: Lease, *, seed: int, session: str, listener: BackendListener) -> Backend:
        """Start a backend on a lease, in the folder of the one before if there was one.

        Raises `StartError` if there is none to be had, and `Busy` if the machine has no room for one.
        """
        order = Order(lease.spec, seed, session, lease.workspace)
        try:
            backend = await self.placement.start(order, listener)
        except Busy as error:
            self.events.emit(MachineExhausted(lease.spec.name, str(error)))
            raise
        except StartError as error:
            if not isinstance(error, PlaceError):
                self.failed(lease)
            raise
        lease.workspace = backend.workspace
        if backend.way != "fresh":
            self._carry_out(self._admission.forked(lease.number, trio.current_time()))
        return backend

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
        self.placement.hasten()

    async def release(self, lease: Lease) -> None:
        """Take a lease back and remove its folder; whoever's turn it is gets the place."""
        if lease.workspace is not None:
            await self.placement.remove(lease.workspace)
        self._give_back(lease.number)

    def _give_back(self, number: int) -> None:
        self._carry_out(self._admission.release(number, trio.current_time()))

    def _carry_out(self, verdicts: list[Verdict]) -> None:
        for verdict in verdicts:
            waiter = self._waiting.pop(verdict.number)
            waiter.refusal = verdict.refusal
            waiter.settled.set()

    async def _wait_turn(self, spec: EnvSpec, client: str | None, session: str | None) -> int:
        await self.measure()
        now = trio.current_time()
        verdict, *others = self._admission.ask(spec.name, client, now, session=session, **_breaks_of(spec))
        self._carry_out(others)
        if verdict.refusal is not None:
            raise _busy(verdict.refusal)
        if verdict.answer is Answer.QUEUED:
            await self._wait_in_queue(spec.name, verdict.number, session)
        return verdict.number

    async def _wait_in_queue(self, env: str, number: int, session: str | None) -> None:
        waiter = self._waiting[number] = _Waiter()
        began = trio.current_time()
        try:
            await self._wait_settled(number, waiter, began + self._admission.capacity.queue_timeout)
        finally:
            admitted = waiter.settled.is_set() and waiter.refusal is None
            self.events.emit(OpenWaited(env, round(trio.current_time() - began, 3), admitted, session))

    async def _wait_settled(self, number: int, waiter: _Waiter, deadline: float) -> None:
        try:
            await may_wait()
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

    async def measure(self) -> MemoryReading | None:
        """How much memory is in use, as of a moment ago; None without a memory_limit, or means to tell."""
        if self._meter is None:
            return None
        reading = await self._meter.read()
        if reading is not None and reading.over:
            await may_wait()
            # What is kept ready goes before anybody is refused for want of memory.
            if await self.placement.make_room():
                reading = await self._meter.read(anew=True)
        self._admission.measured(reading)
        if reading is not None and reading.over:
            self._shortage.ring()
        return reading

    async def usages(self, pids: Collection[int]) -> Mapping[int, Usage]:
        """What backends with these pids use, of those whose turn it is to be looked at; asked once a second or so."""
        now = trio.current_time()
        return await trio.to_thread.run_sync(self.placement.usages, pids, now, abandon_on_cancel=False)

    async def processes_of(self, pid: int) -> list[ProcessUsage]:
        """The processes of the backend with this pid, itself first, with what each uses; none if it has gone."""
        return await trio.to_thread.run_sync(self.placement.processes_of, pid, abandon_on_cancel=False)

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


def capacity_of(
    settings: ServerSettings,
    clients: Mapping[str, ClientBounds] = MappingProxyType({}),
    *,
    max_sessions: int | None = None,
) -> Capacity:
    """The bounds in these settings, and what is otherwise for some clients."""
    capacity = Capacity(
        max_sessions=settings.max_sessions if max_sessions is None else max_sessions,
        max_pending=settings.max_pending,
        queue_timeout=settings.queue_timeout,
        max_starting=settings.max_starting or _STARTS_PER_CPU * len(os.sched_getaffinity(0)),
        max_sessions_per_client=settings.max_sessions_per_client,
        opens_per_second=settings.opens_per_second,
        opens_burst=settings.opens_burst,
    )
    return replace(capacity, clients={name: _with(capacity, bounds) for name, bounds in clients.items()})


def _with(capacity: Capacity, bounds: ClientBounds) -> Capacity:
    names = ("max_sessions_per_client", "opens_per_second", "opens_burst")
    own = {name: getattr(bounds, name) for name in names}
    return replace(capacity, **{name: value for name, value in own.items() if value is not None})


@asynccontextmanager
async def open_pool(
    capacity: Capacity,
    *,
    memory_limit: int | str | None = None,
    watch: Watch | None = None,
    specs: Iterable[EnvSpec] = (),
    cgroup: CgroupMode = "auto",
    events: Events | None = None,
    hidden: Iterable[str] = (),
) -> AsyncIterator[Pool]:
    """A pool within ``capacity``, in which nothing starts past ``memory_limit`` (bytes, or as in ``"80%"``).

    What ``specs`` will need of cgroups is prepared as ``cgroup`` has it. Raises `ConfigError` if they, or bubblewrap,
    are required and cannot be had. On the way out every process it started is ended, and every folder removed.
    ``events`` are told what happens. Files that are ``hidden`` are read by no backend under Landlock.
    """
    # A single session would wait for a zygote as long as for its own imports.
    several = capacity.max_sessions > 1
    events = Events() if events is None else events
    async with open_local(specs, events, cgroup=cgroup, watch=watch, zygotes=several, hidden=hidden) as placement:
        meter = None if memory_limit is None else MemoryMeter(memory_limit, placement.memory_in_use)
        yield Pool(placement, capacity, meter, events)
