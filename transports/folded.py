"""A message that was printed over several lines, as indenting printers do. Pure.

Go's SDK reads a stream of JSON values, and so takes these. What such a printer writes begins with a line that is only
a brace, goes on with lines that are indented, and ends with the other brace at the beginning of a line. What is a
message on a line of its own is taken for one, wherever it stands.
"""

from __future__ import annotations

from typing import Final

from transports import mending

# What a line takes in memory beside its bytes: there may be millions of one byte.
_OF_A_LINE: Final = 64
_ENDS: Final = {b"{": b"}", b"[": b"]"}


class Folded:
    """The lines of one such message, which take at most ``max_size`` bytes, as long as they may become one."""

    def __init__(self, max_size: int) -> None:
        self._max_size = max_size
        self._lines: list[bytes] = []
        self._size = 0
        self._end = b""

    @property
    def begun(self) -> bool:
        """Whether there are lines that wait for more."""
        return bool(self._lines)

    def begins(self, line: bytes) -> bool:
        """Whether this line, which is no message, may begin one; then it is kept."""
        self._end = _ENDS.get(line.strip(mending.BLANK), b"")
        if self._end:
            self._keep(line)
        return bool(self._end)

    def goes_on(self, line: bytes) -> bool:
        """Whether this line belongs to what has begun; then it is kept."""
        fits = self._size + len(line) + _OF_A_LINE <= self._max_size
        belongs = fits and (line.startswith((b" ", b"\t")) or line.rstrip(mending.BLANK) == self._end)
        if belongs:
            self._keep(line)
        return belongs

    @property
    def complete(self) -> bool:
        """Whether the last line that was kept is the end."""
        return len(self._lines) > 1 and self._lines[-1].rstrip(mending.BLANK) == self._end

    def take(self) -> bytes:
        """What has been kept, as it came; nothing is kept then."""
        lines, self._lines, self._size = self._lines, [], 0
        return b"\n".join(lines)

    def _keep(self, line: bytes) -> None:
        self._lines.append(line)
        self._size += len(line) + _OF_A_LINE
