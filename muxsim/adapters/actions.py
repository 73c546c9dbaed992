"""Tools as an action space of Gymnasium, and an action as a call of a tool. Pure."""

from __future__ import annotations

import itertools
import json
import operator
import string
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
from gymnasium import Space, spaces

from muxsim.errors import MuxsimError
from muxsim.mcpgym.spaces import from_action
from muxsim.rollouts.environments.environment import Tool

Call = tuple[str, dict[str, Any]]
"""A tool's name and its arguments."""

MOST_ACTIONS: Final = 4096
"""More calls than these are no list that anybody learns to choose from."""


class ActionError(MuxsimError):
    """An action that is none, or tools that are no action space. The message says what to do."""


class Actions(Protocol):
    """What an agent may do."""

    @property
    def space(self) -> Space[Any]:
        """The action space."""

    def call_for(self, action: Any) -> Call:
        """The call that an action stands for. Raises `ActionError`: it stands for none."""


@dataclass(frozen=True)
class ByStep:
    """The author kit's tool ``step``, which takes an element of the environment's own space, or its name."""

    space: Space[Any]
    tool: str
    names: Sequence[str] | None

    def call_for(self, action: Any) -> Call:
        if self.names is not None:
            return self.tool, {"action": self.names[_place(self.space, action)]}
        _require(self.space, action)
        return self.tool, {"action": from_action(self.space, action)}


@dataclass(frozen=True)
class Listed:
    """One of so many calls, by its place among them."""

    space: spaces.Discrete
    calls: Sequence[Call]

    def call_for(self, action: Any) -> Call:
        tool, arguments = self.calls[_place(self.space, action)]
        return tool, dict(arguments)


@dataclass(frozen=True)
class AsText:
    """A call as JSON, ``{"tool": NAME, "arguments": {...}}``: for agents that write."""

    space: Space[Any]

    def call_for(self, action: Any) -> Call:
        try:
            call = json.loads(action)
            tool, arguments = call["tool"], call.get("arguments", {})
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise ActionError(f'an action is JSON, {{"tool": NAME, "arguments": {{…}}}}, not {action!r:.80}') from None
        if not isinstance(tool, str) or not isinstance(arguments, dict):
            raise ActionError(f"an action has a tool's name and an object of arguments, not {action!r:.80}")
        return tool, arguments


class AnyText(spaces.Text):
    """All texts: Gymnasium's own space has a set of characters, in which those of most languages are not."""

    def __init__(self, max_length: int = 2**20) -> None:
        super().__init__(max_length, min_length=0, charset=string.printable)

    def contains(self, x: Any) -> bool:
        return isinstance(x, str) and len(x) <= self.max_length

    def __repr__(self) -> str:
        return "AnyText()"


def actions_of(
    tools: Sequence[Tool], space: Space[Any] | None, step: Any, given: Sequence[str | Call] | None
) -> Actions:
    """What an environment's tools are for Gymnasium.

    ``given`` are the user's own words, a call or a tool's name for each action. Else ``space`` and ``step`` are what
    the author kit tells: its action space, and the tool that takes its elements. Else there is an action for every call
    that finite schemas allow, and at last a text. Raises `ActionError`.
    """
    if given is not None:
        calls = [(one, {}) if isinstance(one, str) else (one[0], dict(one[1])) for one in given]
        names = {tool.name for tool in tools}
        if unknown := [tool for tool, _ in calls if tool not in names]:
            raise ActionError(f"actions: there is no tool {unknown[0]!r}; there are {', '.join(sorted(names))}")
        if not calls:
            raise ActionError("actions: give one at least")
        return Listed(_discrete(len(calls), space), calls)
    if space is not None and isinstance(step, dict) and any(tool.name == step.get("tool") for tool in tools):
        return ByStep(space, step["tool"], _names(step.get("names"), space))
    calls = _every_call(tools)
    return Listed(_discrete(len(calls), space), calls) if calls else AsText(AnyText())


def _names(names: Any, space: Space[Any]) -> list[str] | None:
    if names is None:
        return None
    if not isinstance(space, spaces.Discrete) or not isinstance(names, list) or len(names) != int(space.n):
        raise ActionError("control://spaces: the names of actions do not fit the action space")
    return [str(name) for name in names]


def _discrete(n: int, space: Space[Any] | None) -> spaces.Discrete:
    """The environment's own space where it has as many actions: theirs may begin elsewhere than at 0."""
    return space if isinstance(space, spaces.Discrete) and int(space.n) == n else spaces.Discrete(n)


def _require(space: Space[Any], action: Any) -> None:
    if isinstance(space, spaces.Box) and not isinstance(action, np.ndarray):
        action = np.asarray(action, dtype=space.dtype)
    if not space.contains(action):
        raise ActionError(f"{action!r:.80} is not in the action space {space!r:.200}")


def _place(space: Space[Any], action: Any) -> int:
    """An action's place in a `Discrete`, whose own `contains` takes four times as long."""
    assert isinstance(space, spaces.Discrete)
    try:
        place = operator.index(action) - int(space.start)
    except TypeError:
        place = -1
    if not 0 <= place < int(space.n):
        raise ActionError(f"{action!r:.80} is not in the action space {space!r:.200}")
    return place


def _every_call(tools: Sequence[Tool]) -> list[Call]:
    """All calls of all tools, in their order; none if there are too many, or some argument may be anything."""
    calls: list[Call] = []
    for tool in tools:
        values = _choices(tool.input_schema)
        if values is None:
            return []
        for chosen in itertools.islice(itertools.product(*values.values()), MOST_ACTIONS + 1):
            calls.append((tool.name, dict(zip(values, chosen, strict=True))))
        if len(calls) > MOST_ACTIONS:
            return []
    return calls


def _choices(schema: dict[str, Any]) -> dict[str, list[Any]] | None:
    """The values of each argument; None if there is no end of them, or one may be left out."""
    properties = schema.get("properties", {})
    required = schema.get("required", [])
    if not isinstance(properties, dict) or not isinstance(required, list) or set(required) != set(properties):
        return None
    found: dict[str, list[Any]] = {}
    for name, about in properties.items():
        values = list(itertools.islice(_values(about), MOST_ACTIONS + 1))
        if not values or len(values) > MOST_ACTIONS:
            return None
        found[name] = values
    return found


def _values(schema: Any) -> Iterator[Any]:
    """The finitely many values of a schema; nothing if they are not finitely many."""
    match schema:
        case {"const": value}:
            yield value
        case {"enum": [*values]}:
            yield from values
        case {"type": "boolean"}:
            yield from (False, True)
        case {"type": "integer", "minimum": int(low), "maximum": int(high)}:
            yield from range(low, high + 1)
