"""Responses as bytes, for who writes them without ASGI."""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

from transports.http_rules import HTTPRefusal

ACCEPTED: Final = b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n%b\r\n"
CLOSE: Final = b"connection: close\r\n"
_HEAD: Final = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\nmcp-session-id: %b\r\n%b\r\n"
)


def answer_head(length: int, session: bytes, keep_alive: bool) -> bytes:
    """The head of a JSON answer of a session's client."""
    return _HEAD % (length, session, b"" if keep_alive else CLOSE)


def refusal_bytes(refusal: HTTPRefusal, *, keep_alive: bool) -> bytes:
    """A whole refusal."""
    body = refusal.body().encode()
    fields = [*refusal.headers, (b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    lines = b"".join(b"%b: %b\r\n" % field for field in fields)
    phrase = HTTPStatus(refusal.status).phrase.encode()
    return b"HTTP/1.1 %d %b\r\n%b%b\r\n%b" % (refusal.status, phrase, lines, b"" if keep_alive else CLOSE, body)
