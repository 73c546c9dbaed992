"""The short way of a common call: from uvicorn's parser to a backend's pipe and back without an ASGI round.

A round of ASGI costs a scope, a cycle, a task and two writes: more CPU than all the rest of the relay. So the POST of a
known client, or one that becomes a client while a process is ready for it, is handed over as soon as its body is
complete, and answered in one write: when the backend answers, or at once if nothing is to be answered. Whatever is
unusual about it, before or after, goes the ordinary way through the gateway, with the same result: this is only a short
cut.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import math
import re
import urllib.parse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import httptools
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from muxsim.serve.gateway import Answer, Gateway, hand_over
from muxsim.serve.mcp_endpoints import HTTPClient
from muxsim.serve.verdicts import Verdict, Verdicts
from transports.asgi import refuse
from transports.errors import RemoteProtocolError
from transports.event_stream import EventStream
from transports.http_rules import Accepts, HTTPRefusal
from transports.messages import Kind, Message, RequestId, decode

# How often calls are looked at that may have been silent for too long; a timer for each would cost more than they.
_TICK: Final = 0.1
# A body that takes longer goes the ordinary way, which has a deadline for it.
_BODY_PATIENCE: Final = 1.0
# Up to this, head and body are one write, and so one wake-up of the client.
_ONE_WRITE: Final = 64 * 1024
_HEAD_END: Final = b"\r\n\r\n"
_LENGTH_DIGITS: Final = 20
_LENGTH_LINE: Final = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]{1,18})(?=\r\n)", re.IGNORECASE)
_HEAD: Final = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\nmcp-session-id: %b\r\n%b\r\n"
)
_ACCEPTED: Final = b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n%b\r\n"
_CLOSE: Final = b"connection: close\r\n"


class FastLane(HttpToolsProtocol):
    """uvicorn's HTTP protocol with a short cut in front of the application."""

    gateway: Gateway
    patience: _Patience
    verdicts: Verdicts
    # The body of a request that may go the short way; None while another one's is read.
    _parts: list[bytes] | None = None
    _body_timer: asyncio.TimerHandle | None = None
    _idle_since: float | None = None
    # Whether the parser stands between two requests, what has come of the next one, and the head of an earlier one.
    _between = True
    _raw: bytes = b""
    _familiar: _FamiliarHead | None = None
    # Those on this connection behind which others wait.
    _earlier: Sequence[RequestResponseCycle] = ()

    def data_received(self, data: bytes) -> None:
        if self._between:
            if self._familiar is not None and self._is_idle() and self._take_familiar(self._familiar, data):
                return
            self._raw = data
        super().data_received(data)
        self._raw = b""
        if self._parts is not None and self._body_timer is None:
            self._body_timer = self.loop.call_later(_BODY_PATIENCE, self._stop_waiting_for_body)

    # ---- from the parser

    def on_message_begin(self) -> None:
        self._between = False
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        if self._may_be_short():
            self._parts = []
            return
        before = self.cycle
        super().on_headers_complete()
        if before is not None and before is not self.cycle and not before.response_complete:
            self._earlier = [*(one for one in self._earlier if not one.response_complete), before]

    def on_body(self, body: bytes) -> None:
        if self._parts is None:
            super().on_body(body)
        else:
            self._parts.append(body)

    def on_message_complete(self) -> None:
        self._between = True
        if self._parts is None:
            super().on_message_complete()
            return
        body = self._take_body()
        if self._hand_over(body):
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

    def _is_idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _may_be_short(self) -> bool:
        if not self._is_idle() or self.expect_100_continue or self.parser.get_method() != b"POST":
            return False
        length = None
        for name, value in self.headers:
            if name == b"content-length":
                length = value
            elif name == b"upgrade":
                return False
        return length is not None and length.isdigit() and int(length) <= self.gateway.endpoints.max_body

    def _hand_over(self, body: bytes) -> bool:
        """Take the short way with a request, unless the application has to look at it."""
        headers = dict(self.headers)
        verdict = self.verdicts.of(self.headers, headers)
        if verdict is None:
            return False
        session_id = headers.get(b"mcp-session-id")
        if session_id is None:
            return self._shake_hands(body, verdict)
        client = self.gateway.endpoints.client(session_id.decode("latin-1"))
        if client is None or not _is_on(client, self.url) or not client.admits(verdict.caller):
            return False
        keep_alive = self._keeps_alive()
        if not self._begin(body, client, verdict.wanted, keep_alive):
            return False
        if keep_alive and verdict.caller.expires == math.inf:
            self._familiar = _FamiliarHead.of(self._raw, body, session_id, client, verdict.wanted, self.scope, self.url)
        return True

    def _shake_hands(self, body: bytes, verdict: Verdict) -> bool:
        """Take the short way with a handshake that makes a session, if a process is ready for that."""
        if self.verdicts.is_guess(verdict):
            return False
        try:
            message = decode(body)
        except RemoteProtocolError:
            return False
        peer = self.client[0] if self.client else ""
        try:
            client = self.gateway.endpoints.handshake_now(self.url, verdict.caller, peer, message)
        except HTTPRefusal as refusal:
            self.cycle = request = _ShortRequest(self, self._keeps_alive())  # type: ignore[assignment]
            self.start_asgi(request, functools.partial(refuse, refusal=refusal))
            return True
        if client is None:
            return False
        assert message.id is not None
        self.cycle = call = _Handshake(self, client, message.id, self._keeps_alive())  # type: ignore[assignment]
        call.begin(message, verdict.wanted)
        return True

    def _keeps_alive(self) -> bool:
        return self.parser.get_http_version() != "1.0" and bool(self.parser.should_keep_alive())

    def _take_familiar(self, head: _FamiliarHead, data: bytes) -> bool:
        """Take a whole request that has an earlier one's head, which need be neither parsed nor judged again."""
        body = head.body_of(data)
        if body is None or self.gateway.endpoints.client(head.session_id) is not head.client:
            return False
        if len(body) > self.gateway.endpoints.max_body:
            return False
        self._unset_keepalive_if_required()
        self.scope, self.url = head.scope, head.url
        return self._begin(body, head.client, head.wanted, keep_alive=True)

    def _begin(self, body: bytes, client: HTTPClient, wanted: Accepts, keep_alive: bool) -> bool:
        if not client.attachment.ready:
            return False
        try:
            message = decode(body)
        except RemoteProtocolError:
            return False
        if message.kind is not Kind.REQUEST:
            self._accept(client, message, keep_alive)
            return True
        assert message.id is not None
        before, self.cycle = self.cycle, _ShortCall(self, client, message.id, keep_alive)  # type: ignore[assignment]
        try:
            self.cycle.begin(message, wanted)  # type: ignore[attr-defined]
        except HTTPRefusal:
            self.cycle = before
            return False
        return True

    def _accept(self, client: HTTPClient, message: Message, keep_alive: bool) -> None:
        """Take what has no answer. The client is told before the backend is, and need not wait while that wakes up."""
        self.transport.write(_ACCEPTED % (b"" if keep_alive else _CLOSE))
        if not keep_alive:
            self.transport.close()
        client.transport.accept(message)
        self.on_response_complete()

    # ---- the way back

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        super()._start_asgi_task(cycle, functools.partial(_run, cycle, app))

    def start_asgi(self, call: _ShortRequest, answer: Answer) -> None:
        """Give a request that turned out to be unusual to the application, which has only to answer it."""
        url = httptools.parse_url(call.url)
        path = url.path.decode("ascii")
        scope = dict(
            call.scope,
            method="POST",
            path=self.root_path + (urllib.parse.unquote(path) if "%" in path else path),
            raw_path=self.root_path.encode("ascii") + url.path,
            query_string=url.query or b"",
        )
        hand_over(scope, answer)
        cycle = RequestResponseCycle(
            scope=scope,  # type: ignore[arg-type]
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
        self._earlier = [cycle if one is call else one for one in self._earlier]  # type: ignore[comparison-overlap]
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
        # uvicorn tells only the last of those that have come, which may have to wait for others.
        for one in self._earlier:
            if not one.response_complete:
                one.disconnected = True
                one.message_event.set()
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


@dataclass(frozen=True, slots=True)
class _FamiliarHead:
    """The bytes of a request's head, which another request may repeat but for its content-length.

    A real client sends the same head with every call, so to find that it did is all that there is to check. What was
    found out about the head holds as long as its session's client does.
    """

    prefix: bytes
    suffix: bytes
    session_id: str
    client: HTTPClient
    wanted: Accepts
    scope: Any
    url: bytes

    @classmethod
    def of(
        cls, raw: bytes, body: bytes, session_id: bytes, client: HTTPClient, wanted: Accepts, scope: Any, url: bytes
    ) -> _FamiliarHead | None:
        """The head of a request that came whole as ``raw``; None if it came in pieces."""
        end = raw.find(_HEAD_END) + len(_HEAD_END)
        length = _LENGTH_LINE.search(raw, 0, end)
        if length is None or raw[end:] != body:
            return None
        return cls(raw[: length.start(1)], raw[length.end(1) : end], session_id.decode(), client, wanted, scope, url)

    def body_of(self, data: bytes) -> bytes | None:
        """The body of a whole request that has this head; None if ``data`` is anything else."""
        start = len(self.prefix)
        end = data.find(b"\r", start, start + _LENGTH_DIGITS)
        length = data[start:end]
        if end < 0 or not length.isdigit() or not data.startswith(self.prefix) or not data.startswith(self.suffix, end):
            return None
        body = data[end + len(self.suffix) :]
        return body if len(body) == int(length) else None


class _ShortRequest:
    """A request under way: it stands where uvicorn expects a cycle.

    So one that is pipelined waits for it, and a lost connection is noted.
    """

    __slots__ = ("disconnected", "keep_alive", "protocol", "response_complete", "scope", "url")

    def __init__(self, protocol: FastLane, keep_alive: bool) -> None:
        self.protocol = protocol
        self.keep_alive = keep_alive
        self.scope: Any = protocol.scope
        self.url: bytes = protocol.url
        self.response_complete = False
        self.disconnected = False

    @property
    def message_event(self) -> _ShortRequest:
        """What uvicorn sets when the connection is lost."""
        return self

    def set(self) -> None:
        """Nobody waits."""


class _ShortCall(_ShortRequest):
    """A client's request: answered in one write, or given to the application as it stands."""

    __slots__ = ("client", "id")

    def __init__(self, protocol: FastLane, client: HTTPClient, id: RequestId, keep_alive: bool) -> None:
        super().__init__(protocol, keep_alive)
        self.client = client
        self.id = id

    def begin(self, message: Message, wanted: Accepts) -> None:
        """Send the request on its way; the answer, a refusal of the router's for one, may be there at once."""
        patience = self.protocol.patience
        patience.begin(self, self.client.transport.silence)
        try:
            self.client.transport.begin_short(message, wanted, self)
        except HTTPRefusal:
            patience.end(self)
            raise

    def overdue(self) -> None:
        """It has been silent for as long as its client's transport allows."""
        self.client.transport.lengthen(self.id)

    def lengthened(self, stream: EventStream) -> None:
        """Something else than its answer comes first."""
        self.protocol.patience.end(self)
        self.protocol.start_asgi(self, self.rest(stream))

    def rest(self, stream: EventStream) -> Answer:
        """What is left to do, now that it takes longer or streams."""
        return functools.partial(self.client.transport.resume, stream)

    def answered(self, message: Message) -> None:
        """Write the answer."""
        protocol = self.protocol
        protocol.patience.end(self)
        self.response_complete = True
        if not self.disconnected:
            body = message.encode()
            close = b"" if self.keep_alive else _CLOSE
            head = _HEAD % (len(body), self.client.transport.session_header[1], close)
            if len(body) <= _ONE_WRITE:
                protocol.transport.write(head + body)
            else:
                protocol.transport.write(head)
                protocol.transport.write(body)
            if not self.keep_alive:
                protocol.transport.close()
        protocol.on_response_complete()


class _Handshake(_ShortCall):
    """The request that has made a session."""

    __slots__ = ()

    def set(self) -> None:
        """End the session if the connection is lost first: its id has reached nobody."""
        if not self.response_complete:
            self.protocol.gateway.endpoints.drop(self.client)

    def rest(self, stream: EventStream) -> Answer:
        """As of any call, and no less careful about a lost connection."""
        return functools.partial(self.protocol.gateway.endpoints.resume_handshake, self.client, stream)


class _Patience:
    """Wakes calls that have been silent for as long as their client's transport allows."""

    def __init__(self) -> None:
        # In the order of their deadlines: every transport of one server has the same patience.
        self._deadlines: dict[_ShortCall, float] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ticking = False

    def begin(self, call: _ShortCall, seconds: float) -> None:
        """Tell ``call`` in so many seconds, give or take a tick, unless `end` is called first."""
        loop = self._loop
        if loop is None:
            loop = self._loop = asyncio.get_running_loop()
        self._deadlines[call] = loop.time() + seconds
        if not self._ticking:
            self._ticking = True
            loop.call_later(_TICK, self._tick, loop)

    def end(self, call: _ShortCall) -> None:
        """Forget ``call``."""
        self._deadlines.pop(call, None)

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        late = itertools.takewhile(lambda one: one[1] <= now, self._deadlines.items())
        for call, _ in list(late):
            call.overdue()
        self._ticking = bool(self._deadlines)
        if self._ticking:
            loop.call_later(_TICK, self._tick, loop)


def _is_on(client: HTTPClient, url: bytes) -> bool:
    """Whether a request target is one of the client's own, as it is written by everybody who wrote it right."""
    path = url.partition(b"?")[0]
    return path.decode("latin-1") in client.paths


def fast_lane(gateway: Gateway) -> type[FastLane]:
    """The protocol class for uvicorn's ``http`` option."""
    shared = {"gateway": gateway, "patience": _Patience(), "verdicts": Verdicts(gateway)}
    return type("GatewayFastLane", (FastLane,), shared)
