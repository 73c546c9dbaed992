"""Server-sent events as bytes. Pure, no I/O."""

from __future__ import annotations

from collections.abc import Iterator
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


class EventReader:
    """Takes the bytes of an event stream and gives the data of its events; other fields are passed over."""

    def __init__(self) -> None:
        self._rest: list[bytes] = []
        self._data: list[bytes] = []

    def receive_data(self, data: bytes) -> Iterator[bytes]:
        """Take bytes, give the data of the events they complete; an event without data is none."""
        self._rest.append(data)
        if b"\n" not in data:
            return
        *lines, rest = b"".join(self._rest).split(b"\n")
        self._rest = [rest]
        for line in (whole.removesuffix(b"\r") for whole in lines):
            if line.startswith(b"data:"):
                self._data.append(line[6:] if line[5:6] == b" " else line[5:])
            elif not line and self._data:
                payload, self._data = b"\n".join(self._data), []
                if payload:
                    yield payload
