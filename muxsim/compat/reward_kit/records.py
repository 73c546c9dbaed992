"""What goes in and comes out, with reward-kit's fields."""

from __future__ import annotations

import math
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from muxsim.compat.reward_kit.rows import Conversation, InputMetadata, Message, Status, Told
from muxsim.rollouts.data.trajectory import Trajectory as Played


@dataclass
class MCPToolCall:
    """A call that a policy wants to be made."""

    tool_name: str
    arguments: dict[str, Any]
    tool_call_id: str | None = None


@dataclass
class DatasetRow:
    """What to play: a prompt, and what its template is filled with. A seed that is None is drawn."""

    id: str
    seed: int | None
    system_prompt: str
    user_prompt_template: str
    environment_context: dict[str, Any] = field(default_factory=dict)
    user_simulation: dict[str, Any] | None = None
    evaluation_row: Any = field(default=None, repr=False)
    """The row of eval-protocol's that it was made of."""


@dataclass
class MCPSession:
    """One environment of several; ``base_url`` is what `make` was given."""

    session_id: str
    base_url: str
    seed: int | None
    model_id: str
    dataset_row: DatasetRow | None = None
    terminated: bool = False
    last_observation: Any = None


@dataclass
class Trajectory(Conversation):
    """One episode. ``len(observations) == steps + 1``, and ``rewards`` add up to ``total_reward``.

    A reward that is not known is nan, and so is every sum with it: never 0.0. ``error`` says why an episode that was
    not played to an end (``valid`` is False) was not; ``duration`` is in seconds. ``played`` is muxsim's own record.

    It has what is read of eval-protocol's rows too: ``evaluation_result`` is the script's to set.
    """

    session: MCPSession
    observations: list[Any]
    actions: list[str]
    rewards: list[float]
    terminated: bool
    total_reward: float
    steps: int
    duration: float
    control_plane_steps: list[dict[str, Any]] = field(default_factory=list)
    control_plane_summary: dict[str, Any] = field(default_factory=dict)
    termination_reason: str = ""
    conversation_history: list[dict[str, Any]] = field(default_factory=list)
    usage: Told = field(default_factory=Told)
    valid: bool = True
    error: str | None = None
    played: Played | None = field(default=None, repr=False)
    tools: list[dict[str, Any]] | None = None
    evaluation_result: Any = None

    @cached_property
    def messages(self) -> list[Message]:  # type: ignore[override]  # a list all the same
        """The conversation in eval-protocol's form: with its record of a step in the message of the step's result."""
        messages = [Message(message) for message in deepcopy(self.conversation_history)]
        results = [message for message in messages if message["role"] == "tool"]
        told = list(zip(results, self.control_plane_steps, strict=False))  # a call that broke has no message
        for message, step in told:
            kept = deepcopy({key: value for key, value in step.items() if key != "tool_call"})
            message["control_plane_step"] = {**kept, "reward": None if math.isnan(step["reward"]) else step["reward"]}
        for message, _ in told[-1:]:
            message["control_plane_step"]["termination_reason"] = self.termination_reason
        return messages

    @property
    def input_metadata(self) -> InputMetadata:  # type: ignore[override]
        """That of the row of eval-protocol's which was played, or the same of a row of reward-kit's."""
        row = self.session.dataset_row
        if row is None:
            return InputMetadata(self.session.session_id)
        if row.evaluation_row is not None:
            given: InputMetadata = row.evaluation_row.input_metadata
            return given
        info = {
            "system_prompt": row.system_prompt,
            "user_prompt_template": row.user_prompt_template,
            "environment_context": row.environment_context,
        }
        return InputMetadata(row.id, {"model": self.session.model_id}, info)

    @property
    def ground_truth(self) -> str | None:
        """That of the row."""
        row = self.session.dataset_row
        return None if row is None else getattr(row.evaluation_row, "ground_truth", None)

    @property
    def rollout_status(self) -> Status:
        """Finished, or what has failed."""
        if self.error is not None:
            return Status(Status.Code.INTERNAL, self.error)
        return Status(Status.Code.FINISHED, "Rollout finished")

    def get_steps(self) -> int:
        """As eval-protocol's rows have it."""
        return self.steps

    def get_total_reward(self) -> float:
        """As eval-protocol's rows have it."""
        return self.total_reward

    def get_terminated(self) -> bool:
        """Whether the environment has ended the episode, as eval-protocol's rows have it."""
        return any(step["terminated"] for step in self.control_plane_steps)

    def get_termination_reason(self) -> str:
        """As eval-protocol's rows have it."""
        return self.termination_reason
