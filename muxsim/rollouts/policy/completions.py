"""What an endpoint answers, as a reply: in one piece, or put together from chunks. Pure.

What a message and its tool calls have besides what is known here (signatures, reasoning details) stays as it came: the
endpoint wants it back.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import count
from math import inf
from typing import Any, Final

import msgspec

from muxsim.rollouts.data.trajectory import Usage
from muxsim.rollouts.policy.failures import Failure, failure_of, shortened
from muxsim.rollouts.policy.json_text import is_json_object, mended
from muxsim.rollouts.policy.messages import call_id
from muxsim.rollouts.policy.protocol import Message, Reply

# vLLM has these of the prompt at the top and token_ids in the choice; others have all in the choice.
_OF_TOKENS: Final = ("prompt_token_ids", "token_ids", "prompt_logprobs")
# Texts that come in pieces. Of any other text, an id or a signature, each piece is the whole.
_GROWING: Final = frozenset(
    {"content", "refusal", "reasoning_content", "reasoning", "text", "thinking", "summary", "arguments", "transcript"}
)
# By which an error is told whose object is the answer itself.
_WORDS_OF_ERRORS: Final = frozenset({"message", "detail", "errors"})
_FAILED: Final = "error"
# The second as it was before there were tools: what is called then is nowhere that a tool is looked for.
_CALLED: Final = ("tool_calls", "function_call")  # no set: an endpoint may say what has no hash


def failure_in(answer: object) -> Failure | None:
    """What is wrong with an answer of status 200; None for a chat completion with a message in it.

    Something else than a completion will stay that; a completion without what it has to have is the provider's
    failure, as is an error inside it.
    """
    if isinstance(answer, list) and answer and isinstance(answer[0], dict) and answer[0].get("error"):
        answer = answer[0]  # as Google sends its errors
    if not isinstance(answer, dict):
        return _no_completion(answer)
    if _is_error(answer):
        return _error(answer, usage_of(answer))
    return _failure_in_choice(answer) if "choices" in answer else _no_completion(answer)


def _is_error(answer: Mapping[str, Any]) -> bool:
    return bool(answer.get("error")) or ("choices" not in answer and bool(_WORDS_OF_ERRORS & answer.keys()))


def _failure_in_choice(answer: dict[str, Any]) -> Failure | None:
    usage, choice = usage_of(answer), _first(answer)
    message, problem = choice.get("message"), ""
    if choice.get("error") or choice.get("finish_reason") == _FAILED:
        return _error({"error": choice.get("error") or "the provider failed"}, usage)
    if not isinstance(message, dict):
        problem = f"the answer has no message: {answer!r:.200}"
    elif not _are_calls(message.get("tool_calls")):
        problem = f"the tool calls of the answer are none: {message['tool_calls']!r:.200}"
    elif choice.get("finish_reason") in _CALLED and not message.get("tool_calls"):
        problem = "the answer says that tools are called, and calls none"
    return Failure(shortened(problem), usage=usage) if problem else None


def _are_calls(calls: object) -> bool:
    return not calls or (isinstance(calls, list) and all(isinstance(call, dict) for call in calls))


def reply_of(completion: Mapping[str, Any], turn: int, taken: Collection[str] = ()) -> Reply:
    """The reply in a chat completion with which nothing is wrong (`failure_in`).

    Tool calls that came without an id, or with one that is ``taken`` or used twice, get one of their ``turn``.
    """
    choice = _first(completion)
    reason = choice.get("finish_reason")
    return Reply(
        _message(choice["message"], turn, set(taken)),
        usage_of(completion),
        _tokens(completion, choice),
        str(reason) if reason else None,
    )


@dataclass
class StreamedCompletion:
    """A chat completion that grows by chunks; of several choices only the first is looked at."""

    _message: Message = field(default_factory=lambda: {"role": "assistant", "content": None})
    _calls: list[Message] = field(default_factory=list)
    _choice: dict[str, Any] = field(default_factory=dict)
    _rest: dict[str, Any] = field(default_factory=dict)
    _ended: bool = False

    @property
    def is_complete(self) -> bool:
        """Whether the last of the message has come: a stream may break off."""
        return self._choice.get("finish_reason") is not None or (self._ended and self._says_something())

    def end(self) -> None:
        """The stream has said that it is over, which for some servers stands for a finish reason."""
        self._ended = True

    def add(self, chunk: Mapping[str, Any]) -> Failure | None:
        """Take in the next chunk; an error in it is the end."""
        for key in ("usage", *_OF_TOKENS):
            if chunk.get(key) is not None:
                self._rest[key] = chunk[key]
        if _is_error(chunk):
            return _error(chunk, self.usage)
        for choice in _objects(chunk.get("choices")):
            if choice.get("index") in (0, "0", None):
                self._add_choice(choice)
        if self._choice.get("error") or self._choice.get("finish_reason") == _FAILED:
            return _error({"error": self._choice.get("error") or "the provider failed"}, self.usage)
        return None

    @property
    def usage(self) -> Usage:
        """The tokens that it has taken so far, as far as it says so."""
        return usage_of(self._rest)

    def completion(self) -> dict[str, Any]:
        """The same completion as it would have come in one piece."""
        calls = [{key: value for key, value in call.items() if key != "index"} for call in self._calls]
        message = {**self._message, **({"tool_calls": calls} if calls else {})}
        whole: dict[str, Any] = mended({**self._rest, "choices": [{**self._choice, "message": message}]})
        return whole

    def _says_something(self) -> bool:
        return bool(self._calls) or any(value for key, value in self._message.items() if key != "role")

    def _add_choice(self, choice: dict[str, Any]) -> None:
        for key in ("finish_reason", "error"):
            if choice.get(key):  # some say "" until there is one
                self._choice[key] = choice[key]
        if isinstance(choice.get("usage"), dict):
            self._rest.setdefault("usage", choice["usage"])
        for key in _OF_TOKENS:
            # Those of the prompt come once, with the first chunk.
            self._extend(key, choice.get(key))
        self._add_logprobs(choice.get("logprobs"))
        delta = choice.get("delta") or choice.get("message")
        if isinstance(delta, dict):
            self._add_delta(delta)

    def _add_delta(self, delta: dict[str, Any]) -> None:
        for key, value in delta.items():
            if key == "tool_calls":
                for call in _objects(value):
                    self._add_call(call)
            elif key != "role" and value is not None:
                self._message[key] = _grown(key, self._message.get(key), value)

    def _add_logprobs(self, logprobs: object) -> None:
        """A list, OpenAI's list in ``content``, or a list for each of tokens, ids and numbers."""
        if not isinstance(logprobs, dict) or "content" in logprobs:
            self._extend("logprobs", logprobs["content"] if isinstance(logprobs, dict) else logprobs)
            return
        known = self._choice.setdefault("logprobs", {})
        if isinstance(known, dict):
            for key, more in logprobs.items():
                if isinstance(more, list):
                    known.setdefault(key, []).extend(more)

    def _extend(self, key: str, more: object) -> None:
        if isinstance(more, list) and isinstance(self._choice.setdefault(key, []), list):
            self._choice[key].extend(more)

    def _add_call(self, delta: dict[str, Any]) -> None:
        """A piece of a tool call.

        Its place is its index. Some servers leave that out, or send whole calls that all have index 0, with ids that
        differ, are the same, or are not there.
        """
        places = {call["index"]: call for call in self._calls}
        call = places.get(delta.get("index"), self._calls[-1] if self._calls and delta.get("index") is None else None)
        function = _function_of(delta)
        if call is None or _begins_another(call, delta, function):
            call = {
                "index": delta.get("index"),
                "id": "",
                "type": "function",
                "function": {"name": "", "arguments": ""},
            }
            self._calls.append(call)
        known = call["function"]
        known["name"] = known["name"] or function.get("name") or ""
        known["arguments"] += _as_text(function.get("arguments"))
        call["id"] = call["id"] or delta.get("id") or ""
        _add_what_is_more(known, function, {"name", "arguments"})
        _add_what_is_more(call, delta, {"id", "index", "type", "function"})


