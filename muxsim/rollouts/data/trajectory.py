"""What an episode leaves behind. These structs are the rows of ``rollouts.jsonl``."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Final

import msgspec

from muxsim.placement.last_words import last_said, plain
from muxsim.rollouts.data.kept_files import KeptFile
from muxsim.rollouts.data.rich_display import html_of

# The key of an MCP `_meta` member, and of a tool message's metadata, under which the control plane travels.
CONTROL_META_KEY: Final = "muxsim/control"
CONTROL_METADATA_KEY: Final = "control_plane"
# With which the error of an episode begins that such a function has not scored.
REWARD_FUNCTION: Final = "the reward function"
# Beside it in the result of a call that has asked for it: the list of tools is another than it was.
TOOLS_CHANGED_META_KEY: Final = "muxsim/tools_changed"


class EndReason(StrEnum):
    """Why an episode ended. The list is closed; every episode has exactly one."""

    TERMINATED = "terminated"
    TRUNCATED = "truncated"
    MAX_STEPS = "max_steps"
    NO_TOOL_CALL = "no_tool_call"
    TOKEN_LIMIT = "token_limit"
    EPISODE_TIMEOUT = "episode_timeout"
    TOOL_TIMEOUT = "tool_timeout"
    ENV_CRASHED = "env_crashed"
    ENV_FAILED = "env_failed"
    ENV_START_FAILED = "env_start_failed"
    MACHINERY_FAILED = "machinery_failed"
    POLICY_ERROR = "policy_error"
    RATE_LIMITED = "rate_limited"
    CANCELLED = "cancelled"


# Ends that say something about the policy. After any other the episode is no sample of it.
VALID_ENDS: Final = frozenset(
    {
        EndReason.TERMINATED,
        EndReason.TRUNCATED,
        EndReason.MAX_STEPS,
        EndReason.NO_TOOL_CALL,
        EndReason.TOKEN_LIMIT,
    }
)


class Control(msgspec.Struct, frozen=True, kw_only=True):
    """The control plane after one tool call: what the trainer sees and the agent does not.

    ``reward`` is what the call earned; None where nothing could be read, and ``problem`` then says why. ``step`` is the
    environment's own count of steps; ``failed`` says why it can go on no more. ``exact`` is what the author kit tells
    those who ask for it (`muxsim.mcpgym.exact`).
    """

    reward: float | None
    terminated: bool = False
    truncated: bool = False
    step: int | None = None
    info: dict[str, Any] = {}
    problem: str | None = None
    failed: str | None = None
    exact: dict[str, Any] | None = None

    def as_metadata(self) -> dict[str, Any]:
        """For a tool message's metadata: what is seldom there only where it is."""
        members: dict[str, Any] = msgspec.to_builtins(self)
        for name in ("problem", "failed", "exact"):
            if members[name] is None:
                del members[name]
        return members


class Usage(msgspec.Struct, kw_only=True):
    """Tokens of one model call, or the sum over an episode."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0

    def add(self, other: Usage) -> None:
        """Add another call's tokens."""
        self.prompt_tokens += other.prompt_tokens
        self.completion_tokens += other.completion_tokens
        self.total_tokens += other.total_tokens


class Step(msgspec.Struct, kw_only=True):
    """One tool call of an episode: ``index`` counts from 0, ``content`` is MCP's, with images as files of the run.

    ``control`` is None for a server without a control plane, ``model_seconds`` 0 for a second call of one reply. A step
    that was not ``called`` had arguments that are no JSON object: its environment does not know of it.
    """

    index: int
    tool: str
    arguments: dict[str, Any]
    call_id: str
    content: list[dict[str, Any]]
    is_error: bool
    control: Control | None
    structured: Any = None
    called: bool = True
    model_seconds: float = 0.0
    tool_seconds: float = 0.0
    control_seconds: float = 0.0

    def __repr__(self) -> str:
        arguments = ", ".join(f"{name}={value!r:.60}" for name, value in self.arguments.items())
        return f"<Step {self.index}: {self.tool:.60}({arguments:.200}), reward {_earned(self.control)}>"


