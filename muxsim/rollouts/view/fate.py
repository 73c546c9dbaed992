"""What became of an episode, for whoever filters or weighs rows."""

from __future__ import annotations

from typing import Any

import msgspec

from muxsim.rollouts.data.trajectory import Trajectory


def fate_of(trajectory: Trajectory) -> dict[str, Any]:
    """Its names, its reward and its end; ``files`` only where some were kept."""
    return {
        "id": trajectory.id,
        "row": trajectory.row,
        "sample": trajectory.sample,
        "env": trajectory.env,
        "seed": trajectory.seed,
        "reward": trajectory.total_reward,
        "scores": trajectory.scores,
        "end_reason": trajectory.end_reason.value,
        "valid": trajectory.valid,
        **({"files": msgspec.to_builtins(trajectory.files)} if trajectory.files else {}),
    }
