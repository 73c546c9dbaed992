"""What is drawn fits its schema, by the word of an independent validator."""

import random

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from muxsim.rollouts.policy.drawing import CannotDraw, draw

DRAWS = 60


def draws(schema, number=DRAWS):
    return [draw(schema, random.Random(seed)) for seed in range(number)]


SCHEMAS = {
    "const": {"const": {"a": [1]}},
    "const null": {"const": None},
    "enum": {"enum": ["left", 2, None]},
    "typed enum": {"type": "string", "enum": ["left", "right"]},
    "boolean": {"type": "boolean"},
    "null": {"type": "null"},
    "integer": {"type": "integer"},
    "integer in bounds": {"type": "integer", "minimum": 3, "maximum": 5},
    "integer in open bounds": {"type": "integer", "exclusiveMinimum": 3, "exclusiveMaximum": 5},
    "integer in bounds that are not whole": {"type": "integer", "minimum": 0.5, "maximum": 2.5},
    "integer far below": {"type": "integer", "maximum": -1000},
    "integer far above": {"type": "integer", "minimum": 10**12},
    "even integer": {"type": "integer", "multipleOf": 2, "minimum": -5, "maximum": 5},
    "integer by a fraction": {"type": "integer", "multipleOf": 1.5},
    "integer by a large step": {"type": "integer", "multipleOf": 1000},
    "number": {"type": "number"},
    "number in bounds": {"type": "number", "minimum": -1, "maximum": 1},
    "number in open bounds": {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1e-9},
    "number by quarters": {"type": "number", "multipleOf": 0.25, "minimum": 0, "maximum": 1},
    "number of any float": {"type": "number", "minimum": -1.7e308, "maximum": 1.7e308},
    "string": {"type": "string"},
    "empty string": {"type": "string", "maxLength": 0},
    "string of a length": {"type": "string", "minLength": 20, "maxLength": 21},
    "array": {"type": "array"},
    "array of integers": {"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 4},
    "unique items": {"type": "array", "items": {"enum": [1, 2, 3]}, "uniqueItems": True, "minItems": 3},
    "tuple": {"type": "array", "prefixItems": [{"type": "integer"}, {"type": "string"}], "items": False, "minItems": 2},
    "tuple of draft-07": {
        "type": "array",
        "items": [{"type": "integer"}, {"type": "string"}],
        "minItems": 2,
        "maxItems": 2,
    },
    "tuple of draft-07 with more": {
        "type": "array",
        "items": [{"type": "integer"}],
        "additionalItems": {"type": "string"},
        "minItems": 3,
    },
    "examples": {"type": "string", "pattern": "^[a-h][1-8]$", "examples": ["a1", "h8"]},
    "default of a pattern": {"type": "string", "format": "date", "pattern": "^2", "default": "2026-01-01"},
    "object": {"type": "object"},
    "object with required": {
        "type": "object",
        "properties": {"x": {"type": "integer"}, "y": {"type": "string"}, "z": {"type": "boolean"}},
        "required": ["y"],
        "additionalProperties": False,
    },
    "required without a property": {"type": "object", "required": ["x"], "additionalProperties": {"type": "integer"}},
    "anyOf": {"anyOf": [{"type": "integer"}, {"type": "null"}], "default": None},
    "oneOf": {"oneOf": [{"const": "a"}, {"type": "object", "required": ["b"]}]},
    "anyOf beside properties": {
        "type": "object",
        "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
        "anyOf": [{"required": ["a"]}, {"required": ["b"]}],
    },
    "allOf": {
        "allOf": [
            {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]},
            {"properties": {"b": {"type": "string"}}, "required": ["b"]},
        ]
    },
    "list of types": {"type": ["integer", "null"]},
    "no type": {"minimum": 2, "maximum": 3},
    "anything": {},
    "reference": {"$defs": {"side": {"enum": ["left", "right"]}}, "$ref": "#/$defs/side"},
    "reference to a name with a slash": {"$defs": {"a/b": {"const": 1}}, "$ref": "#/$defs/a~1b"},
    "tree": {
        "$defs": {
            "node": {
                "type": "object",
                "properties": {
                    "left": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]},
                    "right": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]},
                },
                "required": ["left", "right"],
            }
        },
        "$ref": "#/$defs/node",
    },
    "list of itself": {"type": "array", "items": {"$ref": "#"}, "minItems": 0},
}


@pytest.mark.parametrize("schema", SCHEMAS.values(), ids=SCHEMAS.keys())
def test_every_draw_fits_its_schema(schema):
    for value in draws(schema):
        fits(schema, value)


def fits(schema, value):
    old = isinstance(schema, dict) and isinstance(schema.get("items"), list)
    (jsonschema.Draft7Validator if old else jsonschema.Draft202012Validator)(schema).validate(value)


