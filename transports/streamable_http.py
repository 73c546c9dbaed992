"""Streamable HTTP, the server's side: one transport per session header, and one per request where there is none.

Revisions 2025-03-26 to 2025-11-25 have a session header, a standing GET stream and resumption. 2026-07-28 has none of
these: each POST is an exchange of its own, and closing its connection cancels it.
"""

from __future__ import annotations

import asyncio
import functools
import re
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Final, Protocol

from transports import modern_rules
from transports.asgi import WATCH_AFTER, Call, respond, stream_events, wait_disconnect, wait_ready
from transports.event_stream import EventStream
from transports.http_rules import (
    LAST_EVENT_HEADER,
    SESSION_HEADER,
    Accepts,
    HTTPRefusal,
    accepts,
    check_event_stream,
    header,
    primes_streams,
    proposed_version,
    protocol_version,
)
from transports.interfaces import Receiver
from transports.messages import Kind, Message, RequestId, error
from transports.sse_codec import encode_event

# Above this much waiting for a slow reader, whoever feeds it has to wait; below a quarter of it, it may go on.
HIGH_WATER: Final = 1024 * 1024
# How long, and how many, finished event streams can still be asked for with Last-Event-ID; all others always can.
RESUME_WINDOW: Final = 60.0
RESUMABLE_STREAMS: Final = 32
_EVENT_ID: Final = re.compile(r"([0-9]{1,18})-([0-9]{1,18})")
# What a client is told to wait before it comes back to a stream that broke.
RETRY_MS: Final = 1000
# What a client that takes no stream gets for a request that it has cancelled itself.
CANCELLED: Final = -32800


@dataclass(frozen=True)
class StreamTimes:
    """Seconds: of ``silence`` before a call's answer becomes an event stream, between ``ping``s, and of a reader's
    ``stall`` before its stream is cut; and how many bytes may wait for one client (``buffered``)."""

    silence: float = 5.0
    ping: float = 15.0
    stall: float = 60.0
    buffered: int = HIGH_WATER

    @property
    def resume(self) -> int:
        """Fewer bytes than this have to wait until more may come."""
        return self.buffered // 4


class ShortExchange(Protocol):
    """A POST that expects one JSON answer and nothing else, and is told which it was to be. Calls may not raise."""

    def answered(self, message: Message) -> None:
        """The answer came first."""

    def lengthened(self, stream: EventStream) -> None:
        """Something else came first, or nothing: all that comes is on ``stream``, for `StreamableHTTP.resume`."""


def _in_flight(id: RequestId) -> HTTPRefusal:
    return HTTPRefusal(400, f"request id {id!r} is in flight already", id=id)


