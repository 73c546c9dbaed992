"""The short way of a common call: from uvicorn's parser to a backend's pipe and back without an ASGI round.

A round of ASGI costs a scope, a cycle, a task and two writes: more CPU than all the rest of the relay. So the POST of a
known client is handed over as soon as its body is complete, and answered in one write when the backend answers.
Whatever is unusual about it, before or after, goes the ordinary way through the gateway, with the same result: this is
only a short cut.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import urllib.parse
from typing import Any, Final

import httptools
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from muxsim.serve.gateway import Gateway, hand_over
from muxsim.serve.mcp_endpoints import HTTPClient
from transports.errors import RemoteProtocolError
from transports.event_stream import EventStream
from transports.http_rules import Accepts, HTTPRefusal, RawHeaders, accepts, is_modern, protocol_version
from transports.messages import Kind, decode

_REMEMBERED_HEADERS: Final = 1024
# How often calls are looked at that may have been silent for too long; a timer for each would cost more than they.
_TICK: Final = 0.1
# A body that takes longer goes the ordinary way, which has a deadline for it.
_BODY_PATIENCE: Final = 1.0
# asyncio's own 256 KiB are mapped and unmapped by malloc at every read.
_RECEIVE_SIZE: Final = 64 * 1024
# Up to this, head and body are one write, and so one wake-up of the client.
_ONE_WRITE: Final = 64 * 1024
_HEAD: Final = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\nmcp-session-id: %b\r\n%b\r\n"
)


class FastLane(HttpToolsProtocol):
    """uvicorn's HTTP protocol with a short cut in front of the application."""

    gateway: Gateway
    patience: _Patience
    verdicts: Verdicts
    # The body of a request that may go the short way; None while another one's is read.
    _parts: list[bytes] | None = None
    _body_timer: asyncio.TimerHandle | None = None
    _idle_since: float | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if hasattr(transport, "max_size"):
            transport.max_size = _RECEIVE_SIZE

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._parts is not None and self._body_timer is None:
            self._body_timer = self.loop.call_later(_BODY_PATIENCE, self._stop_waiting_for_body)

    # ---- from the parser

    def on_headers_complete(self) -> None:
        if self._may_be_short():
            self._parts = []
        else:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        if self._parts is None:
            super().on_body(body)
        else:
            self._parts.append(body)

    def on_message_complete(self) -> None:
        if self._parts is None:
            super().on_message_complete()
            return
        body = self._take_body()
        call = self._hand_over(body)
        if call is not None:
            call.follow()
            return
        super().on_headers_complete()
        super().on_body(body)
        super().on_message_complete()

    def _take_body(self) -> bytes:
        """What has come of a body; what may come yet is not collected here any more."""
        if self._body_timer is not None:
            self._body_timer.cancel()
            self._body_timer = None
        parts, self._parts = self._parts, None
        assert parts is not None
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _stop_waiting_for_body(self) -> None:
        body = self._take_body()
        super().on_headers_complete()
        super().on_body(body)

    def _may_be_short(self) -> bool:
        busy = self.cycle is not None and not self.cycle.response_complete
        if busy or self.expect_100_continue or self.parser.get_method() != b"POST":
            return False
        length = None
        for name, value in self.headers:
            if name == b"content-length":
                length = value
            elif name == b"upgrade":
                return False
        return length is not None and length.isdigit() and int(length) <= self.gateway.endpoints.max_body

    def _hand_over(self, body: bytes) -> _ShortCall | None:
        """The call, under way to its backend; None if the application has to look at the request."""
        headers = dict(self.headers)
        session_id = headers.get(b"mcp-session-id")
        if session_id is None:
            return None
        client = self.gateway.endpoints.client(session_id.decode("latin-1"))
        if client is None or not client.attachment.ready or not _is_on(client, self.url):
            return None
        wanted = _usual(self.verdicts, self.gateway, self.headers, headers)
        if wanted is None or not wanted.json:
            return None
        try:
            message = decode(body)
            if message.kind is not Kind.REQUEST:
                return None
            stream = client.transport.begin(message, wanted)
        except (RemoteProtocolError, HTTPRefusal):
            return None
        keep_alive = self.parser.get_http_version() != "1.0" and self.parser.should_keep_alive()
        call = _ShortCall(self, client, stream, keep_alive)
        self.cycle = call  # type: ignore[assignment]  # uvicorn looks at no more of it than _ShortCall has
        return call

    # ---- the way back

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        super()._start_asgi_task(cycle, functools.partial(_run, cycle, app))

    def start_asgi(self, call: _ShortCall) -> None:
        """Give a call that turned out to be unusual to the application, as it stands."""
        url = httptools.parse_url(call.url)
        path = url.path.decode("ascii")
        call.scope.update(
            method="POST",
            path=self.root_path + (urllib.parse.unquote(path) if "%" in path else path),
            raw_path=self.root_path.encode("ascii") + url.path,
            query_string=url.query or b"",
        )
        hand_over(call.scope, call.client.transport, call.stream)
        cycle = RequestResponseCycle(
            scope=call.scope,
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=self.access_log,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=False,
            keep_alive=call.keep_alive,
            on_response=self.on_response_complete,
        )
        cycle.more_body = False
        cycle.disconnected = call.disconnected
        if self.cycle is call:  # type: ignore[comparison-overlap]
            self.cycle = cycle
        self._start_asgi_task(cycle, self.app)

    def on_response_complete(self) -> None:
        """Go on with a request that came meanwhile, or wait for one; the timer is armed once, not for each answer."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
            return
        self._idle_since = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self._arm_keep_alive(self.timeout_keep_alive)

    def _unset_keepalive_if_required(self) -> None:
        self._idle_since = None

    def _arm_keep_alive(self, seconds: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(seconds, self.timeout_keep_alive_handler)

    def timeout_keep_alive_handler(self) -> None:
        self.timeout_keep_alive_task = None
        if self._idle_since is None or self.transport.is_closing():
            return
        left = self._idle_since + self.timeout_keep_alive - self.loop.time()
        if left > 0:
            self._arm_keep_alive(left)
        else:
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        for timer in (self.timeout_keep_alive_task, self._body_timer):
            if timer is not None:
                timer.cancel()


async def _run(cycle: RequestResponseCycle, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    try:
        await app(scope, receive, send)
    except ConnectionAbortedError:
        # uvicorn would close it gently, which is to wait for a client that has not read for so long.
        cycle.transport.abort()
        cycle.disconnected = True


class _ShortCall:
    """A call under way: answered in one write, or given to the application as it stands.

    It stands where uvicorn expects a cycle, so that a pipelined request waits for it and a lost connection is noted.
    """

    __slots__ = ("client", "disconnected", "keep_alive", "protocol", "response_complete", "scope", "stream", "url")

    def __init__(self, protocol: FastLane, client: HTTPClient, stream: EventStream, keep_alive: bool) -> None:
        self.protocol = protocol
        self.client = client
        self.stream = stream
        self.keep_alive = keep_alive
        self.scope: Any = protocol.scope
        self.url: bytes = protocol.url
        self.response_complete = False
        self.disconnected = False

    @property
    def message_event(self) -> _ShortCall:
        """What uvicorn sets when the connection is lost."""
        return self

    def set(self) -> None:
        """Nobody waits."""

    def follow(self) -> None:
        """Wait for the first message; a refusal of the router's is there already."""
        if self.stream.ended:
            self._settle()
            return
        self.stream.on_change(self._settle)
        self.protocol.patience.begin(self.stream, self.client.transport.silence)

    def _settle(self) -> None:
        self.protocol.patience.end(self.stream)
        first = self.stream.first()
        if first is not None and first.is_answer:
            self._write(first.encode())
        else:
            self.protocol.start_asgi(self)

    def _write(self, body: bytes) -> None:
        self.response_complete = True
        protocol = self.protocol
        if not self.disconnected:
            close = b"" if self.keep_alive else b"connection: close\r\n"
            head = _HEAD % (len(body), self.client.transport.session_header[1], close)
            if len(body) <= _ONE_WRITE:
                protocol.transport.write(head + body)
            else:
                protocol.transport.write(head)
                protocol.transport.write(body)
            if not self.keep_alive:
                protocol.transport.close()
        protocol.on_response_complete()


