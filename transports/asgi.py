"""The few ASGI moves that the HTTP transports share."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Coroutine, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar

from sse_starlette import EventSourceResponse
from starlette.types import Receive, Scope, Send

from transports.errors import ReceiverBusy
from transports.http_rules import HTTPRefusal, RawHeaders, header
from transports.interfaces import Receiver
from transports.messages import Kind, Message

T = TypeVar("T")


@dataclass(slots=True)
class Call:
    """One HTTP request under way, as ASGI hands it over; ``answered`` from where its answer begins."""

    scope: Scope
    receive: Receive
    send: Send
    answered: bool = False

    @property
    def headers(self) -> RawHeaders:
        """The request's headers as they came, names in lower case."""
        headers: RawHeaders = self.scope["headers"]
        return headers

    @property
    def peer(self) -> str:
        """The address that it came from; "" where there is none."""
        client = self.scope.get("client")
        return str(client[0]) if client else ""


# A connection is watched for its end only once a call lasts: the watch costs more than most calls.
WATCH_AFTER: Final = 0.05
WAITING: Final = "transports.waiting"
"""Where the scope of a request may have a function that counts a message while it waits to be taken: of its size in
bytes it makes a context."""
_REFUSAL: Final = "transports.refusal"
JSON_TYPE: Final = (b"content-type", b"application/json")
# No body is longer, whatever is declared; int() refuses thousands of digits.
_LENGTH: Final = re.compile(r"[0-9]{1,18}")


class Pace(Protocol):
    """How fast a body may be read."""

    async def wait(self) -> None:
        """Wait until more of it may be read."""

    def came(self, size: int) -> None:
        """So many more bytes have come."""


async def read_body(call: Call, limit: int, timeout: float, pace: Pace | None = None) -> bytes:
    """The request's body. Raises a 413 past ``limit`` bytes, at once, and a 408 after ``timeout`` seconds."""
    declared = header(call.headers, b"content-length")
    if declared is not None and _LENGTH.fullmatch(declared) and int(declared) > limit:
        raise _too_large(limit)
    try:
        async with asyncio.timeout(timeout):
            return await _read_pieces(call.receive, limit, pace)
    except TimeoutError:
        raise HTTPRefusal(
            408,
            f"the body did not arrive within {timeout:g} s (server.body_timeout)",
            headers=[(b"connection", b"close")],
            limit="body_timeout",
        ) from None


async def _read_pieces(receive: Receive, limit: int, pace: Pace | None) -> bytes:
    pieces: list[bytes] = []
    length, more = 0, True
    while more:
        if pace is not None:
            await pace.wait()
        event = await receive()
        if event["type"] == "http.disconnect":
            raise ClientGone
        piece = event.get("body", b"")
        pieces.append(piece)
        if pace is not None:
            pace.came(len(piece))
        length += len(piece)
        if length > limit:
            raise _too_large(limit)
        more = event.get("more_body", False)
    return b"".join(pieces)


def _too_large(limit: int) -> HTTPRefusal:
    return HTTPRefusal(
        413,
        f"the body is longer than the limit of {limit} bytes (server.max_body)",
        headers=[(b"connection", b"close")],
        limit="max_body",
    )


async def wait_ready(receiver: Receiver, message: Message, call: Call) -> None:
    """Wait until ``receiver`` can take ``message``. Refuses it where that takes too long or too many wait already."""
    if receiver.ready:
        return
    try:
        with call.scope.get(WAITING, _uncounted)(message.size):
            await receiver.wait_ready()
    except ReceiverBusy as busy:
        late = busy.setting == "call_timeout" and message.kind is Kind.REQUEST
        retry = [] if late else [(b"retry-after", b"1")]
        status = 200 if late else 503
        raise HTTPRefusal(
            status,
            str(busy),
            code=busy.code,
            id=message.id,
            headers=retry,
            limit=busy.setting,
        ) from None


def _uncounted(size: int) -> AbstractContextManager[None]:
    return nullcontext()


class ClientGone(Exception):
    """The client closed its connection before its request was complete: there is nobody to answer."""


async def respond(
    call: Call,
    status: int,
    body: bytes = b"",
    headers: Iterable[tuple[bytes, bytes]] = (),
    content_type: bytes = JSON_TYPE[1],
) -> None:
    """Send a whole response; a body is JSON, or what its ``content_type`` says."""
    fields = [(b"content-length", b"%d" % len(body)), *headers]
    if body:
        fields.append((JSON_TYPE[0], content_type))
    call.answered = True
    await call.send({"type": "http.response.start", "status": status, "headers": fields})
    await call.send({"type": "http.response.body", "body": body})


async def refuse(call: Call, refusal: HTTPRefusal) -> None:
    """Answer a request that was refused, and leave a note of that in its scope."""
    # Without where it came from: the frames there have the body, and the scope, which would hold each other.
    refusal.__context__ = refusal.__cause__ = None
    call.scope[_REFUSAL] = refusal.with_traceback(None)
    if refusal.delay:
        await asyncio.sleep(refusal.delay)
    await respond(call, refusal.status, refusal.body().encode(), refusal.headers)


def refusal_of(scope: Scope) -> HTTPRefusal | None:
    """How a request was refused, if it was."""
    return scope.get(_REFUSAL)


async def wait_disconnect(call: Call) -> None:
    """Return when the client has closed its connection."""
    while (await call.receive())["type"] != "http.disconnect":
        pass


async def while_waited_for(call: Call, work: Coroutine[Any, Any, T]) -> T:
    """What ``work`` returns; `ClientGone`, with the work cancelled, if the client goes before an answer begins."""
    working, gone = asyncio.ensure_future(work), None
    try:
        done, _ = await asyncio.wait((working,), timeout=WATCH_AFTER)
        if not done:
            gone = asyncio.ensure_future(wait_disconnect(call))
            await asyncio.wait((working, gone), return_when=asyncio.FIRST_COMPLETED)
        if not working.done() and not call.answered:
            working.cancel()
            await asyncio.wait((working,))
            if working.cancelled():
                raise ClientGone
        return await working
    finally:
        working.cancel()
        if gone is not None:
            gone.cancel()


async def stream_events(
    call: Call,
    events: AsyncIterator[bytes],
    *,
    ping_interval: float,
    stall_timeout: float,
    headers: RawHeaders = (),
) -> None:
    """Send encoded events until they end or the client goes; returns either way.

    A client that takes nothing for ``stall_timeout`` seconds while something is to be sent loses the stream.
    """
    response = EventSourceResponse(events, ping=ping_interval, send_timeout=stall_timeout)
    response.raw_headers.extend(headers)
    call.answered = True
    try:
        await response(call.scope, call.receive, call.send)
    except TimeoutError:
        # The connection stands still: cutting it is all that can be done, and the client may resume.
        raise ConnectionAbortedError("the client did not read its event stream") from None
