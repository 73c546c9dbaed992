"""The short way of a common call: from the parser to a backend's pipe and back without an ASGI round.

A round of ASGI costs a scope, a cycle, a task and two writes: more CPU than all the rest of the relay. So the small
POST of a known client, or one that becomes a client while a process is ready for it, is handed over as soon as its body
is complete, and answered in one write: when the backend answers, or at once if nothing is to be answered. Whatever is
unusual about it, before or after, goes the ordinary way through the gateway, with the same result: this is only a short
cut.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import math
import re
from dataclasses import dataclass
from typing import Final

from starlette.types import Message as Event

from muxsim.serve.http.incoming import Request
from muxsim.serve.http.interfaces import Answer, Asker
from muxsim.serve.http.responses import ACCEPTED, CLOSE, answer_head, refusal_bytes
from muxsim.serve.http.unread import Reader
from muxsim.serve.routes.clients import HTTPClient
from muxsim.serve.routes.gateway import Gateway
from muxsim.serve.routes.verdicts import Verdict, Verdicts
from transports.asgi import Call, ClientGone
from transports.errors import RemoteProtocolError
from transports.event_stream import EventStream
from transports.http_rules import Accepts, HTTPRefusal
from transports.messages import Kind, Message, RequestId, decode
from transports.origin import PARENT, REQUEST_ID, origin_of

# How often calls are looked at that may have been silent for too long; a timer for each would cost more than they.
_TICK: Final = 0.1
LONGEST_BODY: Final = 64 * 1024
"""Bytes of a body that goes the short way, which has to be there as a whole."""
# Up to this, head and body are one write, and so one wake-up of the client.
_ONE_WRITE: Final = 64 * 1024
_HEAD_END: Final = b"\r\n\r\n"
_LENGTH_DIGITS: Final = 20
_LENGTH_LINE: Final = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]{1,18})(?=\r\n)", re.IGNORECASE)


class FastLane:
    """The short way of one server, for all its connections."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.patience = Patience()
        self._verdicts = Verdicts(gateway)
        self._lasting: set[asyncio.Task[None]] = set()

    def __repr__(self) -> str:
        return f"<FastLane to {self.gateway!r}>"

    def judge(self, request: Request) -> UsualRequest | None:
        """What takes a request on the short way: it is small, and from one whose head passes every check."""
        if request.method != b"POST" or request.chunked or request.expects:
            return None
        headers = dict(request.headers)
        length = headers.get(b"content-length", b"")
        if not length.isdigit() or not self._is_small(int(length)) or b"upgrade" in headers:
            return None
        if PARENT in headers or REQUEST_ID in headers:
            request.origin = origin_of(request.headers)
        verdict = self._verdicts.of(request.headers, headers)
        return None if verdict is None else UsualRequest(self, request, verdict, headers.get(b"mcp-session-id"))

    def take(self, connection: Asker, usual: UsualRequest, body: bytes, raw: bytes) -> bool:
        """Take a request whose body is there, unless the application has to look at it."""
        request, verdict = usual.request, usual.verdict
        if usual.session_id is None:
            return self._shake_hands(connection, request, body, verdict)
        client = self.gateway.mcp.clients.http(usual.session_id.decode("latin-1"))
        if client is None or not _is_on(client, request.url) or not client.admits(verdict.caller):
            return False
        if not self._begin(connection, request, body, client, verdict.wanted):
            return False
        if request.keep_alive and verdict.caller.expires == math.inf:
            connection.familiar = FamiliarHead.of(self, raw, body, client, verdict.wanted, request)
        return True

    def take_of(self, client: HTTPClient, connection: Asker, request: Request, body: bytes, wanted: Accepts) -> bool:
        """Take a request of a client that has been judged before, if it is still the same."""
        if self.gateway.mcp.clients.http(client.transport.id) is not client or not self._is_small(len(body)):
            return False
        return self._begin(connection, request, body, client, wanted)

    def _is_small(self, length: int) -> bool:
        return length <= LONGEST_BODY and length <= self.gateway.mcp.max_body

    def _shake_hands(self, connection: Asker, request: Request, body: bytes, verdict: Verdict) -> bool:
        """Take the short way with a handshake that makes a session, as far as that goes without waiting for it."""
        if self._verdicts.is_guess(verdict):
            return False
        try:
            message = decode(body)
        except RemoteProtocolError:
            return False
        message.origin = request.origin
        newcomer = self.gateway.mcp.newcomer(request.url, verdict.caller, request.peer, message)
        if newcomer is None:
            return False
        if not newcomer.client.ready:
            connection.lengthen(request, functools.partial(self.gateway.mcp.welcome, newcomer))
            return True
        try:
            client = newcomer.client.value
        except HTTPRefusal as refusal:
            connection.respond(refusal_bytes(refusal, keep_alive=request.keep_alive), b"", request.keep_alive)
            return True
        assert message.id is not None
        call = Handshake(self, connection, request, client, message.id)
        connection.expect(call)
        call.begin(message, verdict.wanted)
        return True

    def _begin(self, connection: Asker, request: Request, body: bytes, client: HTTPClient, wanted: Accepts) -> bool:
        if not client.attachment.ready:
            return False
        try:
            message = decode(body)
        except RemoteProtocolError:
            return False
        message.origin = request.origin
        if message.kind is not Kind.REQUEST:
            # The client is told before the backend is, and need not wait while that wakes up.
            connection.respond(ACCEPTED % (b"" if request.keep_alive else CLOSE), b"", request.keep_alive)
            client.transport.accept(message)
            return True
        assert message.id is not None
        call = ShortCall(self, connection, request, client, message.id)
        connection.expect(call)
        try:
            call.begin(message, wanted)
        except HTTPRefusal:
            connection.expect(None)
            return False
        return True

    def finish(self, request: Request, answer: Answer) -> None:
        """Carry out what is left of a call whose connection is lost, so that its client may come back for it."""
        scope = {"type": "http", "method": "POST", "headers": request.headers}
        task = asyncio.ensure_future(_answer_nobody(answer, Call(scope, _gone, _ignore)))
        self._lasting.add(task)
        task.add_done_callback(self._lasting.discard)


