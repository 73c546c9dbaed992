import json

import jsonschema
import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st

from muxsim.mcpgym import InvalidAction, UnsupportedSpace
from muxsim.mcpgym.jsonable import to_json
from muxsim.mcpgym.spaces import action_schema, to_action

NESTED = spaces.Dict(
    {
        "gripper": spaces.Box(-1, 1, (2, 2), np.float32),
        "mode": spaces.Tuple([spaces.Discrete(3), spaces.MultiBinary(2)]),
        "say": spaces.Text(5, min_length=0, charset="abc"),
    }
)

SPACES = [
    spaces.Discrete(4),
    spaces.Discrete(3, start=-1),
    spaces.Discrete(1000, start=5),
    spaces.Discrete(100, start=28, dtype=np.int8),
    spaces.Box(-2.0, 2.0, (1,), np.float32),
    spaces.Box(np.array([-1.0, -0.1]), np.array([1.0, 0.1]), dtype=np.float64),
    spaces.Box(-np.inf, np.inf, (2,), np.float64),
    spaces.Box(0, 255, (2, 3), np.uint8),
    spaces.Box(-128, 127, (2,), np.int8),
    spaces.Box(0.1, 0.3, (), np.float32),
    spaces.MultiDiscrete([3, 5]),
    spaces.MultiDiscrete([[2, 3], [4, 5]], start=[[0, -1], [2, 7]]),
    spaces.MultiBinary(4),
    spaces.MultiBinary([2, 2]),
    spaces.Box(-1, 1, (0,), np.float32),
    spaces.Box(0, 255, (2, 0, 3), np.uint8),
    spaces.Tuple([]),
    spaces.Dict({}),
    spaces.Text(8),
    NESTED,
    spaces.OneOf([spaces.Discrete(2), spaces.Box(-1, 1, (2,), np.float32)]),
    spaces.Sequence(spaces.Discrete(3)),
]


def as_json(space, action):
    """The JSON that an agent would write for an element of the space."""
    if isinstance(space, spaces.OneOf):
        return {"option": int(action[0]), "value": as_json(space.spaces[action[0]], action[1])}
    return to_json(action)


@pytest.mark.parametrize("space", SPACES, ids=repr)
@given(seed=st.integers(0, 2**31))
def test_every_element_fits_the_schema_and_comes_back_from_json(space, seed):
    space.seed(seed)
    written = json.loads(json.dumps(as_json(space, space.sample()), allow_nan=False))
    jsonschema.validate(written, action_schema(space), jsonschema.Draft202012Validator)
    action = to_action(space, written)
    assert space.contains(action)
    assert as_json(space, action) == written


@pytest.mark.parametrize("space", SPACES, ids=repr)
def test_schemas_are_valid_json_schemas(space):
    schema = action_schema(space)
    jsonschema.Draft202012Validator.check_schema(json.loads(json.dumps(schema, allow_nan=False)))


def test_a_discrete_space_is_an_enum_of_integers():
    assert action_schema(spaces.Discrete(3, start=1)) == {"type": "integer", "enum": [1, 2, 3]}


def test_a_long_discrete_space_is_a_range():
    assert action_schema(spaces.Discrete(1000)) == {"type": "integer", "minimum": 0, "maximum": 999}


def test_a_box_has_its_bounds_as_short_decimals_and_its_shape_as_lengths():
    number = {"type": "number", "minimum": -0.1, "maximum": 0.1}
    rows = {"type": "array", "items": number, "minItems": 3, "maxItems": 3}
    assert action_schema(spaces.Box(-0.1, 0.1, (2, 3), np.float32)) == {
        "type": "array",
        "items": rows,
        "minItems": 2,
        "maxItems": 2,
    }


def test_an_unbounded_box_has_no_bounds_in_its_schema():
    assert action_schema(spaces.Box(-np.inf, np.inf, (), np.float64)) == {"type": "number"}


def test_the_bound_of_a_float32_box_is_allowed_as_a_decimal():
    assert to_action(spaces.Box(0.1, 0.3, (2,), np.float32), [0.1, 0.3]).dtype == np.float32


