"""Values of an environment as JSON, numpy's included."""

import dataclasses
import enum
import math
from collections.abc import Mapping, Set
from typing import Any

import numpy as np

# JSON has no literal for these. A name is lossless and cannot be taken for a number; `null` would hide them.
_NOT_A_NUMBER = "NaN"
_INFINITY = "Infinity"


def to_json(value: object, *, lenient: bool = False) -> Any:
    """A copy of `value` made of dict, list, str, int, float, bool and None only.

    float16 and float32 become the shortest decimals that name them (0.1, not 0.10000000149011612). NaN and
    the infinities become the strings "NaN", "Infinity" and "-Infinity".

    Raises:
        TypeError: a part has no JSON form. With `lenient` such a part becomes "<its type>" instead: not its
            repr, which could hold an address and so differ between two processes that play the same episode.
            Or it holds itself.
        ValueError: two keys of a mapping are the same once they are strings.
    """
    try:
        return _to_json(value, lenient=lenient)
    except RecursionError:
        raise TypeError("what holds itself, or is nested without an end, has no JSON form") from None


def _to_json(value: object, *, lenient: bool) -> Any:  # noqa: PLR0911  # it is a table
    match value:
        case None | bool():
            return value
        case str():
            return to_text(value)
        case enum.Enum():
            return _to_json(value.value, lenient=lenient)
        case int():
            return int(value)
        case np.generic():
            return _from_array(np.asarray(value), lenient=lenient)
        case float():
            return _from_float(value)
        case np.ndarray():
            return _from_array(value, lenient=lenient)
        case Mapping():
            return _from_mapping(value, lenient=lenient)
        case list() | tuple():
            return [_to_json(item, lenient=lenient) for item in value]
        case Set():
            # A set of strings iterates in another order in every process.
            return sorted((_to_json(item, lenient=lenient) for item in value), key=repr)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return _from_mapping(fields, lenient=lenient)
    if lenient:
        return f"<{type(value).__qualname__}>"
    raise TypeError(f"a {type(value).__qualname__} has no JSON form")


def to_text(text: str) -> str:
    """`text` as it can go over the wire: lone surrogates, which have no UTF-8 form, become '?'."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _from_float(value: float) -> float | str:
    if math.isfinite(value):
        return float(value)
    if math.isnan(value):
        return _NOT_A_NUMBER
    return _INFINITY if value > 0 else f"-{_INFINITY}"


def _from_array(array: np.ndarray[Any, Any], *, lenient: bool) -> Any:
    if array.dtype.kind in "biu":
        return array.tolist()
    if array.dtype.kind == "f":
        return _map_nested(_from_float, _shortest(array).tolist())
    if array.dtype.kind in "OU":
        return _map_nested(lambda item: _to_json(item, lenient=lenient), array.tolist())
    if lenient:
        return f"<{array.dtype}>"
    raise TypeError(f"an array of {array.dtype} has no JSON form")


def _shortest(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The same numbers as float64, by way of their shortest decimals."""
    if array.dtype.itemsize >= np.dtype(np.float64).itemsize:
        return array
    return array.astype(np.str_).astype(np.float64)


def _map_nested(function: Any, value: Any) -> Any:
    if isinstance(value, list):
        return [_map_nested(function, item) for item in value]
    return function(value)


def _from_mapping(mapping: Mapping[Any, Any], *, lenient: bool) -> dict[str, Any]:
    result = {_key(key, lenient=lenient): _to_json(item, lenient=lenient) for key, item in mapping.items()}
    if len(result) != len(mapping):
        raise ValueError(f"keys of {list(mapping)!r} are the same once they are strings")
    return result


def _key(key: object, *, lenient: bool) -> str:
    plain = _to_json(key, lenient=lenient)
    return plain if isinstance(plain, str) else str(plain)
