"""What an endpoint answers, as a reply: in one piece, or put together from chunks. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from muxsim.rollouts.policy.messages import call_id
from muxsim.rollouts.policy.protocol import Message, Reply
from muxsim.rollouts.trajectory import Usage

_TEXTS: Final = ("content", "refusal", "reasoning_content", "reasoning")
# vLLM has these of the prompt at the top and token_ids in the choice; others have all in the choice.
_OF_TOKENS: Final = ("prompt_token_ids", "token_ids", "prompt_logprobs")


class NoCompletion(ValueError):
    """The endpoint's answer is no chat completion. The message says what it is instead."""


def reply_of(completion: Any, turn: int) -> Reply:
    """The reply in a chat completion; ``turn`` names tool calls that came without an id. Raises `NoCompletion`."""
    choices = completion.get("choices") if isinstance(completion, dict) else None
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, dict) else None
    if choice is None or not isinstance(message, dict):
        raise NoCompletion(f"the answer is no chat completion: {completion!r:.200}")
    reason = choice.get("finish_reason")
    return Reply(
        _message(message, turn),
        _usage(completion.get("usage")),
        _tokens(completion, choice),
        str(reason) if reason is not None else None,
    )


@dataclass
class StreamedCompletion:
    """A chat completion that grows by chunks; of several choices only the first is looked at."""

    _message: Message = field(default_factory=lambda: {"role": "assistant", "content": None})
    _calls: list[Message] = field(default_factory=list)
    _choice: dict[str, Any] = field(default_factory=dict)
    _rest: dict[str, Any] = field(default_factory=dict)

    @property
    def is_complete(self) -> bool:
        """Whether the last of the message has come: a stream may break off."""
        return self._choice.get("finish_reason") is not None

    def add(self, chunk: dict[str, Any]) -> None:
        """Take in the next chunk."""
        for key in ("usage", *_OF_TOKENS):
            if chunk.get(key) is not None:
                self._rest[key] = chunk[key]
        for choice in chunk.get("choices") or ():
            if choice.get("index", 0) == 0:
                self._add_choice(choice)

    def completion(self) -> dict[str, Any]:
        """The same completion as it would have come in one piece."""
        message = {**self._message, **({"tool_calls": self._calls} if self._calls else {})}
        return {**self._rest, "choices": [{**self._choice, "message": message}]}

    def _add_choice(self, choice: dict[str, Any]) -> None:
        if choice.get("finish_reason") is not None:
            self._choice["finish_reason"] = choice["finish_reason"]
        for key in _OF_TOKENS:
            # Those of the prompt come once, with the first chunk.
            self._extend(key, choice.get(key))
        logprobs = choice.get("logprobs")
        if logprobs is not None:
            self._extend("logprobs", logprobs.get("content"))
        delta = choice.get("delta") or {}
        for key in _TEXTS:
            if delta.get(key) is not None:
                self._message[key] = (self._message.get(key) or "") + delta[key]
        for call in delta.get("tool_calls") or ():
            self._add_call(call)

    def _extend(self, key: str, more: list[Any] | None) -> None:
        if more is not None:
            self._choice.setdefault(key, []).extend(more)

    def _add_call(self, delta: dict[str, Any]) -> None:
        """A piece of a tool call.

        Its place is its index. Some servers leave that out, or send whole calls that all have index 0: there a new id
        begins a new call.
        """
        places = {call["index"]: call for call in self._calls}
        call = places.get(delta.get("index"), self._calls[-1] if self._calls and delta.get("index") is None else None)
        if call is None or (delta.get("id") and call["id"] and delta["id"] != call["id"]):
            call = {
                "index": delta.get("index"),
                "id": "",
                "type": "function",
                "function": {"name": "", "arguments": ""},
            }
            self._calls.append(call)
        function = delta.get("function") or {}
        call["id"] = call["id"] or delta.get("id") or ""
        call["function"]["name"] = call["function"]["name"] or function.get("name") or ""
        call["function"]["arguments"] += _as_text(function.get("arguments"))


def _message(message: dict[str, Any], turn: int) -> Message:
    kept: Message = {"role": "assistant", "content": message.get("content")}
    kept |= {key: message[key] for key in _TEXTS[1:] if message.get(key)}
    calls = message.get("tool_calls")
    if calls:
        kept["tool_calls"] = [_call(call, call_id(turn, index)) for index, call in enumerate(calls)]
    return kept


def _call(call: dict[str, Any], own_id: str) -> dict[str, Any]:
    function = call.get("function") or {}
    return {
        "id": call.get("id") or own_id,
        "type": "function",
        "function": {"name": function.get("name") or "", "arguments": _as_text(function.get("arguments"))},
    }


def _as_text(arguments: Any) -> str:
    """Arguments as they were written; some servers send them parsed already."""
    if arguments is None:
        return ""
    return arguments if isinstance(arguments, str) else msgspec.json.encode(arguments).decode()


def _usage(usage: Any) -> Usage:
    if not isinstance(usage, dict):
        return Usage()
    prompt, completion = usage.get("prompt_tokens") or 0, usage.get("completion_tokens") or 0
    return Usage(
        prompt_tokens=prompt,
        completion_tokens=completion,
        total_tokens=usage.get("total_tokens") or prompt + completion,
    )


def _tokens(completion: dict[str, Any], choice: dict[str, Any]) -> dict[str, Any] | None:
    """Token ids and log probabilities, where there are any; ``logprobs`` is OpenAI's list, one entry per token."""
    tokens: dict[str, Any] = {}
    for key in _OF_TOKENS:
        found = choice.get(key) if choice.get(key) is not None else completion.get(key)
        if found is not None:
            tokens[key] = found
    logprobs = choice.get("logprobs")
    if isinstance(logprobs, dict) and logprobs.get("content") is not None:
        logprobs = logprobs["content"]
    if logprobs is not None:
        tokens["logprobs"] = logprobs
    return tokens or None
