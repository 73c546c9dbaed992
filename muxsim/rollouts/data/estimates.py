"""What some episodes tell of a policy, and how surely. Pure: the same rewards give the same intervals.

Episodes of one row share their start, so they are not independent: intervals come from drawing whole rows again
(a cluster bootstrap). Of one row alone its episodes are drawn.
"""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Sequence
from math import comb
from typing import Final

import msgspec

Interval = tuple[float, float]

_LEVEL: Final = 0.95
# Draws of a bootstrap: as many as tell an interval's ends well, fewer where there are so many rows that few will do.
_RESAMPLES: Final = 1000
_FEWEST_RESAMPLES: Final = 200
_MOST_DRAWN: Final = 1_000_000
# Of so many a normal distribution tells the same as the binomial one, to three digits and more.
_EXACT: Final = 1000


class PassAtK(msgspec.Struct, kw_only=True):
    """How likely one of k episodes of a row succeeds, over the ``rows`` that have as many."""

    value: float
    interval: Interval | None
    rows: int


class Estimates(msgspec.Struct, kw_only=True):
    """Of scored episodes; None where they are too few. Intervals are of 95 %."""

    std_reward: float | None = None
    mean_interval: Interval | None = None
    success_rate: float | None = None
    success_interval: Interval | None = None
    pass_at_k: dict[str, PassAtK] = {}


def succeeded(reward: float, threshold: float | None) -> bool:
    """Whether a reward is a success: at least the threshold, and without one more than 0."""
    return reward > 0 if threshold is None else reward >= threshold


def mean(values: Sequence[float]) -> float:
    """The mean of some numbers, also where their sum is past the largest that there is."""
    try:
        return math.fsum(values) / len(values)
    except OverflowError:
        return statistics.mean(values)  # by fractions, which takes its time


def _deviation(values: Sequence[float]) -> float | None:
    try:
        return statistics.stdev(values) if len(values) > 1 else None
    except OverflowError:
        return None


def pass_at(k: int, episodes: int, successes: int) -> float:
    """The unbiased estimate that one of ``k`` episodes succeeds, of ``episodes`` that were played (at least k)."""
    return 1 - comb(episodes - successes, k) / comb(episodes, k)


def estimate(
    rows: Sequence[Sequence[float]], threshold: float | None = None, *, resamples: int | None = None
) -> Estimates:
    """Estimates from the rewards of each row, with so many draws for the intervals; 0 for none."""
    rows = sorted(sorted(row) for row in rows if row)  # in whatever order the episodes have ended
    rewards = [reward for row in rows for reward in row]
    if not rewards:
        return Estimates()
    ks = _ks(max(map(len, rows)))
    units = [_columns(row, ks, threshold) for row in rows]
    _, success, *passes = _ratios(units)
    if len(units) == 1:
        units = [_columns([reward], [], threshold) for reward in rewards]
    intervals = intervals_of_ratios(units, resamples) + [None] * len(ks)  # of one row alone, no k has any
    return Estimates(
        std_reward=_deviation(rewards),
        mean_interval=intervals[0],
        success_rate=success,
        success_interval=intervals[1],
        pass_at_k={
            str(k): PassAtK(value=value, interval=interval, rows=sum(len(row) >= k for row in rows))
            for k, value, interval in zip(ks, passes, intervals[2:], strict=False)
            if value is not None
        },
    )


def _ks(most: int) -> list[int]:
    """1, 2, 4 and so on, up to the size of the largest group and with that; nothing where there are no groups."""
    if most == 1:
        return []
    return [*(2**power for power in range(most.bit_length()) if 2**power < most), most]


def _columns(row: Sequence[float], ks: Sequence[int], threshold: float | None) -> list[float]:
    """What a row adds to each numerator and denominator: the reward and the successes by episodes, a pass by rows."""
    successes = sum(succeeded(reward, threshold) for reward in row)
    columns = [len(row), sum(row), len(row), successes]
    for k in ks:
        enough = len(row) >= k
        columns += [enough, pass_at(k, len(row), successes) if enough else 0]
    return columns


def _ratios(units: Sequence[Sequence[float]]) -> list[float | None]:
    sums = [sum(column) for column in zip(*units, strict=True)]
    pairs = zip(sums[::2], sums[1::2], strict=True)
    return [numerator / denominator if denominator else None for denominator, numerator in pairs]


def intervals_of_ratios(units: Sequence[Sequence[float]], resamples: int | None = None) -> list[Interval | None]:
    """An interval for each ratio of sums, of units that hold a denominator and a numerator for each, in turn.

    None where one unit is all there is, which tells nothing of others.
    """
    if resamples is None:
        resamples = min(_RESAMPLES, max(_FEWEST_RESAMPLES, _MOST_DRAWN // len(units)))
    if len(units) < 2 or not resamples:
        return [None] * (len(units[0]) // 2)
    rng = random.Random(0)
    drawn = [_ratios(rng.choices(units, k=len(units))) for _ in range(resamples)]
    return [_middle([value for value in values if value is not None]) for values in zip(*drawn, strict=True)]


def _middle(values: list[float]) -> Interval | None:
    """Where most of the values lie; None also where a sum is past the largest number."""
    if not values or not all(map(math.isfinite, values)):
        return None
    values.sort()
    cut = round(len(values) * (1 - _LEVEL) / 2)
    return values[cut], values[-1 - cut]


def sign_test(more: int, less: int) -> float | None:
    """How likely a split at least as uneven would be if both were as likely; two-sided, None for no sample at all."""
    both, fewer = more + less, min(more, less)
    if not both:
        return None
    if both > _EXACT:
        return math.erfc((both / 2 - fewer - 0.5) / math.sqrt(both / 2)) if fewer < both / 2 - 0.5 else 1.0
    splits: int = sum(comb(both, count) for count in range(fewer + 1))
    return min(1.0, 2 * splits / (1 << both))
