"""A random policy's calls fit the tools, and follow from seed and turn."""

import json

import jsonschema
import pytest

from muxsim.rollouts.policy.protocol import PolicyError
from muxsim.rollouts.policy.random import RandomPolicy

MOVE = {
    "type": "object",
    "properties": {"direction": {"enum": ["left", "down", "right", "up"]}, "steps": {"type": "integer", "minimum": 1}},
    "required": ["direction"],
}


def tool(name, parameters):
    return {"type": "function", "function": {"name": name, "description": "", "parameters": parameters}}


TOOLS = [tool("move", MOVE), tool("look", {"type": "object", "properties": {}})]
USER = {"role": "user", "content": "go"}
ASSISTANT = {"role": "assistant", "content": "", "tool_calls": []}


async def call(conversation, seed, tools=TOOLS, policy_seed=0):
    reply = await RandomPolicy(seed=policy_seed).next_message(conversation, tools, seed)
    (made,) = reply.message["tool_calls"]
    return made["function"]["name"], json.loads(made["function"]["arguments"])


async def test_calls_fit_the_schema_of_their_tool():
    for seed in range(50):
        name, arguments = await call([USER], seed)
        parameters = {each["function"]["name"]: each["function"]["parameters"] for each in TOOLS}[name]
        jsonschema.validate(arguments, parameters)


async def test_all_tools_are_called_sooner_or_later():
    assert {(await call([USER], seed))[0] for seed in range(20)} == {"move", "look"}


async def test_the_same_seed_and_turn_give_the_same_message():
    one, other = RandomPolicy(), RandomPolicy()
    for turn in range(5):
        conversation = [USER, *[ASSISTANT] * turn]
        assert await one.next_message(conversation, TOOLS, 3) == await other.next_message(conversation, TOOLS, 3)


async def test_turns_seeds_and_policies_differ():
    drawn = [[await call([USER, *[ASSISTANT] * turn], 3) for turn in range(20)]]
    drawn.append([await call([USER, *[ASSISTANT] * turn], 4) for turn in range(20)])
    drawn.append([await call([USER, *[ASSISTANT] * turn], 3, policy_seed=1) for turn in range(20)])
    assert drawn[0] != drawn[1] != drawn[2] != drawn[0]
    assert drawn[0] != [drawn[0][0]] * 20


async def test_what_is_drawn_is_the_same_on_every_machine():
    drawn = [await call([USER], seed) for seed in range(3)]
    assert drawn == [("look", {}), ("look", {}), ("move", {"direction": "down", "steps": 41})]


async def test_without_tools_there_is_no_call():
    reply = await RandomPolicy().next_message([USER], [], 0)
    assert "tool_calls" not in reply.message


@pytest.mark.parametrize("parameters", [None, {}])
async def test_a_tool_without_parameters_gets_no_arguments(parameters):
    assert await call([USER], 0, [tool("look", parameters)]) == ("look", {})


async def test_a_schema_that_nothing_fits_is_an_error_that_names_the_tool():
    broken = tool("warp", {"type": "object", "properties": {"to": {"enum": []}}, "required": ["to"]})
    with pytest.raises(PolicyError, match="drawn for the tool warp: to: an enum has nothing"):
        await RandomPolicy().next_message([USER], [broken], 0)


async def test_a_tool_that_nothing_can_be_drawn_for_is_passed_over_and_named():
    dates = {"type": "object", "properties": {"day": {"type": "string", "format": "date"}}, "required": ["day"]}
    tools = [
        {"type": "function", "function": {"name": name, "parameters": schema}}
        for name, schema in (("look", {}), ("book", dates))
    ]
    policy = RandomPolicy()
    replies = [(await policy.next_message([], tools, seed)).message for seed in range(20)]
    assert {reply["tool_calls"][0]["function"]["name"] for reply in replies} == {"look"}
    told = {reply["content"] for reply in replies}
    assert None in told
    assert any("for the tool book: day: a text with the format 'date'" in text for text in told if text)
