"""Gymnasium's spaces as JSON, and back: what a trainer is told of an environment's actions and observations."""

import math
from functools import singledispatch
from typing import Any

import numpy as np
from gymnasium import Space, spaces

from muxsim.mcpgym.errors import UnsupportedSpace
from muxsim.mcpgym.exact import NotExact, from_exact, to_exact

Json = dict[str, Any]

# Numbers in an element. Somebody's word for more would have a trainer fill its memory before the first step.
_MOST_NUMBERS = 2**26


@singledispatch
def space_to_json(space: object) -> Json:
    """JSON of which `space_from_json` makes an equal space.

    Raises:
        UnsupportedSpace: a part is a space that Gymnasium itself has not.
    """
    raise UnsupportedSpace(f"{space!r:.80} is not a space of Gymnasium's own")


def space_from_json(value: Any) -> Space[Any]:
    """The space that JSON stands for. What an environment says is not believed: it is checked.

    Raises:
        UnsupportedSpace: it stands for none.
    """
    try:
        return _READERS[value["space"]](value)
    except (KeyError, TypeError, ValueError, AssertionError, OverflowError, NotExact, MemoryError) as error:
        raise UnsupportedSpace(f"{value!r:.80} stands for no space: {error}") from None


@space_to_json.register
def _(space: spaces.Box) -> Json:
    bounds = {"low": _bound(space.low), "high": _bound(space.high)}
    return {"space": "Box", "shape": list(space.shape), "dtype": _name(space.dtype), **bounds}


@space_to_json.register
def _(space: spaces.Discrete) -> Json:
    return {"space": "Discrete", "n": int(space.n), "start": int(space.start), "dtype": _name(space.dtype)}


@space_to_json.register
def _(space: spaces.MultiDiscrete) -> Json:
    more = {"dtype": _name(space.dtype), "start": to_exact(space.start)}
    return {"space": "MultiDiscrete", "nvec": to_exact(space.nvec), **more}


@space_to_json.register
def _(space: spaces.MultiBinary) -> Json:
    return {"space": "MultiBinary", "n": space.n if isinstance(space.n, int) else [int(side) for side in space.shape]}


@space_to_json.register
def _(space: spaces.Text) -> Json:
    lengths = {"min_length": int(space.min_length), "max_length": int(space.max_length)}
    return {"space": "Text", **lengths, "charset": space.characters}


@space_to_json.register
def _(space: spaces.Dict) -> Json:
    return {"space": "Dict", "parts": [[to_exact(key), space_to_json(part)] for key, part in space.spaces.items()]}


@space_to_json.register(spaces.Tuple)
def _(space: spaces.Tuple[Any]) -> Json:
    return {"space": "Tuple", "parts": [space_to_json(part) for part in space.spaces]}


@space_to_json.register(spaces.OneOf)
def _(space: spaces.OneOf[Any]) -> Json:
    return {"space": "OneOf", "parts": [space_to_json(part) for part in space.spaces]}


@space_to_json.register
def _(space: spaces.Sequence) -> Json:
    return {"space": "Sequence", "of": space_to_json(space.feature_space), "stack": bool(space.stack)}


@space_to_json.register
def _(space: spaces.Graph) -> Json:
    edges = None if space.edge_space is None else space_to_json(space.edge_space)
    return {"space": "Graph", "nodes": space_to_json(space.node_space), "edges": edges}


def _bound(bound: np.ndarray[Any, Any]) -> Any:
    """A bound that is the same everywhere is one number: a frame's has thousands of them."""
    same = bound.size > 0 and bool(np.all(bound == bound.flat[0]))
    return to_exact(bound.flat[0] if same else bound)


def _name(dtype: Any) -> str:
    return str(np.dtype(dtype).str)


def _box(value: Json) -> Space[Any]:
    shape, dtype = _sides(value["shape"]), np.dtype(value["dtype"])
    low, high = (np.broadcast_to(from_exact(value[name]), shape).astype(dtype) for name in ("low", "high"))
    return spaces.Box(low, high, shape, dtype.type)


def _sides(sides: Any) -> tuple[int, ...]:
    shape = tuple(int(side) for side in sides)
    if math.prod(shape) > _MOST_NUMBERS:
        raise ValueError(f"an element has more than {_MOST_NUMBERS} numbers")
    return shape


def _discrete(value: Json) -> Space[Any]:
    return spaces.Discrete(int(value["n"]), start=int(value.get("start", 0)), dtype=_integers(value))


def _multi_discrete(value: Json) -> Space[Any]:
    nvec = np.asarray(from_exact(value["nvec"]))
    start = None if value.get("start") is None else np.asarray(from_exact(value["start"]))
    return spaces.MultiDiscrete(nvec, dtype=_integers(value), start=start)


def _integers(value: Json) -> Any:
    return np.dtype(value.get("dtype", "<i8")).type


def _multi_binary(value: Json) -> Space[Any]:
    sides = value["n"]
    return spaces.MultiBinary(_sides(sides) if isinstance(sides, list) else _sides([sides])[0])


def _text(value: Json) -> Space[Any]:
    return spaces.Text(int(value["max_length"]), min_length=int(value["min_length"]), charset=value["charset"])


def _dict(value: Json) -> Space[Any]:
    return spaces.Dict([(from_exact(key), space_from_json(part)) for key, part in value["parts"]])


def _tuple(value: Json) -> Space[Any]:
    return spaces.Tuple([space_from_json(part) for part in value["parts"]])


def _one_of(value: Json) -> Space[Any]:
    return spaces.OneOf([space_from_json(part) for part in value["parts"]])


def _sequence(value: Json) -> Space[Any]:
    return spaces.Sequence(space_from_json(value["of"]), stack=bool(value.get("stack", False)))


def _graph(value: Json) -> Space[Any]:
    edges: Any = None if value.get("edges") is None else space_from_json(value["edges"])
    nodes: Any = space_from_json(value["nodes"])
    return spaces.Graph(nodes, edges)


_READERS = {
    "Box": _box,
    "Discrete": _discrete,
    "MultiDiscrete": _multi_discrete,
    "MultiBinary": _multi_binary,
    "Text": _text,
    "Dict": _dict,
    "Tuple": _tuple,
    "OneOf": _one_of,
    "Sequence": _sequence,
    "Graph": _graph,
}
