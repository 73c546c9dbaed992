"""The last hour in samples, of counts that are kept anyway: it costs next to nothing, and so is there before anybody
looks. Only memory is not, which is read while somebody does."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from muxsim.admission.pool import Pool
from muxsim.observe.counters import Counters
from muxsim.observe.events import FAILURES
from muxsim.observe.news import News
from muxsim.observe.traffic import CALL_SECONDS, Traffics
from muxsim.serve.watch import feed
from muxsim.session.registry import Sessions
from muxsim.session.sampler import Sampler

_CALL: Final = "tools/call"
_NO_CALLS: Final = (0,) * (len(CALL_SECONDS) + 1)


class History:
    """Takes the samples. Runs on asyncio; ``now`` gives the seconds since 1970."""

    def __init__(
        self,
        sessions: Sessions,
        pool: Pool,
        sampler: Sampler,
        counters: Counters,
        traffics: Traffics | None,
        recent: News,
        now: Callable[[], float],
    ) -> None:
        self._sessions = sessions
        self._pool = pool
        self._sampler = sampler
        self._counters = counters
        self._traffics = traffics
        self._recent = recent
        self._now = now
        self.samples: deque[feed.Sample] = deque(maxlen=feed.SAMPLES)
        """The oldest first."""
        self.taken = 0
        """How many have been taken, also of those that are forgotten."""
        self._opened = self._failed = 0
        self._calls: Sequence[int] = _NO_CALLS

    def __repr__(self) -> str:
        return f"<History of {len(self.samples)} samples>"

    def since(self, taken: int) -> list[feed.Sample]:
        """Those that were taken after so many."""
        new = min(self.taken - taken, len(self.samples))
        return list(self.samples)[len(self.samples) - new :]

    async def run(self) -> None:
        """Take one after the other, until cancelled."""
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            due = max(due + feed.SAMPLE_SECONDS, loop.time())
            await asyncio.sleep(due - loop.time())
            self.take()

    def take(self) -> None:
        """Take the sample of what has happened since the last."""
        opened, failed, calls = self._counters.total("sessions_opened"), self._count_failed(), self._count_calls()
        made = [now - before for now, before in zip(calls, self._calls, strict=True)]
        starts = sorted(self._recent.starts_taken())
        self.samples.append(
            feed.Sample(
                time=round(self._now(), 3),
                sessions=len(self._sessions),
                queue=self._pool.statistics().leases.waiting,
                opens=(opened - self._opened) / feed.SAMPLE_SECONDS,
                calls=None if self._traffics is None else sum(made) / feed.SAMPLE_SECONDS,
                errors=(failed - self._failed) / feed.SAMPLE_SECONDS,
                start_p50=_part_of(starts, 0.5),
                start_p99=_part_of(starts, 0.99),
                call_p50=quantile(CALL_SECONDS, made, 0.5),
                call_p99=quantile(CALL_SECONDS, made, 0.99),
                memory=self._memory(),
            )
        )
        self.taken += 1
        self._opened, self._failed, self._calls = opened, failed, calls

    def _count_failed(self) -> int:
        ended = sum(self._counters.total("sessions_ended", cause) for cause in FAILURES)
        return self._counters.total("sessions_not_opened") + ended

    def _count_calls(self) -> Sequence[int]:
        by_env = [] if self._traffics is None else [traffic.calls.get(_CALL) for _, traffic in self._traffics.all()]
        return [sum(counts) for counts in zip(_NO_CALLS, *(calls.counts for calls in by_env if calls), strict=True)]

    def _memory(self) -> int | None:
        memory = [usage.memory for usage in self._sampler.by_environment().values()]
        return None if None in memory else sum(size for size in memory if size is not None)


def quantile(bounds: Sequence[float], counts: Sequence[int], part: float) -> float | None:
    """Of what was counted up to each bound, and above the last: below which value so great a part of it is.

    Between two bounds it is taken to be spread evenly; what is above the last counts as that. None for nothing.
    """
    total = sum(counts)
    if not total:
        return None
    wanted, below = part * total, 0
    for bound, before, count in zip(bounds, (0.0, *bounds), counts, strict=False):
        if count and below + count >= wanted:
            return round(before + (bound - before) * (wanted - below) / count, 6)
        below += count
    return bounds[-1]


def _part_of(ordered: Sequence[float], part: float) -> float | None:
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))] if ordered else None
