"""Who may start what, and when: who gets a lease, who waits for one, and who is refused.

Pure: times, and what was measured, come as arguments; waiting is the pool's.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, NamedTuple

from muxsim.admission.breaker import Breaker
from muxsim.admission.rates import TokenBuckets
from muxsim.admission.wishes import Queue, Starts, Wish
from muxsim.observe.events import FIRST_START, BreakerOpened, Events, OpenQueued, OpenRefused

UNASKED: Final = 1.0
"""Seconds for which a start counts while no client asks the backend anything; then it idles, as far as one can tell."""

SLOW: Final = 10.0
"""Seconds for which one counts that was asked and does not answer: it hangs, and others need not wait for it."""

# Seconds to come back after, where nobody knows when there will be room.
_SOON: Final = 1.0
_LATER: Final = 5.0


_FULL: Final = "all sessions are taken and the queue is full (server.max_sessions, server.max_pending)"


class Answer(Enum):
    """What becomes of a wish for a lease."""

    GRANTED = "granted"
    QUEUED = "queued"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """What bounds a pool; the names are those of `muxsim.config.ServerSettings`, and 0 sets no bound on clients."""

    max_sessions: int
    max_pending: int
    queue_timeout: float
    max_starting: int
    max_sessions_per_client: int = 0
    opens_per_second: float = 0.0
    opens_burst: int = 1
    clients: Mapping[str, Capacity] = field(default_factory=dict)
    """For whom the last three are others."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why there is no lease: the setting that counts it, a sentence, and when to come back (seconds).

    ``excessive`` is a refusal to a client of whom there is too much already; the others are the machine's fault.
    """

    setting: str
    text: str
    retry_after: float
    excessive: bool = False


_TOO_LONG: Final = Refusal("max_pending", _FULL, _SOON)


class Verdict(NamedTuple):
    """What has become of the wish of that number."""

    number: int
    answer: Answer
    refusal: Refusal | None = None


@dataclass(frozen=True, slots=True)
class MemoryReading:
    """Bytes in use, and how many may be; ``what`` says of what."""

    used: int
    limit: int
    what: str

    @property
    def over(self) -> bool:
        """Whether no more may start."""
        return self.used >= self.limit

    def __str__(self) -> str:
        return f"{self.used / 2**20:,.0f} MiB are in use {self.what}, of {self.limit / 2**20:,.0f} MiB that may be"


@dataclass(frozen=True)
class LeaseStatistics:
    """What is now: leases held of the most there may be, those starting, who waits, and environments left alone."""

    held: int
    starting: int
    waiting: int
    breakers_open: tuple[str, ...]
    most: int = 0


@dataclass(slots=True)
class Admission:
    """The leases of one pool.

    A lease counts as starting until its backend's first answer: for others only once somebody has asked for that, and
    that of a fork for its own client as well. Whoever has to wait does so in a line of their own environment and
    client; these take turns, and when the queue is too long the longest line loses its last.
    """

    capacity: Capacity
    events: Events = field(default_factory=Events)
    _wishes: dict[int, Wish] = field(default_factory=dict)
    _queue: Queue = field(default_factory=Queue)
    _breakers: dict[str, Breaker] = field(default_factory=dict)
    _opens: TokenBuckets = field(init=False)
    _held: int = 0
    _starting: Starts = field(default_factory=Starts)
    _idle: set[Wish] = field(default_factory=set)
    # By environment, those whose start may yet fail: they count for its breaker.
    _unproven: defaultdict[str, Starts] = field(default_factory=lambda: defaultdict(Starts))
    _of_client: Counter[str] = field(default_factory=Counter)
    _memory: MemoryReading | None = None
    _closed: Refusal | None = None
    _last: int = 0

    def __post_init__(self) -> None:
        self._opens = _buckets(self.capacity)

    def statistics(self, now: float) -> LeaseStatistics:
        """A snapshot."""
        return LeaseStatistics(
            self._held,
            len(self._starting),
            len(self._queue),
            tuple(env for env, breaker in self._breakers.items() if breaker.closed_in(now)),
            self.capacity.max_sessions,
        )

    def under_way(self) -> tuple[Counter[str], Counter[str]]:
        """Of each environment: how many wait, and how many are starting."""
        waiting = Counter({env: len(self._queue.all_of(env)) for env in self._queue.environments()})
        return waiting, Counter(wish.env for wish in self._starting)

    # ---- wishes

    def ask(
        self,
        env: str,
        client: str | None,
        now: float,
        *,
        failures: int = 0,
        window: float = 0.0,
        session: str | None = None,
    ) -> list[Verdict]:
        """Ask for a lease; the first verdict is the asker's, with the number that names it from now on.

        ``failures`` and ``window`` are the environment's max_failed_starts and failed_start_window. A ``client`` of
        None is this program itself, on which there is no bound of its own. ``session`` is told of if it has to wait.
        """
        self._last += 1
        if self._closed is not None:
            return [Verdict(self._last, Answer.REFUSED, self._closed)]
        breaker = self._breaker(env, failures, window)
        if refusal := self._refusal(env, client, breaker, now):
            return [self._refuse(self._last, env, client, refusal)]
        wish = self._new_wish(env, client)
        self._queue.add(wish)
        verdicts = {verdict.number: verdict for verdict in self.advance(now)}
        if self._is_too_long(self._held):
            last = self._queue.last_of_longest()
            verdicts[last.number] = self._refuse(last.number, last.env, last.client, _TOO_LONG)
            self._forget(last)
        mine = verdicts.pop(wish.number, None) or Verdict(wish.number, Answer.QUEUED)
        if mine.answer is Answer.QUEUED:
            self.events.emit(OpenQueued(env, self._bottleneck(env, client), session))
        return [mine, *verdicts.values()]

    def _is_too_long(self, held: int) -> bool:
        """Whether too many wait where so many leases are held: a free place is for one who waits for others' starts."""
        return len(self._queue) > self.capacity.max_pending + max(0, self.capacity.max_sessions - held)

    def refusing(self, env: str | None, now: float) -> Refusal | None:
        """Why whoever asked now would be refused at once, whoever that is; None if one would start, or may wait.

        ``env`` is the environment that is asked for, where that is known.
        """
        if self._closed is not None:
            return self._closed
        breaker = None if env is None else self._breakers.get(env)
        if env is not None and breaker is not None and (refusal := self._breakers_refusal(env, None, breaker, now)):
            return refusal
        if self.short_of_memory:
            return self._out_of_memory()
        bounds = self.capacity
        full = len(self._queue) >= bounds.max_pending + max(0, bounds.max_sessions - self._held)
        return _TOO_LONG if full else None

    def _out_of_memory(self) -> Refusal:
        return Refusal("memory_limit", f"memory is short: {self._memory} (server.memory_limit)", _LATER)

    def give_up(self, number: int) -> None:
        """Leave the queue: whoever waited has gone."""
        wish = self._wishes.get(number)
        if wish is not None and not wish.held:
            self._forget(wish)

    def turn_away(self, text: str) -> list[Verdict]:
        """Refuse everybody from now on, first those who wait."""
        self._closed = Refusal("", text, _LATER)
        waiting = [wish for env in self._queue.environments() for wish in self._queue.all_of(env)]
        for wish in waiting:
            self._forget(wish)
        return [Verdict(wish.number, Answer.REFUSED, self._closed) for wish in waiting]

    def time_out(self, number: int) -> Refusal:
        """Leave the queue after too long a wait; returns what to say."""
        wish = self._wishes[number]
        self.give_up(number)
        why = self._why(wish.env, wish.client)
        text = f"no session could start within {self.capacity.queue_timeout:g} s (server.queue_timeout): {why}"
        refusal = Refusal("queue_timeout", text, _SOON)
        self._refuse(number, wish.env, wish.client, refusal)
        return refusal

    def advance(self, now: float) -> list[Verdict]:
        """Grant and refuse what can be by now; returns what has become of those who waited."""
        for wish in [wish for wish in (*self._starting, *self._idle) if wish.starting_until <= now]:
            self._starting.discard(wish)
            self._idle.discard(wish)
            if not wish.asked:
                # What was asked and does not answer may still fail. This one waits to be asked.
                self._unproven[wish.env].discard(wish)
                self._breakers[wish.env].survived()
        verdicts = self._refuse_by_breakers(now)
        while (next_one := self._next_one(now)) is not None:
            self._queue.take(next_one)
            self._grant(next_one, now)
            verdicts.append(Verdict(next_one.number, Answer.GRANTED))
        return verdicts

    def next_change(self) -> float:
        """When `advance` may find something by the passing of time alone."""
        return min((wish.starting_until for wish in (*self._starting, *self._idle)), default=math.inf)

    # ---- leases

    def forked(self, number: int, now: float) -> list[Verdict]:
        """The backend on this lease has its imports behind it: it idles until it is asked, and keeps nobody waiting."""
        wish = self._wishes[number]
        if wish in self._starting and not wish.asked:
            self._starting.discard(wish)
            self._idle.add(wish)
        return self.advance(now)

    def asked(self, number: int, now: float) -> None:
        """The backend on this lease has been asked for its first answer."""
        wish = self._wishes[number]
        was_starting = wish in self._starting or wish in self._idle
        self._idle.discard(wish)
        wish.asked = True
        wish.starting_until = now + SLOW
        if was_starting:
            self._starting.add(wish)
        self._unproven[wish.env].add(wish)

    def answered(self, number: int, now: float) -> list[Verdict]:
        """The backend on this lease works."""
        wish = self._wishes[number]
        self._settle(wish)
        self._breakers[wish.env].succeeded()
        return self.advance(now)

    def failed(self, number: int, now: float) -> list[Verdict]:
        """The backend on this lease did not come up, by its own fault."""
        wish = self._wishes[number]
        self._settle(wish)
        breaker = self._breakers[wish.env]
        if breaker.failed(now):
            self.events.emit(BreakerOpened(wish.env, breaker.window))
        return self.advance(now)

    def release(self, number: int, now: float) -> list[Verdict]:
        """Give a lease back."""
        wish = self._wishes.get(number)
        if wish is not None and wish.held:
            self._settle(wish)
            self._forget(wish)
        return self.advance(now)

    def use(self, capacity: Capacity, now: float) -> list[Verdict]:
        """Have these bounds from now on. Leases that are held already are kept, also those that are too many."""
        before, self.capacity = self.capacity, capacity
        if _rates(before) != _rates(capacity):
            self._opens = _buckets(capacity)
        return self.advance(now)

    def measured(self, memory: MemoryReading | None) -> None:
        """The latest measurement, None if there is none to be had."""
        self._memory = memory

    @property
    def short_of_memory(self) -> bool:
        """Whether the latest measurement keeps everybody waiting."""
        return self._memory is not None and self._memory.over

    @property
    def has_spare_start(self) -> bool:
        """Whether something could start that nobody waits for who has a turn."""
        if self.short_of_memory or self._starting.of_all() >= self.capacity.max_starting:
            return False
        return self._queue.next(lambda wish: self._has_turn(wish.client)) is None

    # ---- deciding

    def _refusal(self, env: str, client: str | None, breaker: Breaker, now: float) -> Refusal | None:
        """Why this one is refused at once. The cheapest question is first, so that a flood of opens costs little."""
        if client is not None:
            bounds = self.capacity.clients.get(client, self.capacity)
            if wait := self._opens.take(client, now):
                text = f"this client opens more than {bounds.opens_per_second:g} sessions per second"
                table = self._table_of(client)
                settings = f"{table}.opens_per_second, {table}.opens_burst"
                return Refusal("opens_per_second", f"{text} ({settings})", wait, excessive=True)
            if 0 < bounds.max_sessions_per_client <= self._of_client[client]:
                text = f"this client has {self._of_client[client]} sessions open or asked for, as many as it may"
                text += f" ({self._table_of(client)}.max_sessions_per_client): end one first"
                return Refusal("max_sessions_per_client", text, _LATER, excessive=True)
        if refusal := self._breakers_refusal(env, client, breaker, now):
            return refusal
        if self.short_of_memory:
            return self._out_of_memory()
        return None

    def _table_of(self, client: str) -> str:
        return f"server.clients.{client}" if client in self.capacity.clients else "server"

    def _breakers_refusal(self, env: str, client: str | None, breaker: Breaker, now: float) -> Refusal | None:
        failing = f"environment {env!r} fails to start"
        settings = "max_failed_starts, failed_start_window"
        if wait := breaker.closed_in(now):
            text = f"{failing}: it is tried again in {math.ceil(wait)} s ({settings}); the log has its errors"
            return Refusal("max_failed_starts", text, wait)
        if breaker.probing and (self._unproven[env].for_client(client) or self._queue.has(env)):
            return Refusal("max_failed_starts", f"{failing}, and is just being tried again ({settings})", _SOON)
        return None

    def _breaker(self, env: str, failures: int, window: float) -> Breaker:
        breaker = self._breakers.get(env)
        if breaker is None or (breaker.limit, breaker.window) != (failures, window):
            breaker = self._breakers[env] = Breaker(failures, window)
        return breaker

    def _next_one(self, now: float) -> Wish | None:
        """Whose turn it is among those who wait, if there is one for whom there is room."""
        return self._queue.next(lambda wish: self._may_start(wish, now))

    def _may_start(self, wish: Wish, now: float) -> bool:
        unproven = self._unproven[wish.env].for_client(wish.client)
        return self._has_room(wish.client) and unproven < self._breakers[wish.env].room(now)

    def _has_room(self, client: str | None) -> bool:
        return self._held < self.capacity.max_sessions and self._has_turn(client) and not self.short_of_memory

    def _has_turn(self, client: str | None) -> bool:
        return self._starting.for_client(client) < self.capacity.max_starting

    def _bottleneck(self, env: str, client: str | None) -> str:
        """The setting that keeps those waiting who wait, or `FIRST_START`."""
        if self.short_of_memory:
            return "memory_limit"
        if self._held >= self.capacity.max_sessions:
            return "max_sessions"
        if not self._has_turn(client):
            return "max_starting"
        return "max_failed_starts" if self._breakers[env].failing else FIRST_START

    def _why(self, env: str, client: str | None) -> str:
        return {
            "memory_limit": f"memory is short: {self._memory} (server.memory_limit)",
            "max_sessions": "all sessions are taken (server.max_sessions)",
            "max_starting": "as many are starting as may at once (server.max_starting)",
            "max_failed_starts": "starts of this environment have failed (max_failed_starts)",
            FIRST_START: "none of its starts has succeeded yet, and no more begin at once than max_failed_starts",
        }[self._bottleneck(env, client)]

    def _refuse_by_breakers(self, now: float) -> list[Verdict]:
        verdicts = []
        for env in self._queue.environments():
            if self._breakers[env].closed_in(now):
                for wish in self._queue.all_of(env):
                    refusal = self._breakers_refusal(env, wish.client, self._breakers[env], now)
                    assert refusal is not None
                    verdicts.append(self._refuse(wish.number, env, wish.client, refusal))
                    self._forget(wish)
        return verdicts

    # ---- bookkeeping

    def _refuse(self, number: int, env: str, client: str | None, refusal: Refusal) -> Verdict:
        self.events.emit(OpenRefused(env, refusal.setting, client))
        return Verdict(number, Answer.REFUSED, refusal)

    def _new_wish(self, env: str, client: str | None) -> Wish:
        wish = self._wishes[self._last] = Wish(self._last, env, client)
        if client is not None:
            self._of_client[client] += 1
        return wish

    def _grant(self, wish: Wish, now: float) -> None:
        wish.held = True
        wish.starting_until = now + UNASKED
        self._held += 1
        self._starting.add(wish)
        self._unproven[wish.env].add(wish)

    def _settle(self, wish: Wish) -> None:
        """Its start is over."""
        self._starting.discard(wish)
        self._idle.discard(wish)
        self._unproven[wish.env].discard(wish)

    def _forget(self, wish: Wish) -> None:
        del self._wishes[wish.number]
        if wish.held:
            self._held -= 1
        else:
            self._queue.remove(wish)
        if wish.client is not None:
            self._of_client[wish.client] -= 1
            if not self._of_client[wish.client]:
                del self._of_client[wish.client]


def _rates(capacity: Capacity) -> dict[str, tuple[float, int]]:
    """How often clients may open, by their names; "" for all who are not named."""
    return {name: (one.opens_per_second, one.opens_burst) for name, one in {**capacity.clients, "": capacity}.items()}


def _buckets(capacity: Capacity) -> TokenBuckets:
    return TokenBuckets(capacity.opens_per_second, capacity.opens_burst, _rates(capacity))
