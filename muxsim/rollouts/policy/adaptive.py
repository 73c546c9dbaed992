"""How many calls an endpoint takes at a time. Pure: the time comes as an argument."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf


@dataclass
class AdaptiveLimit:
    """Halves when the endpoint refuses, and grows by one in the time it takes to answer as many calls as it allows.

    All calls that are under way when the first of them is refused meet the same wall: together they halve the limit
    once. So a call is told by when it started, in seconds of any clock that only goes forward.
    """

    maximum: int
    _limit: float = field(init=False)
    _last_cut: float = field(init=False, default=-inf)

    def __post_init__(self) -> None:
        if self.maximum < 1:
            raise ValueError(f"max_concurrent must be at least 1, not {self.maximum}")
        self._limit = float(self.maximum)

    @property
    def allowed(self) -> int:
        """How many calls may be under way."""
        return int(self._limit)

    def succeeded(self, started: float) -> None:
        """A call was answered. One from before the last cut says nothing of the limit since."""
        if started >= self._last_cut:
            self._limit = min(float(self.maximum), self._limit + 1 / self._limit)

    def refused(self, started: float, now: float) -> None:
        """A call was refused for the rate limit."""
        if started >= self._last_cut:
            self._limit = max(1.0, self._limit / 2)
            self._last_cut = now
