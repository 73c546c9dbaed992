"""Whose turn it is to call a tool. Pure: no I/O, no clock.

What a call has earned is told by what has changed since the one before. So a call that is scored is made alone; others
may run side by side. They come to their turn in the order in which they were asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from typing import Any

from msgspec import Raw

from transports.messages import Message

Key = tuple[Any, Any]
"""An attachment and the id of its request."""


class Phase(Enum):
    """How far a call is."""

    WAITING = "waiting"
    STARTING = "starting"
    SENT = "sent"
    SCORING = "scoring"


class Turn:
    """A call that is made alone if it is ``scored``. ``envelope`` is what a 2026-07-28 request has in `_meta`.

    ``crowded``: another call may be at work beside it all the same, which was given up, or has no turns.
    """

    __slots__ = ("crowded", "envelope", "key", "message", "phase", "scored")

    def __init__(
        self, key: Key, message: Message, envelope: dict[str, Raw], *, scored: bool, crowded: bool = False
    ) -> None:
        self.key = key
        self.message = message
        self.envelope = envelope
        self.scored = scored
        self.crowded = crowded
        self.phase = Phase.WAITING

    @property
    def sent(self) -> bool:
        """Whether the backend has been asked for it."""
        return self.phase is Phase.SENT or self.phase is Phase.SCORING

    def __repr__(self) -> str:
        return f"<Turn {self.key[1]!r} {self.phase.value}{' scored' if self.scored else ''}>"


class Turns:
    """The tool calls of one session, from when they are asked for until they are answered.

    ``start`` is called with each whose turn has come, and that had to wait or is to be alone.
    """

    def __init__(self, start: Callable[[Turn], None]) -> None:
        self._start = start
        self._beside: set[Key] = set()
        self.alone: Turn | None = None
        """The call that is made alone."""
        self._waiting: dict[Key, Turn] = {}
        self._advancing = False

    def __repr__(self) -> str:
        alone = "" if self.alone is None else f", {self.alone!r} alone"
        return f"<Turns {len(self._beside)} beside each other, {len(self._waiting)} waiting{alone}>"

    @property
    def waiting(self) -> int:
        """How many have to wait for others."""
        return len(self._waiting)

    def get(self, key: Key) -> Turn | None:
        """The call with this key, if it waits or is made alone."""
        if self.alone is not None and self.alone.key == key:
            return self.alone
        return self._waiting.get(key)

    def is_made(self, key: Key) -> bool:
        """Whether the backend has been asked for this call."""
        return key in self._beside or (self.alone is not None and self.alone.key == key and self.alone.sent)

    def of(self, attachment: object) -> list[Key]:
        """The calls of one attachment."""
        alone = [] if self.alone is None else [self.alone.key]
        return [key for key in (*alone, *self._beside, *self._waiting) if key[0] is attachment]

    def take_beside(self, key: Key) -> bool:
        """Whether a call that is not scored can be made at once, beside others; then it has its turn."""
        if self.alone is not None or self._waiting:
            return False
        self._beside.add(key)
        return True

    def take(self, turn: Turn) -> None:
        """Start a call when it is its turn, which may be now."""
        self._waiting[turn.key] = turn
        self._advance()

    def score_none(self) -> None:
        """Those that wait need not be made alone after all."""
        for turn in self._waiting.values():
            turn.scored = False

    def leave(self, *keys: Key) -> None:
        """These calls are over, or will not be made: let others go on."""
        for key in keys:
            if self.alone is not None and self.alone.key == key:
                self.alone = None
            self._beside.discard(key)
            self._waiting.pop(key, None)
        if self._waiting:
            self._advance()

    def close(self) -> list[Key]:
        """Start no more calls; returns those that were not made."""
        unmade = list(self._waiting)
        self._waiting.clear()
        if self.alone is not None and self.alone.phase is Phase.STARTING:
            unmade.insert(0, self.alone.key)
            self.alone = None
        return unmade

    @contextmanager
    def halted(self) -> Iterator[None]:
        """Start no call in the block, whatever comes to its end there."""
        self._advancing = True
        try:
            yield
        finally:
            self._advancing = False
        self._advance()

    def _advance(self) -> None:
        if self._advancing:  # a call that was answered at once lets the next one go on, and is not to be its caller
            return
        self._advancing = True
        try:
            while (turn := next(iter(self._waiting.values()), None)) is not None and self._has_room(turn):
                del self._waiting[turn.key]
                turn.phase = Phase.STARTING
                if turn.scored:
                    self.alone = turn
                else:
                    self._beside.add(turn.key)
                self._start(turn)
        finally:
            self._advancing = False

    def _has_room(self, turn: Turn) -> bool:
        return self.alone is None and not (turn.scored and self._beside)
