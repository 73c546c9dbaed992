import dataclasses
import enum
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from muxsim.mcpgym.jsonable import to_json, to_text


class Colour(enum.Enum):
    RED = np.int64(3)


@dataclasses.dataclass
class Point:
    x: np.float32
    y: tuple[int, ...]


class Opaque:
    pass


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        (True, True),
        (np.bool_(False), False),
        (np.int8(-5), -5),
        (np.uint64(2**64 - 1), 2**64 - 1),
        (np.float32(0.1), 0.1),
        (np.float64(0.1), 0.1),
        (np.array(7), 7),
        (np.array([[1, 2], [3, 4]], dtype=np.uint8), [[1, 2], [3, 4]]),
        (np.array([0.1, 0.2], dtype=np.float32), [0.1, 0.2]),
        (np.array(["a", "b"]), ["a", "b"]),
        (np.array([np.int8(1), None, "x"], dtype=object), [1, None, "x"]),
        ((1, [2, (3,)]), [1, [2, [3]]]),
        ({1: "a", np.int64(2): "b"}, {"1": "a", "2": "b"}),
        ({"c", "a", "b"}, ["a", "b", "c"]),
        (Colour.RED, 3),
        (Point(np.float32(0.5), (1, 2)), {"x": 0.5, "y": [1, 2]}),
    ],
)
def test_values_of_numpy_and_python_become_plain_json(value, expected):
    plain = to_json(value)
    assert plain == expected
    assert json.loads(json.dumps(plain, allow_nan=False)) == expected


@pytest.mark.parametrize("kind", [float, np.float16, np.float32, np.float64])
def test_numbers_that_json_lacks_become_their_names(kind):
    assert to_json([kind(math.nan), kind(math.inf), kind(-math.inf)]) == ["NaN", "Infinity", "-Infinity"]
    assert to_json(np.array([1.5, math.nan], dtype=kind)) == [1.5, "NaN"]


@given(npst.arrays(st.sampled_from([np.float16, np.float32, np.float64]), npst.array_shapes(max_dims=3)))
def test_a_finite_float_array_comes_back_from_json_bit_for_bit(array):
    array = np.nan_to_num(array)
    back = np.array(json.loads(json.dumps(to_json(array), allow_nan=False)), dtype=array.dtype)
    np.testing.assert_array_equal(back.reshape(array.shape), array)


@pytest.mark.parametrize("value", [Opaque(), b"bytes", 1j, np.array([1j]), [Opaque()], {"a": Opaque}])
def test_a_value_without_json_form_is_an_error(value):
    with pytest.raises(TypeError, match="has no JSON form"):
        to_json(value)


def test_leniently_a_value_without_json_form_is_its_type_and_not_its_address():
    assert to_json({"a": Opaque(), "b": [1, b"x"]}, lenient=True) == {"a": "<Opaque>", "b": [1, "<bytes>"]}


def test_keys_that_fall_together_as_strings_are_an_error():
    with pytest.raises(ValueError, match="the same once they are strings"):
        to_json({1: "a", "1": "b"})


def test_text_that_has_no_utf8_form_is_made_sendable():
    assert to_text("a\udc80b") == "a?b"
    assert to_json({"k\ud800": "\ud800"}) == {"k?": "?"}
