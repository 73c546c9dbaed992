"""A line for each HTTP request, where that is wanted: a connection that looks at what it reads and writes itself."""

from __future__ import annotations

import asyncio
from typing import Any, Final, cast

from muxsim.access import network_of
from muxsim.observe.events import HTTPRequest
from muxsim.serve.http.connection import Connection
from muxsim.serve.http.incoming import Request
from muxsim.serve.http.interfaces import Familiar
from transports.http_rules import HTTPRefusal
from transports.origin import origin_of

_LONGEST_PATH: Final = 512
_CONTINUE: Final = 100


class LoggedConnection(Connection):
    """Tells of each request when its answer has been written, or its client has gone."""

    def __init__(self, *args: Any, **options: Any) -> None:
        Connection.__init__(self, *args, **options)
        self._served: Request | None = None
        self._since = 0.0
        self._repeats: Familiar | None = None
        self._written: _Counted

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._written = _Counted(cast("asyncio.Transport", transport))
        super().connection_made(cast("asyncio.BaseTransport", self._written))

    def connection_lost(self, exc: Exception | None) -> None:
        self._tell()
        super().connection_lost(exc)

    def _serves(self, request: Request, repeats: Familiar | None) -> None:
        self._served, self._repeats, self._since = request, repeats, self.loop.time()
        self._written.begin()

    def _begin(self, request: Request) -> None:
        self._serves(request, None)
        Connection._begin(self, request)

    def _take_familiar(self, familiar: Familiar, data: bytes) -> bool:
        self._serves(familiar.request, familiar)
        taken = Connection._take_familiar(self, familiar, data)
        if not taken:
            self._served = None
        return taken

    def _refuse_and_close(self, refusal: HTTPRefusal) -> None:
        if self._served is None:
            self._usual = None
            self._serves(self._incoming.request or Request(), None)
        Connection._refuse_and_close(self, refusal)

    def _complete(self, keep_alive: bool) -> None:
        self._tell()
        Connection._complete(self, keep_alive)

    def _close(self) -> None:
        self._tell()
        Connection._close(self)

    def _stop_listening(self) -> None:
        self._tell()
        Connection._stop_listening(self)

    def _tell(self) -> None:
        request, self._served = self._served, None
        if request is None:
            return
        origin = request.origin or origin_of(request.headers)
        peer = request.peer or self.peer
        self._limits.events.emit(
            HTTPRequest(
                method=request.method.decode("latin-1"),
                path=request.url.partition(b"?")[0].decode("latin-1")[:_LONGEST_PATH],
                status=self._written.status,
                bytes=self._written.bytes,
                seconds=round(self.loop.time() - self._since, 6),
                peer=peer or None,
                principal=self._principal(peer),
                request=None if origin is None else origin.request,
            )
        )

    def _principal(self, peer: str) -> str | None:
        """The caller's name, if it has one: as the short way knows it, or whoever serves the request has found out."""
        if self._repeats is not None:
            return self._repeats.principal
        if self._usual is not None:
            return self._usual.principal
        return None if self.reader.share in ("", network_of(peer)) else self.reader.share


class _Counted:
    """A transport that counts what is written of one answer after the other."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self.begin()

    def begin(self) -> None:
        """Another answer begins."""
        self.status: int | None = None
        self.bytes = 0

    def write(self, data: bytes) -> None:
        """Write a piece of it."""
        if self.status in (None, _CONTINUE) and data[9:12].isdigit():
            self.status = int(data[9:12])
        self.bytes += len(data)
        self._transport.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)
