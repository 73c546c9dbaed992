"""What goes in and comes out, with reward-kit's fields."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

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
class Trajectory:
    """One episode. ``len(observations) == steps + 1``, and ``rewards`` add up to ``total_reward``.

    A reward that is not known is nan, and so is every sum with it: never 0.0. ``error`` says why an episode that was
    not played to an end (``valid`` is False) was not; ``duration`` is in seconds. ``played`` is muxsim's own record.
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
    usage: dict[str, int] = field(default_factory=dict)
    valid: bool = True
    error: str | None = None
    played: Played | None = field(default=None, repr=False)

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The conversation, as eval-protocol calls it."""
        return self.conversation_history

    def get_steps(self) -> int:
        """As eval-protocol's rows have it."""
        return self.steps

    def get_total_reward(self) -> float:
        """As eval-protocol's rows have it."""
        return self.total_reward

    def get_termination_reason(self) -> str:
        """As eval-protocol's rows have it."""
        return self.termination_reason
