"""The protocol between a rollout and a policy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from muxsim.errors import MuxsimError
from muxsim.rollouts.data.trajectory import Usage

Message = dict[str, Any]


@dataclass(frozen=True)
class Reply:
    """A policy's next message, in OpenAI's chat format: ``role`` assistant, ``content``, ``tool_calls``.

    ``tokens`` is ``{prompt_token_ids, token_ids, logprobs}`` as far as they are known, and may say in ``problem`` why
    they are not to be trained with; ``finish_reason`` is the endpoint's: ``length`` says that the message is cut off.
    ``usage`` counts what tries have cost that gave no message; ``throttled`` are the seconds in which it waited since
    the endpoint wanted fewer calls.
    """

    message: Message
    usage: Usage = field(default_factory=Usage)
    tokens: dict[str, Any] | None = None
    finish_reason: str | None = None
    throttled: float = 0.0


class PolicyError(MuxsimError):
    """The policy could not give a message; the episode ends with ``policy_error``.

    With ``ends_run`` there is none to be had for any other episode either, and the run is given up. ``usage`` and
    ``throttled`` are as in a `Reply`.
    """

    def __init__(
        self, message: str, *, ends_run: bool = False, usage: Usage | None = None, throttled: float = 0.0
    ) -> None:
        self.ends_run = ends_run
        self.usage = usage or Usage()
        self.throttled = throttled
        super().__init__(message)


class RateLimited(PolicyError):
    """The endpoint kept refusing for its rate limit until the policy's patience was over."""


class TokenLimit(PolicyError):
    """The conversation has outgrown what the model can read. That is the policy's doing: the episode is valid."""


class Policy(Protocol):
    """Decides from the conversation alone, so that one policy serves any number of episodes at once."""

    async def next_message(self, conversation: Sequence[Message], tools: Sequence[Message], seed: int) -> Reply:
        """The next assistant message.

        ``conversation`` and ``tools`` are in OpenAI's chat format and free of the control plane. ``seed`` is the
        episode's. The same arguments give the same reply, as far as the policy can promise that. Raises `PolicyError`.
        """