def usage_of(completion: Mapping[str, Any]) -> Usage:
    """The tokens that a completion says it took, as far as it does."""
    usage = completion.get("usage")
    if not isinstance(usage, dict):
        return Usage()
    prompt, completed = _count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens"))
    return Usage(
        prompt_tokens=prompt,
        completion_tokens=completed,
        total_tokens=_count(usage.get("total_tokens")) or prompt + completed,
    )


def _no_completion(answer: object) -> Failure:
    text = answer or "it is empty" if isinstance(answer, str) else repr(answer)
    return Failure(shortened(f"the answer is no chat completion: {text:.200}"), passing=False)


def _error(body: Mapping[str, Any], usage: Usage) -> Failure:
    """An error whose status was 200: the true one is inside, if anywhere."""
    return replace(failure_of(body, None, {}, 0.0), usage=usage)


def _first(completion: Mapping[str, Any]) -> dict[str, Any]:
    """The first choice, an empty one where there is none."""
    return next(iter(_objects(completion.get("choices"))), {})


def _objects(value: object) -> list[dict[str, Any]]:
    """The objects in a list, and nothing where there is no list."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _message(message: dict[str, Any], turn: int, taken: set[str]) -> Message:
    kept: Message = {"role": "assistant", "content": message.get("content")}
    # Nothing is said by what is empty, and endpoints refuse some of it: null audio, a list of no tool calls.
    kept |= {key: value for key, value in message.items() if key not in kept and value not in (None, "", [], {})}
    if kept.get("tool_calls"):
        kept["tool_calls"] = [_call(call, turn, index, taken) for index, call in enumerate(kept["tool_calls"])]
    return kept


def _call(call: dict[str, Any], turn: int, index: int, taken: set[str]) -> dict[str, Any]:
    function = _function_of(call)
    given = call.get("id")
    if not isinstance(given, str) or not given or given in taken:
        given = next(name for name in _own_ids(turn, index) if name not in taken)
    taken.add(given)
    known = {"name": str(function.get("name") or ""), "arguments": _as_text(function.get("arguments"))}
    return {**call, "id": given, "type": "function", "function": {**function, **known}}


def _own_ids(turn: int, index: int) -> Iterator[str]:
    yield call_id(turn, index)
    yield from (f"{call_id(turn, index)}_{more}" for more in count())


def _function_of(call: Mapping[str, Any]) -> dict[str, Any]:
    """What is called: most have it in ``function``, some in the call itself."""
    function = call.get("function")
    if isinstance(function, dict):
        return function
    return {key: call[key] for key in ("name", "arguments") if key in call}


def _begins_another(call: dict[str, Any], delta: dict[str, Any], function: dict[str, Any]) -> bool:
    """Whether a piece with the index of a call is not of it: by its id, or since the call is whole already."""
    if delta.get("id") and call["id"] and delta["id"] != call["id"]:
        return True
    whole = bool(function.get("name")) and bool(call["function"]["name"]) and bool(function.get("arguments"))
    return whole and is_json_object(call["function"]["arguments"])


def _add_what_is_more(known: dict[str, Any], piece: dict[str, Any], but: Collection[str]) -> None:
    for key, value in piece.items():
        if key not in but and value is not None:
            known[key] = _grown(key, known.get(key), value)


def _grown(key: str, known: Any, more: Any) -> Any:
    """A value with the next piece of it."""
    if known is None:
        return more
    if isinstance(known, str) and isinstance(more, str):
        return known + more if key in _GROWING else more or known
    if isinstance(known, dict) and isinstance(more, dict):
        grown = dict(known)
        for name, value in more.items():
            if value is not None:
                grown[name] = _grown(name, known.get(name), value)
        return grown
    if isinstance(known, list) or isinstance(more, list):
        return _grown_list(_as_parts(known), _as_parts(more))
    return more


def _grown_list(known: list[Any], more: list[Any]) -> list[Any]:
    grown = list(known)
    for part in more:
        place = _place_of(part, grown)
        if place is None:
            grown.append(part)
        else:
            grown[place] = _grown("", grown[place], part)
    return grown


def _place_of(part: Any, known: list[Any]) -> int | None:
    """Which of the parts a piece belongs to: that of its index, or the last one, if it is of the same kind of text."""
    if not isinstance(part, dict):
        return None
    if part.get("index") is not None:
        same = (place for place, one in enumerate(known) if isinstance(one, dict) and one.get("index") == part["index"])
        return next(same, None)
    last = known[-1] if known else None
    goes_on = isinstance(last, dict) and last.get("type") == part.get("type") and _GROWING & part.keys() & last.keys()
    return len(known) - 1 if goes_on else None


def _as_parts(value: Any) -> list[Any]:
    if isinstance(value, list):
        return value
    return [{"type": "text", "text": value}] if value else []


def _as_text(arguments: Any) -> str:
    """Arguments as they were written; some servers send them parsed already."""
    if arguments is None:
        return ""
    return arguments if isinstance(arguments, str) else msgspec.json.encode(arguments).decode()


def _count(value: object) -> int:
    """A number of tokens; 0 for what is none."""
    return int(value) if isinstance(value, int | float) and 0 <= value < inf else 0


def _tokens(completion: Mapping[str, Any], choice: Mapping[str, Any]) -> dict[str, Any] | None:
    """Token ids and log probabilities, where there are any; ``logprobs`` is OpenAI's list, one entry per token.

    ``problem`` says that some are missing: a stream may lose them in its pieces, and nothing else would show it.
    """
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
    ids, counted = tokens.get("token_ids"), usage_of(completion).completion_tokens
    if isinstance(ids, list) and counted and len(ids) != counted:
        tokens["problem"] = f"{len(ids)} token_ids came of {counted} that were counted"
    return tokens or None
