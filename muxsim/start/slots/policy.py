"""Which warm slots to fill, use and give up: the decisions, without processes or clock.

A slot is a process that is ready before anybody asks. `Slots` is told what becomes of each and says what to do next;
`muxsim.start.slots.shelf` does it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

STARTS_AT_ONCE: Final = 2
"""Slots of all environments that are filled at the same time: more would take the cores from sessions that play."""

AFTER_AN_OPEN: Final = 0.05
"""Seconds after a session was opened in which no slot is filled: those who wait for an answer go first."""

STARVED: Final = 0.5
"""Seconds that one which is missing waits for sessions that are being opened, however many follow one another."""

MAX_AGE: Final = 900.0
"""Seconds after which a slot is replaced: what it has loaded may know the time, or an address that has changed."""

DEATHS_IN_A_ROW: Final = 3
"""So many deaths before use, with no use in between, are a fault to be told; before that they may be an accident."""

FIRST_PAUSE: Final = 1.0
"""Seconds before an environment's next slot is filled after one has died; doubled with each further one."""

LONGEST_PAUSE: Final = 60.0

NOT_YET: Final = 1.0
"""Seconds before the next try, where something is needed first that others may give back any time."""

UNASKED: Final = 1
"""Slots of an environment that does not say how many it wants, while sessions are opened one at a time."""

MOST_UNASKED: Final = 16
"""So many of them at most, if sessions come faster than slots are filled: one of FrozenLake has 16 MiB of its own."""

CALM: Final = 60.0
"""Seconds in which a slot was not needed at all, after which it is too many."""

SHORTAGE: Final = 30.0
"""Seconds in which nothing is filled after slots were given up because the machine was short of something."""


class State(Enum):
    """Where a slot is; one that is used, dead or given up is forgotten."""

    STARTING = "starting"
    READY = "ready"


@dataclass(frozen=True)
class SlotStatistics:
    """Of one environment, now."""

    wanted: int
    starting: int
    ready: int


@dataclass(frozen=True)
class Step:
    """What to do now: fill one slot for each name, end these slots, and ask again at this time (or when told more).

    ``aged`` has the environment of each that ends for its age.
    """

    fill: tuple[str, ...] = ()
    end: tuple[int, ...] = ()
    aged: tuple[str, ...] = ()
    again: float = math.inf


@dataclass(slots=True)
class _Slot:
    state: State
    since: float


@dataclass(slots=True)
class Demand:
    """How many slots an environment wants: ``least``, and for each session that found none one more, up to ``most``."""

    least: int
    most: int
    more: int = 0
    idle: float = math.inf
    """How many were left over when there were the fewest, since `since`."""
    since: float = -math.inf

    @property
    def wanted(self) -> int:
        return self.least + self.more

    def left(self, ready: int) -> None:
        """A session has taken a slot, or found none, and so many are left."""
        self.idle = min(self.idle, ready)

    def update(self, misses: int, now: float) -> None:
        """So many sessions have found none since the last time, although there could have been one."""
        if misses and self.more < self.most - self.least:
            self.more = min(self.more + misses, self.most - self.least)
            self._look_anew(now)
        elif self.more and now >= self.ends:
            self.more = max(0, self.more - int(min(self.idle, self.more)))
            self._look_anew(now)

    @property
    def ends(self) -> float:
        """When to update it, if nothing happens before."""
        return self.since + CALM if self.more else math.inf

    def forget(self) -> None:
        """Begin with the least again."""
        self.more = 0

    def _look_anew(self, now: float) -> None:
        self.since, self.idle = now, math.inf


@dataclass(slots=True)
class _Shelf:
    """The slots of one environment."""

    demand: Demand
    slots: dict[int, _Slot] = field(default_factory=dict)
    deaths_in_a_row: int = 0
    not_before: float = -math.inf
    has_worked: bool = False
    new_misses: int = 0

    @property
    def wanted(self) -> int:
        return self.demand.wanted

    def update(self, now: float, *, may_fill: bool) -> None:
        """See how many are wanted. Who has no slots for another reason than that they are too few wants no more."""
        misses = self.new_misses if may_fill and self.has_worked and self.not_before <= now else 0
        self.new_misses = 0
        self.demand.update(misses, now)

    def in_state(self, state: State) -> list[int]:
        return [number for number, slot in self.slots.items() if slot.state is state]

    def aged(self, now: float) -> list[int]:
        return [number for number in self.in_state(State.READY) if now - self.slots[number].since >= MAX_AGE]


