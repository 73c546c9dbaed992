"""What a run comes to: counts, rewards, tokens and times over its episodes."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from muxsim.rollouts.data.estimates import Estimates, estimate, mean
from muxsim.rollouts.data.trajectory import StageTimes, Trajectory, Usage

# A row's own interval costs a millisecond, and of thousands of rows nobody looks at each.
_RESAMPLES_OF_A_ROW = 200
_MOST_ROWS_WITH_INTERVALS = 1000
STAGES = tuple(field.name for field in msgspec.structs.fields(StageTimes))


class Spread(msgspec.Struct, kw_only=True):
    """Seconds that episodes spent in one stage: the sum, and the mean and the longest of an episode."""

    total: float = 0.0
    mean: float = 0.0
    longest: float = 0.0


class Summary(Estimates, kw_only=True):
    """Counts and rewards of some episodes; a reward counts when its episode is valid and scored, else all are None.

    ``scored`` of the ``valid`` ones are in the rewards and in the estimates (`Estimates`).
    """

    episodes: int = 0
    valid: int = 0
    scored: int = 0
    steps: int = 0
    mean_reward: float | None = None
    median_reward: float | None = None
    min_reward: float | None = None
    max_reward: float | None = None
    end_reasons: dict[str, int] = msgspec.field(default_factory=dict)


class RowSummary(Summary, kw_only=True):
    """The same of one row's episodes."""

    row: str
    env: str


class Metrics(Summary, kw_only=True):
    """The content of ``metrics.json``.

    ``seconds`` counts the time in which at least one episode was under way, so a pause before a resume is left out, and
    ``steps_per_second`` is over it. ``rows`` are those of the rows, the best first, where any has several episodes;
    ``success_reward`` is the least that counts as a success, None for anything above 0. ``complete`` is False when
    episodes are missing: ``planned`` says how many there should be, ``lost`` how many could not be written,
    ``unscored`` for how many valid ones a reward function gave no reward, ``problem`` why not.
    """

    seconds: float = 0.0
    steps_per_second: float | None = None
    usage: Usage = msgspec.field(default_factory=Usage)
    times: dict[str, Spread] = msgspec.field(default_factory=dict)
    environments: dict[str, Summary] = msgspec.field(default_factory=dict)
    rows: list[RowSummary] = msgspec.field(default_factory=list)
    success_reward: float | None = None
    started_at: str = ""
    ended_at: str = ""
    complete: bool = True
    planned: int | None = None
    lost: int = 0
    unscored: int = 0
    problem: str | None = None

    @property
    def unscored_words(self) -> str:
        """How many a reward function gave none; empty where that is none."""
        return f"{self.unscored} of {self.valid} valid episodes could not be scored" if self.unscored else ""


