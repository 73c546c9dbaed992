"""A tool as a Python function with types and a docstring, for trainers that read those and no JSON Schema. Pure.

The docstring is in Google's form, as such readers want it: an ``Args:`` section with a line for each parameter. What
types cannot say, bounds and defaults for one, stands in those lines.
"""

from __future__ import annotations

import inspect
import keyword
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any, Final, Literal

import msgspec

from muxsim.rollouts.environments.environment import Tool

# Schemas that refer to themselves have no end, and types have.
_DEEPEST: Final = 6
_LONGEST_SCHEMA: Final = 600
_TYPES: Final[Mapping[str, Any]] = {
    "string": str,
    "integer": int,
    "number": float,
    "boolean": bool,
    "null": type(None),
}
_ALTERNATIVES: Final = ("anyOf", "oneOf")
# How readers of docstrings tell where a section begins, wherever that stands in a line.
_SECTIONS: Final[Mapping[str, str]] = {"Args:": "Arguments:", "Returns:": "Result:", "Raises:": "Errors:"}
_CHOICES: Final = re.compile(r"\(choices:", re.IGNORECASE)
_NOT_SAFE: Final = re.compile(r"\W+")
# What a schema says beside its type, in the words of a docstring.
_BOUNDS: Final[Mapping[str, str]] = {
    "minimum": "at least {}",
    "exclusiveMinimum": "more than {}",
    "maximum": "at most {}",
    "exclusiveMaximum": "less than {}",
    "multipleOf": "a multiple of {}",
    "minLength": "{} characters or more",
    "maxLength": "{} characters or less",
    "pattern": "matching {}",
    "format": "format {}",
    "minItems": "{} items or more",
    "maxItems": "{} items or less",
    "default": "default {}",
}

Schema = dict[str, Any]


@dataclass(frozen=True)
class TypedTool:
    """A tool's signature and docstring, and its arguments under the names that they have in the signature."""

    tool: str
    signature: inspect.Signature
    annotations: dict[str, Any]
    doc: str
    names: Mapping[str, str]
    """The environment's name of each parameter."""

    def arguments(self, args: tuple[Any, ...], given: Mapping[str, Any]) -> dict[str, Any]:
        """What was given, by the environment's names: what it makes of too many or too few is its own to say."""
        named = dict(zip(self.names, args, strict=False))
        return {self.names.get(name, name): value for name, value in {**named, **given}.items()}

    def function(self, call: Callable[[Any, str, dict[str, Any]], Any]) -> Callable[..., Any]:
        """A method that makes the call: ``call(self, tool, arguments)``."""

        def method(self: Any, /, *args: Any, **given: Any) -> Any:
            if len(args) > len(typed.names):
                raise TypeError(f"{typed.tool} takes {len(typed.names)} arguments, not {len(args)}")
            return call(self, typed.tool, typed.arguments(args, given))

        typed = self
        method.__name__ = method.__qualname__ = self.tool
        method.__doc__ = self.doc
        method.__annotations__ = dict(self.annotations)
        method.__signature__ = self.signature  # type: ignore[attr-defined]
        return method


def typed_tool(tool: Tool) -> TypedTool:
    """What a tool is as a method, whose first parameter is the object."""
    schema = tool.input_schema if isinstance(tool.input_schema, dict) else {}
    properties = schema.get("properties")
    properties = properties if isinstance(properties, dict) else {}
    required = schema.get("required")
    required = required if isinstance(required, list) else []
    ordered = sorted(properties, key=lambda name: name not in required)
    names: dict[str, str] = {}
    parameters = [inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)]
    annotations: dict[str, Any] = {}
    lines = []
    for name in ordered:
        about = _resolved(properties[name], schema)
        own = _identifier(name, names)
        names[own] = name
        annotations[own] = _hint(about, schema, _DEEPEST)
        default = inspect.Parameter.empty if name in required else about.get("default")
        parameters.append(
            inspect.Parameter(
                own, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=default, annotation=annotations[own]
            )
        )
        lines.append(f"    {own}: {_line(name, about)}")
    annotations["return"] = str
    doc = _without_sections(tool.description.strip()) or f"Call {tool.name}."
    if lines:
        doc = "\n".join((doc, "", "Args:", *lines))
    signature = inspect.Signature(parameters, return_annotation=str)
    return TypedTool(tool.name, signature, annotations, doc, names)


