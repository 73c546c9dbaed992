"""HTTP/1.1 over connections that are kept, one exchange at a time on each. Runs on trio and asyncio.

A step of an environment takes a millisecond, and a general HTTP client several tenths of one: its requests, responses,
hooks and pools are made for other things. Here an exchange is one write, and the reads of its answer.
"""

from __future__ import annotations

import select
import time
from collections.abc import Mapping
from typing import Final, Protocol

import anyio
import anyio.abc
import httptools

from muxsim.errors import MuxsimError

_READ_SIZE: Final = 64 * 1024
# Servers close what has been idle for some seconds, uvicorn by itself for five. What they do while a request is on its
# way to them loses that request, and a call must not be made twice.
_REUSED_WITHIN: Final = 4.0


class HTTPBroken(MuxsimError):
    """The other side cannot be reached, has closed too early, or does not speak HTTP."""


class Headers:
    """Headers of many requests, written out once. Raises ValueError for a character that no header may have."""

    def __init__(self, fields: Mapping[str, str]) -> None:
        self.fields = dict(fields)
        for name, value in fields.items():
            if not (value.isprintable() and value.isascii()):
                raise ValueError(f"the header {name} has a character that no header may have")
        self.lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())

    def __repr__(self) -> str:
        return f"<Headers {', '.join(self.fields)}>"


class Answer(Protocol):
    """The answer to one request: its head first, then its body, as it comes or as a whole. `aclose` must be called."""

    @property
    def status(self) -> int:
        """The HTTP status."""

    @property
    def headers(self) -> Mapping[str, str]:
        """By names in lower case."""

    async def read(self) -> bytes:
        """The whole body. Raises `HTTPBroken`."""

    async def part(self) -> bytes:
        """What has come of the body, b"" after its end. Raises `HTTPBroken`."""

    async def aclose(self) -> None:
        """Let go of the connection. Calling it again is harmless."""


class HTTPConnections:
    """Connections to one address, or to a unix ``socket``, as many as there are exchanges under way at once."""

    def __init__(self, host: str, port: int, *, connect_timeout: float, socket: str = "") -> None:
        self._address = (host, port)
        self._socket = socket
        self._host = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self._connect_timeout = connect_timeout
        self._idle: list[_Connection] = []
        self.closed = False

    def __repr__(self) -> str:
        return f"<HTTPConnections to {self._host}, {len(self._idle)} idle>"

    async def exchange(self, method: str, target: str, headers: Headers, body: bytes) -> Answer:
        """Send a request, and wait for the head of its answer. Raises `HTTPBroken`."""
        head = f"{method} {target} HTTP/1.1\r\nhost: {self._host}\r\n{headers.lines}content-length: {len(body)}\r\n\r\n"
        connection = await self._connection()
        answer = _ParsedAnswer(self, connection)
        try:
            await connection.send(head.encode("ascii") + body)
            await answer.receive_head()
        except BaseException:
            await answer.aclose()
            raise
        return answer

    async def aclose(self) -> None:
        """Close what is idle, and what is under way when it has its answer."""
        self.closed = True
        idle, self._idle = self._idle, []
        for connection in idle:
            await connection.aclose()

    def give_back(self, connection: _Connection) -> None:
        """For an answer that is complete: somebody else may use its connection."""
        connection.idle_since = time.monotonic()
        self._idle.append(connection)

    async def _connection(self) -> _Connection:
        while self._idle:
            connection = self._idle.pop()
            if connection.usable():
                return connection
            await connection.aclose()
        host, port = self._address
        try:
            with anyio.fail_after(self._connect_timeout):
                if self._socket:
                    return _Connection(await anyio.connect_unix(self._socket))
                return _Connection(await anyio.connect_tcp(host, port))
        except TimeoutError:
            raise HTTPBroken(f"no connection within {self._connect_timeout:g} s") from None
        except OSError as error:
            raise HTTPBroken(f"no connection: {error}") from None


class _Connection:
    """A stream, and whether it may be used again."""

    __slots__ = ("_poll", "_stream", "idle_since")

    def __init__(self, stream: anyio.abc.ByteStream) -> None:
        self._stream = stream
        self._poll = select.poll()
        self._poll.register(stream.extra(anyio.abc.SocketAttribute.raw_socket), select.POLLIN)
        self.idle_since = 0.0

    def usable(self) -> bool:
        """Whether it is young, and nothing has come on it since: that could only be its end."""
        return time.monotonic() - self.idle_since < _REUSED_WITHIN and not self._poll.poll(0)

    async def send(self, data: bytes) -> None:
        try:
            await self._stream.send(data)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError) as error:
            raise HTTPBroken("the connection was closed before the request was sent") from error

    async def receive(self) -> bytes:
        """Some bytes, b"" at the end."""
        try:
            return await self._stream.receive(_READ_SIZE)
        except anyio.EndOfStream:
            return b""
        except (anyio.BrokenResourceError, anyio.ClosedResourceError) as error:
            raise HTTPBroken("the connection broke") from error

    async def aclose(self) -> None:
        await anyio.aclose_forcefully(self._stream)


class _ParsedAnswer:
    """An `Answer` that gives its connection back when it has been read to its end."""

    def __init__(self, connections: HTTPConnections, connection: _Connection) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self._connections = connections
        self._connection = connection
        self._parser = httptools.HttpResponseParser(self)
        self._body: list[bytes] = []
        self._complete = False
        self._kept = False
        self._closed = False

    def __repr__(self) -> str:
        return f"<Answer {self.status or 'to come'}{', complete' if self._complete else ''}>"

    async def receive_head(self) -> None:
        """Wait for status and headers. Raises `HTTPBroken`."""
        while not self.status:
            await self._receive()

    async def read(self) -> bytes:
        while not self._complete:
            await self._receive()
        return self._taken()

    async def part(self) -> bytes:
        while not self._body and not self._complete:
            await self._receive()
        return self._taken()

    def _taken(self) -> bytes:
        body, self._body = self._body, []
        return body[0] if len(body) == 1 else b"".join(body)

    async def aclose(self) -> None:
        if not self._closed:
            self._closed = True
            if self._complete and self._kept and not self._connections.closed:
                self._connections.give_back(self._connection)
            else:
                await self._connection.aclose()

    async def _receive(self) -> None:
        data = await self._connection.receive()
        if not data:
            self._ended()
            return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._kept = False
            raise HTTPBroken(f"the answer is not HTTP: {error}") from None

    def _ended(self) -> None:
        if not self.status:
            raise HTTPBroken("the connection was closed before the answer")
        if "content-length" in self.headers or "transfer-encoding" in self.headers:
            raise HTTPBroken("the connection was closed within the answer")
        self._complete = True

    # ---- from the parser

    def on_message_begin(self) -> None:
        """An answer, or a 1xx before it, begins."""
        if self._complete:
            raise ValueError("a second answer to one request")

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header; of several with one name, the last."""
        self.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        """The head is there; that of a 1xx only announces it."""
        status = self._parser.get_status_code()
        if status >= 200:
            self.status = status

    def on_body(self, body: bytes) -> None:
        """Some of the body."""
        self._body.append(body)

    def on_message_complete(self) -> None:
        """All of the body."""
        if self.status:
            self._complete = True
            self._kept = self._parser.should_keep_alive()
        else:
            self.headers.clear()
