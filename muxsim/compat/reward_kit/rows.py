"""eval-protocol's rows and messages: what scripts make of them, and what they read of what was played."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import Any, ClassVar, Final

# What a message may leave out; eval-protocol's have None there.
_UNSAID: Final = frozenset(
    {"content", "control_plane_step", "function_call", "name", "reasoning_content", "tool_call_id", "tool_calls"}
)


class Told(dict[str, Any]):
    """JSON whose members are attributes too, at any depth: a dict of reward-kit's, an object of eval-protocol's."""

    def __getattr__(self, name: str) -> Any:
        try:
            value = self[name]
        except KeyError:
            raise AttributeError(f"{type(self).__name__} has no {name!r}") from None
        told = _told(value)
        if told is not value:  # kept, so that what is written to it is not lost
            self[name] = told
        return told

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value

    def model_dump(self, **_how: Any) -> dict[str, Any]:
        """A plain dict, of plain ones."""
        return {name: _plain(value) for name, value in self.items()}


class Message(Told):
    """A message of a chat."""

    def __getattr__(self, name: str) -> Any:
        return None if name in _UNSAID and name not in self else super().__getattr__(name)


class TerminationReason(StrEnum):
    """Why an episode is over."""

    MAX_STEPS = "max_steps"
    CONTROL_PLANE_SIGNAL = "control_plane_signal"
    USER_STOP = "user_stop"
    SKIPPABLE_ERROR = "skippable_error"
    NON_SKIPPABLE_ERROR = "non_skippable_error"
    STOP = "stop"
    LENGTH = "length"
    TOOL_CALLS = "tool_calls"


@dataclass
class Status:
    """How a rollout has gone: finished, or an error with its words."""

    class Code(IntEnum):
        """Those of eval-protocol that a rollout can have."""

        INTERNAL = 13
        FINISHED = 100
        RUNNING = 101

    code: Code
    message: str
    details: list[dict[str, Any]] = field(default_factory=list)

    RUNNING: ClassVar[str] = "Rollout is running"

    @classmethod
    def rollout_running(cls) -> Status:
        """That of a row that has not been played."""
        return cls(cls.Code.RUNNING, cls.RUNNING)

    def is_running(self) -> bool:
        """Whether it has not been played to an end."""
        return self.code is self.Code.RUNNING

    def is_finished(self) -> bool:
        """Whether it is over and valid."""
        return self.code is self.Code.FINISHED

    def is_error(self) -> bool:
        """Whether its environment, endpoint or policy has failed."""
        return self.code is self.Code.INTERNAL


@dataclass
class InputMetadata:
    """What to play: ``dataset_info`` has ``user_prompt_template`` and ``environment_context`` with its ``seed``."""

    row_id: str | None = None
    completion_params: dict[str, Any] = field(default_factory=dict)
    dataset_info: dict[str, Any] | None = None
    session_data: dict[str, Any] | None = None


class Conversation:
    """What eval-protocol's rows say of their ``messages`` and ``input_metadata``."""

    messages: list[Message]
    input_metadata: InputMetadata

    def get_conversation_length(self) -> int:
        """How many messages there are."""
        return len(self.messages)

    def get_system_message(self) -> Message:
        """The first of the system's; an empty one if there is none."""
        return next(iter(self._said_by("system")), Message(role="system", content=""))

    def get_assistant_messages(self) -> list[Message]:
        """Those of the policy."""
        return self._said_by("assistant")

    def last_assistant_message(self) -> Message | None:
        """The policy's last one."""
        return next(reversed(self._said_by("assistant")), None)

    def get_user_messages(self) -> list[Message]:
        """Those of the user."""
        return self._said_by("user")

    def get_input_metadata(self, key: str, default: Any = None) -> Any:
        """A member of ``input_metadata``."""
        return getattr(self.input_metadata, key, default)

    def _said_by(self, role: str) -> list[Message]:
        return [message for message in self.messages if message["role"] == role]


@dataclass
class EvaluationRow(Conversation):
    """A row to play, as scripts of eval-protocol make it."""

    messages: list[Message] = field(default_factory=list)
    tools: list[dict[str, Any]] | None = None
    input_metadata: InputMetadata = field(default_factory=InputMetadata)
    rollout_status: Status = field(default_factory=Status.rollout_running)
    ground_truth: str | None = None
    evaluation_result: Any = None
    usage: Told | None = None


def _told(value: Any) -> Any:
    """The same with attributes; a list stays the list that it is."""
    if isinstance(value, list):
        value[:] = map(_told, value)
        return value
    return Told(value) if isinstance(value, dict) and not isinstance(value, Told) else value


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return {name: _plain(one) for name, one in value.items()} if isinstance(value, dict) else value
