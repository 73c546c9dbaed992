"""A line below the log on a terminal, which says what is being installed, and goes when that is done."""

from __future__ import annotations

import os
from typing import Final, Protocol

from muxsim.observe.events import Event
from muxsim.observe.installs import Installs

_ERASED: Final = "\r\x1b[K"
_COLUMNS: Final = 80


class _Written(Protocol):
    def write(self, text: str) -> object: ...
    def flush(self) -> None: ...


class StatusLine:
    """A file for the log's lines, and a listener of events."""

    def __init__(self, below: _Written, fd: int) -> None:
        self._log = below
        self._fd = fd
        self._installs = Installs()
        self._shown = ""

    def __call__(self, event: Event) -> None:
        """Show an install that begins, and no more one that has ended."""
        if self._installs.follow(event):
            self.write("")

    def write(self, text: str) -> None:
        """Write lines of the log above it."""
        status = self._installs.line()[: self._columns() - 1]
        # One piece, so that nothing of the log comes in between.
        if piece := (_ERASED if self._shown else "") + text + status:
            self._log.write(piece)
        self._shown = status

    def flush(self) -> None:
        """Nothing is held back."""
        self._log.flush()

    def _columns(self) -> int:
        try:
            return os.get_terminal_size(self._fd).columns or _COLUMNS
        except OSError:
            return _COLUMNS
