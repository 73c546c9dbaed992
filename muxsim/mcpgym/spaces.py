"""Action spaces as JSON schemas, and JSON as their elements."""

import math
from collections.abc import Iterator, Mapping
from functools import singledispatch
from typing import Any, TypeAlias

import numpy as np
from gymnasium import spaces

from muxsim.mcpgym.errors import InvalidAction, UnsupportedSpace
from muxsim.mcpgym.jsonable import to_json

Schema: TypeAlias = dict[str, Any]
Array: TypeAlias = np.ndarray[Any, Any]

# Up to here a list of the values reads better than a range, and models keep to it better.
_LONGEST_ENUM = 64


@singledispatch
def action_schema(space: object) -> Schema:
    """The JSON schema (2020-12) of the elements of `space`.

    Bounds that differ along an array are widened to one range for all: `to_action` knows the exact ones.

    Raises:
        UnsupportedSpace: for spaces that JSON cannot write down, like `Graph`.
    """
    raise UnsupportedSpace(f"no JSON schema for actions in {space!r:.80}: write tools with @server.tool() instead")


@singledispatch
def to_action(space: object, value: Any, path: str = "action") -> Any:
    """The element of `space` that a JSON value stands for.

    Raises:
        InvalidAction: there is none. The message names the part by its path and says what belongs there.
    """
    raise UnsupportedSpace(f"no actions from JSON in {space!r:.80}")


def from_action(space: object, element: Any) -> Any:
    """The JSON value of which `to_action` makes this element of `space`."""
    match space:
        case spaces.Dict():
            return {key: from_action(part, element[key]) for key, part in space.spaces.items()}
        case spaces.Tuple():
            return [from_action(part, item) for part, item in zip(space.spaces, element, strict=True)]
        case spaces.OneOf():
            option, value = element
            return {"option": int(option), "value": from_action(space.spaces[int(option)], value)}
        case spaces.Sequence():
            return [from_action(space.feature_space, item) for item in element]
        case spaces.Box() if space.dtype == np.bool_:  # whose schema has 0 and 1
            return to_json(np.asarray(element, np.int8))
    return to_json(element)


# Discrete, MultiDiscrete, MultiBinary, Box: arrays of bounded numbers


@action_schema.register
def _(space: spaces.Discrete) -> Schema:
    return _array_schema((), *_bounds(space), integral=True)


@action_schema.register
def _(space: spaces.MultiDiscrete) -> Schema:
    return _array_schema(space.shape, *_bounds(space), integral=True)


@action_schema.register
def _(space: spaces.MultiBinary) -> Schema:
    return _array_schema(space.shape, *_bounds(space), integral=True)


@action_schema.register
def _(space: spaces.Box) -> Schema:
    return _array_schema(space.shape, *_bounds(space), integral=_is_integral(space.dtype))


@to_action.register
def _(space: spaces.Discrete, value: Any, path: str = "action") -> Any:
    return space.dtype.type(_to_array(space, value, path, integral=True))


@to_action.register
def _(space: spaces.MultiDiscrete, value: Any, path: str = "action") -> Any:
    return _to_array(space, value, path, integral=True)


@to_action.register
def _(space: spaces.MultiBinary, value: Any, path: str = "action") -> Any:
    return _to_array(space, value, path, integral=True)


@to_action.register
def _(space: spaces.Box, value: Any, path: str = "action") -> Any:
    return _to_array(space, value, path, integral=_is_integral(space.dtype))


@singledispatch
def _bounds(space: Any) -> tuple[Array, Array]:
    """Lowest and highest element, both allowed."""
    raise UnsupportedSpace(repr(space))


@_bounds.register
def _(space: spaces.Discrete) -> tuple[Array, Array]:
    # As Python's integers: start + n - 1 fits the dtype, but start + n need not.
    low = int(space.start)
    return np.array(low, dtype=object), np.array(low + int(space.n) - 1, dtype=object)