class StreamableHTTP:
    """One client of the handshake revisions, across all its connections. Runs on asyncio, inside ASGI handlers.

    ``agreed`` gives the revision that the handshake has settled on, which need not be one that is known here.
    """

    def __init__(self, id: str, receiver: Receiver, times: StreamTimes, agreed: Callable[[], str] = str) -> None:
        self.id = id
        self._agreed = agreed
        self.session_header = (SESSION_HEADER, id.encode())
        self._receiver = receiver
        self._times = times
        self._exchanges: dict[RequestId, EventStream] = {}
        self._short: dict[RequestId, ShortExchange] = {}
        self._json_only: set[RequestId] = set()
        self._unfinished: dict[str, EventStream] = {}
        self._finished: dict[str, tuple[EventStream, float]] = {}
        self._made = 0
        self._standing = self._new_stream(attended=False)
        self._congested = False
        self._closed = False

    def __repr__(self) -> str:
        return f"<StreamableHTTP {self.id[:8]} {len(self._exchanges)} exchanges{' closed' if self._closed else ''}>"

    @property
    def closed(self) -> bool:
        """Whether nothing more comes of it."""
        return self._closed

    @property
    def congested(self) -> bool:
        """Whether more bytes wait for the client than may; stays True until fewer than a quarter of that do."""
        return self._congested

    @property
    def listening(self) -> bool:
        """Whether the client holds its standing stream open, or is still reading an answer that has come."""
        return self._standing.attended or any(stream.backlog for stream, _ in self._finished.values())

    @property
    def single_file(self) -> bool:
        """Never: each POST waits by itself."""
        return False

    def send(self, message: Message, about: RequestId | None = None) -> None:
        """Put a message on the stream of the request it is about, or on the standing stream."""
        if about is not None and about in self._short:
            if message.is_answer:
                exchange = self._short.pop(about)
                self._json_only.discard(about)
                exchange.answered(message)
                return
            if about not in self._json_only:
                self.lengthen(about)
        if about is None or (stream := self._exchanges.get(about)) is None:
            self._standing.put(message)
        elif message.is_answer:
            del self._exchanges[about]
            self._json_only.discard(about)
            stream.put(message, last=True)
            self._finish(stream)
        else:
            (self._standing if about in self._json_only else stream).put(message)
        if not self._congested and self._backlog() > self._times.buffered:
            self._congested = True

    def withdraw(self, about: RequestId) -> None:
        """End the stream of a cancelled request without an answer; a response has to end somehow."""
        self.lengthen(about)
        stream = self._exchanges.pop(about, None)
        if stream is not None:
            self._end_unanswered(about, stream)
            self._json_only.discard(about)
            self._finish(stream)

    def close(self) -> None:
        """End every stream after what is queued."""
        if self._closed:
            return
        self._closed = True
        for about in list(self._short):
            self.lengthen(about)
        self._standing.end()
        for about, stream in self._exchanges.items():
            self._end_unanswered(about, stream)
        self._exchanges.clear()

    def _end_unanswered(self, about: RequestId, stream: EventStream) -> None:
        """A stream may just end; whoever takes none gets an error."""
        if about in self._json_only:
            stream.put(error(about, CANCELLED, "the request was cancelled"), last=True)
        stream.end()

    @property
    def silence(self) -> float:
        """Seconds without a message after which a call's answer becomes an event stream."""
        return self._times.silence

    def begin_short(self, message: Message, wanted: Accepts, exchange: ShortExchange) -> None:
        """Hand a request over whose answer, if it is the first thing that comes, is given straight to ``exchange``."""
        assert message.id is not None
        if message.id in self._exchanges or message.id in self._short:
            raise _in_flight(message.id)
        self._short[message.id] = exchange
        if not wanted.stream:
            self._json_only.add(message.id)
        self._receiver.receive(message)

    def lengthen(self, about: RequestId) -> None:
        """Make a short exchange an ordinary one, if it is still waiting: it streams, takes long, or was cancelled."""
        exchange = self._short.pop(about, None)
        if exchange is not None:
            stream = self._exchanges[about] = self._new_stream(attended=True)
            exchange.lengthened(stream)

    async def resume(self, stream: EventStream, call: Call) -> None:
        """Answer a POST whose request `begin` has handed over already, now that it takes longer or streams."""
        wanted, version = accepts(call.headers), protocol_version(call.headers, self._agreed)
        if not wanted.stream:
            await self.answer(stream, wanted, version, call)
            return
        self._keep_resumable(stream)
        await self._stream(stream, None, version, call)

    async def post(self, message: Message, call: Call) -> None:
        """Answer a POST that carries ``message``: 202, one JSON answer, or an event stream."""
        greets = message.method == "initialize"
        version = protocol_version(
            call.headers, functools.partial(proposed_version, message) if greets else self._agreed
        )
        wanted = accepts(call.headers)
        await wait_ready(self._receiver, message, call)
        if message.kind is not Kind.REQUEST:
            self.accept(message)
            await respond(call, 202)
            return
        await self.answer(self.begin(message, wanted), wanted, version, call)

    def accept(self, message: Message) -> None:
        """Hand over what has no answer, while the receiver is ready."""
        self._receiver.receive(message)

    def begin(self, message: Message, wanted: Accepts) -> EventStream:
        """Hand a request over and return the stream on which its answer will come."""
        assert message.id is not None
        if message.id in self._exchanges or message.id in self._short:
            raise _in_flight(message.id)
        stream = self._exchanges[message.id] = self._new_stream(attended=True)
        if not wanted.stream:
            self._json_only.add(message.id)
        self._receiver.receive(message)
        return stream

    async def answer(self, stream: EventStream, wanted: Accepts, version: str, call: Call) -> None:
        """Answer a request that `begin` has handed over."""
        if wanted.json:
            await stream.wait(self._times.silence)
            while not wanted.stream and not stream.ended:
                await stream.wait(self._times.silence)
            first = stream.first()
            if first is not None and first.is_answer:
                await respond(call, 200, first.encode(), [self.session_header])
                return
        self._keep_resumable(stream)
        await self._stream(stream, None, version, call)

    async def get(self, call: Call) -> None:
        """Serve the standing stream, or go on with the one that Last-Event-ID names."""
        check_event_stream(call.headers)
        version = protocol_version(call.headers, self._agreed)
        stream, after = self._resume(header(call.headers, LAST_EVENT_HEADER))
        await self._stream(stream, after, version, call)

    def _resume(self, last_event: str | None) -> tuple[EventStream, int | None]:
        found = _EVENT_ID.fullmatch(last_event or "")
        if found is None:
            return self._standing, None
        name, number = found[1], int(found[2])
        if name == self._standing.name:
            return self._standing, number
        stream = self._unfinished.get(name) or self._finished.get(name, (None, 0.0))[0]
        # A stream that is not kept any more has nothing to go on with; the standing one is what is left.
        return (self._standing, None) if stream is None else (stream, number)

    async def _stream(self, stream: EventStream, after: int | None, version: str, call: Call) -> None:
        try:
            await stream_events(
                call,
                self._events(stream, after, version),
                ping_interval=self._times.ping,
                stall_timeout=self._times.stall,
                headers=[self.session_header],
            )
        finally:
            stream.unread()

    async def _events(self, stream: EventStream, after: int | None, version: str) -> AsyncIterator[bytes]:
        if after is None and primes_streams(version):
            yield encode_event(b"", id=f"{stream.name}-0", retry_ms=RETRY_MS)
        async for number, message in stream.read(after):
            yield encode_event(message.encode(), id=f"{stream.name}-{number}")

    def _new_stream(self, *, attended: bool) -> EventStream:
        self._made += 1
        return EventStream(str(self._made), self._taken, attended=attended)

    def _keep_resumable(self, stream: EventStream) -> None:
        self._unfinished[stream.name] = stream
        if stream.ended:
            self._finish(stream)

    def _finish(self, stream: EventStream) -> None:
        if self._unfinished.pop(stream.name, None) is None:
            return
        now = time.monotonic()
        for name in [name for name, (_, until) in self._finished.items() if until < now]:
            del self._finished[name]
        while len(self._finished) >= RESUMABLE_STREAMS:
            del self._finished[next(iter(self._finished))]
        self._finished[stream.name] = (stream, now + RESUME_WINDOW)

    def _backlog(self) -> int:
        return self._standing.backlog + sum(stream.backlog for stream in self._exchanges.values())

    def _taken(self) -> None:
        if self._congested and self._backlog() < self._times.resume:
            self._congested = False
            self._receiver.drained()


