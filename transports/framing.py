"""Newline framing: bytes in, lines out. Pure, no I/O."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from transports.errors import LineTooLong

NEWLINE: Final = b"\n"


class LineFramer:
    """Cuts a byte stream into lines of at most ``max_line`` bytes.

    A long line is kept as the pieces that came and joined once, so its cost is linear however it is cut.
    """

    def __init__(self, max_line: int) -> None:
        self._max_line = max_line
        self._pieces: list[bytes] = []
        self._waiting = 0

    @property
    def waiting(self) -> int:
        """Bytes of the line that is not complete yet."""
        return self._waiting

    def receive_data(self, data: bytes) -> Iterator[bytes]:
        """Take bytes, give the lines they complete: without their newline (or CR LF), blank lines left out.

        Raises :class:`LineTooLong` as soon as a line has passed the limit, complete or not.
        """
        start = 0
        while (end := data.find(NEWLINE, start)) >= 0:
            line = data[start:end]
            start = end + 1
            if self._pieces:
                self._pieces.append(line)
                line = b"".join(self._pieces)
                self._pieces.clear()
                self._waiting = 0
            if len(line) > self._max_line:
                raise LineTooLong(self._max_line)
            if line.endswith(b"\r"):
                line = line[:-1]
            if line and not line.isspace():
                yield line
        self._keep(data[start:] if start else data)

    def _keep(self, rest: bytes) -> None:
        if not rest:
            return
        self._pieces.append(rest)
        self._waiting += len(rest)
        if self._waiting > self._max_line:
            self._pieces.clear()
            self._waiting = 0
            raise LineTooLong(self._max_line)

    def rest(self) -> bytes:
        """At the end of the stream: the line that has no newline, b"" if there is none."""
        rest = b"".join(self._pieces)
        self._pieces.clear()
        self._waiting = 0
        return b"" if rest.isspace() else rest.removesuffix(b"\r")
