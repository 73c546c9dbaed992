"""Where the log's lines go, whatever their reader does: stderr, without ever waiting for it."""

from __future__ import annotations

import atexit
import os
import select
import threading
from collections import deque
from collections.abc import Callable
from typing import Final

# A pipe that is ready for writing takes this much without blocking (PIPE_BUF).
_AT_ONCE: Final = 4096
# Seconds, at exit, for a reader that is only slow.
_LAST_LINES: Final = 0.5


class LogSink:
    """Writes to a descriptor, which may be a pipe whose reader is asleep, or has gone.

    What it does not take at once waits for it, up to ``limit`` bytes, while a thread writes; past that, lines are left
    out, each of which is ``dropped()``, and ``notice(count)`` makes the line that says how many. Without a reader there
    is no log.
    """

    def __init__(self, fd: int, limit: int, notice: Callable[[int], str], dropped: Callable[[], None]) -> None:
        self._dropped = dropped
        self._fd = fd
        self._limit = limit
        self._notice = notice
        self._lines: deque[bytes] = deque()
        self._waiting = 0
        self._untold = 0
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._poll = select.poll()
        self._poll.register(fd, select.POLLOUT)
        atexit.register(self.close)

    def __repr__(self) -> str:
        return f"<LogSink to {self._fd}: {self._waiting} bytes wait, {self._untold} lines dropped since>"

    def write(self, text: str) -> None:
        """Take text that ends a line."""
        data = text.encode("utf-8", "replace")
        with self._changed:
            if not self._lines and len(data) <= _AT_ONCE and self._write_at_once(data):
                return
            if self._waiting + len(data) <= self._limit:
                self._lines.append(data)
                self._waiting += len(data)
                self._start()
                self._changed.notify_all()
                return
            self._untold += 1
        self._dropped()

    def flush(self) -> None:
        """Nothing is held back that could be written."""

    def close(self) -> None:
        """Give a slow reader a moment for what waits."""
        atexit.unregister(self.close)
        with self._changed:
            self._changed.wait_for(lambda: not self._lines, _LAST_LINES)

    def _write_at_once(self, data: bytes) -> bool:
        try:
            if not self._poll.poll(0):
                return False
            os.write(self._fd, data)
        except OSError:
            pass  # nobody reads any more
        return True

    def _start(self) -> None:
        if self._thread is None:
            # As a daemon: at exit it may stand in a write for ever.
            self._thread = threading.Thread(target=self._drain, name="muxsim log", daemon=True)
            self._thread.start()

    def _drain(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._lines)
                line = self._lines[0]
            _write_whole(self._fd, line)
            with self._changed:
                self._lines.popleft()
                self._waiting -= len(line)
                if self._untold and not self._lines:
                    notice, self._untold = self._notice(self._untold).encode(), 0
                    self._lines.append(notice)
                    self._waiting += len(notice)
                self._changed.notify_all()


def _write_whole(fd: int, data: bytes) -> None:
    rest = memoryview(data)
    try:
        while rest:
            rest = rest[os.write(fd, rest) :]
    except OSError:
        pass  # nobody reads any more
