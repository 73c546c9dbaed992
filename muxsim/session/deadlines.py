"""The times of a session: from when each counts and what happens past it. Pure: it is told what time it is.

`DEADLINES` is the table that `Life` goes by and the docs show; those of single calls are looked at beside it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from muxsim.session.control.turns import Key
from muxsim.spec import Limits


class Deadlines:
    """When the times of one session run out, by its clock; ``inf`` for one that does not run."""

    def __init__(
        self, limits: Limits, now: float, ttl: float | None, *, lasting: bool, lease: float | None = None
    ) -> None:
        self.limits = limits
        self.ttl = limits.ttl if ttl is None else ttl
        self.lasting = lasting
        """Whether it goes on although nothing happens."""
        self.last_activity = now
        self.last_listened = now
        """When a client was last found to be there although it said nothing."""
        self.calls: dict[Key, float] = {}
        """When each call has to be answered."""
        patience = None if lasting else limits.handshake_timeout
        self.greeting = math.inf if patience is None else now + patience
        self.first_answer = math.inf
        self.restored = math.inf
        self.end_of_life = math.inf if self.ttl is None else now + self.ttl
        self.lease = None if lasting else lease
        self.renewed = now
        """When its lease was renewed last, or a client said something."""

    def idle(self) -> float:
        """When it has been idle for too long, if nothing happens until then."""
        idle = self.limits.idle_timeout
        return math.inf if idle is None or self.lasting else max(self.last_activity, self.last_listened) + idle

    def quiet(self) -> float:
        """When it has been without a message for too long, whoever listens."""
        quiet = self.limits.quiet_timeout
        return math.inf if quiet is None or self.lasting else self.last_activity + quiet

    def leased(self) -> float:
        """When its lease is over, if nobody renews it until then."""
        return math.inf if self.lease is None else self.renewed + self.lease

    def next(self) -> float:
        """When the next of them runs out."""
        calls = min(self.calls.values(), default=math.inf)
        return min(calls, *(deadline.at(self) for deadline in DEADLINES))

    def passed(self, now: float) -> Deadline | None:
        """The first of the table that has run out."""
        return next((deadline for deadline in DEADLINES if now >= deadline.at(self)), None)

    def take_late(self, now: float) -> list[Key]:
        """The calls whose time has run out, which have none any more."""
        late = [key for key, deadline in self.calls.items() if deadline <= now]
        for key in late:
            del self.calls[key]
        return late

    def forget_calls_of(self, attachment: object) -> None:
        """Calls of a client that has gone have no time."""
        for key in [key for key in self.calls if key[0] is attachment]:
            del self.calls[key]


@dataclass(frozen=True)
class Deadline:
    """One of the times that end a session: named by its setting, which is also the cause of the end."""

    setting: str
    counts: str
    past_it: str
    at: Callable[[Deadlines], float]
    seconds: Callable[[Deadlines], float | None]
    text: str

    def says(self, times: Deadlines) -> str:
        """Why the session ends."""
        return f"{self.text.format(seconds=self.seconds(times))} ({self.setting})"


IDLE: Final = Deadline(
    "idle_timeout",
    "from the last message in either direction; a request in flight is activity, and so is a client that listens:"
    " one that holds a stream open, over streamable HTTP or SSE; not on a shared session",
    "the session ends, unless a client listened at this look or the last",
    lambda times: times.idle(),
    lambda times: times.limits.idle_timeout,
    "nothing happened for {seconds:g} s",
)
DEADLINES: Final = (
    Deadline(
        "start_timeout",
        "from the start of the process; it stops until the backend is asked its first request, and with its answer",
        "the session ends, and the start counts as failed",
        lambda times: times.first_answer,
        lambda times: times.limits.start_timeout,
        "no answer to initialize within {seconds:g} s",
    ),
    Deadline(
        "start_timeout",
        "while one backend takes another's place, from when that begins",
        "the session ends",
        lambda times: times.restored,
        lambda times: times.limits.start_timeout,
        "no backend was ready to take the last one's place within {seconds:g} s",
    ),
    Deadline(
        "handshake_timeout",
        "from when its process is there until a client's first request; not on a shared session",
        "the session ends",
        lambda times: times.greeting,
        lambda times: times.limits.handshake_timeout,
        "no client shook hands within {seconds:g} s",
    ),
    Deadline(
        "ttl",
        "from the opening, however busy it is; who opens a session may ask for less",
        "the session ends",
        lambda times: times.end_of_life,
        lambda times: times.ttl,
        "the session has lived its {seconds:g} s",
    ),
    Deadline(
        "lease",
        "from the last renewal (`POST /leases`), or message of a client, whatever is in flight; only where who opens a"
        " session asks for it, as `muxsim.connect` does",
        "the session ends",
        lambda times: times.leased(),
        lambda times: times.lease,
        "nobody renewed its lease for {seconds:g} s",
    ),
    Deadline(
        "quiet_timeout",
        "from the last message in either direction, even while a client listens; a call in flight is activity; not on a"
        " shared session",
        "the session ends, and its clients' streams",
        lambda times: times.quiet(),
        lambda times: times.limits.quiet_timeout,
        "no message came or went for {seconds:g} s",
    ),
    IDLE,
)
