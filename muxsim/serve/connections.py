"""What bounds a connection before a request is complete: how many, how long, how large.

uvicorn has no deadline for headers, no end to their size and no cap on connections, so a handful of clients that never
finish a request could stop it. This layer stands in front of the protocol class that serves requests and sees each of
httptools' callbacks first. A call on a connection that behaves costs it no timer and no task.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from muxsim.clock import STOOD_STILL
from muxsim.limits import Reached
from transports.http_rules import HTTPRefusal

# How often connections are looked at that have not finished a request; that much later than it says is a deadline met.
_TICK: Final = 0.25
_CLOSE: Final = (b"connection", b"close")


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


class Connections:
    """All connections of one server: how many there are, and which keep it waiting."""

    def __init__(self, bounds: Bounds, reached: Reached) -> None:
        self.bounds = bounds
        self.reached = reached
        self.open = 0
        self._by_peer: Counter[str] = Counter()
        self._heads = _Waiting(bounds.header_timeout)
        self._bodies = _Waiting(bounds.body_timeout)
        self._ticking = False
        self._due = 0.0

    def __repr__(self) -> str:
        return f"<Connections {self.open} open, {len(self._heads) + len(self._bodies)} awaited>"

    def use(self, bounds: Bounds) -> None:
        """Hold new requests and connections to these bounds."""
        self.bounds = bounds
        self._heads.seconds = bounds.header_timeout
        self._bodies.seconds = bounds.body_timeout

    def enter(self, peer: str) -> str:
        """Count a new connection; returns the setting that leaves no place for it, or ``""``."""
        self.open += 1
        self._by_peer[peer] += 1
        if self.open > self.bounds.max_connections:
            return "max_connections"
        if self._by_peer[peer] > self.bounds.max_connections_per_peer:
            return "max_connections_per_peer"
        return ""

    def leave(self, connection: BoundedProtocol, peer: str) -> None:
        """Forget a connection."""
        self.open -= 1
        self._by_peer[peer] -= 1
        if not self._by_peer[peer]:
            del self._by_peer[peer]
        self._heads.forget(connection)
        self._bodies.forget(connection)

    def await_head(self, connection: BoundedProtocol) -> None:
        """Give the head of a connection's request its time."""
        self._heads.begin(connection, connection.loop.time())
        self._tick_soon(connection.loop)

    def await_rest(self, connection: BoundedProtocol) -> None:
        """Give the rest of a request that has had its answer its time."""
        self._bodies.begin(connection, connection.loop.time())
        self._tick_soon(connection.loop)

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
            for waiting in (self._heads, self._bodies):
                waiting.extend(now - self._due)
        for connection, request in self._heads.late(now):
            connection.head_is_late(request)
        for connection, request in self._bodies.late(now):
            connection.rest_is_late(request)
        self._ticking = bool(self._heads or self._bodies)
        if self._ticking:
            self._tick_later(loop)


