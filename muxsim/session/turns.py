"""Whose turn it is to call a tool. Pure: no I/O, no clock.

What a call has earned is told by what has changed since the one before. So a call that is scored is made alone; others
may run side by side. They come to their turn in the order in which they were asked for.
"""

from __future__ import annotations

from collections.abc import Callable
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
    """A tool call. ``envelope`` is what a 2026-07-28 request has in `_meta`.

    ``alone``: no other may run beside it. ``crowded``: the backend may be at work on one that was given up before.
    """

    __slots__ = ("alone", "crowded", "envelope", "key", "message", "phase", "scored")

    def __init__(self, key: Key, message: Message, envelope: dict[str, Raw], *, scored: bool, alone: bool) -> None:
        self.key = key
        self.message = message
        self.envelope = envelope
        self.scored = scored
        self.alone = alone
        self.crowded = False
        self.phase = Phase.WAITING

    def __repr__(self) -> str:
        return f"<Turn {self.key[1]!r} {self.phase.value}{' alone' if self.alone else ''}>"


class Turns:
    """The tool calls of one session, from when they are asked for until they are answered.

    ``start`` is called with each whose turn has come.
    """

    def __init__(self, start: Callable[[Turn], None]) -> None:
        self._start = start
        self._waiting: dict[Key, Turn] = {}
        self._running: dict[Key, Turn] = {}
        self._advancing = False

    def __repr__(self) -> str:
        return f"<Turns {len(self._running)} running, {len(self._waiting)} waiting>"

    @property
    def waiting(self) -> int:
        """How many have to wait for others."""
        return len(self._waiting)

    def get(self, key: Key) -> Turn | None:
        """The call with this key, if it has a turn or waits for one."""
        return self._running.get(key) or self._waiting.get(key)

    def of(self, attachment: object) -> list[Turn]:
        """The calls of one attachment."""
        return [
            turn for turns in (self._running, self._waiting) for turn in turns.values() if turn.key[0] is attachment
        ]

    def take(self, turn: Turn) -> None:
        """Start a call when it is its turn, which may be now."""
        self._waiting[turn.key] = turn
        self._advance()

    def leave(self, key: Key) -> None:
        """The call is over, or will not be made: let others go on."""
        if self._waiting.pop(key, None) or self._running.pop(key, None):
            self._advance()

    def close(self) -> list[Turn]:
        """Start no more calls; returns those that were not made."""
        unmade = [turn for turn in self._running.values() if turn.phase is Phase.STARTING] + list(
            self._waiting.values()
        )
        self._waiting.clear()
        for turn in unmade:
            self._running.pop(turn.key, None)
        return unmade

    def _advance(self) -> None:
        if self._advancing:  # a call that was answered at once lets the next one go on, and is not to be its caller
            return
        self._advancing = True
        try:
            while (turn := next(iter(self._waiting.values()), None)) is not None and self._has_room(turn):
                del self._waiting[turn.key]
                self._running[turn.key] = turn
                turn.phase = Phase.STARTING
                self._start(turn)
        finally:
            self._advancing = False

    def _has_room(self, turn: Turn) -> bool:
        # One that is alone has no others beside it, so the first says it of all.
        first = next(iter(self._running.values()), None)
        return first is None or not (turn.alone or first.alone)
