"""Tools as endpoints take them."""

import re

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from muxsim.rollouts.policy.tools import WireTools, parameters


def tool(name, schema=None):
    return {"type": "function", "function": {"name": name, "description": "", "parameters": schema or {}}}


def names(wire):
    return [tool["function"]["name"] for tool in wire.tools]


NAMES = st.lists(st.text(max_size=5) | st.sampled_from(["files.read", "files_read", "x" * 65, "x" * 99, "look"]))


@given(NAMES)
def test_names_on_the_wire_are_safe_and_unique_and_lead_back(own):
    wire = WireTools([tool(name) for name in own])
    assert all(re.fullmatch("[a-zA-Z0-9_-]{1,64}", name) for name in names(wire))
    assert len(set(names(wire))) == len(own)
    assert [wire.own_name(name) for name in names(wire)] == own
    assert all(wire.own_name(wire.wire_name(name)) == name for name in own)


@given(NAMES, NAMES)
def test_a_name_on_the_wire_stays_the_same_whatever_other_tools_come_and_go(some, more):
    before, after = WireTools([tool(name) for name in some]), WireTools([tool(name) for name in more + some])
    assert [before.wire_name(name) for name in some] == [after.wire_name(name) for name in some]


def test_a_name_that_is_safe_stays_as_it_is():
    assert names(WireTools([tool("look"), tool("move-it_2")])) == ["look", "move-it_2"]


def test_a_name_that_there_is_not_is_as_the_model_wrote_it():
    assert WireTools([tool("files.read")]).own_name("files.read") == "files.read"


def test_the_tools_given_are_left_as_they_are():
    given = tool("files.read", {"type": "object"})
    WireTools([given])
    assert given == tool("files.read", {"type": "object"})


X, Y = {"type": "integer"}, {"type": "string"}


@pytest.mark.parametrize(
    ("schema", "sent"),
    [
        ({"type": "object"}, {"type": "object", "properties": {}}),
        ({}, {"type": "object", "properties": {}}),
        (None, {"type": "object", "properties": {}}),
        (True, {"type": "object", "properties": {}}),
        ({"$schema": "http://json-schema.org/draft-07/schema#", "type": "object", "properties": {"x": X}},) * 1
        + ({"type": "object", "properties": {"x": X}},),
        ({"properties": {"x": True, "y": {"type": "object"}}},) * 1
        + ({"type": "object", "properties": {"x": {}, "y": {"type": "object", "properties": {}}}},),
        (
            {
                "type": "object",
                "anyOf": [
                    {"properties": {"x": X, "y": Y}, "required": ["x", "y"]},
                    {"properties": {"x": X}, "required": ["x"]},
                ],
            },
            {"type": "object", "properties": {"x": X, "y": Y}, "required": ["x"]},
        ),
        (
            {
                "allOf": [{"properties": {"x": X}, "required": ["x"]}, {"$ref": "#/$defs/y"}],
                "$defs": {"y": {"properties": {"y": Y}, "required": ["y"]}},
            },
            {
                "type": "object",
                "properties": {"x": X, "y": Y},
                "required": ["x", "y"],
                "$defs": {"y": {"properties": {"y": Y}, "required": ["y"]}},
            },
        ),
        (
            {"properties": {"at": {"type": "array", "items": [X, Y]}, "all": {"type": "array"}}},
            {
                "type": "object",
                "properties": {
                    "at": {"type": "array", "prefixItems": [X, Y], "items": {}},
                    "all": {"type": "array", "items": {}},
                },
            },
        ),
    ],
)
def test_parameters_are_an_object_with_properties(schema, sent):
    assert parameters(schema) == sent


WORDS = ["type", "properties", "required", "items", "anyOf", "oneOf", "allOf", "$ref", "$defs", "$schema", "not", "a"]
SCHEMAS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from(["object", "array", "#", "#/$defs/a", "a"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=5),
    max_leaves=20,
)


@given(SCHEMAS)
def test_whatever_a_schema_is_an_object_with_properties_is_sent(schema):
    sent = parameters(schema)
    assert sent["type"] == "object"
    assert isinstance(sent["properties"], dict)
    assert not {"$schema", "anyOf", "oneOf", "allOf", "enum", "not", "$ref"} & sent.keys()


def test_a_schema_that_refers_to_itself_twice_is_read_in_time():
    again = [{"$ref": "#"}, {"$ref": "#/anyOf"}] * 20
    assert parameters({"properties": {"x": X}, "anyOf": again, "oneOf": again, "allOf": again})["properties"] == {
        "x": X
    }


@pytest.mark.parametrize("value", [{"x": 1}, {"x": 1, "y": "a"}])
def test_what_fits_an_alternative_fits_what_is_sent(value):
    schema = {"oneOf": [{"properties": {"x": X}, "required": ["x"]}, {"properties": {"x": X, "y": Y}}]}
    jsonschema.Draft202012Validator(parameters(schema)).validate(value)
