"""One row of a dataset: what it may say, read strictly.

It has reward-kit's form (``id``, ``system_prompt``, ``user_prompt_template``, ``environment_context``,
``evaluation_criteria``) or the plain one (``prompt``, ``info``). Both may name their environment (``env``).

A seed is ``environment_context.seed`` or ``seed``. A row without one gets a seed that follows from the base seed and
the row's id.
"""

from __future__ import annotations

import difflib
import hashlib
import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from muxsim.errors import MuxsimError

Message = dict[str, Any]

# The same as the sessions': non-negative, 32 bits with the sign.
SEED_LIMIT: Final = 2**31
SEED_ADVICE: Final = f"a seed is a whole number from 0 to {SEED_LIMIT - 1}"
DEFAULT_TEMPLATE: Final = "{observation}"

ROW_KEYS: Final = (
    "id",
    "env",
    "seed",
    "system_prompt",
    "user_prompt_template",
    "environment_context",
    "evaluation_criteria",
    "user_simulation",
    "prompt",
    "info",
)
_ROLES: Final = ("system", "developer", "user", "assistant", "tool")
_SHOWN_CHARACTERS: Final = 80


class DatasetError(MuxsimError):
    """A dataset is wrong. ``str()`` is one line: file, line, key, value, what to do.

    ``where`` is ``tasks.jsonl, line 3``, or ``row 3`` for rows that come from a program.
    """

    def __init__(self, advice: str, *, where: str = "", key: str = "", value: str = "") -> None:
        self.advice = advice
        self.where = where
        self.key = key
        self.value = value
        named = f"{key} = {value}" if value else key
        super().__init__(": ".join(part for part in (where, named, advice) if part))


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What to play. A ``prompt`` goes before the ``template``.

    ``env`` is "" until `Dataset.with_environments` has settled it.
    """

    id: str
    seed: int
    env: str = ""
    system_prompt: str = ""
    template: str = DEFAULT_TEMPLATE
    prompt: str | list[Message] | None = None
    environment_context: Mapping[str, Any] = field(default_factory=dict)
    evaluation_criteria: Any = None
    info: Any = None
    where: str = ""


class RowReader:
    """Reads one row, and knows where it stands."""

    def __init__(self, where: str, value: Any) -> None:
        self._where = where
        if not isinstance(value, dict):
            raise DatasetError(f"is {shown(value)}; a row is a JSON object", where=where)
        # Tables write null for what a row does not have.
        self._value = {key: one for key, one in value.items() if one is not None or key not in ROW_KEYS}

    def row(self, default_id: str, base_seed: int) -> Row:
        """The row; `default_id` is for one without an id. Raises `DatasetError`."""
        self._check_keys()
        id = self._id(default_id)
        context = self._context()
        return Row(
            id=id,
            seed=self._seed(context, base_seed, id),
            env=self._string("env"),
            system_prompt=self._string("system_prompt"),
            template=self._string("user_prompt_template") or DEFAULT_TEMPLATE,
            prompt=self._prompt(),
            environment_context=context,
            evaluation_criteria=self._value.get("evaluation_criteria"),
            info=self._value.get("info"),
            where=self._where,
        )

    def _fault(self, advice: str, key: str) -> DatasetError:
        value: Any = self._value
        for part in key.split("."):
            value = value.get(part, msgspec.UNSET) if isinstance(value, dict) else msgspec.UNSET
        return DatasetError(advice, where=self._where, key=key, value="" if value is msgspec.UNSET else shown(value))

    def _check_keys(self) -> None:
        for key in self._value:
            if key not in ROW_KEYS:
                near = difflib.get_close_matches(key, ROW_KEYS, 1)
                advice = (
                    f"did you mean {near[0]}?"
                    if near
                    else f"put what your rewards need under info, or use --column ({', '.join(ROW_KEYS)})"
                )
                raise self._fault(f"no such key; {advice}", key)
        simulation = self._value.get("user_simulation")
        if isinstance(simulation, dict) and simulation.get("enabled"):
            raise self._fault(
                "users are not simulated here; take it out, and the prompt is all the agent is told", "user_simulation"
            )
        if "prompt" in self._value and "user_prompt_template" in self._value:
            raise self._fault("stands beside user_prompt_template; keep one of the two", "prompt")

    def _string(self, key: str) -> str:
        value = self._value.get(key)
        if value is None:
            return ""
        if not isinstance(value, str):
            raise self._fault("must be text", key)
        return value

    def _id(self, default: str) -> str:
        value = self._value.get("id", default)
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        if not isinstance(value, str) or not value:
            raise self._fault("must be text or a whole number", "id")
        return value

    def _context(self) -> dict[str, Any]:
        context = self._value.get("environment_context")
        if context is None:
            return {}
        if not isinstance(context, dict):
            raise self._fault("must be an object", "environment_context")
        return {key: one for key, one in context.items() if one is not None or key != "seed"}

    def _seed(self, context: Mapping[str, Any], base_seed: int, id: str) -> int:
        given = {
            key: seed
            for key, seed in (("environment_context.seed", context.get("seed")), ("seed", self._value.get("seed")))
            if seed is not None
        }
        for key, seed in given.items():
            if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < SEED_LIMIT:
                raise self._fault(SEED_ADVICE, key)
        if len(set(given.values())) > 1:
            raise self._fault("differs from environment_context.seed; keep one of the two", "seed")
        return next(iter(given.values())) if given else derived_seed("row", base_seed, id)

    def _prompt(self) -> str | list[Message] | None:
        prompt = self._value.get("prompt")
        if not isinstance(prompt, list):
            return self._string("prompt") or None
        if not prompt or not all(_is_message(message) for message in prompt):
            raise self._fault("must be text, or a list of chat messages with role and content", "prompt")
        prompt = [_without_nulls(message) for message in prompt]
        for number, message in enumerate(prompt):
            if wrong := _wrong_with(message, prompt[number + 1 :]):
                raise self._fault(f"message {number} {wrong}", "prompt")
        if "system_prompt" in self._value and any(message["role"] in ("system", "developer") for message in prompt):
            raise self._fault("stands beside a prompt that has a system message; keep one of the two", "system_prompt")
        return prompt


def _is_message(value: Any) -> bool:
    return (
        isinstance(value, dict) and value.get("role") in _ROLES and isinstance(value.get("content"), str | list | None)
    )


def _wrong_with(message: Message, following: list[Message]) -> str:
    """What no endpoint takes, nor anything that reads a conversation: "" if there is nothing."""
    parts, calls = message["content"] or (), message.get("tool_calls") or []
    if isinstance(parts, list) and not all(
        isinstance(part, dict) and isinstance(part.get("type"), str) for part in parts
    ):
        return "has a part of its content that is no object with a type"
    if not isinstance(calls, list) or not all(map(_is_call, calls)):
        return 'has tool_calls that are not [{"id": …, "type": "function", "function": {"name": …, "arguments": …}}]'
    results = itertools.takewhile(lambda one: one["role"] == "tool", following)
    answered = {one.get("tool_call_id") for one in results}
    if waiting := [call["id"] for call in calls if call["id"] not in answered]:
        return f"has the call {shown(waiting[0])}, and no tool message behind it answers that"
    return ""


def _is_call(call: Any) -> bool:
    function = call.get("function") if isinstance(call, dict) else None
    return (
        isinstance(function, dict)
        and isinstance(call.get("id"), str)
        and isinstance(function.get("name"), str)
        and isinstance(function.get("arguments"), str | dict | None)
    )


def _without_nulls(message: Message) -> Message:
    """A message as endpoints take it: only its content may be null."""
    return {key: value for key, value in message.items() if value is not None or key == "content"}


def derived_seed(purpose: str, seed: int, of: str | int) -> int:
    """A seed of its own for each purpose and each thing, which follows from another."""
    digest = hashlib.sha256(f"{purpose}:{seed}:{of}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % SEED_LIMIT


def shown(value: Any) -> str:
    """A value in an error."""
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 1] + "…"
