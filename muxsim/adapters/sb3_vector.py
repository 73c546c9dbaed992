"""Environments of muxsim for Stable-Baselines3: all sessions of a vector go a step at once.

    from stable_baselines3 import PPO
    from muxsim.adapters.sb3_vector import make_vec

    PPO("MlpPolicy", make_vec("muxsim.toml", "frozen_lake", num_envs=8)).learn(10_000)

Stable-Baselines3 has vectors of its own, and takes none of Gymnasium's. docs/adapters/gymnasium.md has more.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence
from typing import Any

from muxsim.adapters.needed import needed

with needed(__name__, "pip install 'mcp-muxsim[sb3]'"):
    import numpy as np
    from gymnasium.vector import AutoresetMode
    from gymnasium.wrappers.vector import DictInfoToList
    from stable_baselines3.common.vec_env import VecEnv

from muxsim.adapters import gymnasium_env
from muxsim.adapters.gymnasium_env import MuxsimVectorEnv
from muxsim.adapters.running import Source

_SEEDS = 2**31
_MANY = "they are sessions, and no objects of this process"


def make_vec(source: Source, env: str, *, num_envs: int = 8, **options: Any) -> MuxsimVecEnv:
    """So many sessions of an environment as one `VecEnv`; source and options as for `gymnasium_env.make_vec`."""
    envs = gymnasium_env.make_vec(source, env, num_envs=num_envs, autoreset_mode=AutoresetMode.SAME_STEP, **options)
    return MuxsimVecEnv(envs)


class MuxsimVecEnv(VecEnv):
    """A `MuxsimVectorEnv` as Stable-Baselines3 wants it; made by `make_vec`.

    What has ended begins anew in the same step: the last observation is ``terminal_observation`` of its info then, and
    ``TimeLimit.truncated`` tells whether it was cut off.
    """

    def __init__(self, envs: MuxsimVectorEnv) -> None:
        self._envs, self._told = envs, DictInfoToList(envs)
        self._actions: Any = None
        self._begin_with: list[int | None] = [None] * envs.num_envs
        super().__init__(envs.num_envs, envs.single_observation_space, envs.single_action_space)

    def __repr__(self) -> str:
        return f"<MuxsimVecEnv of {self._envs!r}>"

    def seed(self, seed: int | None = None) -> list[int]:
        """The seeds of the next reset: this and those that follow it, else from one drawn by lot."""
        first = secrets.randbelow(_SEEDS - self.num_envs) if seed is None else seed
        seeds = [first + place for place in range(self.num_envs)]
        self._begin_with = list(seeds)
        return seeds

    def set_options(self, options: Any = None) -> None:
        """Raises NotImplementedError if there are any."""
        if options:
            raise NotImplementedError(f"a session takes no options but what its config says: {options!r:.200}")

    def reset(self) -> Any:
        """Begin an episode in each, with the seeds that `seed` has set. Raises what opening a session does."""
        seeds, self._begin_with = self._begin_with, [None] * self.num_envs
        observations, infos = self._told.reset(seed=seeds)  # type: ignore[arg-type]
        self.reset_infos = list(infos)
        return observations

    def step_async(self, actions: Any) -> None:
        """Take the actions of the next step."""
        self._actions = actions

    def step_wait(self) -> Any:
        """Make the step. Raises `EpisodeError`: some reward is not known."""
        observations, rewards, terminated, truncated, infos = self._told.step(self._actions)
        told = [
            self._info(info, bool(cut and not over))
            for info, over, cut in zip(infos, terminated, truncated, strict=True)
        ]
        return observations, rewards.astype(np.float32), terminated | truncated, told

    def _info(self, info: dict[str, Any], cut_off: bool) -> dict[str, Any]:
        if "final_obs" not in info:
            return {**info, "TimeLimit.truncated": cut_off}
        return {**info["final_info"], "terminal_observation": info["final_obs"], "TimeLimit.truncated": cut_off}

    def close(self) -> None:
        """End all sessions. Calling it again is harmless."""
        self._envs.close()

    def get_attr(self, attr_name: str, indices: int | Iterable[int] | None = None) -> list[Any]:
        """What they have in common, such as ``render_mode``, once for each."""
        return [getattr(self._envs, attr_name)] * self._count(indices)

    def set_attr(self, attr_name: str, value: Any, indices: int | Iterable[int] | None = None) -> None:
        """Raises NotImplementedError."""
        raise NotImplementedError(f"{attr_name} cannot be set: {_MANY}")

    def env_method(
        self, method_name: str, *method_args: Any, indices: int | Iterable[int] | None = None, **method_kwargs: Any
    ) -> list[Any]:
        """Raises NotImplementedError."""
        raise NotImplementedError(f"{method_name} cannot be called: {_MANY}")

    def env_is_wrapped(self, wrapper_class: type[Any], indices: int | Iterable[int] | None = None) -> list[bool]:
        """None is wrapped in anything: `VecMonitor` and the like go around all of them."""
        return [False] * self._count(indices)

    def _count(self, indices: int | Iterable[int] | None) -> int:
        """How many places these are; None is all."""
        if indices is None:
            return len(self._begin_with)
        return 1 if isinstance(indices, int) else len(list(indices))

    def get_images(self) -> Sequence[Any]:
        """The last frame of each: none."""
        return [None] * self.num_envs
