"""The bounds of a rollout."""

from __future__ import annotations

from dataclasses import dataclass

from muxsim.rollouts.play.scoring import RewardFunction
from muxsim.values import ROLLOUT_KEYS, check_numbers


@dataclass(frozen=True, kw_only=True)
class RolloutOptions:
    """Bounds of a rollout; times in seconds, None for none.

    ``max_steps`` counts tool calls of an episode. ``start_tries`` is how often a session is asked for while the pool is
    full; what that takes is an episode's ``times.queue``, and counts neither as its time nor for ``episode_timeout``.
    ``reward`` scores a trajectory whose environment has no control plane, or replaces its score: a function of the
    trajectory, and if it takes two arguments of the session's workspace (None where that is not on this machine). It
    may be async, and returns a number, or a dict of numbers with ``reward`` among them. Without ``images`` the policy
    is shown none, neither of results nor of prompts; steps have them all the same.
    """

    max_steps: int = 50
    max_concurrent: int = 16
    call_timeout: float | None = 60.0
    episode_timeout: float | None = None
    start_timeout: float | None = None
    start_tries: int = 10
    reward: RewardFunction | None = None
    images: bool = True

    def __post_init__(self) -> None:
        check_numbers(self, ROLLOUT_KEYS)