NUMBERS = st.integers(-50, 50)
SIMPLE = st.one_of(
    st.fixed_dictionaries({"type": st.just("integer"), "minimum": NUMBERS}),
    st.fixed_dictionaries({"type": st.just("number"), "exclusiveMaximum": NUMBERS}),
    st.fixed_dictionaries({"type": st.just("string"), "minLength": st.integers(0, 5)}),
    st.fixed_dictionaries({"enum": st.lists(st.integers() | st.text(), min_size=1)}),
    st.just({"type": "boolean"}),
)


def nested(inner):
    return st.one_of(
        st.fixed_dictionaries({"type": st.just("array"), "items": inner, "minItems": st.integers(0, 2)}),
        st.fixed_dictionaries({"anyOf": st.lists(inner, min_size=1, max_size=3)}),
        st.dictionaries(st.text(), inner, max_size=3).map(
            lambda properties: {"type": "object", "properties": properties, "required": list(properties)[:2]}
        ),
    )


@given(st.recursive(SIMPLE, nested, max_leaves=8), st.integers())
def test_draws_fit_schemas_of_any_shape(schema, seed):
    fits(schema, draw(schema, random.Random(seed)))


def test_the_same_dice_give_the_same_value():
    assert draws(SCHEMAS["tree"]) == draws(SCHEMAS["tree"])


@pytest.mark.parametrize("name", ["enum", "boolean", "integer in bounds", "anyOf"])
def test_every_choice_is_made_sooner_or_later(name):
    wanted = {"enum": 3, "boolean": 2, "integer in bounds": 3, "anyOf": 2}[name]
    kinds = {type(value) if name == "anyOf" else value for value in draws(SCHEMAS[name])}
    assert len(kinds) == wanted


def test_an_optional_property_is_there_in_some_draws_only():
    drawn = draws(SCHEMAS["object with required"])
    assert {"x" in value for value in drawn} == {True, False}


def test_a_tenth_is_drawn_as_it_is_written():
    drawn = draws({"type": "number", "multipleOf": 0.1, "minimum": 0, "maximum": 1})
    assert 0.3 in drawn
    assert all(len(str(value)) == 3 for value in drawn)


def test_bounds_that_draft_4_excludes_are_not_drawn():
    schema = {"type": "integer", "minimum": 0, "exclusiveMinimum": True, "maximum": 2, "exclusiveMaximum": True}
    assert set(draws(schema)) == {1}


def test_a_property_that_cannot_be_drawn_is_left_out_if_it_may_be():
    properties = {"day": {"type": "string", "format": "date"}, "x": {"type": "integer"}}
    assert all(value.keys() <= {"x"} for value in draws({"type": "object", "properties": properties}))
    with pytest.raises(CannotDraw, match=r"^day: a text with the format 'date' needs"):
        draws({"type": "object", "properties": properties, "required": ["day"]})


@pytest.mark.parametrize("schema", [{"default": 7}, {"type": "integer", "default": 7}])
def test_a_default_is_drawn_now_and_then(schema):
    drawn = draws(schema)
    assert 7 in drawn
    assert set(map(repr, drawn)) != {"7"}


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        ({"enum": []}, "an enum has nothing to choose from"),
        ({"type": "tensor"}, "'tensor' is no type of JSON"),
        ({"$ref": "other.json"}, "refers to 'other.json', which is not inside it"),
        ({"$ref": "#/$defs/gone"}, "which it does not have"),
        ({"$ref": "#"}, "has no end"),
        ({"allOf": [{"$ref": "#"}]}, "has no end"),
        ({"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]}, "has no end"),
        ({"type": "integer", "minimum": 2, "maximum": 1}, "no multiple of 1 is from 2 to 1"),
        ({"type": "integer", "exclusiveMinimum": 1, "exclusiveMaximum": 2}, "no multiple of 1"),
        ({"type": "number", "minimum": 2, "maximum": 1}, "no number is from 2 to 1"),
        ({"type": "number", "minimum": 1, "exclusiveMaximum": 1}, "no number is between 1 and 1"),
        ({"type": "number", "multipleOf": 0}, "more than 0"),
        ({"type": "string", "pattern": "^ab$"}, r"the pattern '\^ab\$' needs examples, an enum or a default"),
        ({"type": "string", "format": "date"}, "the format 'date' needs examples"),
        ({"type": "string", "minLength": 3, "maxLength": 2}, "no text has from 3 to 2"),
        ({"type": "array", "items": {"const": 1}, "uniqueItems": True, "minItems": 2}, "found no 2 items that differ"),
        ({"type": "array", "items": False, "minItems": 1}, "no array has from 1 to 0 items"),
        ({"type": "object", "properties": {"a": False}, "required": ["a"]}, "lets no value through"),
    ],
)
def test_a_schema_that_nothing_fits_says_why(schema, why):
    with pytest.raises(CannotDraw, match=why):
        draws(schema)
