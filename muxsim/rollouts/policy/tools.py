"""An environment's tools as endpoints take them: with names and schemas that none of them refuses. Pure.

MCP lets tools have dots in their names and any length, and schemas of any shape; endpoints take letters, digits, ``_``
and ``-``, 64 of them, and an object with properties. The record keeps what the environment says; only what goes over
the wire is changed, and names come back as they were.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from muxsim.rollouts.policy.protocol import Message

_LONGEST_NAME: Final = 64
_SAFE: Final = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_NOT_SAFE: Final = re.compile(r"[^a-zA-Z0-9_-]+")
_DIGITS: Final = 8
# Refused at the top of a function's parameters, where only an object may be.
_ALTERNATIVES: Final = ("anyOf", "oneOf")
_NOT_AT_THE_TOP: Final = frozenset({"$schema", "$id", "$ref", "allOf", "anyOf", "oneOf", "not", "enum", "const", "if"})
_DEEPEST: Final = 30

Schema = dict[str, Any]


class WireTools:
    """The tools of one request, and their names on the way there and back.

    A name that is safe stays. Any other is made from itself alone, so that it is the same in every request of an
    episode, whatever other tools come and go.
    """

    def __init__(self, tools: Sequence[Message]) -> None:
        self._names: dict[str, str] = {}
        self._wire_names: dict[str, str] = {}
        self.tools: list[Message] = []
        known: set[str] = {_function(tool).get("name") or "" for tool in tools}
        for tool in tools:
            name = str(_function(tool).get("name") or "")
            wire = name if _SAFE.fullmatch(name) and name not in self._names else _made(name, known)
            known.add(wire)
            self._names[wire] = name
            self._wire_names.setdefault(name, wire)
            self.tools.append(_tool(tool, wire))

    def own_name(self, wire: str) -> str:
        """The environment's name of a tool that a model called; one that there is not is as the model wrote it."""
        return self._names.get(wire, wire)

    def wire_name(self, name: str) -> str:
        """The name on the wire of a tool that was called before; it need not be there any more."""
        if name not in self._wire_names:
            self._wire_names[name] = name if _SAFE.fullmatch(name) else _made(name, ())
        return self._wire_names[name]


def parameters(schema: Any) -> Schema:
    """A tool's schema as an object with properties and without alternatives at its top.

    Of alternatives all properties are there, and those are required that all of them want: the server has the last
    word on what fits.
    """
    root = schema if isinstance(schema, dict) else {}
    properties, required = _Members(root).of(root)
    rest = {key: _inner_value(key, value, 0) for key, value in root.items() if key not in _NOT_AT_THE_TOP}
    rest |= {"type": "object", "properties": {key: _inner(value, 0) for key, value in properties.items()}}
    if required or "required" in rest:
        rest["required"] = required
    return rest


def _made(name: str, taken: Iterable[str]) -> str:
    digest = hashlib.sha256(name.encode("utf-8", "replace")).hexdigest()
    stem = _NOT_SAFE.sub("_", name)
    for digits in range(_DIGITS, _LONGEST_NAME):
        made = f"{stem[: _LONGEST_NAME - digits - 1] or 'tool'}_{digest[:digits]}"
        if made not in taken:
            return made
    raise AssertionError("no list of tools has all of these")


def _tool(tool: Message, name: str) -> Message:
    function = _function(tool)
    return {**tool, "function": {**function, "name": name, "parameters": parameters(function.get("parameters"))}}


def _function(tool: Mapping[str, Any]) -> Mapping[str, Any]:
    function = tool.get("function")
    return function if isinstance(function, dict) else {}


class _Members:
    """The properties that an object of a schema may have, and those that it must have."""

    def __init__(self, root: Schema) -> None:
        self._root = root
        self._followed: set[str] = set()

    def of(self, schema: Any) -> tuple[dict[str, Any], list[str]]:
        if not isinstance(schema, dict):
            return {}, []
        properties = dict(schema["properties"]) if isinstance(schema.get("properties"), dict) else {}
        required = [name for name in _listed(schema.get("required")) if isinstance(name, str)]
        for more, wanted in self._parts(schema):
            properties = {**more, **properties}
            required += [name for name in wanted if name not in required]
        return properties, required

    def _parts(self, schema: Schema) -> Iterator[tuple[dict[str, Any], list[str]]]:
        if "$ref" in schema:
            yield self.of(self._referred(str(schema["$ref"])))
        for part in _listed(schema.get("allOf")):
            yield self.of(part)
        for branches in (_listed(schema.get(key)) for key in _ALTERNATIVES):
            read = [self.of(branch) for branch in branches]
            properties = {name: value for more, _ in reversed(read) for name, value in more.items()}
            wanted_by_all = set[str].intersection(*(set(wanted) for _, wanted in read)) if read else set[str]()
            yield properties, sorted(wanted_by_all)

    def _referred(self, reference: str) -> Any:
        """What a reference leads to, once: schemas may refer to themselves."""
        if reference in self._followed:
            return None
        self._followed.add(reference)
        found: Any = self._root
        for part in reference.removeprefix("#").split("/")[1:]:
            found = found.get(part.replace("~1", "/").replace("~0", "~")) if isinstance(found, dict) else None
        return found


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _inner(schema: Any, depth: int) -> Any:
    """A schema inside: objects have properties and arrays items, and neither is a mere true or false."""
    if isinstance(schema, bool) or schema is None:
        return {"not": {}} if schema is False else {}
    if not isinstance(schema, dict) or depth > _DEEPEST:
        return schema
    made = {key: _inner_value(key, value, depth + 1) for key, value in schema.items() if key != "$schema"}
    if made.get("type") == "object":
        made.setdefault("properties", {})
    if isinstance(schema.get("items"), list):  # a tuple, as draft-07 has it
        made["prefixItems"], made["items"] = made["items"], made.pop("additionalItems", {})
    if made.get("type") == "array":
        made.setdefault("items", {})
    return made


def _inner_value(key: str, value: Any, depth: int) -> Any:
    if key in {"properties", "patternProperties", "$defs", "definitions"} and isinstance(value, dict):
        return {name: _inner(inner, depth) for name, inner in value.items()}
    if key in {"anyOf", "oneOf", "allOf", "prefixItems", "items"} and isinstance(value, list):
        return [_inner(inner, depth) for inner in value]
    if key in {"items", "not"}:
        return _inner(value, depth)
    return value
