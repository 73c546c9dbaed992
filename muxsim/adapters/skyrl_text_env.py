"""Environments of muxsim for SkyRL: `register` gives one a name that SkyRL's ``env_class`` finds.

    from muxsim.adapters.skyrl_text_env import register
    register("frozen_lake", "muxsim.toml")

Each episode is a session of its own with the row's ``seed``. A model calls tools in the text that it writes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from muxsim.adapters.needed import needed

with needed(__name__, "pip install 'mcp-muxsim[skyrl]'"):
    import skyrl_gym
    from skyrl_gym.envs.base_text_env import BaseTextEnv, BaseTextEnvStepOutput, ConversationType

from muxsim.adapters.dialogue import (
    DEFAULT_CALL_TIMEOUT,
    Dialogue,
    EpisodeBroken,
    EpisodeOver,
    Score,
    Terms,
    asked,
    closing_of,
    of_its_own,
    open_dialogue,
    seed_in,
)
from muxsim.adapters.running import Source, Use, portable, running
from muxsim.adapters.written_calls import NoCall, calls_in, introduction, response


class BrokenEpisode(Exception):
    """An episode that counts for nothing: SkyRL has no word for a reward that nobody knows, so it ends the training."""


@dataclass(frozen=True)
class _Wishes:
    source: Source
    env: str
    terms: Terms = field(default_factory=Terms)
    instructions: bool = True
    token: str | None = None


class MuxsimTextEnv(BaseTextEnv):
    """One episode; made by SkyRL for each trajectory.

    ``extras`` are the row's further columns. Its seed is ``seed``, or that of ``extra_info`` or
    ``environment_context``, and else drawn; ``max_turns`` is SkyRL's own.
    """

    def __init__(
        self, env_config: Any = None, extras: Mapping[str, Any] | None = None, *, wishes: _Wishes | None = None
    ) -> None:
        super().__init__()
        self._wishes = wishes if wishes is not None else _wished(env_config)
        self._extras = dict(extras or {})
        self.turns = 0
        self.max_turns = int(self._extras.get("max_turns", 1))
        self._earned = 0.0
        self._running = running(self._wishes.source, token=self._wishes.token)
        self._episode: list[Dialogue] = []
        self._use = Use(self, self._running, partial(closing_of, self._episode))

    def init(self, prompt: ConversationType) -> tuple[ConversationType, dict[str, Any]]:
        """Begin the episode: the prompt with the tools, and what the environment says at its start.

        Raises `StartError` or `Busy`; `ValueError`: the seed is none.
        """
        wishes = self._wishes
        dialogue = self._running.call(open_dialogue, wishes.env, seed_in(self._extras), wishes.terms)
        self._episode[:] = [dialogue]
        if not dialogue.scored:
            self.close()
            raise ValueError(
                f"{self._wishes.env} has no control plane: give score=, which makes reward, terminated and truncated "
                "of a tool's result"
            )
        messages = asked(prompt, dialogue, instructions=self._wishes.instructions, tools=introduction(dialogue.tools))
        return messages, {"seed": dialogue.seed}

    def step(self, action: str) -> BaseTextEnvStepOutput:
        """Make the calls that a model has written; a reply without any ends the episode.

        Raises `BrokenEpisode`: it counts for nothing.
        """
        if not self._episode:
            raise ValueError("there is no episode under way: call init")
        dialogue = self._episode[0]
        self.turns += 1
        texts: list[str] = []
        try:
            calls = calls_in(action)
            for tool, arguments in calls:
                texts.append(self._running.call(of_its_own(dialogue.call), tool, arguments).text)
                if dialogue.ended:
                    break
            done = dialogue.ended or not calls or self.turns >= self.max_turns
        except NoCall as wrong:
            texts.append(str(wrong))
            done = self.turns >= self.max_turns
        except EpisodeOver:
            done = True
        except EpisodeBroken as broken:
            raise BrokenEpisode(broken.why) from None
        observations = [{"role": "user", "content": response(texts)}] if texts and not done else []
        metadata = {"terminated": dialogue.terminated, "truncated": dialogue.truncated, "calls": dialogue.calls}
        return BaseTextEnvStepOutput(
            observations=observations, reward=self._newly_earned(dialogue), done=done, metadata=metadata
        )

    def get_metrics(self) -> dict[str, Any]:
        """Numbers of the episode, of which SkyRL logs the means."""
        ended = bool(self._episode) and self._episode[0].terminated
        return {"turns": self.turns, "total_reward": self._earned, "terminated": float(ended)}

    def close(self) -> None:
        """End the session. Calling it again is harmless."""
        self._use.end()

    def _newly_earned(self, dialogue: Dialogue) -> float:
        """What the episode has earned since the last step, as the environment itself counts."""
        try:
            reward: float = self._running.call(of_its_own(dialogue.newly_earned))
        except EpisodeBroken as broken:
            raise BrokenEpisode(broken.why) from None
        self._earned += reward
        return reward


def register(
    id: str,
    source: Source,
    env: str | None = None,
    *,
    score: Score | None = None,
    max_calls: int | None = None,
    instructions: bool = True,
    start_timeout: float | None = None,
    call_timeout: float | None = DEFAULT_CALL_TIMEOUT,
    token: str | None = None,
) -> None:
    """Have SkyRL know an environment of a config file or of a muxsim's URL as ``id``, in this process.

    ``env`` is its name there, ``id`` if left out. ``score`` tells reward, terminated and truncated of a tool's result,
    for a server without a control plane. ``max_calls`` truncates an episode. Times are in seconds; ``token`` is for a
    URL.
    """
    terms = Terms(score=score, max_calls=max_calls, start_timeout=start_timeout, call_timeout=call_timeout)
    wishes = _Wishes(portable(source), id if env is None else env, terms, instructions, token)
    skyrl_gym.register(id=id, entry_point=partial(MuxsimTextEnv, wishes=wishes))


def _wished(config: Any) -> _Wishes:
    """What SkyRL's own config says of an environment: ``source`` and ``env``."""
    found = dict(config or {})
    if "source" not in found or "env" not in found:
        raise ValueError("give env_config source (a config file or a URL) and env, or use register")
    terms = Terms(max_calls=found.get("max_calls"), call_timeout=found.get("call_timeout", DEFAULT_CALL_TIMEOUT))
    return _Wishes(portable(str(found["source"])), str(found["env"]), terms, token=found.get("token"))
