"""Values that fit a JSON Schema, drawn at random. Pure: the same schema and dice give the same value.

Examples, enums, constants, defaults and plain types. A text that has to match a pattern or a format is not drawn.
"""

from __future__ import annotations

import random
import string
from collections.abc import Callable
from fractions import Fraction
from math import ceil, floor, inf
from typing import Any, Final
from urllib.parse import unquote

Schema = dict[str, Any]

# What is drawn where a schema sets no bound: small enough to read, large enough to be wrong now and then.
_SPAN: Final = 100
_MORE_CHARACTERS: Final = 8
_MORE_ITEMS: Final = 3
# Deeper than this a value ends as soon as its schema lets it, and one that cannot end by then has no end.
_FLAT_FROM: Final = 4
_DEEPEST: Final = 40
# Tries for what can only be checked afterwards: numbers between open bounds, unique items.
_TRIES: Final = 200

_KEYWORDS_OF: Final = {
    "object": ("properties", "required", "additionalProperties"),
    "array": ("items", "prefixItems", "minItems", "maxItems"),
    "string": ("pattern", "minLength", "maxLength"),
    "number": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
}
_ANYTHING: Final = ("string", "integer", "boolean")


class CannotDraw(ValueError):
    """No value fits the schema, or this module does not know how to find one. The message says what of it."""


def draw(schema: Schema, rng: random.Random) -> Any:
    """A value for ``schema``, which holds the ``$defs`` it refers to.

    ``not``, ``if`` and rules across keys are not looked at; ``oneOf`` is read as ``anyOf``. Raises `CannotDraw`.
    """
    return _Drawing(schema, rng).value(schema, 0)


