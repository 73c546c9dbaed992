"""The last lines of the log, for whoever looks into a muxsim that runs: so many, and no more."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final

from muxsim.runtime.bell import Bell

MOST_LINES: Final = 8192
"""Beside the bytes: each is an object of its own."""
# As many go into one answer, which has to be written and read as a whole.
_MOST_OF_A_PAGE: Final = 256
_MOST_BYTES_OF_A_PAGE: Final = 256 * 1024


@dataclass(frozen=True, slots=True)
class _Line:
    session: str | None
    text: str
    is_last: bool


@dataclass(frozen=True, slots=True)
class Page:
    """Some lines in their order, the number ``after`` which the next one begins, and whether more are there already.

    ``lost``: so many that would have come first are not kept any more. ``over``: the session's last is among them.
    """

    lines: list[str]
    after: int
    more: bool
    lost: bool
    over: bool


class RecentLines:
    """Keeps lines of up to ``most_bytes`` in all."""

    def __init__(self, most_bytes: int) -> None:
        self._most = most_bytes
        self._lines: deque[_Line] = deque()
        self._bytes = 0
        self._dropped = 0
        self._bell = Bell()

    def __repr__(self) -> str:
        return f"<RecentLines {len(self._lines)}, {self._bytes} bytes>"

    def keep(self, session: str | None, text: str, *, is_last: bool = False) -> None:
        """Keep a line, which says something of a session, perhaps the last thing."""
        self._lines.append(_Line(session, text, is_last))
        self._bytes += len(text)
        while self._bytes > self._most or len(self._lines) > MOST_LINES:
            self._bytes -= len(self._lines.popleft().text)
            self._dropped += 1
        self._bell.ring()

    async def wait(self) -> None:
        """Wait for another line, of whichever session."""
        await self._bell.wait()

    def sessions_like(self, beginning: str) -> set[str]:
        """The sessions of which there are lines and whose ids begin so."""
        return {one.session for one in self._lines if one.session is not None and one.session.startswith(beginning)}

    def page(self, session: str | None, after: int = 0) -> Page:
        """The lines of a session, or all, that come after the first ``after`` that there ever were."""
        at, size, found = max(after, self._dropped), 0, list[_Line]()
        for index in range(at - self._dropped, len(self._lines)):
            line = self._lines[index]
            if session is None or line.session == session:
                if len(found) >= _MOST_OF_A_PAGE or size > _MOST_BYTES_OF_A_PAGE:
                    break
                found.append(line)
                size += len(line.text)
            at += 1
        more = at < self._dropped + len(self._lines)
        lost = self._dropped > after
        # The last thing said of a session is followed by more where its id has been used again.
        over = session is not None and bool(found) and found[-1].is_last and not more
        return Page([one.text for one in found], at, more, lost, over)
