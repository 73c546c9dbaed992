"""The HTTP+SSE pair of revision 2024-11-05, the server's side: one event stream out, messages in by POST."""

from __future__ import annotations

from collections.abc import AsyncIterator

from transports.asgi import Call, respond, stream_events, wait_ready
from transports.event_stream import EventStream
from transports.interfaces import Receiver
from transports.messages import Message, RequestId
from transports.sse_codec import encode_event
from transports.streamable_http import StreamTimes


class SSE:
    """One client, who is there as long as its event stream is. Runs on asyncio, inside ASGI handlers."""

    def __init__(self, id: str, endpoint: str, receiver: Receiver, times: StreamTimes) -> None:
        self.id = id
        self._endpoint = endpoint
        self._receiver = receiver
        self._times = times
        self._stream = EventStream("", self._taken, attended=True)
        self._congested = False

    def __repr__(self) -> str:
        return f"<SSE {self.id[:8]} {self._stream!r}>"

    @property
    def congested(self) -> bool:
        """Whether more bytes wait for the client than may; stays True until fewer than a quarter of that do."""
        return self._congested

    @property
    def listening(self) -> bool:
        """Always: a client is its stream."""
        return True

    @property
    def single_file(self) -> bool:
        """Never: each POST waits by itself."""
        return False

    def send(self, message: Message, about: RequestId | None = None) -> None:
        """Put a message on the stream."""
        self._stream.put(message)
        if self._stream.backlog > self._times.buffered:
            self._congested = True

    def withdraw(self, about: RequestId) -> None:
        """Nothing: all answers share one stream."""

    def close(self) -> None:
        """End the stream after what is queued."""
        self._stream.end()

    async def get(self, call: Call) -> None:
        """Serve the stream, which starts with the URL to POST to. Tells the receiver when the client has gone."""
        try:
            await stream_events(
                call,
                self._events(),
                ping_interval=self._times.ping,
                stall_timeout=self._times.stall,
            )
        finally:
            self._receiver.disconnected()

    async def post(self, message: Message, call: Call) -> None:
        """Take one message; its answer comes on the stream."""
        await wait_ready(self._receiver, message, call)
        self._receiver.receive(message)
        await respond(call, 202, b'"accepted"')

    async def _events(self) -> AsyncIterator[bytes]:
        yield encode_event(self._endpoint.encode(), event=b"endpoint")
        async for _, message in self._stream.read():
            yield encode_event(message.encode())

    def _taken(self) -> None:
        if self._congested and self._stream.backlog < self._times.resume:
            self._congested = False
            self._receiver.drained()
