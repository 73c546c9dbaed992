"""The short way of a common call: from uvicorn's parser to a backend's pipe and back without an ASGI task.

An ASGI round costs a task, two writes and about as much CPU as the whole relay. So a small POST of a known client is
handed over as soon as its body is complete, and answered in one write when the backend answers. Whatever is unusual
about it, before or after, goes the ordinary way through ASGI, with the same result: this is only a short cut.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from starlette.types import ASGIApp
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from muxsim.serve.gateway import Gateway, hand_over
from muxsim.serve.mcp_endpoints import HTTPClient
from transports.errors import RemoteProtocolError
from transports.event_stream import EventStream
from transports.http_rules import Accepts, HTTPRefusal, RawHeaders, accepts, is_modern, protocol_version
from transports.messages import Kind, Message, decode

# The headers that decide, in a set that real clients send unchanged with every call of theirs.
_DECIDING: Final = (b"host", b"origin", b"accept", b"content-type", b"mcp-protocol-version")
_REMEMBERED_HEADERS: Final = 1024


class FastLane(HttpToolsProtocol):
    """uvicorn's HTTP protocol with a short cut in front of the application."""

    gateway: Gateway
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
        pairs: RawHeaders = list(scope["headers"])
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
            return _ShortCall(client, message, wanted)
        except (RemoteProtocolError, HTTPRefusal):
            return None

    def resume_asgi(self, cycle: RequestResponseCycle, app: Any) -> None:
        """Give a call that turned out to be unusual to the application."""
        super()._start_asgi_task(cycle, app)


class _ShortCall:
    """A call under way: answered in one write, or given to the application as it stands."""

    __slots__ = ("_client", "_stream", "_timer", "_wanted")

    def __init__(self, client: HTTPClient, message: Message, wanted: Accepts) -> None:
        self._client = client
        self._wanted = wanted
        self._stream: EventStream = client.transport.begin(message, wanted)
        self._timer: asyncio.TimerHandle | None = None

    def follow(self, protocol: FastLane, cycle: RequestResponseCycle, app: Any) -> None:
        """Wait for the first message; the stream's own answer may be there already."""
        if self._stream.ended:
            self._settle(protocol, cycle, app)
            return
        self._stream.on_change(lambda: self._settle(protocol, cycle, app))
        self._timer = protocol.loop.call_later(self._client.transport.silence, self._stream.wake)

    def _settle(self, protocol: FastLane, cycle: RequestResponseCycle, app: Any) -> None:
        if self._timer is not None:
            self._timer.cancel()
        first = self._stream.first()
        if first is not None and first.is_answer:
            _write(cycle, first.encode(), self._client.transport.session_header[1])
            return
        hand_over(cycle.scope, self._client.transport, self._stream)
        protocol.resume_asgi(cycle, app)


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
    key = tuple(headers.get(name) for name in _DECIDING)
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
        return None if is_modern(protocol_version(pairs)) else accepts(pairs)
    except HTTPRefusal:
        return None


def fast_lane(gateway: Gateway) -> type[FastLane]:
    """The protocol class for uvicorn's ``http`` option."""
    return type("GatewayFastLane", (FastLane,), {"gateway": gateway})
