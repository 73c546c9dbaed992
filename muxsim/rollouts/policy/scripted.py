"""A policy that does what it was told beforehand."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from muxsim.rollouts.policy.messages import assistant_calls, turn_of
from muxsim.rollouts.policy.protocol import Message, PolicyError, Reply

Script = Sequence[Any]
Scripts = Script | Mapping[int, Script] | Callable[[int], Script]

_OVER: Final = "The script is over."
_CALL_KEYS: Final = {"tool", "arguments"}
_ROW_KEYS: Final = {"seed", "actions"}


class ScriptedPolicy:
    """Takes the actions of a list, one per turn, then ends with a message without a tool call.

    An action is ``{"tool": …, "arguments": {…}}``, or a list of these for several calls in one message. Where the
    environment has a single tool, its arguments alone will do, and where that takes a single argument, the bare value.
    ``script`` is one list for all episodes, or one for each seed: a mapping, or a function of the seed.
    """

    def __init__(self, script: Scripts) -> None:
        self._script = script

    def __repr__(self) -> str:
        if callable(self._script):
            return f"ScriptedPolicy({getattr(self._script, '__name__', 'function')})"
        what = "seeds" if isinstance(self._script, Mapping) else "actions"
        return f"ScriptedPolicy({len(self._script)} {what})"

    @classmethod
    def from_file(cls, path: str | Path) -> ScriptedPolicy:
        """The script of a file.

        JSON: a list of actions, or an object with such a list for each seed. JSONL: an action per line, or
        ``{"seed": …, "actions": […]}`` per line. Raises `PolicyError`, which names the file, and the line.
        """
        file = Path(path)
        try:
            text = file.read_bytes()
        except OSError as error:
            raise PolicyError(f"{path}: the script cannot be read: {error.strerror}") from None
        if file.suffix == ".jsonl":
            return cls(_from_lines(text, str(path)))
        return cls(_from_json(_decoded(text, str(path)), str(path)))

    async def next_message(self, conversation: Sequence[Message], tools: Sequence[Message], seed: int) -> Reply:
        """The action of this turn. Raises `PolicyError` where there is no script for the seed, or a short form fits no
        tool."""
        turn = turn_of(conversation)
        script = self._for(seed)
        if turn >= len(script):
            return Reply({"role": "assistant", "content": _OVER})
        try:
            return Reply(assistant_calls(_calls(script[turn], tools), turn))
        except _Unclear as unclear:
            raise PolicyError(f"action {turn} of the script, {script[turn]!r:.80}, {unclear}") from None

    def _for(self, seed: int) -> Script:
        if callable(self._script):
            return self._script(seed)
        if not isinstance(self._script, Mapping):
            return self._script
        if seed not in self._script:
            raise PolicyError(f"there is no script for seed {seed}, only for {_some(self._script)}")
        return self._script[seed]


class _Unclear(ValueError):
    """An action that cannot be a call; the text goes on after the action."""


def _calls(action: Any, tools: Sequence[Message]) -> list[tuple[str, Any]]:
    if isinstance(action, list) and action and all(map(_is_call, action)):
        return [(call["tool"], call.get("arguments") or {}) for call in action]
    if _is_call(action):
        return [(action["tool"], action.get("arguments") or {})]
    if len(tools) != 1:
        names = ", ".join(tool["function"]["name"] for tool in tools) or "none"
        raise _Unclear(f"has to name its tool with 'tool' and 'arguments': there are {names}")
    function = tools[0]["function"]
    if isinstance(action, dict):
        return [(function["name"], action)]
    return [(function["name"], {_only_argument(function): action})]


def _is_call(action: Any) -> bool:
    return isinstance(action, dict) and isinstance(action.get("tool"), str) and action.keys() <= _CALL_KEYS


def _only_argument(function: Mapping[str, Any]) -> str:
    parameters = function.get("parameters") or {}
    names = list(parameters.get("properties", {}))
    if len(names) > 1:
        names = list(parameters.get("required", []))
    if len(names) != 1:
        raise _Unclear(f"has to name its arguments: {function['name']} does not take a single one")
    return str(names[0])


def _from_json(value: Any, path: str) -> Scripts:
    if isinstance(value, list):
        return value
    if not isinstance(value, dict):
        raise PolicyError(f"{path}: a script is a list of actions, or an object with a list for each seed")
    return {_seed(seed, path): _actions(actions, path) for seed, actions in value.items()}


def _from_lines(text: bytes, path: str) -> Scripts:
    lines = [(f"{path}, line {number}", line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    values = [(where, _decoded(line, where)) for where, line in lines]
    by_seed = [isinstance(value, dict) and value.keys() == _ROW_KEYS for _, value in values]
    if not by_seed or not all(by_seed):
        if any(by_seed):
            raise PolicyError(f"{values[by_seed.index(False)][0]}: either all lines have 'seed' and 'actions', or none")
        return [value for _, value in values]
    return {_seed(value["seed"], where): _actions(value["actions"], where) for where, value in values}


def _decoded(text: bytes, where: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        raise PolicyError(f"{where}: this is not JSON: {error}") from None


def _seed(seed: Any, where: str) -> int:
    try:
        return int(seed)
    except (TypeError, ValueError):
        raise PolicyError(f"{where}: a seed is a whole number, not {seed!r:.40}") from None


def _actions(actions: Any, where: str) -> list[Any]:
    if not isinstance(actions, list):
        raise PolicyError(f"{where}: a script is a list of actions, not {actions!r:.40}")
    return actions


def _some(seeds: Mapping[int, Any]) -> str:
    first = ", ".join(map(str, list(seeds)[:5]))
    return f"{first} and {len(seeds) - 5} more" if len(seeds) > 5 else first or "none"