class SingleExchange:
    """One POST of a revision without sessions: its request, what comes back, and nothing else."""

    def __init__(self, times: StreamTimes) -> None:
        self.dropped = 0
        self._times = times
        self._json_only = False
        self._stream = EventStream("", self._taken, attended=True)
        self._receiver: Receiver | None = None
        self._congested = False

    @property
    def congested(self) -> bool:
        """Whether more bytes wait for the client than may; stays True until fewer than a quarter of that do."""
        return self._congested

    @property
    def listening(self) -> bool:
        """Always: a client is its one POST."""
        return True

    @property
    def single_file(self) -> bool:
        """Never: it has one message."""
        return False

    def send(self, message: Message, about: RequestId | None = None) -> None:
        """Put a message on the response; a client that takes no event stream gets the answer only."""
        if self._json_only and not message.is_answer:
            self.dropped += 1
            return
        self._stream.put(message, last=message.is_answer)
        if self._stream.backlog > self._times.buffered:
            self._congested = True

    def withdraw(self, about: RequestId) -> None:
        """End the response."""
        self._stream.end()

    def close(self) -> None:
        """End the response after what is queued."""
        self._stream.end()

    async def post(self, message: Message, receiver: Receiver, call: Call) -> None:
        """Answer a POST that carries the request ``message``.

        The backend's own errors get the status that the revision gives them, as long as nothing has been sent.
        A client that closes its connection first is reported by ``receiver.disconnected()``.
        """
        wanted = accepts(call.headers)
        if message.method == "subscriptions/listen" and not wanted.stream:
            raise HTTPRefusal(406, "Accept must allow text/event-stream for subscriptions/listen", id=message.id)
        self._receiver = receiver
        self._json_only = not wanted.stream
        await wait_ready(receiver, message, call)
        receiver.receive(message)
        try:
            await self._answer(wanted, call)
        finally:
            self._stream.unread()  # a whole body has been sent without being taken
            if not self._stream.ended:
                receiver.disconnected()

    async def _answer(self, wanted: Accepts, call: Call) -> None:
        if wanted.json and not await self._wait_first(wanted, call):
            return
        first = self._stream.first()
        if wanted.json and first is not None and first.is_answer:
            await respond(call, modern_rules.status_of(first), first.encode())
            return
        events = self._events()
        await stream_events(call, events, ping_interval=self._times.ping, stall_timeout=self._times.stall)

    async def _wait_first(self, wanted: Accepts, call: Call) -> bool:
        """Wait for the first message, or the silence that opens a stream; False if the client went away."""
        await self._stream.wait(WATCH_AFTER)
        gone = asyncio.ensure_future(wait_disconnect(call)) if self._stream.first() is None else None
        if gone is None:
            return True
        gone.add_done_callback(lambda _: self._stream.wake())
        try:
            await self._stream.wait(self._times.silence)
            while not (wanted.stream or gone.done() or self._stream.ended):
                await self._stream.wait(self._times.silence)
            return not gone.done()
        finally:
            gone.cancel()

    async def _events(self) -> AsyncIterator[bytes]:
        async for _, message in self._stream.read():
            yield encode_event(message.encode())

    def _taken(self) -> None:
        if self._congested and self._stream.backlog < self._times.resume:
            self._congested = False
            if self._receiver is not None:
                self._receiver.drained()
