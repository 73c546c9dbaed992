"""When an environment that does not start is left alone for a while. Pure: the time is an argument."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field


@dataclass(slots=True)
class Breaker:
    """Open for ``window`` seconds after ``limit`` failed starts within as many; then one start at a time is tried.

    A start that succeeds closes it and forgets the failures. A ``limit`` of 0 never opens it.
    """

    limit: int
    window: float
    _failures: deque[float] = field(default_factory=deque)
    _open_until: float | None = None
    _proven: bool = False

    def failed(self, now: float) -> bool:
        """A start has failed; whether that has opened it."""
        if not self.limit:
            return False
        if self._open_until is None:
            self._failures.append(now)
            self._forget(now)
            opens = len(self._failures) >= self.limit
        else:
            opens = now >= self._open_until  # one that was under way when it opened is no news
        if opens:
            self._open(now)
        return opens

    def succeeded(self) -> None:
        """A start has succeeded."""
        self._failures.clear()
        self._open_until = None
        self._proven = True

    def survived(self) -> None:
        """A start has not failed in the time in which one would that is going to, but has not been tried either."""
        self._proven = True

    def closed_in(self, now: float) -> float:
        """Seconds in which nothing may start; 0 when something may."""
        return 0.0 if self._open_until is None else max(0.0, self._open_until - now)

    def room(self, now: float) -> float:
        """How many starts may be under way whose outcome is not known: no more than may fail."""
        if not self.limit:
            return math.inf
        if self._open_until is not None:
            return 0 if now < self._open_until else 1
        self._forget(now)
        if self._proven and not self._failures:
            return math.inf
        return self.limit - len(self._failures)

    @property
    def failing(self) -> bool:
        """Whether a start has failed since the last that succeeded."""
        return bool(self._failures) or self.probing

    @property
    def probing(self) -> bool:
        """Whether it has opened and nothing has succeeded since."""
        return self._open_until is not None

    def _open(self, now: float) -> None:
        self._failures.clear()
        self._open_until = now + self.window

    def _forget(self, now: float) -> None:
        while self._failures and self._failures[0] <= now - self.window:
            self._failures.popleft()