class ToolsChanged(msgspec.Struct, kw_only=True):
    """The tools that there were behind a step, where the environment had said that they had changed."""

    step: int
    tools: list[dict[str, Any]]


class StageTimes(msgspec.Struct, kw_only=True):
    """Seconds that an episode spent in each of its stages.

    ``throttled`` is the part of ``model`` in which it waited since the endpoint wanted fewer calls.
    """

    queue: float = 0.0
    start: float = 0.0
    handshake: float = 0.0
    model: float = 0.0
    throttled: float = 0.0
    tool: float = 0.0
    control: float = 0.0
    close: float = 0.0


class Trajectory(msgspec.Struct, kw_only=True):
    """One episode.

    ``messages`` are in OpenAI's chat format; each tool message has ``metadata.control_plane`` and each reply of an
    endpoint ``metadata.finish_reason``, which a policy is never shown. ``tools`` are those at the start.
    ``initial_state`` is the environment's ``control://initial_state``, None if it has none. ``total_reward`` is None
    when nothing was scored; ``valid`` is False when environment or machinery failed, not the policy. ``tokens`` has one
    entry per assistant message: ``{prompt_token_ids, token_ids, logprobs}`` as far as the endpoint returned them, else
    null. ``scores`` are what a reward function gave besides the reward; ``traceback`` is that of a policy or reward
    function that raised.
    """

    id: str
    row: str
    sample: int
    env: str
    seed: int
    session: str = ""
    end_reason: EndReason
    valid: bool
    total_reward: float | None = None
    messages: list[dict[str, Any]] = []
    tools: list[dict[str, Any]] = []
    tools_changed: list[ToolsChanged] = []
    steps: list[Step] = []
    initial_state: Any = None
    usage: Usage = msgspec.field(default_factory=Usage)
    tokens: list[dict[str, Any] | None] = []
    times: StageTimes = msgspec.field(default_factory=StageTimes)
    started_at: str = ""
    seconds: float = 0.0
    scores: dict[str, float] = {}
    error: str | None = None
    traceback: str = ""
    stderr: list[str] = []
    files: list[KeptFile] = []
    files_problem: str | None = None
    evaluation_criteria: Any = None
    info: Any = None

    def __repr__(self) -> str:
        end = self.end_reason.value if self.valid else f"{self.end_reason.value}, not valid"
        reward = "none" if self.total_reward is None else f"{self.total_reward:g}"
        steps = f"{len(self.steps)} step{'s' * (len(self.steps) != 1)}"
        return f"<Trajectory {self.id!r:.80}: {self.env:.40} seed {self.seed}, {steps}, {end}, reward {reward}>"

    def _repr_html_(self) -> str:
        return html_of(self)


def _earned(control: Control | None) -> str:
    return "none" if control is None or control.reward is None else f"{control.reward:g}"


def shown_to_agent(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A conversation as a policy may see it: without ``metadata``, and the policy's own down to its parts."""
    shown: list[dict[str, Any]] = msgspec.to_builtins(messages)  # a tenth of what a deepcopy takes
    for message in shown:
        message.pop("metadata", None)
    return shown


def is_unscored_by_mistake(trajectory: Trajectory) -> bool:
    """Whether a reward function was asked about the episode, and gave no reward."""
    failed = (trajectory.error or "").startswith(REWARD_FUNCTION)
    return trajectory.valid and trajectory.total_reward is None and failed


def first_and_last(error: str) -> str:
    """An error in one line: what happened, and what the environment said last."""
    lines = [line for line in error.splitlines() if line.strip()] or [""]
    first, last = lines[0].strip(), last_said(lines[1:])
    return first if plain(last) in first else f"{first} … {last}"
