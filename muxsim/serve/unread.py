"""What clients have not read yet of what was written to them, connection by connection."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final, Protocol

from muxsim.clock import STOOD_STILL
from muxsim.limits import Reached

# Seconds between two looks at whether a client has read something.
_TICK: Final = 0.25


class Written(Protocol):
    """A connection that something waits in."""

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop that it runs on."""

    @property
    def transport(self) -> asyncio.Transport:
        """Where it waits."""


@dataclass(slots=True)
class _Waiting:
    """So many bytes, of which nothing has been read since."""

    size: int
    since: float


class Unread:
    """The connections whose client does not keep up; who takes nothing for ``stall`` seconds is cut off."""

    def __init__(self, stall: float, reached: Reached) -> None:
        self._stall = stall
        self._reached = reached
        self._waiting: dict[Written, _Waiting] = {}
        self._ticking = False
        self._due = 0.0

    def __repr__(self) -> str:
        return f"<Unread {self.bytes} bytes in {len(self._waiting)} connections>"

    @property
    def bytes(self) -> int:
        """How many bytes wait, as of the last look."""
        return sum(one.size for one in self._waiting.values())

    def begin(self, connection: Written) -> None:
        """Something waits in a connection's buffer."""
        if connection in self._waiting:
            return
        loop = connection.loop
        self._waiting[connection] = _Waiting(connection.transport.get_write_buffer_size(), loop.time())
        if not self._ticking:
            self._ticking = True
            self._tick_later(loop)

    def end(self, connection: Written) -> None:
        """It has been read, or its connection is no more."""
        self._waiting.pop(connection, None)

    def _tick_later(self, loop: asyncio.AbstractEventLoop) -> None:
        self._due = loop.time() + _TICK
        loop.call_at(self._due, self._tick, loop)

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        stood_still = now - self._due if now - self._due > STOOD_STILL else 0.0
        for connection, waiting in list(self._waiting.items()):
            waiting.since += stood_still
            self._look(connection, waiting, now)
        self._ticking = bool(self._waiting)
        if self._ticking:
            self._tick_later(loop)

    def _look(self, connection: Written, waiting: _Waiting, now: float) -> None:
        size = connection.transport.get_write_buffer_size()
        if size < waiting.size:
            waiting.since = now
        waiting.size = size
        if now - waiting.since >= self._stall:
            self._reached.count("stall_timeout")
            del self._waiting[connection]
            connection.transport.abort()