class MetricsBuilder:
    """Takes trajectories one by one and keeps only numbers of them."""

    def __init__(self, trajectories: Iterable[Trajectory] = (), *, success_reward: float | None = None) -> None:
        self._success_reward = success_reward
        self._all = _Group()
        self._by_row: dict[tuple[str, str], _Group] = {}
        self._by_env: dict[str, _Group] = {}
        self._usage = Usage()
        self._failed: set[tuple[str, str]] = set()
        self._times: dict[str, Spread] = {stage: Spread() for stage in STAGES}
        self._spans: list[tuple[datetime, datetime]] = []
        for trajectory in trajectories:
            self.add(trajectory)

    def add(self, trajectory: Trajectory) -> None:
        """Count one more episode."""
        self._all.add(trajectory)
        self._by_env.setdefault(trajectory.env, _Group()).add(trajectory)
        self._by_row.setdefault((trajectory.env, trajectory.row), _Group()).add(trajectory)
        self.spend(trajectory)
        for stage, spread in self._times.items():
            seconds = getattr(trajectory.times, stage)
            spread.total += seconds
            spread.longest = max(spread.longest, seconds)
        span = _span(trajectory)
        if span is not None:
            self._spans.append(span)

    def spend(self, attempt: Trajectory) -> None:
        """Count an attempt's tokens, once, also where it is played again: what was asked in vain was paid for too."""
        if not attempt.valid:  # it is among the failures, and may be among the episodes
            if (key := (attempt.id, attempt.started_at)) in self._failed:
                return
            self._failed.add(key)
        self._usage.add(attempt.usage)

    def metrics(self) -> Metrics:
        """The numbers so far."""
        seconds = _covered(self._spans)
        environments = {env: self._summary(group, env) for env, group in sorted(self._by_env.items())}
        summary = next(iter(environments.values())) if len(environments) == 1 else self._summary(self._all)
        return Metrics(
            **msgspec.structs.asdict(summary),
            seconds=seconds,
            steps_per_second=summary.steps / seconds if seconds > 0 else None,
            usage=msgspec.structs.replace(self._usage),
            times={stage: self._spread(spread) for stage, spread in self._times.items()},
            environments=environments,
            rows=self._rows(),
            success_reward=self._success_reward,
            started_at=min(began for began, _ in self._spans).isoformat() if self._spans else "",
            ended_at=max(ended for _, ended in self._spans).isoformat() if self._spans else "",
        )

    def _summary(self, group: _Group, env: str | None = None) -> Summary:
        """Of an environment, or of all."""
        rewards = [row.rewards for (of, _), row in self._by_row.items() if env in (None, of)]
        return Summary(**group.counts(), **msgspec.structs.asdict(estimate(rewards, self._success_reward)))

    def _rows(self) -> list[RowSummary]:
        if all(group.episodes == 1 for group in self._by_row.values()):
            return []
        resamples = _RESAMPLES_OF_A_ROW if len(self._by_row) <= _MOST_ROWS_WITH_INTERVALS else 0
        rows = [
            RowSummary(
                row=row,
                env=env,
                **group.counts(),
                **msgspec.structs.asdict(estimate([group.rewards], self._success_reward, resamples=resamples)),
            )
            for (env, row), group in self._by_row.items()
        ]
        return sorted(rows, key=lambda one: (one.mean_reward is None, -(one.mean_reward or 0.0), one.env, one.row))

    def _spread(self, spread: Spread) -> Spread:
        return Spread(total=spread.total, mean=spread.total / max(1, self._all.episodes), longest=spread.longest)


class _Group:
    """Episodes that are counted together."""

    def __init__(self) -> None:
        self.episodes = 0
        self._valid = 0
        self._steps = 0
        self.rewards: list[float] = []
        self._ends: Counter[str] = Counter()

    def add(self, trajectory: Trajectory) -> None:
        self.episodes += 1
        self._valid += trajectory.valid
        self._steps += len(trajectory.steps)
        self._ends[trajectory.end_reason.value] += 1
        reward = trajectory.total_reward
        # A reward that is no number is none either: JSON has no NaN, so the row says null.
        if trajectory.valid and reward is not None and math.isfinite(reward):
            self.rewards.append(reward)

    def counts(self) -> dict[str, Any]:
        """The fields of a `Summary` that are no estimates."""
        rewards = self.rewards
        return {
            "episodes": self.episodes,
            "valid": self._valid,
            "scored": len(rewards),
            "steps": self._steps,
            "mean_reward": mean(rewards) if rewards else None,
            "median_reward": _median(rewards) if rewards else None,
            "min_reward": min(rewards, default=None),
            "max_reward": max(rewards, default=None),
            "end_reasons": dict(self._ends.most_common()),
        }


def _median(rewards: list[float]) -> float:
    """That of an even number is the mean of two, whose sum may be past the largest number."""
    return mean([statistics.median_low(rewards), statistics.median_high(rewards)])


def _span(trajectory: Trajectory) -> tuple[datetime, datetime] | None:
    try:
        began = datetime.fromisoformat(trajectory.started_at)
    except ValueError:
        return None
    began = began if began.tzinfo else began.replace(tzinfo=UTC)
    return began, began + timedelta(seconds=trajectory.seconds)


def _covered(spans: Iterable[tuple[datetime, datetime]]) -> float:
    """Seconds that lie in at least one of the spans."""
    covered = timedelta()
    until: datetime | None = None
    for began, ended in sorted(spans):
        fresh = began if until is None else max(began, until)
        covered += max(ended - fresh, timedelta())
        until = ended if until is None else max(ended, until)
    return covered.total_seconds()
