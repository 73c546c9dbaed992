"""How long something took, each time: so many up to each of a few bounds. Pure."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence


class Distribution:
    """Counts of seconds: ``counts[n]`` are those up to ``bounds[n]`` and above the one before, the last all others."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def __repr__(self) -> str:
        return f"<Distribution of {self.count}: {self.sum:.3f} s>"

    @property
    def count(self) -> int:
        """How many there were."""
        return sum(self.counts)

    def add(self, seconds: float) -> None:
        """One more took so long."""
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.sum += seconds