class _Drawing:
    """One value; ``root`` is what references start from."""

    def __init__(self, root: Schema, rng: random.Random) -> None:
        self.root = root
        self.rng = rng

    def value(self, schema: Any, depth: int) -> Any:
        schema = self._settled(schema, depth)
        if "const" in schema:
            return schema["const"]
        if "enum" in schema:
            return self._chosen(schema["enum"], "an enum")
        if schema.get("examples"):
            return self._chosen(schema["examples"], "a list of examples")
        if "default" in schema:
            return self._default_or_drawn(schema, depth)
        return self._of_kind(schema, depth)

    def _default_or_drawn(self, schema: Schema, depth: int) -> Any:
        """A default now and then, and always where there is nothing else."""
        if self.rng.random() < 0.5:
            return schema["default"]
        try:
            return self._of_kind(schema, depth)
        except CannotDraw:
            return schema["default"]

    def _of_kind(self, schema: Schema, depth: int) -> Any:
        kinds: dict[str, Callable[[Schema, int], Any]] = {
            "null": lambda schema, depth: None,
            "boolean": lambda schema, depth: self.rng.random() < 0.5,
            "integer": self._integer,
            "number": self._number,
            "string": self._string,
            "array": self._array,
            "object": self._object,
        }
        kind = self._kind(schema, depth)
        if kind not in kinds:
            raise CannotDraw(f"{kind!r:.40} is no type of JSON")
        return kinds[kind](schema, depth)

    def _settled(self, schema: Any, depth: int) -> Schema:
        """The schema without references, combinations and alternatives."""
        for _ in range(max(0, _DEEPEST - depth)):
            if schema is True:
                return {}
            if not isinstance(schema, dict):
                raise CannotDraw(f"{schema!r:.40} lets no value through")
            rest = {key: value for key, value in schema.items() if key not in {"$ref", "allOf", "anyOf", "oneOf"}}
            if "$ref" in schema:
                schema = _merged(_without(schema, "$ref"), self._referred(schema["$ref"]))
            elif "allOf" in schema:
                alternatives = {key: schema[key] for key in ("anyOf", "oneOf") if key in schema}
                for part in schema["allOf"]:
                    rest = _merged(rest, self._settled(part, depth + 1))
                schema = {**rest, **alternatives}
            elif "anyOf" in schema:
                schema = _merged(_without(schema, "anyOf"), self._branch(schema["anyOf"], depth))
            elif "oneOf" in schema:
                schema = _merged(_without(schema, "oneOf"), self._branch(schema["oneOf"], depth))
            else:
                return schema
        raise CannotDraw("the schema has no end: it refers to itself with no way out")

    def _referred(self, reference: Any) -> Any:
        found: Any = self.root
        if not isinstance(reference, str) or not reference.startswith("#"):
            raise CannotDraw(f"the schema refers to {reference!r:.80}, which is not inside it")
        for part in reference[1:].split("/")[1:]:
            key = unquote(part).replace("~1", "/").replace("~0", "~")
            try:
                found = found[int(key)] if isinstance(found, list) else found[key]
            except (KeyError, IndexError, TypeError, ValueError):
                raise CannotDraw(f"the schema refers to {reference!r:.80}, which it does not have") from None
        return found

    def _branch(self, branches: list[Any], depth: int) -> Any:
        if depth >= _FLAT_FROM:
            branches = [branch for branch in branches if _is_flat(branch)] or branches
        return self._chosen([branch for branch in branches if branch is not False], "anyOf")

    def _chosen(self, choices: Any, what: str) -> Any:
        if not isinstance(choices, list) or not choices:
            raise CannotDraw(f"{what} has nothing to choose from")
        return self.rng.choice(choices)

    def _kind(self, schema: Schema, depth: int) -> str:
        kind = schema.get("type")
        if isinstance(kind, list):
            flat = [name for name in kind if name not in {"array", "object"}] if depth >= _FLAT_FROM else []
            return str(self._chosen(flat or kind, "a list of types"))
        if kind is not None:
            return str(kind)
        implied = [name for name, keywords in _KEYWORDS_OF.items() if any(word in schema for word in keywords)]
        return implied[0] if implied else self.rng.choice(_ANYTHING)

    def _integer(self, schema: Schema, depth: int) -> int:
        # The numerator: the whole multiples of 3/2 are those of 3.
        step = Fraction(_step(schema).numerator)
        return int(self._multiple(schema, step))

    def _number(self, schema: Schema, depth: int) -> float:
        if "multipleOf" in schema:
            return float(self._multiple(schema, _step(schema)))
        low, high, open_low, open_high = _bounds(schema)
        if low > high:
            raise CannotDraw(f"no number is from {low:g} to {high:g}")
        for _ in range(_TRIES):
            share = self.rng.random()
            number = min(max(low * (1 - share) + high * share, low), high)  # high - low may be infinite
            if not ((open_low and number == low) or (open_high and number == high)):
                return number
        raise CannotDraw(f"no number is between {low:g} and {high:g}")

    def _multiple(self, schema: Schema, step: Fraction) -> Fraction:
        low, high, open_low, open_high = _bounds(schema, step)
        least, most = ceil(_exact(low) / step), floor(_exact(high) / step)
        least += open_low and least * step == _exact(low)
        most -= open_high and most * step == _exact(high)
        if least > most:
            raise CannotDraw(f"no multiple of {float(step):g} is from {low:g} to {high:g}")
        return self.rng.randint(least, most) * step

    def _string(self, schema: Schema, depth: int) -> str:
        for key in ("pattern", "format"):
            if key in schema:
                raise CannotDraw(f"a text with the {key} {schema[key]!r:.80} needs examples, an enum or a default")
        least = int(schema.get("minLength", 0))
        most = int(schema.get("maxLength", max(1, least) + _MORE_CHARACTERS))
        if least > most:
            raise CannotDraw(f"no text has from {least} to {most} characters")
        length = self.rng.randint(min(max(1, least), most), most)
        return "".join(self.rng.choices(string.ascii_lowercase, k=length))

    def _array(self, schema: Schema, depth: int) -> list[Any]:
        first, rest = _tuple_of(schema)
        least = int(schema.get("minItems", 0))
        most = int(schema.get("maxItems", max(least, len(first)) + _MORE_ITEMS))
        if rest is False:
            most = min(most, len(first))
        if least > most:
            raise CannotDraw(f"no array has from {least} to {most} items")
        wanted = least if depth >= _FLAT_FROM else self.rng.randint(least, most)
        items: list[Any] = []
        for _ in range(_TRIES + wanted):
            if len(items) == wanted:
                return items
            item = self.value(first[len(items)] if len(items) < len(first) else rest, depth + 1)
            if not (schema.get("uniqueItems") and item in items):
                items.append(item)
        if len(items) >= least:
            return items
        raise CannotDraw(f"found no {least} items that differ")

    def _object(self, schema: Schema, depth: int) -> dict[str, Any]:
        properties = schema.get("properties", {})
        required = schema.get("required", [])
        others = schema.get("additionalProperties", True)
        names = [name for name in properties if name in required or self._wants(depth)]
        names += [name for name in required if name not in properties]
        drawn = {}
        for name in names:
            try:
                drawn[name] = self.value(properties.get(name, others), depth + 1)
            except CannotDraw as error:
                if name in required:  # any other may be left out
                    raise CannotDraw(f"{name}: {error}") if depth == 0 else error from None
        return drawn

    def _wants(self, depth: int) -> bool:
        return depth < _FLAT_FROM and self.rng.random() < 0.5