def _identifier(name: str, taken: Mapping[str, str]) -> str:
    """A name that a parameter may have, and no other of them has."""
    own = _NOT_SAFE.sub("_", name) or "_"
    if keyword.iskeyword(own):
        own = f"{own}_"
    if not own.isidentifier():
        own = f"_{own}" if f"_{own}".isidentifier() else "argument"
    found, number = own, 1
    while found in taken or found == "self":
        number += 1
        found = f"{own}_{number}"
    return found


def _resolved(about: Any, root: Schema) -> Schema:
    """A schema in the place of a reference to it; one that is none says nothing."""
    for _ in range(_DEEPEST):
        if not isinstance(about, dict) or not isinstance(about.get("$ref"), str):
            break
        found: Any = root
        for part in about["$ref"].removeprefix("#").strip("/").split("/"):
            found = found.get(part) if isinstance(found, dict) else None
        rest = {key: value for key, value in about.items() if key != "$ref"}
        about = {**found, **rest} if isinstance(found, dict) else rest
    return about if isinstance(about, dict) else {}


def _hint(about: Any, root: Schema, depth: int) -> Any:
    """The Python type of a schema's values; Any where there is none."""
    about = _resolved(about, root)
    if not depth:
        return Any
    values = about.get("enum", [about["const"]] if "const" in about else None)
    if isinstance(values, list):
        return _literal(values)
    if choices := _choices(about):
        return _union([_hint(one, root, depth - 1) for one in choices])
    return _plain(about, root, depth)


def _choices(about: Schema) -> list[Any]:
    """The schemas of which values have one; none if it is a single one."""
    for key in _ALTERNATIVES:
        if isinstance(about.get(key), list):
            return list(about[key])
    kinds = about.get("type")
    return [{**about, "type": kind} for kind in kinds] if isinstance(kinds, list) else []


def _plain(about: Schema, root: Schema, depth: int) -> Any:
    kind = about.get("type")
    if kind == "array":
        return list[_hint(about.get("items"), root, depth - 1)]  # type: ignore[misc]
    if kind == "object":
        values = about.get("additionalProperties")
        return dict[str, _hint(values, root, depth - 1)] if isinstance(values, dict) else dict  # type: ignore[misc]
    return _TYPES.get(kind, Any) if isinstance(kind, str) else Any


def _literal(values: list[Any]) -> Any:
    scalar = all(value is None or isinstance(value, str | int | float) for value in values)
    return Literal[tuple(values)] if values and scalar else Any


def _union(hints: list[Any]) -> Any:
    return Any if Any in hints else reduce(operator.or_, hints)


def _line(name: str, about: Schema) -> str:
    """What a parameter's line says of it, on one line."""
    said = about.get("description") or about.get("title")
    words = _one_line(said) if isinstance(said, str) else ""
    words = words or _one_line(name.replace("_", " ").replace("-", " ")) or "an argument"
    bounds = [form.format(_json(about[key])) for key, form in _BOUNDS.items() if about.get(key) is not None]
    if _has_more(about):
        bounds.append(f"JSON schema {_json(about)}")
    return _one_line(f"{words} ({'; '.join(bounds)})" if bounds else words)


def _has_more(about: Schema) -> bool:
    """Whether a schema says more of what is inside its values than a type can."""
    inside = [about, about.get("items"), *_choices(about)]
    return any(isinstance(one, dict) and ("properties" in one or "$ref" in one) for one in inside)


def _json(value: Any) -> str:
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= _LONGEST_SCHEMA else f"{text[: _LONGEST_SCHEMA - 1]}…"


def _one_line(text: str) -> str:
    return _CHOICES.sub("(choices ", _without_sections(" ".join(text.split())))


def _without_sections(text: str) -> str:
    for section, other in _SECTIONS.items():
        text = text.replace(section, other)
    return text
