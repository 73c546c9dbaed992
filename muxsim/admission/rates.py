"""How often somebody may do something: a token bucket for each of them. Pure: the time is an argument."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

# Names that are remembered. Past these, full buckets go, which says nothing about anybody, and then the oldest.
_MOST_NAMES: Final = 4096


@dataclass(slots=True)
class _Bucket:
    tokens: float
    filled: float


@dataclass(slots=True)
class TokenBuckets:
    """``burst`` at once and ``rate`` per second in the long run, for each name; a ``rate`` of 0 sets no bound."""

    rate: float
    burst: int
    _buckets: dict[str, _Bucket] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"<TokenBuckets {self.rate:g}/s, burst {self.burst}, {len(self._buckets)} names>"

    def take(self, name: str, now: float) -> float:
        """Take one token, and return 0; or the seconds until there is one, and take none."""
        if not self.rate:
            return 0.0
        bucket = self._buckets.get(name)
        if bucket is None:
            self._make_room(now)
            bucket = self._buckets[name] = _Bucket(self.burst, now)
        bucket.tokens = self._level(bucket, now)
        bucket.filled = max(now, bucket.filled)
        if bucket.tokens < 1:
            return (1 - bucket.tokens) / self.rate
        bucket.tokens -= 1
        return 0.0

    def _level(self, bucket: _Bucket, now: float) -> float:
        return min(float(self.burst), bucket.tokens + max(0.0, now - bucket.filled) * self.rate)

    def _make_room(self, now: float) -> None:
        if len(self._buckets) < _MOST_NAMES:
            return
        self._buckets = {
            name: bucket for name, bucket in self._buckets.items() if self._level(bucket, now) < self.burst
        }
        while len(self._buckets) >= _MOST_NAMES:
            del self._buckets[next(iter(self._buckets))]
