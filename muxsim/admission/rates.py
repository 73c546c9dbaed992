"""How often somebody may do something: a token bucket for each of them. Pure: the time is an argument."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

# Names that are remembered. Past these, full buckets go, which says nothing about anybody, and then the oldest.
_MOST_NAMES: Final = 4096


@dataclass(slots=True)
class _Bucket:
    rate: float
    burst: int
    tokens: float
    filled: float

    def level(self, now: float) -> float:
        return min(float(self.burst), self.tokens + max(0.0, now - self.filled) * self.rate)


@dataclass(slots=True)
class TokenBuckets:
    """``burst`` at once and ``rate`` per second in the long run, for each name; a ``rate`` of 0 sets no bound.

    ``own`` has the rate and the burst of names for which they are others.
    """

    rate: float
    burst: int
    own: Mapping[str, tuple[float, int]] = field(default_factory=dict)
    _buckets: dict[str, _Bucket] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"<TokenBuckets {self.rate:g}/s, burst {self.burst}, {len(self._buckets)} names>"

    def take(self, name: str, now: float) -> float:
        """Take one token, and return 0; or the seconds until there is one, and take none."""
        rate, burst = self.own.get(name) or (self.rate, self.burst)
        if not rate:
            return 0.0
        bucket = self._buckets.get(name)
        if bucket is None:
            self._make_room(now)
            bucket = self._buckets[name] = _Bucket(rate, burst, burst, now)
        bucket.tokens = bucket.level(now)
        bucket.filled = max(now, bucket.filled)
        if bucket.tokens < 1:
            return (1 - bucket.tokens) / rate
        bucket.tokens -= 1
        return 0.0

    def _make_room(self, now: float) -> None:
        if len(self._buckets) < _MOST_NAMES:
            return
        self._buckets = {name: bucket for name, bucket in self._buckets.items() if bucket.level(now) < bucket.burst}
        while len(self._buckets) >= _MOST_NAMES:
            del self._buckets[next(iter(self._buckets))]
