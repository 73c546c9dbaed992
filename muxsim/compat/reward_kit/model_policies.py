"""Policies that ask a model over an API of OpenAI's form, with reward-kit's arguments."""

from __future__ import annotations

from typing import Any, ClassVar, Final

from muxsim.compat.reward_kit.policies import LLMBasePolicy
from muxsim.compat.reward_kit.renamed import renamed
from muxsim.compat.reward_kit.tape import Messages
from muxsim.rollouts.policy import fireworks, openai

# Of LiteLLM, which eval-protocol asks by: muxsim's policy has ways of its own for these.
_NOT_SENT: Final = frozenset(
    {"use_caching", "cache_type", "redis_url", "num_retries", "retry_strategy", "_playback_actions"}
)
# Those that muxsim's policy takes itself; whatever else is given goes into every request.
_TAKEN: Final = frozenset(
    {"api_key", "top_p", "max_completion_tokens", "parallel_tool_calls", "stream", "headers", "timeout", "extra_body"}
)


class OpenAIPolicy(LLMBasePolicy):
    """Asks ``model_id``; further arguments go into every request (``reasoning_effort="low"``).

    Made in playback mode it needs neither key nor model. A rollout closes its connections; it may be used again. Raises
    `PolicyError`: the openai package or the key is missing.
    """

    MUXSIMS: ClassVar[type[openai.OpenAIPolicy]] = openai.OpenAIPolicy

    def __init__(
        self,
        model_id: str,
        temperature: float = 0.2,
        max_tokens: int = 4096,
        max_tools_per_turn: int | None = None,
        base_url: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(model_id, temperature, max_tokens, max_tools_per_turn, base_url, **kwargs)
        name = self.MUXSIMS.__name__
        renamed(f"{name}(model_id)", f"muxsim.rollouts.{name}(model) is muxsim's own")
        self._asked = None if self._is_playback else self._made(kwargs)

    async def _make_llm_call(self, messages: Messages, tools: list[dict[str, Any]]) -> dict[str, Any]:
        if self._asked is None:
            raise RuntimeError(f"{self.model_id} plays a recording back, and asks no model")
        reply = await self._asked.next_message(messages, tools, 0)
        usage = {name: getattr(reply.usage, name) for name in ("prompt_tokens", "completion_tokens", "total_tokens")}
        return {"choices": [{"message": reply.message, "finish_reason": reply.finish_reason}], "usage": usage}

    async def aclose(self) -> None:
        """Close the connections; the next call makes new ones."""
        if self._asked is not None:
            await self._asked.aclose()

    def _made(self, given: dict[str, Any]) -> openai.OpenAIPolicy:
        options = {name: value for name, value in given.items() if name in _TAKEN}
        rest = {name: value for name, value in given.items() if name not in _TAKEN | _NOT_SENT}
        options["extra_body"] = {**rest, **options.get("extra_body", {})}
        if "max_completion_tokens" not in options:
            options["max_tokens"] = self.max_tokens
        if self.base_url is not None:
            options["base_url"] = self.base_url
        # The old policies sent no seed, and not every endpoint takes one.
        return self.MUXSIMS(self.model_id, temperature=self.temperature, send_seed=False, **options)


class FireworksPolicy(OpenAIPolicy):
    """The same for a model of Fireworks. ``deployment_type`` is not looked at: a deployment has an id of its own."""

    MUXSIMS: ClassVar[type[openai.OpenAIPolicy]] = fireworks.FireworksPolicy

    def __init__(
        self,
        model_id: str,
        temperature: float = 0.2,
        deployment_type: str = "serverless",
        max_tokens: int = 4096,
        **kwargs: Any,
    ) -> None:
        super().__init__(model_id, temperature, max_tokens, **kwargs)
        self.deployment_type = deployment_type
