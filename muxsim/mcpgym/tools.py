"""Tools: a function with a schema and a reader of its arguments."""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from gymnasium import Space, spaces
from mcp_types import Tool as ToolDefinition
from mcp_types import ToolAnnotations

from muxsim.mcpgym.arguments import arguments
from muxsim.mcpgym.errors import InvalidAction, InvalidArguments
from muxsim.mcpgym.spaces import action_schema, to_action

_ACTION = "action"
_LONGEST_SPACE = 200


@dataclass(frozen=True, slots=True)
class Tool:
    """What `tools/list` says of a tool, and what a call of it does.

    `parse` makes the keyword arguments of `function` from the arguments of the call, or raises
    InvalidArguments. `function` may be a coroutine function.
    """

    definition: ToolDefinition
    parse: Callable[[dict[str, Any]], dict[str, Any]]
    function: Callable[..., Any]


def named_parameters(function: Callable[..., Any]) -> list[inspect.Parameter]:
    """What a function takes, of which a call gives each by its name.

    Raises:
        TypeError: one of them cannot be given so.
    """
    parameters = list(inspect.signature(function, eval_str=True).parameters.values())
    for parameter in parameters:
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise TypeError(f"a tool's arguments have names, but {function.__name__} takes {parameter}")
    return parameters


def function_tool(
    function: Callable[..., Any],
    *,
    name: str | None = None,
    title: str | None = None,
    description: str | None = None,
    annotations: ToolAnnotations | None = None,
) -> Tool:
    """A tool whose schema comes from the signature of `function` and whose description is its docstring.

    Raises:
        TypeError: the signature has parameters that cannot be given by name.
    """
    parameters = named_parameters(function)
    schema, read = arguments(parameters)
    definition = ToolDefinition(
        name=name or function.__name__,
        title=title,
        description=description or inspect.getdoc(function) or "",
        input_schema=schema,
        annotations=annotations,
    )
    return Tool(definition, read, function)


def step_tool(
    space: Space[Any],
    step: Callable[[Any], Any],
    *,
    name: str,
    description: str,
    actions: Sequence[str] | None = None,
) -> Tool:
    """A tool with one argument, `action`, an element of `space`, which it hands to `step`.

    `actions` names the elements of a Discrete space, lowest first, for the agent to use instead of numbers.

    Raises:
        UnsupportedSpace: there is no JSON schema for the space.
        ValueError: `actions` does not fit the space.
    """
    if actions is None:
        schema, read = {**action_schema(space), "description": _describe(space)}, _reader(space)
    else:
        schema, read = {"type": "string", "enum": list(actions)}, _reader_of_names(space, actions)

    def parse(arguments: dict[str, Any]) -> dict[str, Any]:
        if set(arguments) != {_ACTION}:
            given = ", ".join(map(repr, arguments)) or "nothing"
            raise InvalidArguments(f"the tool takes 'action' and no other argument, not {given}")
        return {_ACTION: read(arguments[_ACTION])}

    def function(action: Any) -> Any:
        return step(action)

    definition = ToolDefinition(
        name=name,
        description=description,
        input_schema={
            "type": "object",
            "properties": {_ACTION: schema},
            "required": [_ACTION],
            "additionalProperties": False,
        },
    )
    return Tool(definition, parse, function)


def _reader(space: Space[Any]) -> Callable[[Any], Any]:
    return lambda value: to_action(space, value)


def _reader_of_names(space: Space[Any], actions: Sequence[str]) -> Callable[[Any], Any]:
    if not isinstance(space, spaces.Discrete):
        raise ValueError(f"names of actions need a Discrete action space, not {space!r:.80}")
    if len(actions) != space.n or len(set(actions)) != len(actions):
        raise ValueError(f"{space} needs {space.n} different names of actions, not {list(actions)}")
    elements = {name: space.dtype.type(int(space.start) + index) for index, name in enumerate(actions)}

    def read(value: Any) -> Any:
        if not isinstance(value, str) or value not in elements:
            raise InvalidAction(f"action must be one of {', '.join(elements)}, not {value!r:.40}")
        return elements[value]

    return read


def _describe(space: Space[Any]) -> str:
    described = repr(space)
    return described if len(described) <= _LONGEST_SPACE else f"An element of a {type(space).__name__} space"