@_bounds.register
def _(space: spaces.MultiDiscrete) -> tuple[Array, Array]:
    return space.start, space.start + (space.nvec - 1)


@_bounds.register
def _(space: spaces.MultiBinary) -> tuple[Array, Array]:
    return np.zeros(space.shape, dtype=np.int8), np.ones(space.shape, dtype=np.int8)


@_bounds.register
def _(space: spaces.Box) -> tuple[Array, Array]:
    return space.low, space.high


def _is_integral(dtype: Any) -> bool:
    return bool(np.dtype(dtype).kind in "biu")


def _array_schema(shape: tuple[int, ...], low: Array, high: Array, *, integral: bool) -> Schema:
    if low.size:
        schema = _number_schema(_plain(low.min()), _plain(high.max()), integral=integral)
    else:  # no number, and no bounds
        schema = {"type": "integer" if integral else "number"}
    for length in reversed(shape):
        schema = {"type": "array", "items": schema, "minItems": length, "maxItems": length}
    return schema


def _number_schema(low: float, high: float, *, integral: bool) -> Schema:
    if integral and high - low < _LONGEST_ENUM:
        return {"type": "integer", "enum": list(range(int(low), int(high) + 1))}
    schema: Schema = {"type": "integer" if integral else "number"}
    if math.isfinite(low):
        schema["minimum"] = low
    if math.isfinite(high):
        schema["maximum"] = high
    return schema


def _plain(bound: Any) -> Any:
    """A bound as JSON's number: for float32 the shortest decimal, which the bound itself would otherwise
    exclude."""
    if isinstance(bound, np.floating):
        return float(str(bound))
    return int(bound)


def _to_array(space: Any, value: Any, path: str, *, integral: bool) -> Array:
    shape = space.shape
    read = _integer if integral else _real
    numbers = list(_leaves(value, shape, path))
    parsed = [read(number, at) for at, number in numbers]
    low, high = (bound.ravel() for bound in _bounds(space))
    if integral:
        # Compared before the cast: an integer that does not fit the dtype would wrap around in it.
        flat = np.array(parsed, dtype=object)
    else:
        # Compared after it: 0.1 is allowed where the bound is float32's 0.1, which is another number.
        with np.errstate(over="ignore"):
            flat = np.array(parsed, dtype=np.float64).astype(space.dtype)
    for index, (at, number) in enumerate(numbers):
        if not low[index] <= flat[index] <= high[index] or not np.isfinite(float(flat[index])):
            allowed = _range(_plain(low[index]), _plain(high[index]), integral)
            raise InvalidAction(f"{at} must be {allowed}, not {_name(number)}")
    return flat.astype(space.dtype).reshape(shape)


def _leaves(value: Any, shape: tuple[int, ...], path: str) -> Iterator[tuple[str, Any]]:
    if not shape:
        yield path, value
        return
    if not isinstance(value, list) or len(value) != shape[0]:
        raise InvalidAction(f"{path} must be a list of {shape[0]}, not {_name(value)}")
    for index, item in enumerate(value):
        yield from _leaves(item, shape[1:], f"{path}[{index}]")


def _integer(value: Any, path: str) -> int:
    # To JSON Schema 2.0 is an integer and true is not; to Python it is the other way round.
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value // 1:
        raise InvalidAction(f"{path} must be an integer, not {_name(value)}")
    return int(value)


