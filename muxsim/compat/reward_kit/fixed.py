"""Policies without a model, of reward-kit's tests and of eval-protocol."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, ClassVar, Final

from muxsim.compat.reward_kit.policies import PlaybackPolicyBase
from muxsim.compat.reward_kit.records import MCPToolCall
from muxsim.compat.reward_kit.renamed import renamed

# reward-kit's way over its frozen lake.
_OVER_THE_LAKE: Final = ("RIGHT", "RIGHT", "RIGHT", "DOWN", "DOWN", "DOWN")
_LAKE_MOVE: Final = "lake_move"


class StaticPolicy(PlaybackPolicyBase):
    """Makes the same calls in every environment, in their order, and the last one for ever."""

    _NAME: ClassVar[str] = "StaticPolicy"

    def __init__(
        self,
        tool_name: str = _LAKE_MOVE,
        action_sequence: Sequence[str] | None = None,
        available_actions: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not isinstance(tool_name, str):  # the first argument was the sequence once
            tool_name, action_sequence = _LAKE_MOVE, tool_name
        renamed(self._NAME, "muxsim.rollouts.ScriptedPolicy is muxsim's own")
        self.tool_name = tool_name
        self.action_sequence = list(action_sequence or (available_actions or _OVER_THE_LAKE)[:6])
        self.step_counts: dict[int, int] = {}

    @property
    def model_id(self) -> str:
        """What it calls itself."""
        return f"static-policy-{self.tool_name}-v1"

    async def _generate_live_tool_calls(
        self, tool_schemas: Any, env_index: int, conversation_history: Any
    ) -> tuple[list[MCPToolCall], None, None]:
        step = self.step_counts.get(env_index, 0)
        self.step_counts[env_index] = step + 1
        action = self.action_sequence[min(step, len(self.action_sequence) - 1)]
        return [MCPToolCall(self.tool_name, {"action": action})], None, None


class SimpleDeterministicPolicy(StaticPolicy):
    """The same with the sequence first."""

    _NAME: ClassVar[str] = "SimpleDeterministicPolicy"

    def __init__(
        self,
        action_sequence: Sequence[str] | None = None,
        model_id: str = "deterministic-policy",
        tool_name: str = _LAKE_MOVE,
        **kwargs: Any,
    ) -> None:
        super().__init__(tool_name, action_sequence, **kwargs)
        self._model_id = model_id

    @property
    def model_id(self) -> str:
        """What it calls itself."""
        return self._model_id


class RandomPolicy(PlaybackPolicyBase):
    """Makes calls with actions drawn at random, in each environment by a generator of its own."""

    def __init__(
        self, tool_name: str, available_actions: Sequence[str], seed: int | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        renamed("RandomPolicy", "muxsim.rollouts.RandomPolicy is muxsim's own, and needs no list of actions")
        self.tool_name = tool_name
        self.available_actions = list(available_actions)
        self._seed = random.randrange(2**31) if seed is None else seed
        self._dice: dict[int, random.Random] = {}

    @property
    def model_id(self) -> str:
        """What it calls itself."""
        return f"random-policy-{self.tool_name}-v1"

    async def _generate_live_tool_calls(
        self, tool_schemas: Any, env_index: int, conversation_history: Any
    ) -> tuple[list[MCPToolCall], None, None]:
        dice = self._dice.setdefault(env_index, random.Random(f"{self._seed}:{env_index}"))
        return [MCPToolCall(self.tool_name, {"action": dice.choice(self.available_actions)})], None, None
