"""Tool arguments that a client repeats in headers (`x-mcp-header`), for whoever routes without bodies. Pure.

The rules are those of revision 2026-07-28, as the official SDK has them; tests compare the two. The SDK's own are not
imported: they come with all of its client and server, and a server should start fast.
"""

from __future__ import annotations

import base64
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

PREFIX: Final = "mcp-param-"

_ANNOTATION: Final = "x-mcp-header"
_TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_TYPES: Final = frozenset({"string", "integer", "boolean"})
_ENCODED: Final = re.compile(r"=\?base64\?(.*)\?=")
_DECIMAL: Final = re.compile(r"(-?[0-9]+)(?:\.([0-9]+))?")

# Where a schema has schemas that are no plain property: one, a list, or some by name.
_ONE: Final = frozenset(
    {
        *("additionalProperties", "contains", "contentSchema", "else", "if", "items", "not"),
        *("propertyNames", "then", "unevaluatedItems", "unevaluatedProperties"),
    }
)
_LISTED: Final = frozenset({"allOf", "anyOf", "oneOf", "prefixItems"})
_NAMED: Final = frozenset({"$defs", "definitions", "dependentSchemas", "patternProperties"})

_Path = tuple[str, ...]


class Mirrored(NamedTuple):
    """An argument with a header: where it stands in the arguments, its header without the prefix, its type."""

    path: _Path
    token: str
    type: str


def mirrored(schema: Any) -> list[Mirrored]:
    """The arguments that a tool's input schema gives headers; none if one of its annotations is not as it may be."""
    found: list[Mirrored] = []
    for path, node in _schemas(schema):
        if _ANNOTATION not in node:
            continue
        token, kind = node[_ANNOTATION], node.get("type")
        named = isinstance(token, str) and _TOKEN.fullmatch(token) is not None
        if not (path and named and isinstance(kind, str) and kind in _TYPES):
            return []
        found.append(Mirrored(path, token, kind))
    return found if len({one.token.lower() for one in found}) == len(found) else []


def contradiction(
    of: Sequence[Mirrored], arguments: Mapping[str, Any], headers: Sequence[tuple[str, str]]
) -> str | None:
    """What keeps the headers, by names in lower case, from saying what the arguments say; None if nothing does."""
    lines = Counter(name for name, _ in headers)
    values = dict(headers)
    for one in of:
        header = PREFIX + one.token.lower()
        if lines[header] > 1:
            return f"the header {header} stands more than once"
        if why := _contradiction(one, _at(arguments, one.path), values.get(header)):
            return f"the header {header} {why} {'.'.join(one.path)!r}"
    return None


def decoded(value: str | None) -> str | None:
    """What a header says, which may be in base64; None if that is not as an encoder writes it."""
    match = None if value is None else _ENCODED.fullmatch(value)
    if match is None:
        return value
    try:
        data = base64.b64decode(match[1], validate=True)
        return data.decode() if base64.b64encode(data).decode() == match[1] else None
    except ValueError:  # no base64, or no UTF-8 in it
        return None


def _schemas(root: Any) -> Iterator[tuple[_Path, dict[str, Any]]]:
    """Every schema within one, with its way through plain properties: () for the root and where there is none."""
    ahead: list[tuple[_Path | None, Any]] = [((), root)]
    while ahead:  # no recursion: a schema may be deep
        path, node = ahead.pop()
        if not isinstance(node, dict):
            continue
        yield path or (), node
        for keyword, value in node.items():
            if keyword == "properties" and isinstance(value, dict):
                ahead += ((None if path is None else (*path, name), schema) for name, schema in value.items())
            elif keyword in _ONE:
                ahead.append((None, value))
            elif keyword in _LISTED and isinstance(value, list):
                ahead += ((None, schema) for schema in value)
            elif keyword in _NAMED and isinstance(value, dict):
                ahead += ((None, schema) for schema in value.values())


def _at(arguments: Mapping[str, Any], path: _Path) -> Any:
    found: Any = arguments
    for name in path:
        found = found.get(name) if isinstance(found, Mapping) else None
    return found


def _contradiction(one: Mirrored, value: Any, raw: str | None) -> str | None:
    if value is None:
        return None if raw is None else "stands without the argument"
    text = _written(value)
    if raw is None:
        return None if text is None else "is missing for the argument"
    said = decoded(raw)
    if text is not None and said is not None and (said == text or _same_number(one.type, value, said)):
        return None
    return "does not say what is in the argument"


def _written(value: Any) -> str | None:
    """How a client writes a value into a header; None if it writes none."""
    if isinstance(value, bool):
        return "true" if value else "false"
    try:
        return str(value) if isinstance(value, str | int | float) else None
    except ValueError:  # more digits than Python writes
        return None


def _same_number(kind: str, value: Any, said: str) -> bool:
    """Whether a header says an integer, though perhaps as 42.0 instead of 42."""
    integral = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    match = _DECIMAL.fullmatch(said)
    if kind != "integer" or isinstance(value, bool) or not integral or match is None or (match[2] or "").strip("0"):
        return False
    try:
        return int(match[1]) == int(value)
    except ValueError:  # more digits than Python reads
        return False
