"""Requests as they come on one connection: parsed within bounds, and written anew for whoever serves them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, Protocol

import httptools

from muxsim.serve.http.connections import Bounds
from transports.http_rules import HTTPRefusal
from transports.origin import Origin

# Asks for another protocol on this connection. Whoever serves the request by HTTP has no use for it; who knows the
# other protocol finds it in `Request.upgrade`.
_UPGRADE: Final = b"upgrade"


class Request:
    """One request: its head, and as much of its body as has come and nobody has taken."""

    __slots__ = (
        *("body", "chunked", "complete", "expects", "headers", "keep_alive", "method", "origin", "peer", "upgrade"),
        *("url", "version"),
    )

    def __init__(self) -> None:
        self.peer = ""
        """Whom it is from: the other end of its connection, or whom a trusted proxy there names."""
        self.method = b""
        self.url = b""
        self.version = "1.1"
        self.headers: list[tuple[bytes, bytes]] = []
        self.keep_alive = True
        self.chunked = False
        self.expects = False
        """Whether the client waits to be asked for the body."""
        self.upgrade = b""
        """The protocol that it asks for instead, in lower case; b"" for none."""
        self.body: list[bytes] = []
        self.complete = False
        self.origin: Origin | None = None
        """Where it says that it comes from, once somebody has looked."""

    def __repr__(self) -> str:
        return f"<Request {self.method.decode()} {self.url.decode('latin-1')}>"

    def head(self, *, without_body: bool = False, with_upgrade: bool = False) -> bytes:
        """The head as this server reads it: every other reader takes the same for its length."""
        fields: Iterable[tuple[bytes, bytes]] = self.headers
        if without_body:
            framing = (b"content-length", b"transfer-encoding", b"expect")
            fields = [(name, value) for name, value in self.headers if name not in framing]
        lines = b"".join([b"%b: %b\r\n" % field for field in fields if field[0] != _UPGRADE])
        if with_upgrade:
            lines += b"%b: %b\r\n" % (_UPGRADE, self.upgrade)
        return b"%b %b HTTP/%b\r\n%b\r\n" % (self.method, self.url, self.version.encode(), lines)

    def framed(self, piece: bytes) -> bytes:
        """A piece of the body as it stands on the wire."""
        return b"%x\r\n%b\r\n" % (len(piece), piece) if self.chunked else piece

    @property
    def end(self) -> bytes:
        """What ends the body on the wire; trailers are nobody's headers, and left out."""
        return b"0\r\n\r\n" if self.chunked else b""


class Listener(Protocol):
    """Who is told what has come."""

    def begun(self, request: Request) -> None:
        """A head is there; it may be followed by a body."""

    def came(self, request: Request, piece: bytes) -> None:
        """A piece of the body is there."""

    def ended(self, request: Request) -> None:
        """The request is complete."""


class Incoming:
    """The requests of one connection, one after the other."""

    def __init__(self, listener: Listener, bounds: Callable[[], Bounds], refused: Callable[[str], None]) -> None:
        self._listener = listener
        self._bounds = bounds
        self._refused = refused
        self._parser = httptools.HttpRequestParser(self)
        self._refusal: HTTPRefusal | None = None
        # Bytes since the parser last had a whole head or a piece of a body: lines, chunk sizes, trailers.
        self._lines = 0
        self._length = 0
        self._upgrade = b""
        self.request: Request | None = None
        """The one that is read, or was read last."""
        self.in_head = False
        self.between = True
        """Whether no request has begun that is not complete."""

    def feed(self, data: bytes) -> None:
        """Read on. Raises the refusal of what is no request, or too large a one; nothing can be read after that."""
        if not self.between:
            self._lines += len(data)
        while data:
            try:
                self._parser.feed_data(data)
                break
            except httptools.HttpParserUpgrade as upgrade:
                data = self._without_upgrade() + data[upgrade.args[0] :]
            except httptools.HttpParserError as error:
                raise self._refusal or HTTPRefusal(400, f"this is no HTTP request: {error}") from None
        if self._lines > self._bounds().max_header_bytes:
            raise self._too_long()

    # ---- from the parser

    def on_message_begin(self) -> None:
        self.request = Request()
        self.in_head, self.between = True, False
        self._length = self._lines = 0

    def on_url(self, url: bytes) -> None:
        assert self.request is not None
        self.request.url += url
        bound = self._bounds().max_url
        if len(self.request.url) > bound:
            self._refuse(
                "max_url", HTTPRefusal(414, f"the request target is longer than {bound} bytes (server.max_url)")
            )

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.in_head:
            return  # a trailer
        assert self.request is not None
        self.request.headers.append((name.lower(), value))
        self._length += len(name) + len(value) + 4

    def on_headers_complete(self) -> None:
        request, bounds = self.request, self._bounds()
        assert request is not None
        if len(request.headers) > bounds.max_headers:
            text = f"there are more than {bounds.max_headers} headers (server.max_headers)"
            self._refuse("max_headers", HTTPRefusal(431, text))
        if self._length > bounds.max_header_bytes:
            raise self._too_long()
        request.method = self._parser.get_method()
        request.version = self._parser.get_http_version()
        self._check_target(request)
        if self._parser.should_upgrade():
            self._upgrade = dict(request.headers).get(_UPGRADE, b"").strip().lower()
            return  # the parser leaves its body to whoever speaks the other protocol
        request.upgrade, self._upgrade = self._upgrade, b""
        self._lines, self.in_head = 0, False
        request.keep_alive = request.version != "1.0" and self._parser.should_keep_alive()
        for name, value in request.headers:
            if name == b"transfer-encoding":
                request.chunked = True
            elif name == b"expect":
                request.expects = value.lower() == b"100-continue"
        self._listener.begun(request)

    def on_body(self, piece: bytes) -> None:
        self._lines = 0
        assert self.request is not None
        self._listener.came(self.request, piece)

    def on_message_complete(self) -> None:
        if self.in_head:
            return  # one that is read again, without its wish for another protocol
        self._lines, self.between = 0, True
        assert self.request is not None
        self.request.complete = True
        self._listener.ended(self.request)

    def _without_upgrade(self) -> bytes:
        """The head that the parser has just read, for a new one: it goes on in the protocol of before."""
        assert self.request is not None
        self._parser = httptools.HttpRequestParser(self)
        return self.request.head()

    # ---- refusals

    def _check_target(self, request: Request) -> None:
        try:
            path = httptools.parse_url(request.url).path
        except httptools.HttpParserInvalidURLError:
            path = None
        if path is None or not path.isascii() or request.method == b"CONNECT":
            self._refuse("", HTTPRefusal(400, "the request target is no path of this server"))

    def _too_long(self) -> HTTPRefusal:
        if self._refusal is None:
            bound = self._bounds().max_header_bytes
            self._refused("max_header_bytes")
            self._refusal = HTTPRefusal(431, f"the headers are longer than {bound} bytes (server.max_header_bytes)")
        return self._refusal

    def _refuse(self, setting: str, refusal: HTTPRefusal) -> None:
        """Stop the parser, which reports what is raised in a callback as an error of its own."""
        self._refusal = refusal
        if setting:
            self._refused(setting)
        raise refusal
