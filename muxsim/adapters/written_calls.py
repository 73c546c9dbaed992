"""Tool calls as text, for trainers that hand an environment what a model has written. Pure.

In the form that Qwen's and Hermes' models are trained on: ``<tool_call>{"name": …, "arguments": {…}}</tool_call>``,
with results in ``<tool_response>``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from muxsim.rollouts.environments.environment import Tool
from muxsim.rollouts.policy.json_text import decoded

_CALL: Final = re.compile(r"<tool_call>\s*(.*?)\s*(?:</tool_call>|\Z)", re.DOTALL)
_FORM: Final = '<tool_call>\n{"name": <function-name>, "arguments": <args-json-object>}\n</tool_call>'
_INTRODUCTION: Final = """\
# Tools

You may call one or more functions to assist with the user query.

You are provided with function signatures within <tools></tools> XML tags:
<tools>
{tools}
</tools>

For each function call, return a json object with function name and arguments within <tool_call></tool_call> XML tags:
{form}"""

_PLAIN: Final = {"string", "integer", "number", "boolean"}
_WHATEVER: Final = "object"
_ALTERNATIVES: Final = ("anyOf", "oneOf")


class NoCall(ValueError):
    """What stands where a call should is none. The message is for the model."""


def introduction(tools: Iterable[Tool]) -> str:
    """What a system prompt says of tools, and how to call them."""
    lines = "\n".join(msgspec.json.encode(tool.for_chat()).decode() for tool in tools)
    return _INTRODUCTION.format(tools=lines, form=_FORM)


def calls_in(text: str) -> list[tuple[str, dict[str, Any]]]:
    """The calls in what a model has written, in their order; what it thinks before is passed over. Raises `NoCall`."""
    written = text.rpartition("</think>")[2]
    return [_call(match[1]) for match in _CALL.finditer(written)]


def response(texts: Sequence[str]) -> str:
    """Results as a model reads them."""
    return "\n".join(f"<tool_response>\n{text}\n</tool_response>" for text in texts)


def _call(text: str) -> tuple[str, dict[str, Any]]:
    try:
        call = decoded(text.encode("utf-8", "surrogatepass"))
    except ValueError as error:
        raise NoCall(f"this is no JSON: {error}; a call is {_FORM}") from None
    if not isinstance(call, dict) or not isinstance(call.get("name"), str):
        raise NoCall(f"a call is an object with a name; write {_FORM}")
    return call["name"], arguments_in(call.get("arguments"))


def arguments_in(arguments: Any) -> dict[str, Any]:
    """The arguments of a call, an object or its JSON as text. Raises `NoCall`."""
    if isinstance(arguments, str) and arguments:
        try:
            arguments = decoded(arguments.encode("utf-8", "surrogatepass"))
        except ValueError as error:
            raise NoCall(f"arguments are an object in JSON: {error}; write {_FORM}") from None
    if arguments is not None and arguments != "" and not isinstance(arguments, dict):
        raise NoCall(f"arguments are an object; write {_FORM}")
    return dict(arguments or {})


def kinds(input_schema: Mapping[str, Any]) -> dict[str, str]:
    """What each argument of a tool is, for those who read values that stand in a text without quotes.

    ``string``, ``integer``, ``number`` or ``boolean``, or null beside it; else ``object``, which is whatever JSON says.
    """
    return {name: _kind(schema) for name, schema in input_schema.get("properties", {}).items()}


def _kind(schema: Any) -> str:
    may_be = _may_be(schema) - {"null"}
    return may_be.pop() if len(may_be) == 1 and may_be <= _PLAIN else _WHATEVER


def _may_be(schema: Any) -> set[str]:
    if not isinstance(schema, Mapping):
        return {_WHATEVER}
    if "type" in schema:
        return {schema["type"]} if isinstance(schema["type"], str) else set(schema["type"])
    for alternatives in _ALTERNATIVES:
        if alternatives in schema:
            return set().union(*map(_may_be, schema[alternatives]))
    choices = schema.get("enum", [schema.get("const")])
    return {"string"} if all(isinstance(one, str) for one in choices) else {_WHATEVER}
