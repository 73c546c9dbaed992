"""Server-sent events as bytes. Pure, no I/O."""

from __future__ import annotations

from typing import Final

PING: Final = b": ping\r\n\r\n"


def encode_event(data: bytes, *, event: bytes = b"message", id: str = "", retry_ms: int | None = None) -> bytes:
    """One event. ``data`` must be a single line, as every encoded message is."""
    head = b"event: %b\r\n" % event
    if id:
        head += b"id: %b\r\n" % id.encode()
    if retry_ms is not None:
        head += b"retry: %d\r\n" % retry_ms
    return b"%bdata: %b\r\n\r\n" % (head, data)
