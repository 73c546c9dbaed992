"""Values of an environment as JSON that becomes the same values again: numpy's types, tuples, NaN and all.

For trainers. What the agent reads is made by `jsonable`, and cannot be turned back. Plain JSON values stand for
themselves, and an object with the member `$` for what JSON has no word for:

    {"$": "array", "dtype": "<f4", "shape": [2, 3], "data": base64 of its bytes in C order}
    {"$": "number", "dtype": "<i8", "data": base64}              one of numpy's
    {"$": "float", "value": "NaN" | "Infinity" | "-Infinity"}
    {"$": "tuple", "items": [...]}
    {"$": "graph", "nodes": array, "edges": array or null, "edge_links": array or null}    an element of `Graph`
    {"$": "dict", "items": [[key, value], ...]}                  with keys that are no text, or with a `$` among them
"""

import base64
import binascii
import math
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from gymnasium.spaces import GraphInstance

from muxsim.mcpgym.jsonable import to_json, to_text

_KIND: Final = "$"
# Of numpy: booleans, whole numbers, real ones and text. Objects would need pickle.
_DTYPES: Final = frozenset("biufU")
_NOT_FINITE: Final = ("NaN", "Infinity", "-Infinity")


class NotExact(ValueError):
    """JSON that stands for no value, or a value that has no such JSON. The message says which part."""


def to_exact(value: Any, *, lenient: bool = False) -> Any:  # noqa: PLR0911  # it is a table
    """JSON for `value`, of which `from_exact` makes the same again.

    With `lenient` a part without such a form becomes what `to_json` makes of it.

    Raises:
        NotExact: a part has no such form.
    """
    kind = type(value)
    if value is None or kind in (bool, int) or (kind is str and to_text(value) == value):
        return value
    if kind is float:
        return value if math.isfinite(value) else {_KIND: "float", "value": to_json(value)}
    if kind is list:
        return [to_exact(item, lenient=lenient) for item in value]
    if kind is tuple:
        return {_KIND: "tuple", "items": [to_exact(item, lenient=lenient) for item in value]}
    if kind is GraphInstance:
        return {_KIND: "graph"} | {name: to_exact(part, lenient=lenient) for name, part in value._asdict().items()}
    if isinstance(value, np.ndarray) and value.dtype.kind in _DTYPES:
        return {_KIND: "array", "dtype": value.dtype.str, "shape": list(value.shape), "data": _bytes_of(value)}
    if isinstance(value, np.generic) and value.dtype.kind in _DTYPES:
        return {_KIND: "number", "dtype": value.dtype.str, "data": _bytes_of(np.asarray(value))}
    if isinstance(value, Mapping):
        return _from_mapping(value, lenient=lenient)
    if lenient:
        return to_exact(to_json(value, lenient=True))
    raise NotExact(f"a {kind.__qualname__} has no exact form in JSON")


def from_exact(value: Any) -> Any:
    """What `to_exact` was given. Arrays may be written to.

    Raises:
        NotExact: it stands for no value.
    """
    if isinstance(value, list):
        return [from_exact(item) for item in value]
    if not isinstance(value, dict):
        return value
    if _KIND not in value:
        return {key: from_exact(item) for key, item in value.items()}
    try:
        return _special(value)
    except (KeyError, TypeError, ValueError, OverflowError, binascii.Error, MemoryError) as error:
        raise NotExact(f"{value!r:.80} stands for no value: {error}") from None


def _special(value: dict[str, Any]) -> Any:
    match value[_KIND]:
        case "array":
            shape = [int(side) for side in value["shape"]]
            return np.frombuffer(_data(value), _dtype(value["dtype"])).reshape(shape).copy()
        case "number":
            return np.frombuffer(_data(value), _dtype(value["dtype"])).reshape(())[()]
        case "float" if value["value"] in _NOT_FINITE:
            return float(value["value"])
        case "tuple":
            return tuple(from_exact(item) for item in value["items"])
        case "graph":
            return GraphInstance(*(from_exact(value[name]) for name in GraphInstance._fields))
        case "dict":
            return {from_exact(key): from_exact(item) for key, item in value["items"]}
    raise ValueError("there is no such kind")


def _from_mapping(mapping: Mapping[Any, Any], *, lenient: bool) -> dict[str, Any]:
    if _KIND not in mapping and all(type(key) is str for key in mapping):
        return {key: to_exact(item, lenient=lenient) for key, item in mapping.items()}
    pairs = [[to_exact(key, lenient=lenient), to_exact(item, lenient=lenient)] for key, item in mapping.items()]
    return {_KIND: "dict", "items": pairs}


def _bytes_of(array: np.ndarray[Any, Any]) -> str:
    return base64.b64encode(array.tobytes()).decode("ascii")


def _data(value: dict[str, Any]) -> bytes:
    return base64.b64decode(value["data"], validate=True)


def _dtype(name: Any) -> np.dtype[Any]:
    dtype = np.dtype(str(name))
    if dtype.kind not in _DTYPES:
        raise ValueError(f"{name!r:.20} is no type of numbers or text")
    return dtype