class Slots:
    """The slots of all environments."""

    def __init__(self) -> None:
        self._shelves: dict[str, _Shelf] = {}
        self._last_number = 0
        self._last_open = -math.inf
        self._held_back = math.inf
        self._short_until = -math.inf

    def __repr__(self) -> str:
        ready = {name: f"{one.ready}/{one.wanted}" for name, one in self.statistics().items()}
        return f"<Slots {ready}>"

    def statistics(self) -> dict[str, SlotStatistics]:
        """By environment; those that want slots, or have wanted them."""
        return {
            name: SlotStatistics(
                shelf.wanted,
                len(shelf.in_state(State.STARTING)),
                len(shelf.in_state(State.READY)),
            )
            for name, shelf in self._shelves.items()
        }

    # ---- what happens

    def want(self, name: str, least: int, most: int | None = None) -> bool:
        """Keep so many slots for an environment from now on, or up to ``most`` if sessions come too fast for them.

        Whether that is another number than before.
        """
        most = least if most is None else most
        if not most and name not in self._shelves:
            return False
        shelf = self._shelves.setdefault(name, _Shelf(Demand(0, 0)))
        if (shelf.demand.least, shelf.demand.most) == (least, most):
            return False
        shelf.demand = Demand(least, most)
        return True

    def begin(self, name: str, now: float) -> int:
        """A slot is being filled; the number names it from now on."""
        self._last_number += 1
        self._held_back = math.inf
        self._shelves[name].slots[self._last_number] = _Slot(State.STARTING, now)
        return self._last_number

    def ready(self, number: int, now: float) -> None:
        """It can be used."""
        shelf = self._shelf_of(number)
        shelf.has_worked = True
        slot = shelf.slots[number]
        slot.state, slot.since = State.READY, now

    def withdrawn(self, number: int) -> None:
        """It ended before it was ready, for a reason that the next one will not meet."""
        del self._shelf_of(number).slots[number]

    def postponed(self, number: int, until: float) -> None:
        """It could not be started yet, through no fault of its own."""
        shelf = self._shelf_of(number)
        del shelf.slots[number]
        shelf.not_before = until

    def resume(self, name: str) -> None:
        """What an environment's slots were postponed for is there."""
        if (shelf := self._shelves.get(name)) is not None and shelf.not_before == math.inf:
            shelf.not_before = -math.inf

    def died(self, number: int, now: float) -> bool:
        """It ended, or could not start, before it was used; True if this is to be told: the first time in a row."""
        shelf = self._shelf_of(number)
        del shelf.slots[number]
        shelf.deaths_in_a_row += 1
        shelf.not_before = now + min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(shelf.deaths_in_a_row - 1, 10))
        return shelf.deaths_in_a_row == DEATHS_IN_A_ROW

    def outdated(self, name: str) -> tuple[int, ...]:
        """The environment has changed: the slots to end. What failed before may work now."""
        shelf = self._shelves.get(name)
        if shelf is None:
            return ()
        ended = tuple(shelf.slots)
        shelf.slots.clear()
        shelf.deaths_in_a_row, shelf.not_before, shelf.has_worked = 0, -math.inf, False
        return ended

    def opened(self, now: float) -> None:
        """A session was opened, with or without a slot."""
        self._last_open = now

    def oldest(self, name: str) -> int | None:
        """The slot to use: the one that waits longest. None is a miss, where slots are wanted."""
        number = self.waiting(name)
        if number is None and self.wants(name):
            shelf = self._shelves[name]
            shelf.new_misses += 1
            shelf.demand.left(0)
        return number

    def wants(self, name: str) -> bool:
        """Whether any are wanted for an environment."""
        return name in self._shelves and self._shelves[name].wanted > 0

    def waiting(self, name: str) -> int | None:
        """As `oldest`, but only to look."""
        shelf = self._shelves.get(name)
        if shelf is None or not shelf.wanted:
            return None
        return next((number for number, slot in shelf.slots.items() if slot.state is State.READY), None)

    def used(self, number: int) -> None:
        """It has become a session's."""
        shelf = self._shelf_of(number)
        del shelf.slots[number]
        shelf.deaths_in_a_row = 0
        shelf.demand.left(len(shelf.in_state(State.READY)))

    def give_up(self, now: float) -> tuple[int, ...]:
        """The machine is short of something that slots hold: the ready ones, to be ended, and none for a while."""
        self._short_until = now + SHORTAGE
        ended = []
        for shelf in self._shelves.values():
            shelf.demand.forget()
            for number in shelf.in_state(State.READY):
                del shelf.slots[number]
                ended.append(number)
        return tuple(ended)

    # ---- what to do

    def next(self, now: float, *, opening: bool) -> Step:
        """What to do at this time, while sessions are ``opening`` or not. Ended slots are forgotten here."""
        for shelf in self._shelves.values():
            shelf.update(now, may_fill=now >= self._short_until)
        end, aged = self._end_spare(now)
        times = [birthday for shelf in self._shelves.values() if (birthday := self._birthday(shelf)) > now]
        times += [shelf.demand.ends for shelf in self._shelves.values()]
        lacking = []
        for name, shelf in self._shelves.items():
            if (missing := self._missing(shelf, now)) and shelf.not_before <= now:
                lacking.append((len(shelf.slots), name, missing))
            elif missing:
                times.append(shelf.not_before)
        room, more_room = self._room(now, opening=opening) if lacking else self._all_the_room()
        fill: list[str] = []
        # The emptiest first, so that no environment waits for another's many.
        for _, name, missing in sorted(lacking):
            given = min(missing, max(room, 0))
            fill += [name] * given
            room -= given
            times += [more_room] if given < missing else []
        return Step(tuple(fill), end, aged, min(times, default=math.inf))

    def _room(self, now: float, *, opening: bool) -> tuple[int, float]:
        """How many may be filled now, and when it may be more without anything else happening."""
        if now < self._short_until:
            return 0, self._short_until
        if not opening and now >= self._last_open + AFTER_AN_OPEN:
            return self._all_the_room()
        self._held_back = min(self._held_back, now)
        starved = self._held_back + STARVED
        if now >= starved or any(shelf.demand.more for shelf in self._shelves.values()):
            return 1 - self._starting(), math.inf
        return 0, starved if opening else min(starved, self._last_open + AFTER_AN_OPEN)

    def _all_the_room(self) -> tuple[int, float]:
        self._held_back = math.inf
        return STARTS_AT_ONCE - self._starting(), math.inf

    def _starting(self) -> int:
        return sum(len(shelf.in_state(State.STARTING)) for shelf in self._shelves.values())

    def _missing(self, shelf: _Shelf, now: float) -> int:
        """How many slots there are too few; an aged one is replaced by one that is filled first."""
        short = shelf.wanted - len(shelf.slots)
        if short == 0 and shelf.wanted and shelf.aged(now):
            return 1
        return max(short, 0)

    def _end_spare(self, now: float) -> tuple[tuple[int, ...], tuple[str, ...]]:
        """The slots that are too many, the oldest first, which are forgotten; and whose are aged."""
        end: list[int] = []
        aged: list[str] = []
        for name, shelf in self._shelves.items():
            ready, old = shelf.in_state(State.READY), shelf.aged(now)
            spare = ready[: max(0, len(ready) - shelf.wanted)]
            aged += [name for number in spare if number in old]
            end += spare
            for number in spare:
                del shelf.slots[number]
        return tuple(end), tuple(aged)

    def _birthday(self, shelf: _Shelf) -> float:
        ready = shelf.in_state(State.READY)
        return min((shelf.slots[number].since + MAX_AGE for number in ready), default=math.inf)

    def _shelf_of(self, number: int) -> _Shelf:
        return next(shelf for shelf in self._shelves.values() if number in shelf.slots)