def _real(value: Any, path: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidAction(f"{path} must be a number, not {_name(value)}")
    try:
        return float(value)
    except OverflowError:
        raise InvalidAction(f"{path} must be a number that fits 64 bits, not {_name(value)}") from None


def _range(low: float, high: float, integral: bool) -> str:
    if integral and high - low < _LONGEST_ENUM:
        return f"one of {', '.join(str(number) for number in range(int(low), int(high) + 1))}"
    return f"from {low} to {high}"


def _name(value: Any) -> str:
    """A JSON value in an error message: short."""
    if isinstance(value, list):
        return f"a list of {len(value)}"
    if isinstance(value, Mapping):
        return f"an object with {', '.join(map(repr, value)) or 'nothing'}"
    return f"{value!r:.40}"


# Text, Dict, Tuple, OneOf, Sequence


@action_schema.register
def _(space: spaces.Text) -> Schema:
    return {"type": "string", "minLength": space.min_length, "maxLength": space.max_length}


@to_action.register
def _(space: spaces.Text, value: Any, path: str = "action") -> Any:
    if not isinstance(value, str) or not space.min_length <= len(value) <= space.max_length:
        raise InvalidAction(
            f"{path} must be {space.min_length} to {space.max_length} characters of text, not {_name(value)}"
        )
    if strange := sorted(set(value) - space.character_set):
        raise InvalidAction(f"{path} may only have characters of {space.characters!r}, not {''.join(strange)!r:.40}")
    return value


@action_schema.register
def _(space: spaces.Dict) -> Schema:
    if not all(isinstance(key, str) for key in space.spaces):
        raise UnsupportedSpace(f"JSON's keys are strings, those of {space!r:.80} are not")
    return _object_schema({key: action_schema(part) for key, part in space.spaces.items()})


@to_action.register
def _(space: spaces.Dict, value: Any, path: str = "action") -> Any:
    _require_keys(value, set(space.spaces), path)
    return {key: to_action(part, value[key], f"{path}.{key}") for key, part in space.spaces.items()}


@action_schema.register(spaces.Tuple)
def _(space: spaces.Tuple[Any]) -> Schema:
    length = len(space.spaces)
    parts = [action_schema(part) for part in space.spaces]
    each = {"prefixItems": parts} if parts else {}  # which JSON Schema has no empty list of
    return {"type": "array", **each, "items": False, "minItems": length, "maxItems": length}


@to_action.register(spaces.Tuple)
def _(space: spaces.Tuple[Any], value: Any, path: str = "action") -> Any:
    if not isinstance(value, list) or len(value) != len(space.spaces):
        raise InvalidAction(f"{path} must be a list of {len(space.spaces)}, not {_name(value)}")
    pairs = zip(space.spaces, value, strict=True)
    return tuple(to_action(part, item, f"{path}[{index}]") for index, (part, item) in enumerate(pairs))


@action_schema.register(spaces.OneOf)
def _(space: spaces.OneOf[Any]) -> Schema:
    options = [
        _object_schema({"option": {"type": "integer", "const": index}, "value": action_schema(part)})
        for index, part in enumerate(space.spaces)
    ]
    return {"anyOf": options}


@to_action.register(spaces.OneOf)
def _(space: spaces.OneOf[Any], value: Any, path: str = "action") -> Any:
    _require_keys(value, {"option", "value"}, path)
    option = to_action(spaces.Discrete(len(space.spaces)), value["option"], f"{path}.option")
    return option, to_action(space.spaces[int(option)], value["value"], f"{path}.value")


@action_schema.register
def _(space: spaces.Sequence) -> Schema:
    if space.stack:
        raise UnsupportedSpace(f"no JSON schema for the stacked {space!r:.80}: write tools with @server.tool()")
    return {"type": "array", "items": action_schema(space.feature_space)}


@to_action.register
def _(space: spaces.Sequence, value: Any, path: str = "action") -> Any:
    if not isinstance(value, list):
        raise InvalidAction(f"{path} must be a list, not {_name(value)}")
    return tuple(to_action(space.feature_space, item, f"{path}[{index}]") for index, item in enumerate(value))


def _object_schema(properties: dict[str, Schema]) -> Schema:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _require_keys(value: Any, keys: set[str], path: str) -> None:
    if not isinstance(value, Mapping) or set(value) != keys:
        wanted = ", ".join(map(repr, sorted(keys)))
        raise InvalidAction(f"{path} must be an object with {wanted}, not {_name(value)}")