def test_a_whole_float_is_an_integer_as_in_json_schema():
    action = to_action(spaces.Discrete(4), 2.0)
    assert (action, action.dtype) == (2, np.int64)


@pytest.mark.parametrize(
    ("space", "value", "message"),
    [
        (spaces.Discrete(4), 4, "action must be one of 0, 1, 2, 3, not 4"),
        (spaces.Discrete(4), -1, "action must be one of 0, 1, 2, 3, not -1"),
        (spaces.Discrete(4), True, "action must be an integer, not True"),
        (spaces.Discrete(4), 1.5, "action must be an integer, not 1.5"),
        (spaces.Discrete(4), "1", "action must be an integer, not '1'"),
        (spaces.Discrete(4), None, "action must be an integer, not None"),
        (spaces.Discrete(4), [1], "action must be an integer, not a list of 1"),
        (spaces.Discrete(1000), 10**30, f"action must be from 0 to 999, not {10**30}"),
        (spaces.Discrete(4), float("inf"), "action must be an integer, not inf"),
        (spaces.Box(-1, 1, (2,), np.float32), [0, 1.5], "action[1] must be from -1.0 to 1.0, not 1.5"),
        (spaces.Box(-1, 1, (2,), np.float32), [0], "action must be a list of 2, not a list of 1"),
        (spaces.Box(-1, 1, (2,), np.float32), 0, "action must be a list of 2, not 0"),
        (spaces.Box(-1, 1, (2, 1), np.float32), [[0], "x"], "action[1] must be a list of 1, not 'x'"),
        (spaces.Box(-1, 1, (1,), np.float32), ["x"], "action[0] must be a number, not 'x'"),
        (spaces.Box(-1, 1, (1,), np.float32), [False], "action[0] must be a number, not False"),
        (spaces.Box(-np.inf, np.inf, (1,), np.float32), [1e300], "action[0] must be from -inf to inf, not 1e+300"),
        (spaces.Box(-np.inf, np.inf, (1,), np.float64), [float("nan")], "action[0] must be from -inf to inf, not nan"),
        (spaces.Box(-1, 1, (1,), np.float64), [10**400], "action[0] must be a number that fits 64 bits"),
        (spaces.Box(0, 255, (1,), np.uint8), [256], "action[0] must be from 0 to 255, not 256"),
        (spaces.Box(-128, 127, (1,), np.int8), [128], "action[0] must be from -128 to 127, not 128"),
        (spaces.MultiDiscrete([3, 5]), [3, 0], "action[0] must be one of 0, 1, 2, not 3"),
        (spaces.MultiBinary(2), [0, 2], "action[1] must be one of 0, 1, not 2"),
        (spaces.Text(3), "abcd", "action must be 1 to 3 characters of text, not 'abcd'"),
        (spaces.Text(3, charset="ab"), "ax", "action may only have characters of 'ab', not 'x'"),
        (NESTED, {}, "action must be an object with 'gripper', 'mode', 'say', not an object with nothing"),
        (
            NESTED,
            {"gripper": [[0, 0], [0, 9]], "mode": [0, [0, 0]], "say": ""},
            "action.gripper[1][1] must be from -1.0 to 1.0, not 9",
        ),
        (
            NESTED,
            {"gripper": [[0, 0], [0, 0]], "mode": [0], "say": ""},
            "action.mode must be a list of 2, not a list of 1",
        ),
        (SPACES[-2], {"option": 2, "value": 0}, "action.option must be one of 0, 1, not 2"),
        (SPACES[-1], {"0": 1}, "action must be a list, not an object with '0'"),
        (SPACES[-1], [0, 3], "action[1] must be one of 0, 1, 2, not 3"),
    ],
)
def test_what_is_no_action_is_refused_by_its_path(space, value, message):
    with pytest.raises(InvalidAction) as caught:
        to_action(space, value)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "space",
    [
        spaces.Graph(spaces.Discrete(2), None),
        spaces.Sequence(spaces.Discrete(2), stack=True),
        spaces.Dict({1: spaces.Discrete(2)}),
    ],
    ids=["Graph", "stacked", "keys"],
)
def test_a_space_that_json_cannot_write_says_to_write_tools(space):
    with pytest.raises(UnsupportedSpace):
        action_schema(space)