class _Waiting:
    """Connections in the order of their deadlines, each with the request (its ASGI scope) that it has not finished.

    One that finishes stays until its deadline, where it is let go: that is cheaper than taking it out.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._deadlines: dict[BoundedProtocol, tuple[object, float]] = {}

    def __len__(self) -> int:
        return len(self._deadlines)

    def begin(self, connection: BoundedProtocol, now: float) -> None:
        self._deadlines.pop(connection, None)
        self._deadlines[connection] = connection.request, now + self.seconds

    def extend(self, seconds: float) -> None:
        """Give everyone so much more."""
        for connection, (request, deadline) in self._deadlines.items():
            self._deadlines[connection] = request, deadline + seconds

    def forget(self, connection: BoundedProtocol) -> None:
        self._deadlines.pop(connection, None)

    def late(self, now: float) -> list[tuple[BoundedProtocol, object]]:
        """Those whose time is over, taken out."""
        found = []
        for connection, (request, deadline) in self._deadlines.items():
            if deadline > now:
                break
            found.append((connection, request))
        for connection, _ in found:
            del self._deadlines[connection]
        return found


class _Refused(Exception):
    """Raised in a callback of the parser, which stops at it."""


class BoundedProtocol(HttpToolsProtocol):
    """A layer over a protocol class of uvicorn's; `bounded` puts the two together."""

    limits: Connections
    _peer = ""
    # The parser's request, named by its ASGI scope, and whether its head or its end is still to come. Requests that the
    # protocol class takes past the parser have come whole.
    _request: object = None
    _in_head = False
    _in_request = False
    # What has a deadline already: a request whose head is to come, or the cycle of one that has had its answer.
    _timed: object = None
    # Bytes since the parser last had a whole head or a piece of a body: lines, chunk sizes, trailers.
    _lines = 0
    # Bytes of the last read.
    _read = 0
    _refusal: tuple[str, HTTPRefusal] | None = None

    @property
    def request(self) -> object:
        """What the parser is reading, or has read last; None before the first."""
        return self._request

    # ---- from the event loop

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._peer = self.client[0] if self.client else ""
        full = self.limits.enter(self._peer)
        if full:
            text = f"there are too many connections (server.{full})"
            self._refuse(full, HTTPRefusal(503, text, headers=[(b"retry-after", b"1")]))
            self._answer_refusal()
        else:
            self.limits.await_head(self)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.limits.leave(self, self._peer)

    def data_received(self, data: bytes) -> None:
        self._read = len(data)
        if self._in_request:
            self._lines += self._read
        super().data_received(data)
        if self._in_request:
            self._is_unfinished()
        elif self.cycle is not None and self.cycle.response_complete:
            self._bytes_after_answer()

    def _is_unfinished(self) -> None:
        """The beginning of a request has come without its end."""
        if self._refusal is None and self._in_head and self._timed is not self._request:
            self._timed = self._request
            self.limits.await_head(self)
        if self._lines > self.limits.bounds.max_header_bytes:
            self._lines_too_long()
        if self.cycle is not None and self.cycle.response_complete:
            self._bytes_after_answer()

    def _lines_too_long(self) -> None:
        if self._refusal is not None:
            return
        bound = self.limits.bounds.max_header_bytes
        text = f"the headers are longer than {bound} bytes (server.max_header_bytes)"
        self._refuse("max_header_bytes", HTTPRefusal(431, text))
        self._answer_refusal()

    def _bytes_after_answer(self) -> None:
        """The rest of a body that nobody wants, or an empty line: either has stopped an idle connection's clock."""
        if self.cycle.scope is self.scope and self._timed is not self.cycle and not self._in_head:
            self._timed = self.cycle
            self.limits.await_rest(self)

    # ---- from the parser

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._request = self.scope
        self._in_head = self._in_request = True

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        if len(self.url) > self.limits.bounds.max_url:
            bound = self.limits.bounds.max_url
            text = f"the request target is longer than {bound} bytes (server.max_url)"
            self._refuse("max_url", HTTPRefusal(414, text))
            raise _Refused

    def on_headers_complete(self) -> None:
        bounds, headers = self.limits.bounds, self.headers
        if len(headers) > bounds.max_headers:
            text = f"there are more than {bounds.max_headers} headers (server.max_headers)"
            self._refuse("max_headers", HTTPRefusal(431, text))
            raise _Refused
        # Most come whole, in a read that is shorter than that; in a longer one it may be the body that is long.
        may_be_long = self._read > bounds.max_header_bytes or self._timed is self._request
        if may_be_long and _length(headers) > bounds.max_header_bytes:
            text = f"the headers are longer than {bounds.max_header_bytes} bytes (server.max_header_bytes)"
            self._refuse("max_header_bytes", HTTPRefusal(431, text))
            raise _Refused
        self._lines = 0
        self._in_head = False
        super().on_headers_complete()
        # Trailers, which httptools reports as headers, are not the request's: nobody has checked them.
        self.headers = headers.copy()

    def on_body(self, body: bytes) -> None:
        self._lines = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._lines = 0
        self._in_request = False
        super().on_message_complete()

    # ---- refusals

    def head_is_late(self, request: object) -> None:
        """The time for a head is over; nothing is wrong if ``request`` has its head by now."""
        still = self._request is request and (self._in_head or request is None)
        if not still or self.transport.is_closing():
            return
        self.limits.reached.count("header_timeout")
        if request is None:
            self.transport.close()
            return
        seconds = self.limits.bounds.header_timeout
        self._refusal = "", HTTPRefusal(408, f"the headers did not arrive within {seconds:g} s (server.header_timeout)")
        self._answer_refusal()

    def rest_is_late(self, request: object) -> None:
        """The time for the rest of an answered request is over."""
        if self._request is not request or self._timed is not self.cycle or self.transport.is_closing():
            return
        if getattr(self.cycle, "more_body", False):
            self.limits.reached.count("body_timeout")
        self.transport.close()

    def _refuse(self, setting: str, refusal: HTTPRefusal) -> None:
        self._refusal = setting, refusal
        self.limits.reached.count(setting)

    def send_400_response(self, msg: str) -> None:
        """Called for what the parser does not take, and for what a callback has refused."""
        if self._refusal is None:
            self._refusal = "", HTTPRefusal(400, msg)
        self._answer_refusal()

    def _answer_refusal(self) -> None:
        if self.transport.is_closing():
            return
        assert self._refusal is not None
        if self._is_owed_an_answer():
            self.transport.write(_response(self._refusal[1]))
        self.transport.close()

    def _is_owed_an_answer(self) -> bool:
        """Whether a response would not be taken for another request's, or get into the middle of its own."""
        cycle = self.cycle
        if cycle is None or cycle.response_complete:
            return self._in_head or cycle is None or cycle.scope is not self.scope
        return cycle.scope is self.scope and not getattr(cycle, "response_started", True)


def _length(headers: list[tuple[bytes, bytes]]) -> int:
    return sum(len(name) + len(value) + 4 for name, value in headers)


def _response(refusal: HTTPRefusal) -> bytes:
    body = refusal.body().encode()
    fields = [*refusal.headers, (b"content-type", b"application/json"), (b"content-length", b"%d" % len(body)), _CLOSE]
    head = b"".join(b"%b: %b\r\n" % field for field in fields)
    return b"%b%b\r\n%b" % (STATUS_LINE[refusal.status], head, body)


def bounded(protocol: type[HttpToolsProtocol], limits: Connections) -> type[Any]:
    """``protocol`` with these bounds in front of it, for uvicorn's ``http`` option."""
    return type("Bounded" + protocol.__name__, (BoundedProtocol, protocol), {"limits": limits})
