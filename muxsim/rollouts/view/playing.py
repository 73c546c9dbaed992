"""The episodes that are under way, for those who watch them."""

from __future__ import annotations

from muxsim.rollouts.data.trajectory import Trajectory


class Playing:
    """A watcher of `muxsim.rollouts.play.runner.rollout` that knows which episodes it is at. Any thread may ask it."""

    def __init__(self) -> None:
        self._episodes: dict[str, Trajectory] = {}

    def __repr__(self) -> str:
        return f"<Playing {len(self._episodes)} episodes>"

    def now(self) -> list[Trajectory]:
        """Those that have begun and not ended, as they are; they grow on."""
        return list(self._episodes.values())

    def started(self, trajectory: Trajectory) -> None:
        """It is one of them from now on."""
        self._episodes[trajectory.id] = trajectory

    def stepped(self, trajectory: Trajectory) -> None:
        """It is the same object, and has grown."""

    def ended(self, trajectory: Trajectory) -> None:
        """It is on record."""
        self._episodes.pop(trajectory.id, None)
