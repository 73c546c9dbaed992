"""Environments of muxsim for rLLM: an AgentFlow that plays, and an Evaluator that reads what was earned.

    from muxsim.adapters.rllm_flow import Earned, Flow
    flow, evaluator = Flow("muxsim.toml", "frozen_lake"), Earned()

rLLM's gateway stands behind the endpoint that it names, and keeps the tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Any, Final

import anyio

from muxsim.adapters.needed import needed

with needed(__name__, "it is not on PyPI, see docs/adapters/trainers.md"):
    from rllm.eval.types import EvalOutput, Signal
    from rllm.types import AgentConfig, Episode, Task, Trajectory

from muxsim.adapters.dialogue import seed_in
from muxsim.adapters.running import Source, kept, portable
from muxsim.errors import MuxsimError
from muxsim.rollouts import rollout
from muxsim.rollouts.environments.environment import EnvironmentPool
from muxsim.rollouts.policy.openai import OpenAIPolicy

_KEY: Final = "muxsim"
_OBSERVATION: Final = "{observation}"
_NO_KEY: Final = "EMPTY"


class NotPlayed(MuxsimError):
    """An episode that counts for nothing; rLLM tries again, as often as its engine is told to."""


@dataclass(frozen=True)
class Flow:
    """Plays a task: an episode with the seed in its metadata, by the model that rLLM serves.

    ``source`` is a config file or a URL, ``env`` an environment's name there; the task's ``env`` goes before it.
    ``policy`` makes a policy of rLLM's `AgentConfig`, in place of an `OpenAIPolicy`. ``token`` is for a URL.
    """

    source: Source
    env: str
    _: KW_ONLY
    name: str = "muxsim"
    max_steps: int = 50
    policy: Callable[[AgentConfig], Any] | None = None
    token: str | None = None

    async def arun(self, task: Task, config: AgentConfig) -> Episode:
        """Play it. Raises `NotPlayed`: the environment, the model's endpoint or the machinery has failed."""
        held = await anyio.to_thread.run_sync(kept, portable(self.source), self.token)
        trajectory = await held.wait(_played, self._row(task), self.policy or _asking, config, self.max_steps)
        if not trajectory.valid or trajectory.total_reward is None:
            raise NotPlayed(f"{self.env}, {trajectory.end_reason}: {trajectory.error or 'nothing tells its reward'}")
        told = {
            "reward": trajectory.total_reward,
            "seed": trajectory.seed,
            "end_reason": str(trajectory.end_reason),
            "steps": len(trajectory.steps),
        }
        made = Trajectory(name=self.name, task=task, reward=trajectory.total_reward)
        return Episode(task=task, trajectories=[made], artifacts={_KEY: told})

    def run(self, task: Task, config: AgentConfig) -> Episode:
        """The same for programs that are not asynchronous."""
        played: Episode = anyio.run(self.arun, task, config)
        return played

    def _row(self, task: Task) -> dict[str, Any]:
        metadata = task.metadata or {}
        row = {"id": str(task.id), "env": str(metadata.get("env") or self.env), "seed": seed_in(metadata)}
        if isinstance(task.instruction, str) and task.instruction:
            place = "" if _OBSERVATION in task.instruction else f"\n\n{_OBSERVATION}"
            return {**row, "prompt": f"{task.instruction}{place}"}
        return row


@dataclass(frozen=True)
class Earned:
    """Scores an episode of `Flow` by what its environment says that it has earned; correct is ``success`` or more."""

    success: float = 1.0

    def evaluate(self, task: Any, episode: Episode) -> EvalOutput:
        """Raises `NotPlayed`: it is no episode of a `Flow`."""
        told = episode.artifacts.get(_KEY)
        if not isinstance(told, Mapping):
            raise NotPlayed("the episode was not played by muxsim's Flow")
        signals = [Signal(name="steps", value=float(told["steps"]))]
        return EvalOutput(reward=told["reward"], is_correct=told["reward"] >= self.success, signals=signals)


def _asking(config: AgentConfig) -> Any:
    return OpenAIPolicy(config.model, base_url=config.base_url, api_key=_NO_KEY, send_seed=False)


async def _played(
    pool: EnvironmentPool,
    row: dict[str, Any],
    policy: Callable[[AgentConfig], Any],
    config: AgentConfig,
    max_steps: int,
) -> Any:
    made = policy(config)
    try:
        [trajectory] = await rollout(pool, [row], policy=made, max_steps=max_steps)
        return trajectory
    finally:
        if hasattr(made, "aclose"):
            await made.aclose()
