"""The ordinary way: uvicorn's protocol behind a connection that is not its own, which hands it request by request."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, Final, Protocol

import httptools
import uvicorn
from starlette.types import Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from muxsim.serve.http.incoming import Request
from muxsim.serve.http.interfaces import Answer, Application, Surrendered
from muxsim.serve.http.unread import Reader, tell_reader_to
from muxsim.serve.http.web_socket import offer_upgrade
from transports.asgi import Call, wait_disconnect

_CONNECTION: Final = "muxsim.connection"
_CLOSE: Final = (b"connection", b"close")
_HOP: Final = frozenset({b"transfer-encoding", b"connection"})


class Owner(Surrendered, Protocol):
    """The connection that requests come from and answers go to."""

    def body_wanted(self, wanted: bool) -> None:
        """Whether more of the body may come."""

    def answer_complete(self) -> None:
        """The answer has been written."""

    def close_now(self) -> None:
        """Nothing more will be written."""


class Ordinary:
    """Serves one request after the other by ASGI, for a connection that decides which."""

    def __init__(
        self, owner: Owner, config: uvicorn.Config, state: ServerState, loop: asyncio.AbstractEventLoop
    ) -> None:
        self.request: Request | None = None
        """What is being served."""
        self._answer: Answer | None = None
        self._owner = owner
        self._relay = _Relay(self, owner)
        self._protocol = HttpToolsProtocol(config, state, {_CONNECTION: self}, loop)
        self._protocol.connection_made(self._relay)

    @property
    def answering(self) -> bool:
        """Whether the answer to the request has begun."""
        return self.request is not None and self._relay.begun

    def begin(self, request: Request, answer: Answer | None = None) -> None:
        """Serve a request, whose body is passed on by `came` and `ended`; or only its ``answer``, without a body."""
        self.request, self._answer = request, answer
        self._relay.begin(request.version)
        if answer is not None:
            self._protocol.data_received(request.head(without_body=True))
            return
        pieces, request.body = request.body, []
        self._protocol.data_received(b"".join([request.head(), *map(request.framed, pieces)]))
        if request.complete:
            self.ended(request)

    def came(self, request: Request, piece: bytes) -> None:
        """Pass on a piece of the body."""
        self._protocol.data_received(request.framed(piece))

    def ended(self, request: Request) -> None:
        """Pass on that the body is complete."""
        if request.end:
            self._protocol.data_received(request.end)

    def pause_writing(self) -> None:
        """The client does not read."""
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        """The client has read."""
        self._protocol.resume_writing()

    def lost(self) -> None:
        """The connection is no more, or nothing of it concerns this any more."""
        self.request = None
        self._protocol.connection_lost(None)

    def served(self) -> None:
        """The answer has been written: the next request may come."""
        self.request = None
        self._owner.answer_complete()

    @property
    def owner(self) -> Surrendered:
        """The connection, for whoever is to have it."""
        return self._owner

    def take_answer(self) -> Answer | None:
        """What a request is to be answered with, that somebody else has taken."""
        answer, self._answer = self._answer, None
        return answer

    def read_by(self, reader: Reader) -> None:
        """The answer is for this one."""
        self._owner.reader = reader

    def abort(self) -> None:
        """Cut the connection: the client has not read for so long."""
        self._owner.transport.abort()


class _Relay(asyncio.Transport):
    """What uvicorn takes for its connection."""

    def __init__(self, ordinary: Ordinary, owner: Owner) -> None:
        super().__init__()
        self._ordinary = ordinary
        self._owner = owner
        self._unchunked: _Unchunked | None = None
        self.begun = False
        """Whether the answer has begun."""

    def begin(self, version: str) -> None:
        """The next answer is for a client of this version of HTTP."""
        self.begun = False
        self._unchunked = _Unchunked(self._owner.transport) if version == "1.0" else None

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._ordinary.request is None:
            return
        self.begun = True
        if self._unchunked is None:
            self._owner.transport.write(data)
        else:
            self._unchunked.write(bytes(data))

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        self.write(b"".join(list_of_data))

    def close(self) -> None:
        # Of a connection that waits for its next request, that is not for uvicorn to say.
        if self._ordinary.request is not None:
            self._owner.close_now()

    def abort(self) -> None:
        self._ordinary.abort()

    def is_closing(self) -> bool:
        return self._owner.transport.is_closing()

    def pause_reading(self) -> None:
        self._owner.body_wanted(False)

    def resume_reading(self) -> None:
        self._owner.body_wanted(True)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._owner.transport.get_extra_info(name, default)

    def get_write_buffer_size(self) -> int:
        return self._owner.transport.get_write_buffer_size()


class _Unchunked:
    """Writes an answer without chunks, which HTTP/1.0 does not know: the end of the connection is that of its body."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._headers: list[tuple[bytes, bytes]] = []
        self._status = b""
        self._parser = httptools.HttpResponseParser(self)

    def write(self, data: bytes) -> None:
        """Take a part of the answer."""
        self._parser.feed_data(data)

    def on_status(self, status: bytes) -> None:
        self._status += status

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        lines = [b"HTTP/1.1 %d %b\r\n" % (self._parser.get_status_code(), self._status)]
        fields = [field for field in self._headers if field[0].lower() not in _HOP]
        lines += [b"%b: %b\r\n" % field for field in (*fields, _CLOSE)]
        self._transport.write(b"".join([*lines, b"\r\n"]))

    def on_body(self, body: bytes) -> None:
        self._transport.write(body)


class ToldWhenServed:
    """The application, for `Ordinary`: it learns when an answer is complete, and may have the answer already."""

    def __init__(self, app: Application) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        ordinary: Ordinary = scope["state"].pop(_CONNECTION)
        answer, request = ordinary.take_answer(), ordinary.request
        if request is not None:
            scope["client"] = request.peer, 0
            offer_upgrade(scope, ordinary.owner, request)
        tell_reader_to(scope, ordinary.read_by)

        async def send_on(event: Message) -> None:
            if event["type"] == "http.response.start" and request is not None and not request.complete:
                # What is still to come of the body is nobody's request.
                kept = [field for field in event.get("headers", ()) if field[0] != b"connection"]
                event = {**event, "headers": [*kept, _CLOSE]}
            await send(event)
            is_last = event["type"] == "http.response.body" and not event.get("more_body", False)
            if is_last and request is not None and ordinary.request is request:
                ordinary.served()

        try:
            if answer is None:
                await self._app(scope, receive, send_on)
            else:
                await self._app.go_on(Call(scope, receive, send_on), answer)
        except ConnectionAbortedError:
            # uvicorn would close it gently, which is to wait for a client that has not read for so long. It has to hear
            # of the end first, or it takes it for a mistake of the application's, and logs it.
            ordinary.abort()
            await wait_disconnect(Call(scope, receive, send_on))
