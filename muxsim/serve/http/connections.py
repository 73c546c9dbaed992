"""What bounds a connection before a request is complete: how many, how long, how large.

A handful of clients that never finish a request must not stop a server. A call on a connection that behaves costs no
timer and no task.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass
from typing import Final, Protocol

from muxsim.observe.events import DescriptorsShort, Events, HTTPLimit
from muxsim.runtime import descriptors
from muxsim.runtime.clock import STOOD_STILL
from muxsim.serve.auth.proxies import TrustedProxies
from muxsim.serve.http.unread import Unread, Written

# How often connections are looked at that have not finished a request; that much later than it says is a deadline met.
_TICK: Final = 0.25
# Seconds for which more is read, and dropped, of a request that has its answer.
_LINGER: Final = 5.0


@dataclass(frozen=True)
class Bounds:
    """Times in seconds, sizes in bytes; the names are those of `muxsim.config.ServerSettings`."""

    max_connections: int
    max_connections_per_peer: int
    header_timeout: float
    body_timeout: float
    max_url: int
    max_headers: int
    max_header_bytes: int


class Watched(Written, Protocol):
    """A connection that has deadlines."""

    @property
    def request(self) -> object:
        """What it reads, or has read last; None before the first."""

    def head_is_late(self, request: object) -> None:
        """The time for a head is over; nothing is wrong if ``request`` has its head by now."""

    def rest_is_late(self) -> None:
        """The time for the rest of a request that has its answer is over."""


class Connections:
    """All connections of one server: how many there are, and which keep it waiting."""

    def __init__(self, bounds: Bounds, events: Events, unread: Unread, proxies: TrustedProxies) -> None:
        self.bounds = bounds
        self.proxies = proxies or None
        """Who is believed to call for others; None for nobody."""
        self.events = events
        self.unread = unread
        self.open = 0
        self._by_peer: Counter[str] = Counter()
        self._heads = _Waiting(bounds.header_timeout)
        self._rests = _Waiting(min(_LINGER, bounds.body_timeout))
        self._ticking = False
        self._due = 0.0
        self._short = False

    def __repr__(self) -> str:
        return f"<Connections {self.open} open, {len(self._heads) + len(self._rests)} awaited>"

    def use(self, bounds: Bounds) -> None:
        """Hold to these bounds what comes from now on, and what is waited for."""
        self.bounds = bounds
        self._heads.allow(bounds.header_timeout)
        self._rests.allow(min(_LINGER, bounds.body_timeout))

    def met(self, setting: str) -> None:
        """Tell that a connection has met a bound."""
        self.events.emit(HTTPLimit(setting))

    def enter(self, peer: str) -> str:
        """Count a new connection; returns the setting that leaves no place for it, or ``""``."""
        self.open += 1
        self._by_peer[peer] += 1
        if self.open > self.bounds.max_connections:
            return "max_connections"
        if self._by_peer[peer] > self.bounds.max_connections_per_peer and not (self.proxies and peer in self.proxies):
            return "max_connections_per_peer"
        return ""

    def leave(self, connection: Watched, peer: str) -> None:
        """Forget a connection."""
        self.open -= 1
        self._by_peer[peer] -= 1
        if not self._by_peer[peer]:
            del self._by_peer[peer]
        self._heads.forget(connection)
        self._rests.forget(connection)
        self.unread.end(connection)

    def await_head(self, connection: Watched) -> None:
        """Give the head of a connection's request its time."""
        self._heads.begin(connection, connection.loop.time())
        self._tick_soon(connection.loop)

    def await_rest(self, connection: Watched) -> None:
        """Give the rest of a request that has had its answer its time."""
        self._rests.begin(connection, connection.loop.time())
        self._tick_soon(connection.loop)

    def _look_at_descriptors(self) -> None:
        """Tell when they run out. For what there are none, the loop closes at once, and nobody hears of it."""
        short, self._short = self._short, not descriptors.has_room()
        if self._short and not short:
            self.events.emit(DescriptorsShort(self.open))

    def _tick_soon(self, loop: asyncio.AbstractEventLoop) -> None:
        if not self._ticking:
            self._ticking = True
            self._tick_later(loop)

    def _tick_later(self, loop: asyncio.AbstractEventLoop) -> None:
        self._due = loop.time() + _TICK
        loop.call_at(self._due, self._tick, loop)

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        if now - self._due > STOOD_STILL:
            # What has come meanwhile has not been read yet.
            for waiting in (self._heads, self._rests):
                waiting.extend(now - self._due)
        for connection, request in self._heads.late(now):
            connection.head_is_late(request)
        for connection, _ in self._rests.late(now):
            connection.rest_is_late()
        self._look_at_descriptors()
        self._ticking = bool(self._heads or self._rests)
        if self._ticking:
            self._tick_later(loop)


class _Waiting:
    """Connections in the order of their deadlines, each with the request that it has not finished.

    One that finishes stays until its deadline, where it is let go: that is cheaper than taking it out.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._deadlines: dict[Watched, tuple[object, float]] = {}

    def __len__(self) -> int:
        return len(self._deadlines)

    def begin(self, connection: Watched, now: float) -> None:
        self._deadlines.pop(connection, None)
        self._deadlines[connection] = connection.request, now + self._seconds

    def allow(self, seconds: float) -> None:
        """Let nobody take longer than that from now on; those who wait keep an earlier deadline, and so their order."""
        self._seconds = seconds
        for connection, (request, deadline) in self._deadlines.items():
            self._deadlines[connection] = request, min(deadline, connection.loop.time() + seconds)

    def extend(self, seconds: float) -> None:
        """Give everyone so much more."""
        for connection, (request, deadline) in self._deadlines.items():
            self._deadlines[connection] = request, deadline + seconds

    def forget(self, connection: Watched) -> None:
        self._deadlines.pop(connection, None)

    def late(self, now: float) -> list[tuple[Watched, object]]:
        """Those whose time is over, taken out."""
        found = []
        for connection, (request, deadline) in self._deadlines.items():
            if deadline > now:
                break
            found.append((connection, request))
        for connection, _ in found:
            del self._deadlines[connection]
        return found
