"""How a rollout goes on: a live display on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from typing import Final

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from muxsim.cli.console import console_of
from muxsim.cli.installing import Installing
from muxsim.rollouts.data.estimates import mean
from muxsim.rollouts.data.metrics import Metrics, RowSummary
from muxsim.rollouts.data.trajectory import Trajectory, first_and_last
from muxsim.rollouts.policy.openai import OpenAIPolicy, PolicyStatistics
from muxsim.rollouts.policy.playback import RecordingPolicy

# Lines of the display for episodes in flight; a screen has no room for hundreds.
_SHOWN: Final = 20
_ROWS_SHOWN: Final = 3
_REFRESHES_PER_SECOND: Final = 8
# Seconds of waiting for an endpoint.
_WORTH_TELLING: Final = 0.1


class Progress:
    """A watcher of a rollout (`rollouts.play.runner.Watcher`) that shows what it is told. Use it as a context."""

    def __init__(
        self, total: int, console: Console | None = None, *, policy: object = None, installing: Installing | None = None
    ) -> None:
        """``policy`` is asked how it gets on with its endpoint, if it has one; ``installing`` shares the display."""
        self._installing = installing
        self._policy = policy
        self._console = console or console_of(stderr=True)
        self._total = total
        self._began = time.perf_counter()
        self._flying: dict[str, Trajectory] = {}
        self._steps = 0
        self._ended = 0
        self._reasons: Counter[str] = Counter()
        self._rewards: list[float] = []
        self._live = (
            Live(console=self._console, get_renderable=self._render, refresh_per_second=_REFRESHES_PER_SECOND)
            if self._console.is_terminal
            else None
        )

    def __enter__(self) -> Progress:
        if self._live is not None:
            if self._installing is not None:
                self._installing.close()
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def started(self, trajectory: Trajectory) -> None:
        """Show an episode in flight."""
        self._flying[trajectory.id] = trajectory

    def stepped(self, trajectory: Trajectory) -> None:
        """Count a step."""
        self._steps += 1

    def ended(self, trajectory: Trajectory) -> None:
        """Count an episode; without a terminal this is a line."""
        self._flying.pop(trajectory.id, None)
        self._ended += 1
        self._reasons[trajectory.end_reason.value] += 1
        if trajectory.total_reward is not None:
            self._rewards.append(trajectory.total_reward)
        if self._live is None:
            self._console.print(self._line(trajectory), soft_wrap=True)

    def summary(self) -> str:
        """One line over all episodes so far."""
        seconds = max(time.perf_counter() - self._began, 1e-9)
        reasons = ", ".join(f"{count} {reason}" for reason, count in self._reasons.most_common())
        fewer = f" over {len(self._rewards)} of {self._ended}" if len(self._rewards) < self._ended else ""
        rewards = f", mean reward {mean(self._rewards):.3g}{fewer}" if self._rewards else ""
        rate = f"{self._steps} steps, {self._steps / seconds:.0f}/s"
        done = f"{self._ended} of {self._total} episodes in {seconds:.1f} s"
        return f"{done} ({rate}{rewards}{self._throttling()}): {reasons or 'none yet'}"

    def _throttling(self) -> str:
        """How often the endpoint has refused for its rate limit, and how many calls are still made at once."""
        asked = self._policy if isinstance(self._policy, OpenAIPolicy | RecordingPolicy) else None
        statistics = None if asked is None else asked.statistics()
        if not isinstance(statistics, PolicyStatistics) or not statistics.throttled:
            return ""
        return f", {statistics.throttled} × 429, {statistics.allowed} calls at once"  # noqa: RUF001 - a times sign is what is meant

    def _line(self, trajectory: Trajectory) -> str:
        reward = "unscored" if trajectory.total_reward is None else f"reward {trajectory.total_reward:g}"
        error = f" ({first_and_last(trajectory.error)})" if trajectory.error else ""
        throttled = trajectory.times.throttled
        waited = f", {throttled:.1f} s throttled" if throttled >= _WORTH_TELLING else ""
        return (
            f"[{self._ended}/{self._total}] {trajectory.id} {trajectory.env} seed {trajectory.seed}: "
            f"{trajectory.end_reason.value} after {len(trajectory.steps)} steps, {reward}, "
            f"{trajectory.seconds:.2f} s{waited}{error}"
        )

    def _render(self) -> RenderableType:
        table = Table.grid(padding=(0, 2))
        for trajectory in list(self._flying.values())[:_SHOWN]:
            last = trajectory.steps[-1] if trajectory.steps else None
            table.add_row(
                trajectory.id,
                trajectory.env,
                f"seed {trajectory.seed}",
                f"step {len(trajectory.steps)}",
                Text(f"{last.tool} {last.arguments}" if last else "…", style="dim", overflow="ellipsis", no_wrap=True),
            )
        hidden = len(self._flying) - _SHOWN
        more = [Text(f"and {hidden} more", style="dim")] if hidden > 0 else []
        installs = [] if self._installing is None else [self._installing.rendered()]
        return Group(*installs, table, *more, Text(self.summary(), style="bold"))


def estimated(metrics: Metrics) -> list[str]:
    """What a run tells of the policy, and how surely: a line for all, and one for the best and the worst rows."""
    if metrics.mean_reward is None or metrics.scored < 2:
        return []
    fewer = f" over {metrics.scored} of {metrics.episodes}" if metrics.scored < metrics.episodes else ""
    parts = [f"mean reward {metrics.mean_reward:.3g}{_within(metrics.mean_interval)}{fewer}"]
    if metrics.std_reward is not None:
        parts.append(f"standard deviation {metrics.std_reward:.3g}")
    if metrics.success_rate is not None:
        parts.append(f"success {metrics.success_rate:.3g}{_within(metrics.success_interval)}")
    parts += [f"pass@{k} {one.value:.3g}{_within(one.interval)}" for k, one in metrics.pass_at_k.items() if k != "1"]
    scored = [row for row in metrics.rows if row.mean_reward is not None]
    if len(scored) < 2:
        return [", ".join(parts)]
    best, worst = scored[:_ROWS_SHOWN], scored[::-1][: min(_ROWS_SHOWN, len(scored) - 1)]
    return [", ".join(parts), f"best rows: {_named(best)}; worst: {_named(worst)}"]


def _within(interval: tuple[float, float] | None) -> str:
    return "" if interval is None else f" ({interval[0]:.3g} to {interval[1]:.3g})"


def _named(rows: Sequence[RowSummary]) -> str:
    return ", ".join(f"{row.row} {row.mean_reward:.3g}" for row in rows)
