"""Who may have a backend, who waits, and who is refused. Pure: time comes as an argument, waiting is the pool's."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from enum import Enum


class Answer(Enum):
    """What becomes of a wish for a lease."""

    GRANTED = "granted"
    QUEUED = "queued"
    REFUSED = "refused"


@dataclass(frozen=True)
class LeaseStatistics:
    """``held`` and ``waiting`` are now; ``refused`` counts those who found the queue full or waited in vain."""

    held: int
    waiting: int
    refused: int


@dataclass(slots=True)
class Leases:
    """At most ``limit`` leases at a time and ``max_waiting`` in the queue, first come, first served."""

    limit: int
    max_waiting: int
    _held: set[int] = field(default_factory=set)
    _waiting: OrderedDict[int, None] = field(default_factory=OrderedDict)
    _last: int = 0
    _refused: int = 0

    def statistics(self) -> LeaseStatistics:
        """A snapshot."""
        return LeaseStatistics(len(self._held), len(self._waiting), self._refused)

    def ask(self) -> tuple[int, Answer]:
        """Ask for a lease; the number names it from now on."""
        self._last += 1
        if len(self._held) < self.limit and not self._waiting:
            self._held.add(self._last)
            return self._last, Answer.GRANTED
        if len(self._waiting) < self.max_waiting:
            self._waiting[self._last] = None
            return self._last, Answer.QUEUED
        self._refused += 1
        return self._last, Answer.REFUSED

    def give_up(self, number: int) -> None:
        """Leave the queue: the wait was too long, or whoever waited has gone."""
        if self._waiting.pop(number, number) is None:
            self._refused += 1

    def release(self, number: int) -> int | None:
        """Give a lease back; returns the number that has become the holder of one by that, if any."""
        self._held.discard(number)
        if self._waiting and len(self._held) < self.limit:
            heir, _ = self._waiting.popitem(last=False)
            self._held.add(heir)
            return heir
        return None