class _Patience:
    """Wakes streams that have been silent for as long as their client's transport allows."""

    def __init__(self) -> None:
        # In the order of their deadlines: every transport of one server has the same patience.
        self._deadlines: dict[EventStream, float] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ticking = False

    def begin(self, stream: EventStream, seconds: float) -> None:
        """Wake ``stream`` in so many seconds, give or take a tick, unless `end` is called first."""
        loop = self._loop
        if loop is None:
            loop = self._loop = asyncio.get_running_loop()
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


def _is_on(client: HTTPClient, url: bytes) -> bool:
    """Whether a request target is one of the client's own, as it is written by everybody who wrote it right."""
    path = url.partition(b"?")[0]
    return path.decode("latin-1") in client.paths


Verdicts = dict[tuple[bytes | None, ...], Accepts | None]


def _usual(verdicts: Verdicts, gateway: Gateway, pairs: RawHeaders, headers: dict[bytes, bytes]) -> Accepts | None:
    """What the client accepts, if its headers pass every check; None sends it to the application, which says why.

    A real client sends the same headers with each call, so the verdict is remembered.
    """
    if len(headers) != len(pairs):
        return None
    get = headers.get
    key = (get(b"host"), get(b"origin"), get(b"accept"), get(b"content-type"), get(b"mcp-protocol-version"))
    if key in verdicts:
        return verdicts[key]
    if len(verdicts) >= _REMEMBERED_HEADERS:
        verdicts.clear()
    verdicts[key] = verdict = _judge(gateway, pairs, headers)
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
    return type("GatewayFastLane", (FastLane,), {"gateway": gateway, "patience": _Patience(), "verdicts": {}})
