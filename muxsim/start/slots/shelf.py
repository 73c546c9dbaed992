"""Warm slots: processes that are ready before anybody asks, kept, used once and replaced.

What to fill, use and give up next is decided in policy.py, and how a slot of an environment is made in recipe.py.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import NoneType

import trio

from muxsim.errors import Busy, StartError
from muxsim.inside.as_main import TAG_BYTES
from muxsim.observe.events import Events, SlotDied, SlotMissed, SlotsKeepDying, SlotsNotHad, SlotsReplaced, SlotUsed
from muxsim.processes.command import Command, ProcessStartError
from muxsim.processes.enclosure import Enclosure, Enclosures
from muxsim.processes.launcher import Launcher
from muxsim.processes.process import AT_ONCE, EndTimes, Process
from muxsim.provision.cache import cache_folder
from muxsim.provision.packages import Packages
from muxsim.runtime import descriptors
from muxsim.runtime.boundary import Boundary, Part, first_of, optional
from muxsim.runtime.soon import may_wait
from muxsim.spec import EnvSpec, Launch, fixed, has_placeholder, passed_variables
from muxsim.start.folders import Folders, remove_trees
from muxsim.start.fork.zygotes import Zygotes
from muxsim.start.order import Order, Started
from muxsim.start.prepared import Prepared
from muxsim.start.slots.node import Nodes, Withdrawn, last_words
from muxsim.start.slots.policy import MOST_UNASKED, NOT_YET, UNASKED, Slots, SlotStatistics
from muxsim.start.slots.recipe import Kind, NotWarm, WarmStart, fingerprint, waits_unasked, warm_start, watched_files
from muxsim.start.template import Contents


@dataclass
class _Slot:
    """A process that waits, in a folder of its own, and the files that it was made from."""

    number: int
    spec: EnvSpec
    kind: Kind
    process: Process
    enclosure: Enclosure
    prepared: Prepared | None
    folder: Path
    contents: Contents
    files: tuple[str, ...] = ()
    stamps: tuple[tuple[int, int], ...] = ()
    used: trio.Event = field(default_factory=trio.Event)

    def is_outdated(self, spec: EnvSpec) -> bool:
        made_of = self.prepared is not None and self.prepared.is_outdated()
        return spec != self.spec or made_of or fingerprint(self.files) != self.stamps

    def started(self) -> Started:
        self.process.way = "slot"
        return Started(self.process, self.enclosure, self.folder)

    def end_times(self) -> EndTimes:
        if self.kind in (Kind.NODE, Kind.FORK):
            return AT_ONCE  # nothing of the environment has run
        return EndTimes(stdin_close=self.spec.limits.eof_timeout, term=self.spec.limits.term_timeout)


class _NotYet(Exception):
    """Something is missing that will come."""


class _NoFork(_NotYet):
    """It is the zygote."""


class _Rehearsed(Exception):
    """The script has run where a slot was to be, which therefore is no place for one any more."""


class Warm:
    """Keeps slots for the environments that want them; none of them outlives the boundary."""

    def __init__(
        self,
        boundary: Boundary,
        launcher: Launcher,
        zygotes: Zygotes,
        enclosures: Enclosures,
        packages: Packages,
        folders: Folders,
        events: Events,
    ) -> None:
        self._tell = events.emit
        self._launcher = launcher
        self._zygotes = zygotes
        self._enclosures = enclosures
        self._packages = packages
        self._folders = folders
        self.part = boundary.part("all warm slots", self._let_go)
        self._boundary = boundary
        self._parts: dict[str, Part] = {}
        self._environ = dict(os.environ)
        self._passed = passed_variables(self._environ)
        self._compile_cache = str(cache_folder(self._environ) / "node")
        self._specs: dict[str, EnvSpec] = {}
        self._undecided: dict[str, EnvSpec] = {}
        self._nodes = Nodes(events.emit)
        self._slots = Slots()
        self._scopes: dict[int, trio.CancelScope] = {}
        self._waiting: dict[int, _Slot] = {}
        self._opening = 0
        self._has_room: Callable[[], bool] = lambda: True
        self._is_running = False
        self._changed = trio.Event()
        zygotes.fleet.on_ready = self._resume

    def __repr__(self) -> str:
        return f"<Warm {self._slots!r}>"

    def statistics(self) -> dict[str, SlotStatistics]:
        """By environment; those that want slots."""
        return self._slots.statistics()

    @optional(NoneType)
    def keep(self, specs: Collection[EnvSpec], *, has_room: Callable[[], bool]) -> None:
        """Keep as many slots as each of these wants, from now on, and none for others.

        While ``has_room`` says that there is none, they are filled but slowly.
        """
        self._has_room = has_room
        counts = {spec.name: self._count(spec, self._packages.at_hand(spec)) for spec in specs}
        wanted = {spec.name: spec for spec in specs if any(counts[spec.name])}
        self._undecided = {spec.name: spec for spec in specs if spec.warm is None and spec.name not in wanted}
        for name in self._specs.keys() | wanted.keys():
            self._want(name, wanted.get(name), counts.get(name, (0, 0)))
        self._specs = wanted
        if wanted:
            self._begin()

    def _want(self, name: str, spec: EnvSpec | None, count: tuple[int, int]) -> None:
        if self._specs.get(name) != spec:
            self._outdated(name)
            self._parts[name] = self.part.part(f"warm slots of environment {name}", partial(self._give_up_on, name))
        self._slots.want(name, *((0, 0) if self._parts[name].is_off else count))

    def _decide(self, spec: EnvSpec) -> None:
        """Count anew for one that is prepared by now: of what is installed first, nothing was known before that."""
        unprepared = self._undecided.pop(spec.name, None)
        if unprepared is not None and any(count := self._count(unprepared, spec)):
            self._want(spec.name, unprepared, count)
            self._specs[spec.name] = unprepared
            self._begin()

    def _begin(self) -> None:
        if not self._is_running:
            self._is_running = True
            self.part.start_soon(self._run)
        self._changed.set()

    @contextmanager
    def opening(self) -> Iterator[None]:
        """A session is being opened in this block: slots wait."""
        self._opening += 1
        try:
            yield
        finally:
            self._opening -= 1
            self._opened()

    @optional(NoneType)
    def _opened(self) -> None:
        self._slots.opened(trio.current_time())
        self._changed.set()

    @optional(NoneType, passing=(ProcessStartError, StartError, Busy))
    async def take(self, order: Order) -> Started | None:
        """A process that has become what is ordered, in a folder of its own; None if none was ready."""
        spec = order.spec
        self._decide(spec)
        if order.template:
            await may_wait()
        while (number := self._slots.oldest(spec.name)) is not None:
            slot = self._waiting[number]
            launch = order.launch(str(slot.folder), self._passed)
            if slot.is_outdated(spec):
                self._outdated(spec.name)
            elif slot.process.has_exited():
                self._died(spec.name, number, "it ended while it waited")
            elif slot.enclosure.is_outdated(slot.process.pid):
                self._outdated(spec.name)
            elif not order.template and not os.path.isdir(launch.cwd):  # noqa: ASYNC240 - it is about to be used
                return None  # it cannot go there; a fresh start says so
            else:
                taken = self._use(slot)
                try:
                    if order.template and not await self._begun(slot, order, launch.cwd):
                        self._dispose_soon(taken)
                        return None
                    await _activate(slot, launch)
                except BaseException as error:
                    self._dispose_soon(taken)
                    if not isinstance(error, ProcessStartError) or error.stage != "order":
                        raise
                    self._tell(SlotDied(spec.name, str(error)))
                else:
                    self._tell(SlotUsed(spec.name))
                    return taken
        if self._slots.wants(spec.name):
            self._tell(SlotMissed(spec.name))
        return None

    async def _begun(self, slot: _Slot, order: Order, cwd: str) -> bool:
        """Have a slot's folder begin as the session's is to; whether the slot can go on from there."""
        contents = await self._folders.begin(slot.folder, order.template, order.spec, slot.contents)
        if slot.kind is Kind.WHOLE and contents != slot.contents:
            self._outdated(order.spec.name)  # what runs has seen what there was
            return False
        return os.path.isdir(cwd)  # noqa: ASYNC240 - it is about to be used

    def _use(self, slot: _Slot) -> Started:
        self._slots.used(slot.number)
        slot.used.set()
        return slot.started()

    def _dispose_soon(self, taken: Started) -> None:
        """End what cannot be used after all, whoever has no time to wait for that."""
        self._boundary.part(f"the end of process {taken.process.pid}").start_soon(_dispose, taken, AT_ONCE)

    @optional(int)
    async def give_up(self) -> int:
        """End what waits, for the machine is short of something, and fill nothing for a while; returns how many."""
        numbers = self._slots.give_up(trio.current_time())
        processes = [self._waiting[number].process for number in numbers]
        self._end(numbers)
        async with trio.open_nursery() as nursery:
            for process in processes:
                nursery.start_soon(process.end, AT_ONCE)
        return len(processes)

    # ---- the slots

    def _count(self, spec: EnvSpec, prepared: EnvSpec | None) -> tuple[int, int]:
        """How many slots it wants at least, and at most; those that it does not ask for once it is prepared."""
        if spec.warm is not None:
            return spec.warm, spec.warm
        is_forked = self._zygotes.enabled and prepared is not None and waits_unasked(prepared, self._environ)
        return (UNASKED, MOST_UNASKED) if is_forked else (0, 0)

    def _let_go(self) -> None:
        self._zygotes.fleet.on_ready = lambda _: None

    def _give_up_on(self, name: str) -> None:
        """Of this environment there are no slots any more, and none is on its way: others may start theirs."""
        self._outdated(name)
        self._slots.want(name, 0)

    @optional(NoneType)
    def _resume(self, name: str) -> None:
        self._slots.resume(name)
        self._changed.set()

    async def _run(self) -> None:
        while True:
            self._changed = trio.Event()
            now = trio.current_time()
            step = self._slots.next(now, opening=self._opening > 0 or not self._has_room())
            for name, slots in Counter(step.aged).items():
                self._tell(SlotsReplaced(name, slots))
            self._end(step.end)
            for name in step.fill:
                number = self._slots.begin(name, now)
                scope = self._scopes[number] = trio.CancelScope()
                self._parts[name].start_soon(self._hold, self._specs[name], number, scope)
            with trio.move_on_at(step.again):
                await self._changed.wait()

    def _end(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            if number in self._scopes:
                self._scopes[number].cancel()

    def _outdated(self, name: str) -> None:
        self._nodes.forget(name)
        outdated = self._slots.outdated(name)
        if outdated:
            self._tell(SlotsReplaced(name, len(outdated)))
        self._end(outdated)
        self._changed.set()

    def _died(self, name: str, number: int, why: str) -> None:
        self._tell(SlotDied(name, why))
        if self._slots.died(number, trio.current_time()):
            self._tell(SlotsKeepDying(name, why))
        self._end([number])
        self._changed.set()

    async def _hold(self, spec: EnvSpec, number: int, scope: trio.CancelScope) -> None:
        """The life of one slot: from its start until it is used or ended, which cancels ``scope``."""
        try:
            with scope:
                await self._hold_until_used(spec, number, scope)
        finally:
            del self._scopes[number]
            self._changed.set()

    async def _hold_until_used(self, spec: EnvSpec, number: int, scope: trio.CancelScope) -> None:
        try:
            await trio.lowlevel.checkpoint()
            slot = await self._start_in_time(spec, number)
        except (Withdrawn, _NotYet, NotWarm, StartError, OSError) as reason:
            if not scope.cancel_called:
                self._not_started(spec, number, reason)
        else:
            if scope.cancel_called:
                await self._discard(slot)
            else:
                self._slots.ready(number, trio.current_time())
                self._waiting[number] = slot
                await self._watch(slot)

    def _not_started(self, spec: EnvSpec, number: int, reason: Exception) -> None:
        match reason:
            case Withdrawn():
                self._slots.withdrawn(number)
            case _NoFork():
                again = trio.current_time() + NOT_YET
                self._slots.postponed(number, max(again, self._zygotes.next_try(spec.name)))
            case _NotYet():
                self._slots.postponed(number, trio.current_time() + NOT_YET)
            case NotWarm():
                self._slots.withdrawn(number)
                if self._slots.want(spec.name, 0) and spec.warm is not None:
                    self._tell(SlotsNotHad(spec.name, spec.warm, str(reason)))
            case _:
                self._died(spec.name, number, str(reason))

    async def _watch(self, slot: _Slot) -> None:
        self._changed.set()
        try:
            await first_of(slot.process.wait, slot.used.wait)
            if not slot.used.is_set():
                self._died(slot.spec.name, slot.number, last_words(slot.process))
        finally:
            del self._waiting[slot.number]
            if not slot.used.is_set():
                await self._discard(slot)

    async def _discard(self, slot: _Slot) -> None:
        await _dispose(slot.started(), slot.end_times())

    async def _start_in_time(self, unprepared: EnvSpec, number: int) -> _Slot:
        spec = await self._packages.ready(unprepared)
        limit = spec.limits.start_timeout
        try:
            with trio.fail_after(limit):
                try:
                    return await self._start(spec, number)
                except _Rehearsed:
                    return await self._start(spec, number, rehearsed=True)
        except trio.TooSlowError:
            raise StartError(f"not ready within {limit:g} s (start_timeout)") from None

    async def _start(self, spec: EnvSpec, number: int, *, rehearsed: bool = False) -> _Slot:
        if not descriptors.has_room():
            raise _NotYet
        folder = self._folders.make(spec.name)
        skip = self._nodes.left_out(spec.name)
        try:
            start = warm_start(spec, workspace=str(folder), environ=self._environ)
            source = "" if has_placeholder(spec.workspace_from) else fixed(spec.workspace_from)
            contents = await self._folders.begin(folder, source, spec)
            # What one session leaves in a cache, the next would run.
            cache = "" if spec.confinement.sandbox == "landlock" else self._compile_cache
            launch = start.command_line(skip=skip, compile_cache=cache)
            making = _Making(self._launcher, self._zygotes, spec, start, rehearsed)
            session = spec.launch(seed=0, session_id="", workspace=str(folder), environ=self._environ)
            process, enclosure = await self._enclosures.start(spec, launch, str(folder), making.spawn, session=session)
        except BaseException as error:
            await remove_trees([folder])
            if isinstance(error, Busy):
                raise _NotYet from error
            raise
        slot = _Slot(number, spec, start.kind, process, enclosure, making.prepared, folder, contents)
        try:
            files = watched_files(launch.argv)
            if start.kind is Kind.NODE:
                files += await self._nodes.loaded(process, making.tag, spec, skip)
            slot.files, slot.stamps = files, fingerprint(files)
            enclosure.waits()
        except BaseException:
            await self._discard(slot)
            raise
        return slot


@dataclass
class _Making:
    """Starts the process of one slot."""

    launcher: Launcher
    zygotes: Zygotes
    spec: EnvSpec
    start: WarmStart
    rehearsed: bool
    prepared: Prepared | None = None
    """What waits for an order."""
    tag: str = field(default_factory=lambda: secrets.token_hex(TAG_BYTES))
    """What a node's report carries."""

    async def spawn(self, command: Command) -> Process:
        session = secrets.token_hex(8)
        match self.start.kind:
            case Kind.WHOLE:
                return await self.launcher.spawn(command, session=session)
            case Kind.NODE:
                process = await self.launcher.spawn(command, session=session)
                self.prepared = Prepared(process)
                with contextlib.suppress(OSError):  # it has ended, which is told of
                    os.write(process.stdin, self.tag.encode())
            case Kind.FORK:
                # Whoever says so has it run before there is a session, where its workspace can be had without one.
                may = self.spec.warm is not None and not has_placeholder(self.spec.workspace_from)
                may = may and not self.rehearsed
                if may and await self.zygotes.rehearse(self.spec, command, session=session):
                    raise _Rehearsed
                self.prepared = await self.zygotes.prepare(self.spec, command, session=session)
                if self.prepared is None:
                    raise _NoFork
        return self.prepared.process


async def _activate(slot: _Slot, launch: Launch) -> None:
    """Let a waiting process become ``launch``; what encloses it does so already. Raises ProcessStartError."""
    if slot.prepared is not None:
        await slot.prepared.activate(Command(launch.argv, launch.env, launch.cwd))


async def _dispose(taken: Started, times: EndTimes) -> None:
    """End a process, and leave nothing of it."""
    with trio.CancelScope(shield=True):
        await taken.process.end(times)
        await taken.enclosure.close()
        await remove_trees([taken.workspace])
