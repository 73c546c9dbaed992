"""The short way of a common call: from uvicorn's parser to a backend's pipe and back without an ASGI task.

An ASGI round costs a task, two writes and about as much CPU as the whole relay. So a small POST of a known client is
handed over as soon as its body is complete, and answered in one write when the backend answers. Whatever is unusual
about it, before or after, goes the ordinary way through ASGI, with the same result: this is only a short cut.
"""

from __future__ import annotations

import asyncio
import itertools
from typing import Any, Final, cast

from starlette.types import ASGIApp
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from muxsim.serve.gateway import Gateway, hand_over
from muxsim.serve.mcp_endpoints import HTTPClient
from transports.errors import RemoteProtocolError
from transports.event_stream import EventStream
from transports.http_rules import Accepts, HTTPRefusal, RawHeaders, accepts, is_modern, protocol_version
from transports.messages import Kind, Message, decode

_REMEMBERED_HEADERS: Final = 1024
# How often calls are looked at that may have been silent for too long; a timer for each would cost more than they.
_TICK: Final = 0.1


class FastLane(HttpToolsProtocol):
    """uvicorn's HTTP protocol with a short cut in front of the application."""

    gateway: Gateway
    patience: _Patience
    _waiting: tuple[RequestResponseCycle, ASGIApp] | None = None

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        if not self._may_be_short(cycle):
            super()._start_asgi_task(cycle, app)
        elif cycle.more_body:
            self._waiting = (cycle, app)
        else:
            self._answer(cycle, app)

    def on_message_complete(self) -> None:
        super().on_message_complete()
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            self._answer(*waiting)

    def _may_be_short(self, cycle: RequestResponseCycle) -> bool:
        if cycle.scope["method"] != "POST" or cycle.waiting_for_100_continue:
            return False
        for name, value in cycle.scope["headers"]:
            if name == b"content-length":
                # Past uvicorn's own mark, reading pauses until the application asks for more.
                return value.isdigit() and int(value) < HIGH_WATER_LIMIT
        return False

    def _answer(self, cycle: RequestResponseCycle, app: Any) -> None:
        call = None if cycle.disconnected else self._hand_over(cycle)
        if call is None:
            super()._start_asgi_task(cycle, app)
        else:
            call.follow(self, cycle, app)

    def _hand_over(self, cycle: RequestResponseCycle) -> _ShortCall | None:
        """The call, under way to its backend; None if the application has to look at it."""
        scope = cycle.scope
        pairs = cast("RawHeaders", scope["headers"])
        headers = dict(pairs)
        session_id = headers.get(b"mcp-session-id")
        if session_id is None:
            return None
        client = self.gateway.endpoints.client(session_id.decode("latin-1"))
        if client is None or scope["path"] not in client.paths or not client.attachment.ready:
            return None
        wanted = _usual(self.gateway, pairs, headers)
        if wanted is None:
            return None
        try:
            message = decode(bytes(cycle.body))
            if message.kind is not Kind.REQUEST:
                return None
            return _ShortCall(client, message, wanted, self.patience)
        except (RemoteProtocolError, HTTPRefusal):
            return None

    def resume_asgi(self, cycle: RequestResponseCycle, app: Any) -> None:
        """Give a call that turned out to be unusual to the application."""
        super()._start_asgi_task(cycle, app)


class _ShortCall:
    """A call under way: answered in one write, or given to the application as it stands."""

    __slots__ = ("_client", "_patience", "_stream")

    def __init__(self, client: HTTPClient, message: Message, wanted: Accepts, patience: _Patience) -> None:
        self._client = client
        self._patience = patience
        self._stream: EventStream = client.transport.begin(message, wanted)

    def follow(self, protocol: FastLane, cycle: RequestResponseCycle, app: Any) -> None:
        """Wait for the first message; the stream's own answer may be there already."""
        if self._stream.ended:
            self._settle(protocol, cycle, app)
            return
        self._stream.on_change(lambda: self._settle(protocol, cycle, app))
        self._patience.begin(self._stream, self._client.transport.silence)

    def _settle(self, protocol: FastLane, cycle: RequestResponseCycle, app: Any) -> None:
        self._patience.end(self._stream)
        first = self._stream.first()
        if first is not None and first.is_answer:
            _write(cycle, first.encode(), self._client.transport.session_header[1])
            return
        hand_over(cycle.scope, self._client.transport, self._stream)
        protocol.resume_asgi(cycle, app)


class _Patience:
    """Wakes streams that have been silent for as long as their client's transport allows."""

    def __init__(self) -> None:
        # In the order of their deadlines: every transport of one server has the same patience.
        self._deadlines: dict[EventStream, float] = {}
        self._ticking = False

    def begin(self, stream: EventStream, seconds: float) -> None:
        """Wake ``stream`` in so many seconds, give or take a tick, unless `end` is called first."""
        loop = asyncio.get_running_loop()
        self._deadlines[stream] = loop.time() + seconds
        if not self._ticking:
            self._ticking = True
            loop.call_later(_TICK, self._tick, loop)

    def end(self, stream: EventStream) -> None:
        """Forget ``stream``."""
        self._deadlines.pop(stream, None)

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        late = itertools.takewhile(lambda one: one[1] <= now, self._deadlines.items())
        for stream, _ in list(late):
            stream.wake()
        self._ticking = bool(self._deadlines)
        if self._ticking:
            loop.call_later(_TICK, self._tick, loop)


def _write(cycle: RequestResponseCycle, body: bytes, session_id: bytes) -> None:
    cycle.response_started = cycle.response_complete = True
    if not cycle.disconnected:
        close = b"" if cycle.keep_alive else b"connection: close\r\n"
        cycle.transport.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\nmcp-session-id: %b\r\n%b\r\n%b"
            % (len(body), session_id, close, body)
        )
        if not cycle.keep_alive:
            cycle.transport.close()
    cycle.message_event.set()
    cycle.on_response()
    cycle.on_response = _nothing


def _nothing() -> None:
    pass


_usual_headers: dict[tuple[bytes | None, ...], Accepts | None] = {}


def _usual(gateway: Gateway, pairs: RawHeaders, headers: dict[bytes, bytes]) -> Accepts | None:
    """What the client accepts, if its headers pass every check; None sends it to the application, which says why.

    A real client sends the same headers with each call, so the verdict is remembered.
    """
    if len(headers) != len(pairs):
        return None
    get = headers.get
    key = (get(b"host"), get(b"origin"), get(b"accept"), get(b"content-type"), get(b"mcp-protocol-version"))
    if key in _usual_headers:
        return _usual_headers[key]
    if len(_usual_headers) >= _REMEMBERED_HEADERS:
        _usual_headers.clear()
    _usual_headers[key] = verdict = _judge(gateway, pairs, headers)
    return verdict


def _judge(gateway: Gateway, pairs: RawHeaders, headers: dict[bytes, bytes]) -> Accepts | None:
    if b"origin" in headers or headers.get(b"content-type") != b"application/json":
        return None
    try:
        gateway.rules.check(pairs)
        if is_modern(protocol_version(pairs)):
            return None
        wanted = accepts(pairs)
        return wanted if wanted.json else None
    except HTTPRefusal:
        return None


def fast_lane(gateway: Gateway) -> type[FastLane]:
    """The protocol class for uvicorn's ``http`` option."""
    return type("GatewayFastLane", (FastLane,), {"gateway": gateway, "patience": _Patience()})
