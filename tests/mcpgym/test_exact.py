"""Values as JSON and back, and spaces: what a trainer is told is what the environment gave."""

import json
from contextlib import suppress

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.utils.env_checker import data_equivalence
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from muxsim.mcpgym.errors import UnsupportedSpace
from muxsim.mcpgym.exact import NotExact, from_exact, to_exact
from muxsim.mcpgym.space_json import space_from_json, space_to_json
from muxsim.mcpgym.spaces import from_action, to_action

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.integers(-100, 100).map(np.int8)
    | st.floats(width=32).map(np.float32)
    | arrays.arrays(st.sampled_from([np.float32, np.int64, np.bool_, np.uint8, np.dtype("U3")]), arrays.array_shapes())
)
VALUES = st.recursive(
    SCALARS,
    lambda more: (
        st.lists(more) | st.lists(more).map(tuple) | st.dictionaries(st.text() | st.just("$") | st.integers(), more)
    ),
    max_leaves=8,
)


def over_the_wire(value):
    return json.loads(json.dumps(value, allow_nan=False))


@given(VALUES)
def test_a_value_comes_back_as_it_was(value):
    back = from_exact(over_the_wire(to_exact(value)))
    assert type(back) is type(value)
    np.testing.assert_equal(back, value)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda more: (
            st.lists(more)
            | st.dictionaries(st.sampled_from(["$", "dtype", "data", "shape", "items", "value", "x"]), more)
        ),
    )
)
def test_what_another_says_is_a_value_or_refused(value):
    with suppress(NotExact):
        from_exact(value)


@pytest.mark.parametrize(
    "value",
    [
        {"$": "array", "dtype": "O", "shape": [1], "data": "AAAAAAAAAAA="},
        {"$": "array", "dtype": "<f4", "shape": [2**40], "data": "AAAAAA=="},
        {"$": "array", "dtype": "<f4", "shape": [-1], "data": "AAAA"},
        {"$": "number", "dtype": "<f4", "data": "not base64"},
        {"$": "float", "value": "1"},
        {"$": "pickle"},
    ],
)
def test_hostile_values_are_refused(value):
    with pytest.raises(NotExact):
        from_exact(value)


def test_what_has_no_exact_form_is_refused_or_told_as_the_agent_is():
    with pytest.raises(NotExact, match="object"):
        to_exact(object())
    assert to_exact({"a": object()}, lenient=True) == {"a": "<object>"}
    with pytest.raises(NotExact):
        to_exact("\ud83d")


SPACES = [
    spaces.Box(-np.inf, np.inf, (3,), np.float32),
    spaces.Box(np.array([-1, 0.1], np.float32), np.array([0.5, np.inf], np.float32)),
    spaces.Box(0, 255, (4, 5, 3), np.uint8),
    spaces.Box(-1.5, 2, (), np.float64),
    spaces.Discrete(5, start=-2),
    spaces.MultiDiscrete([[2, 3], [4, 5]], start=[[0, 1], [-1, 0]]),
    spaces.MultiBinary([2, 2]),
    spaces.MultiBinary(3),
    spaces.Text(8, min_length=2, charset="abcé"),
    spaces.Dict({"b": spaces.Discrete(2), "a": spaces.Tuple([spaces.Discrete(3), spaces.Box(0, 1, (2,))])}),
    spaces.OneOf([spaces.Discrete(2), spaces.MultiBinary(2)]),
    spaces.Sequence(spaces.Discrete(4)),
    spaces.Graph(spaces.Box(0, 1, (2,)), spaces.Discrete(3)),
]


@pytest.mark.parametrize("space", SPACES, ids=repr)
def test_a_space_comes_back_equal(space):
    back = space_from_json(over_the_wire(space_to_json(space)))
    assert back == space
    assert getattr(back, "dtype", None) == getattr(space, "dtype", None)
    back.seed(3), space.seed(3)
    if not isinstance(space, spaces.Graph):
        assert data_equivalence(back.sample(), space.sample())


@pytest.mark.parametrize(
    "space",
    [
        spaces.Graph(spaces.Box(0, 1, (2,)), spaces.Discrete(3)),
        spaces.Graph(spaces.Discrete(3), None),
        spaces.Dict({"map": spaces.Graph(spaces.Box(0, 1, (1,)), spaces.Box(0, 1, (2,)))}),
    ],
    ids=repr,
)
def test_a_graph_that_is_observed_comes_back_as_it_was(space):
    space.seed(3)
    for _ in range(20):
        graph = space.sample()
        back = from_exact(over_the_wire(to_exact(graph)))
        assert space.contains(back)
        assert repr(back) == repr(graph)


@pytest.mark.parametrize("space", SPACES[:-1], ids=repr)
def test_an_action_goes_to_the_kit_and_is_the_same_there(space):
    space.seed(5)
    for _ in range(20):
        action = space.sample()
        assert data_equivalence(to_action(space, over_the_wire(from_action(space, action))), action)


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        {"space": "Box"},
        {"space": "Discrete", "n": 0},
        {"space": "Discrete", "n": "many"},
        {"space": "Box", "shape": [2**60], "dtype": "<f4", "low": 0, "high": 1},
        {"space": "Box", "shape": [2**14, 2**14], "dtype": "<f4", "low": 0, "high": 1},
        {"space": "MultiBinary", "n": 2**32},
        {"space": "Box", "shape": [1], "dtype": "nothing", "low": 0, "high": 1},
        {"space": "Tuple", "parts": [{"space": "Blob"}]},
    ],
)
def test_what_is_no_space_is_refused(value):
    with pytest.raises(UnsupportedSpace):
        space_from_json(value)


def test_a_space_of_somebody_elses_is_not_told():
    class Own(gymnasium.Space):
        pass

    with pytest.raises(UnsupportedSpace):
        space_to_json(Own())
