"""The base classes that policies of reward-kit's users have."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from muxsim.compat.reward_kit.records import MCPToolCall
from muxsim.compat.reward_kit.tape import Messages, Turns, is_recorded, load, named_file, reply_in

# What endpoints know of a message; the rest is the trainer's.
_SENT: Final = ("role", "content", "tool_calls", "tool_call_id", "name", "reasoning_details")
NO_CALL: Final = "_no_tool_call"
TAPE_OVER: Final = "_playback_terminate"
# The two ways in which policies are called, by the arguments that they have.
_OLD_FORM: Final = ("tool_schemas", "observations", "system_prompts", "user_prompts")
_NEW_FORM: Final = ("tool_schemas", "env_index", "conversation_history")
_NEWER: Final = len(_NEW_FORM)


class PlaybackPolicyBase(ABC):
    """A policy that plays a recording back where the playback variable names one, when it is made.

    Subclasses have ``_generate_live_tool_calls``, in one of reward-kit's two forms:

    * ``(tool_schemas, observations, system_prompts, user_prompts)``, lists with an entry for each environment, which
      returns a `MCPToolCall` for each;
    * ``(tool_schemas, env_index, conversation_history)``, which returns calls, usage and finish reason.
    """

    def __init__(self, _playback_actions: Turns | None = None, **_kwargs: Any) -> None:
        if _playback_actions is None:
            file = named_file()
            _playback_actions = load(file) if file is not None and is_recorded(file) else None
        self._playback_actions = _playback_actions
        self._is_playback = _playback_actions is not None
        self._playback_step_counters = dict.fromkeys(_playback_actions or {}, 0)
        self.conversation_histories: dict[int, Messages] = {}
        self.initialized = False

    @abstractmethod
    async def _generate_live_tool_calls(self, *arguments: Any) -> Any:
        """What to do next, without a recording."""

    async def __call__(self, *arguments: Any, **named: Any) -> Any:
        """What to do next, in the form in which it is asked: for four arguments a list of calls, for three a tuple."""
        form = _NEW_FORM if "env_index" in named or "conversation_history" in named else _OLD_FORM
        arguments += tuple(named.pop(name) for name in form if name in named)
        if named:
            raise TypeError(f"a policy takes {', '.join(form)}, not {', '.join(named)}")
        if not self._is_playback:
            return await self._generate_live_tool_calls(*arguments)
        if len(arguments) == _NEWER:
            return self._played_back(arguments[1], arguments[2]), None, "stop"
        return [self._played_back(env, None)[0] for env in range(len(arguments[0]))]

    def is_playback_mode(self) -> bool:
        """Whether it plays a recording back."""
        return self._is_playback

    def has_more_playback_data(self, env_index: int) -> bool:
        """Whether the recording has another turn of this environment."""
        return self._turn(env_index) is not None

    def get_playback_progress(self) -> dict[str, Any]:
        """How far the recording has been played."""
        if self._playback_actions is None:
            return {"playback_mode": False}
        environments = {}
        for env, turns in self._playback_actions.items():
            at = self._playback_step_counters[env]
            environments[int(env)] = {"current_step": at, "total_steps": len(turns), "completed": at >= len(turns)}
        return {"playback_mode": True, "environments": environments, "total_environments": len(environments)}

    @staticmethod
    def _load_trajectory_file(filepath: str) -> Turns | None:
        return load(Path(filepath)) if is_recorded(Path(filepath)) else None

    def _get_playback_messages(self, env_index: int) -> Messages | None:
        """The next turn of the recording, all that was said up to it; None if there is none."""
        messages = self._turn(env_index)
        if messages is not None:
            self._playback_step_counters[str(env_index)] += 1
        return messages

    def _extract_tool_call_from_messages(self, messages: Messages, env_index: int) -> MCPToolCall:
        reply = reply_in(messages) or {}
        return next(iter(calls_in(reply)), MCPToolCall(NO_CALL, {"reason": "the recorded reply has none"}))

    def _turn(self, env_index: int) -> Messages | None:
        turns = (self._playback_actions or {}).get(str(env_index), [])
        at = self._playback_step_counters.get(str(env_index), 0)
        messages: Messages | None = turns[at]["messages"] if at < len(turns) else None
        return messages

    def _played_back(self, env_index: int, history: Messages | None) -> list[MCPToolCall]:
        messages = self._get_playback_messages(env_index)
        if messages is None:
            return [MCPToolCall(TAPE_OVER, {"reason": "no_more_recorded_actions"})]
        reply = reply_in(messages) or {}
        if history is not None and reply:
            history.append(reply)
        return calls_in(reply) or [self._extract_tool_call_from_messages(messages, env_index)]


class LLMBasePolicy(PlaybackPolicyBase):
    """A policy that asks a model. Subclasses have ``_make_llm_call`` and ``_convert_mcp_tools_to_llm_format``.

    Each environment's conversation is in ``conversation_histories`` while it is played.
    """

    def __init__(
        self,
        model_id: str,
        temperature: float = 0.2,
        max_tokens: int = 4096,
        max_tools_per_turn: int | None = None,
        base_url: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.model_id = model_id
        self.temperature = temperature
        self.max_tokens = max_tokens
        self.max_tools_per_turn = max_tools_per_turn
        self.base_url = base_url

    @abstractmethod
    async def _make_llm_call(self, messages: Messages, tools: list[dict[str, Any]]) -> dict[str, Any]:
        """Ask the model: ``{"choices": [{"message": {...}, "finish_reason": ...}], "usage": {...}}``."""

    def _convert_mcp_tools_to_llm_format(self, mcp_tools: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Tools as ``{"name", "description", "input_schema"}`` in the format of the model: here in OpenAI's."""
        return [
            {
                "type": "function",
                "function": {
                    "name": tool["name"],
                    "description": tool.get("description") or f"Execute {tool['name']} action",
                    "parameters": tool.get("input_schema") or {"type": "object", "properties": {}, "required": []},
                },
            }
            for tool in mcp_tools
        ]

    def _clean_messages_for_api(self, messages: Messages) -> Messages:
        """The messages without what no endpoint knows."""
        return [{key: value for key, value in message.items() if key in _SENT} for message in messages]

    async def _ask(self, conversation: Messages, tool_schemas: list[dict[str, Any]]) -> dict[str, Any]:
        tools = self._convert_mcp_tools_to_llm_format(tool_schemas)
        return await self._make_llm_call(self._clean_messages_for_api(conversation), tools)

    async def _generate_live_tool_calls(self, *arguments: Any) -> Any:
        if len(arguments) == _NEWER:
            return await self._next_calls(*arguments)
        tool_schemas, observations, system_prompts, user_prompts = arguments
        if not self.initialized:
            self.initialize_conversations(len(observations), system_prompts, user_prompts)
        return [
            (await self._next_calls(tools, env, self.conversation_histories[env]))[0][0]
            for env, tools in enumerate(tool_schemas)
        ]

    async def _next_calls(
        self, tool_schemas: list[dict[str, Any]], env_index: int, conversation_history: Messages
    ) -> tuple[list[MCPToolCall], dict[str, Any] | None, str | None]:
        response = await self._ask(conversation_history, tool_schemas)
        choice = response["choices"][0]
        reply = {"role": "assistant", **choice["message"]}
        conversation_history.append(reply)
        calls = calls_in(reply)[: self.max_tools_per_turn] or [
            MCPToolCall(NO_CALL, {"reason": "no_tool_call_generated"})
        ]
        return calls, response.get("usage"), choice.get("finish_reason")

    def add_tool_response(self, env_index: int, tool_call: MCPToolCall, tool_response: Any, *_told: Any) -> None:
        """Told each result. A subclass may do more with it; the conversation has it already."""

    def log_conversation_state_for_playback(self, env_index: int, step: int, *_history: Any) -> None:
        """Told each step while a recording is made. A subclass may write one of its own, in the place of the usual."""

    def initialize_conversations(
        self, n_envs: int, system_prompts: Sequence[str], initial_user_prompts: Sequence[Any]
    ) -> None:
        """Begin the conversations of all environments."""
        self.conversation_histories = {
            env: [
                {"role": "system", "content": system_prompts[env]},
                {"role": "user", "content": initial_user_prompts[env]},
            ]
            for env in range(n_envs)
        }
        self.initialized = True


def calls_in(reply: dict[str, Any]) -> list[MCPToolCall]:
    """The calls of a message. Raises ValueError: the arguments of one are no JSON object."""
    made = []
    for call in reply.get("tool_calls") or ():
        function = call["function"]
        arguments = function.get("arguments") or {}
        if isinstance(arguments, str):
            arguments = json.loads(arguments)
        if not isinstance(arguments, dict):
            raise ValueError(f"the arguments of {function['name']} are no JSON object: {arguments!r:.80}")
        made.append(MCPToolCall(function["name"], arguments, call.get("id")))
    return made