async def _answer_nobody(answer: Answer, call: Call) -> None:
    with contextlib.suppress(ClientGone, HTTPRefusal):
        await answer(call)


async def _gone() -> Event:
    return {"type": "http.disconnect"}


async def _ignore(event: Event) -> None:
    """There is nobody to send it to."""


@dataclass(slots=True)
class UsualRequest:
    """A request whose head has passed every check."""

    lane: FastLane
    request: Request
    verdict: Verdict
    session_id: bytes | None

    @property
    def principal(self) -> str | None:
        """The name of whoever has sent it."""
        return self.verdict.caller.name

    def take(self, asker: Asker, body: bytes, raw: bytes) -> bool:
        """Take it, unless the application has to look at it."""
        return self.lane.take(asker, self, body, raw)


@dataclass(frozen=True, slots=True)
class FamiliarHead:
    """The bytes of a request's head, which another request may repeat but for its content-length.

    A real client sends the same head with every call, so to find that it did is all that there is to check. What was
    found out about the head holds as long as its session's client does.
    """

    lane: FastLane
    prefix: bytes
    suffix: bytes
    client: HTTPClient
    wanted: Accepts
    request: Request

    @property
    def principal(self) -> str | None:
        """The name of whoever sends it."""
        return self.client.caller.name

    @classmethod
    def of(
        cls, lane: FastLane, raw: bytes, body: bytes, client: HTTPClient, wanted: Accepts, request: Request
    ) -> FamiliarHead | None:
        """The head of a request that came whole as ``raw``; None if it came in pieces."""
        end = len(raw) - len(body)
        if end != raw.find(_HEAD_END) + len(_HEAD_END) or not raw.endswith(body):
            return None
        length = _LENGTH_LINE.search(raw, 0, end)
        if length is None:
            return None
        return cls(lane, raw[: length.start(1)], raw[length.end(1) : end], client, wanted, request)

    def take(self, asker: Asker, data: bytes) -> bool:
        """Take a whole request that has this head, which need be neither parsed nor judged again."""
        body = self.body_of(data)
        return body is not None and self.lane.take_of(self.client, asker, self.request, body, self.wanted)

    def body_of(self, data: bytes) -> bytes | None:
        """The body of a whole request that has this head; None if ``data`` is anything else."""
        start = len(self.prefix)
        end = data.find(b"\r", start, start + _LENGTH_DIGITS)
        length = data[start:end]
        if end < 0 or not length.isdigit() or not data.startswith(self.prefix) or not data.startswith(self.suffix, end):
            return None
        body = data[end + len(self.suffix) :]
        return body if len(body) == int(length) else None


class ShortCall:
    """A client's request under way: answered in one write, or given to the application as it stands."""

    __slots__ = ("client", "connection", "id", "is_lost", "lane", "request")

    def __init__(self, lane: FastLane, connection: Asker, request: Request, client: HTTPClient, id: RequestId) -> None:
        self.lane = lane
        self.connection = connection
        self.request = request
        self.client = client
        self.id = id
        self.is_lost = False

    @property
    def reader(self) -> Reader:
        """Whom its answer is for."""
        return self.client.reader

    def begin(self, message: Message, wanted: Accepts) -> None:
        """Send the request on its way; the answer, a refusal of the router's for one, may be there at once."""
        patience = self.lane.patience
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
        self.lane.patience.end(self)
        if self.is_lost:
            self.lane.finish(self.request, self.rest(stream))
        else:
            self.connection.lengthen(self.request, self.rest(stream))

    def rest(self, stream: EventStream) -> Answer:
        """What is left to do, now that it takes longer or streams."""
        return functools.partial(self.client.transport.resume, stream)

    def answered(self, message: Message) -> None:
        """Write the answer."""
        self.lane.patience.end(self)
        if self.is_lost:
            return
        body, keep_alive = message.encode(), self.request.keep_alive
        head = answer_head(len(body), self.client.transport.session_header[1], keep_alive)
        if len(body) <= _ONE_WRITE:
            self.connection.respond(head + body, b"", keep_alive)
        else:
            self.connection.respond(head, body, keep_alive)

    def lost(self) -> None:
        """The connection is no more; the call goes on."""
        self.is_lost = True


class Handshake(ShortCall):
    """The request that has made a session."""

    __slots__ = ()

    def lost(self) -> None:
        """End the session: its id has reached nobody."""
        super().lost()
        self.lane.gateway.mcp.clients.drop(self.client)

    def rest(self, stream: EventStream) -> Answer:
        """As of any call, and no less careful about a lost connection."""
        return functools.partial(self.lane.gateway.mcp.resume_handshake, self.client, stream)


class Patience:
    """Wakes calls that have been silent for as long as their client's transport allows."""

    def __init__(self) -> None:
        # In the order of their deadlines: every transport of one server has the same patience.
        self._deadlines: dict[ShortCall, float] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ticking = False

    def begin(self, call: ShortCall, seconds: float) -> None:
        """Tell ``call`` in so many seconds, give or take a tick, unless `end` is called first."""
        loop = self._loop
        if loop is None:
            loop = self._loop = asyncio.get_running_loop()
        self._deadlines[call] = loop.time() + seconds
        if not self._ticking:
            self._ticking = True
            loop.call_later(_TICK, self._tick, loop)

    def end(self, call: ShortCall) -> None:
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
