"""Which episodes of a run are taken: by validity, by reward, the best of each group."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import isfinite

from muxsim.rollouts.data.run_folder import RunFolder
from muxsim.rollouts.data.trajectory import Trajectory


@dataclass(frozen=True, kw_only=True)
class Selection:
    """``min_reward`` and ``best_of_group`` take scored episodes only; the best of a row is the first of its best."""

    include_invalid: bool = False
    min_reward: float | None = None
    best_of_group: bool = False

    def of(self, run: RunFolder) -> Iterator[Trajectory]:
        """The episodes, one at a time. A run is read twice for the best of each group."""
        best = self._best(run) if self.best_of_group else None
        for trajectory in run.trajectories():
            if self._takes(trajectory) and (best is None or best[trajectory.row][1] == trajectory.id):
                yield trajectory

    def _takes(self, trajectory: Trajectory) -> bool:
        if not trajectory.valid and not self.include_invalid:
            return False
        if self.min_reward is None and not self.best_of_group:
            return True
        reward = trajectory.total_reward
        return reward is not None and isfinite(reward) and (self.min_reward is None or reward >= self.min_reward)

    def _best(self, run: RunFolder) -> dict[str, tuple[float, str]]:
        """The reward and the id of the best episode of each row; of equal ones the first sample, however they ended."""
        best: dict[str, tuple[float, int, str]] = {}
        for one in filter(self._takes, run.trajectories()):
            assert one.total_reward is not None
            known = best.get(one.row)
            if known is None or (one.total_reward, -one.sample) > (known[0], -known[1]):
                best[one.row] = one.total_reward, one.sample, one.id
        return {row: (reward, id) for row, (reward, _, id) in best.items()}