def _tuple_of(schema: Schema) -> tuple[list[Any], Any]:
    """The schemas of an array's first items, and that of the rest: ``items`` of a list is how draft-07 says it."""
    if isinstance(schema.get("items"), list):
        return schema["items"], schema.get("additionalItems", True)
    return schema.get("prefixItems", []), schema.get("items", True)


def _without(schema: Schema, key: str) -> Schema:
    return {name: value for name, value in schema.items() if name != key}


def _merged(one: Schema, other: Any) -> Schema:
    """Both schemas in one, where each says something of its own."""
    if other is True:
        return one
    if not isinstance(other, dict):
        raise CannotDraw(f"{other!r:.40} lets no value through")
    merged = {**one, **other}
    if "properties" in one and "properties" in other:
        merged["properties"] = {**one["properties"], **other["properties"]}
    if "required" in one and "required" in other:
        merged["required"] = [*one["required"], *(name for name in other["required"] if name not in one["required"])]
    return merged


def _is_flat(schema: Any) -> bool:
    """Whether a value of it surely ends here."""
    if not isinstance(schema, dict):
        return schema is True
    return not {"$ref", "allOf", "anyOf", "oneOf", "properties", "items"} & schema.keys()


def _step(schema: Schema) -> Fraction:
    step = _exact(schema.get("multipleOf", 1))
    if step <= 0:
        raise CannotDraw(f"multipleOf has to be more than 0, not {schema['multipleOf']!r:.40}")
    return step


def _exact(number: float) -> Fraction:
    """0.1 as one tenth, which the float is not."""
    return Fraction(str(number))


def _bounds(schema: Schema, step: Fraction = Fraction(1)) -> tuple[float, float, bool, bool]:
    """The least and the greatest number, and whether each of them is excluded."""
    low, open_low = _bound(schema, "minimum", "exclusiveMinimum", -inf, max)
    high, open_high = _bound(schema, "maximum", "exclusiveMaximum", inf, min)
    span = _SPAN * max(1, ceil(step))
    if low == -inf:
        low = -span if high == inf else min(-span, high - span)
    if high == inf:
        high = max(span, low + span)
    return low, high, open_low, open_high


def _bound(
    schema: Schema, closed: str, opened: str, missing: float, closer: Callable[[float, float], float]
) -> tuple[float, bool]:
    at, beyond = schema.get(closed, missing), schema.get(opened, missing)
    if isinstance(beyond, bool):  # as in draft 4, which old servers still speak
        return at, beyond
    bound = closer(at, beyond)
    return bound, bound == beyond and bound != missing
