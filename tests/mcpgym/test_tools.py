from typing import Annotated, Literal

import numpy as np
import pytest
from gymnasium import spaces
from pydantic import Field

from muxsim.mcpgym import InvalidAction, InvalidArguments
from muxsim.mcpgym.tools import function_tool, step_tool


def echo(action):
    return action


def step_of(space, **options):
    return step_tool(space, echo, name="step", description="Step.", **options)


def test_the_signature_is_the_schema_and_the_docstring_the_description():
    def lake_move(action: Literal["LEFT", "RIGHT"], times: Annotated[int, Field(ge=1, description="how often")] = 1):
        """Move.

        On the ice.
        """

    definition = function_tool(lake_move).definition
    assert definition.name == "lake_move"
    assert definition.description == "Move.\n\nOn the ice."
    assert definition.input_schema == {
        "type": "object",
        "properties": {
            "action": {"type": "string", "enum": ["LEFT", "RIGHT"], "title": "Action"},
            "times": {"type": "integer", "minimum": 1, "description": "how often", "default": 1, "title": "Times"},
        },
        "required": ["action"],
        "additionalProperties": False,
    }


def test_a_tool_without_parameters_takes_none():
    tool = function_tool(lambda: "seen", name="look", description="Look.")
    assert tool.definition.input_schema == {"type": "object", "properties": {}, "additionalProperties": False}
    assert tool.parse({}) == {}


def test_parameters_may_have_names_that_models_reserve():
    def act(schema: int, copy: str, _hidden: bool = False): ...

    tool = function_tool(act)
    assert tool.parse({"schema": 1, "copy": "x"}) == {"schema": 1, "copy": "x"}
    assert set(tool.definition.input_schema["properties"]) == {"schema", "copy", "_hidden"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"action": "UP"}, "action: Input should be 'LEFT' or 'RIGHT'"),
        ({}, "action: Field required"),
        ({"action": "LEFT", "speed": 3}, "speed: Extra inputs are not permitted"),
    ],
)
def test_arguments_that_do_not_fit_are_named_in_one_line(arguments, message):
    def move(action: Literal["LEFT", "RIGHT"]): ...

    with pytest.raises(InvalidArguments) as caught:
        function_tool(move).parse(arguments)
    assert str(caught.value) == message


@pytest.mark.parametrize("function", [lambda *actions: None, lambda **actions: None, lambda action, /: None])
def test_a_parameter_without_a_name_of_its_own_is_refused(function):
    with pytest.raises(TypeError, match="a tool's arguments have names"):
        function_tool(function, name="move")


def test_the_step_tool_takes_an_element_of_the_action_space():
    tool = step_of(spaces.Discrete(2))
    assert tool.definition.input_schema == {
        "type": "object",
        "properties": {"action": {"type": "integer", "enum": [0, 1], "description": "Discrete(2)"}},
        "required": ["action"],
        "additionalProperties": False,
    }
    assert tool.parse({"action": 1}) == {"action": 1}


def test_named_actions_stand_for_the_elements_in_order():
    tool = step_of(spaces.Discrete(2, start=5), actions=["NO", "YES"])
    assert tool.definition.input_schema["properties"] == {"action": {"type": "string", "enum": ["NO", "YES"]}}
    parsed = tool.parse({"action": "YES"})["action"]
    assert (parsed, type(parsed)) == (6, np.int64)


@pytest.mark.parametrize("value", ["yes", 1, None, ["YES"], {}])
def test_a_name_that_is_no_action_is_refused_with_those_that_are(value):
    with pytest.raises(InvalidAction, match="action must be one of NO, YES, not"):
        step_of(spaces.Discrete(2), actions=["NO", "YES"]).parse({"action": value})


@pytest.mark.parametrize("arguments", [{}, {"move": 1}, {"action": 1, "times": 2}])
def test_the_step_tool_takes_no_other_argument(arguments):
    with pytest.raises(InvalidArguments, match="the tool takes 'action' and no other argument"):
        step_of(spaces.Discrete(2)).parse(arguments)


@pytest.mark.parametrize(
    ("space", "actions"),
    [
        (spaces.Discrete(2), ["ONE"]),
        (spaces.Discrete(2), ["SAME", "SAME"]),
        (spaces.MultiBinary(2), ["A", "B"]),
    ],
)
def test_names_that_do_not_fit_the_space_are_an_error_at_the_start(space, actions):
    with pytest.raises(ValueError, match="names of actions"):
        step_of(space, actions=actions)


def test_a_large_space_is_described_in_short():
    low = np.arange(300, dtype=np.float64)
    tool = step_of(spaces.Box(low, low + 1, dtype=np.float64))
    assert tool.definition.input_schema["properties"]["action"]["description"] == "An element of a Box space"
