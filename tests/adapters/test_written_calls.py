"""Calls as text, for trainers that hand on what a model has written."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.fakes import MOVE
from muxsim.adapters.written_calls import NoCall, calls_in, introduction, kinds, response


def test_calls_stand_in_what_a_model_writes_and_not_in_what_it_thinks():
    text = (
        '<think>Perhaps <tool_call>{"name": "jump"}</tool_call></think>\nI go left.\n'
        '<tool_call>\n{"name": "move", "arguments": {"direction": "left"}}\n</tool_call>\n'
        '<tool_call>{"name": "look"}</tool_call><tool_call>{"name": "say", "arguments": "{\\"text\\": \\"a\\"}"}'
    )
    assert calls_in(text) == [("move", {"direction": "left"}), ("look", {}), ("say", {"text": "a"})]
    assert calls_in("I have arrived.") == []


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"name": 3}', '{"name": "move", "arguments": []}', '{"name": "move", "arguments": "left"}', ""]
)
def test_what_stands_for_a_call_and_is_none_is_said_to_the_model(text):
    with pytest.raises(NoCall, match=r"write|a call is"):
        calls_in(f"<tool_call>{text}</tool_call>")


@given(st.text())
def test_any_text_has_calls_or_none(text):
    for written in (text, f"<tool_call>{text}</tool_call>"):
        try:
            calls = calls_in(written)
        except NoCall:
            continue
        assert all(isinstance(name, str) and isinstance(arguments, dict) for name, arguments in calls)


def test_a_prompt_tells_the_tools_and_a_response_stands_in_its_tags():
    assert '"name":"move"' in introduction([MOVE])
    assert response(["a", "b"]) == "<tool_response>\na\n</tool_response>\n<tool_response>\nb\n</tool_response>"


@pytest.mark.parametrize(
    ("schema", "kind"),
    [
        ({"type": "integer"}, "integer"),
        ({"type": ["number", "null"]}, "number"),
        ({"type": ["string", "integer"]}, "object"),
        ({"anyOf": [{"type": "boolean"}, {"type": "null"}]}, "boolean"),
        ({"oneOf": [{"type": "string"}, {"enum": ["a"]}]}, "string"),
        ({"enum": ["1", "2"]}, "string"),
        ({"enum": [1, "2"]}, "object"),
        ({"const": "1"}, "string"),
        ({"type": "array"}, "object"),
        ({"$ref": "#/$defs/Place"}, "object"),
        ({}, "object"),
        (True, "object"),
    ],
)
def test_what_a_value_is_follows_from_its_schema_and_is_whatever_json_says_where_that_is_open(schema, kind):
    assert kinds({"properties": {"value": schema}}) == {"value": kind}
    assert kinds({}) == {}
