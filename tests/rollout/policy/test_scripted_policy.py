"""Scripts: what an action means, and where scripts come from."""

import json

import pytest

from muxsim.rollouts.policy.protocol import PolicyError
from muxsim.rollouts.policy.scripted import ScriptedPolicy


def tool(name, *arguments, required=()):
    properties = {argument: {} for argument in arguments}
    parameters = {"type": "object", "properties": properties, "required": list(required)}
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


STEP = tool("step", "action")
LOOK = tool("look")
ASSISTANT = {"role": "assistant", "content": ""}


async def calls(script, tools, *, turn=0, seed=0):
    policy = script if isinstance(script, ScriptedPolicy) else ScriptedPolicy(script)
    message = (await policy.next_message([ASSISTANT] * turn, tools, seed)).message
    return [
        (call["function"]["name"], json.loads(call["function"]["arguments"])) for call in message.get("tool_calls", [])
    ]


@pytest.mark.parametrize(
    ("action", "tools", "made"),
    [
        ({"tool": "step", "arguments": {"action": 1}}, [STEP, LOOK], [("step", {"action": 1})]),
        ({"tool": "look"}, [STEP, LOOK], [("look", {})]),
        ({"tool": "gone", "arguments": {}}, [STEP], [("gone", {})]),
        ({"action": 1}, [STEP], [("step", {"action": 1})]),
        ("right", [STEP], [("step", {"action": "right"})]),
        (0, [STEP], [("step", {"action": 0})]),
        (None, [STEP], [("step", {"action": None})]),
        ([0.5, -1.0], [STEP], [("step", {"action": [0.5, -1.0]})]),
        ([], [STEP], [("step", {"action": []})]),
        ({"tool": "hammer", "force": 3}, [tool("use", "tool", "force")], [("use", {"tool": "hammer", "force": 3})]),
        ("e2", [tool("move", "to", "promote", required=["to"])], [("move", {"to": "e2"})]),
        (
            [{"tool": "look"}, {"tool": "step", "arguments": {"action": 2}}],
            [STEP],
            [("look", {}), ("step", {"action": 2})],
        ),
    ],
)
async def test_an_action_is_a_call(action, tools, made):
    assert await calls([action], tools) == made


@pytest.mark.parametrize(
    ("action", "tools", "why"),
    [
        ("right", [STEP, LOOK], "'right', has to name its tool with 'tool' and 'arguments': there are step, look"),
        ({"action": 1}, [STEP, LOOK], "has to name its tool"),
        ("right", [], "there are none"),
        ("right", [LOOK], "has to name its arguments: look does not take a single one"),
        ("right", [tool("step", "a", "b")], "step does not take a single one"),
        ("right", [tool("step", "a", "b", required=["a", "b"])], "step does not take a single one"),
    ],
)
async def test_a_short_form_that_fits_no_tool_says_why(action, tools, why):
    with pytest.raises(PolicyError, match=f"action 0 of the script, .*{why}"):
        await calls([action], tools)


async def test_actions_are_taken_one_per_turn_and_then_there_is_no_call():
    script = ["left", "right"]
    made = [await calls(script, [STEP], turn=turn) for turn in range(4)]
    assert made == [[("step", {"action": "left"})], [("step", {"action": "right"})], [], []]


async def test_one_policy_serves_episodes_that_stand_at_different_turns():
    policy = ScriptedPolicy([0, 1, 2])
    made = [await calls(policy, [STEP], turn=turn) for turn in (2, 0, 1, 0)]
    assert [arguments["action"] for ((_, arguments),) in made] == [2, 0, 1, 0]


async def test_each_seed_may_have_its_script():
    scripts = {0: ["left"], 7: ["right"]}
    assert await calls(scripts, [STEP], seed=0) == [("step", {"action": "left"})]
    assert await calls(scripts, [STEP], seed=7) == [("step", {"action": "right"})]
    with pytest.raises(PolicyError, match="no script for seed 3, only for 0, 7"):
        await calls(scripts, [STEP], seed=3)


async def test_many_seeds_are_not_all_listed():
    with pytest.raises(PolicyError, match="only for 1, 2, 3, 4, 5 and 95 more"):
        await calls({seed: [] for seed in range(1, 101)}, [STEP], seed=0)


async def test_a_script_may_be_a_function_of_the_seed():
    assert await calls(lambda seed: [seed, seed + 1], [STEP], seed=5, turn=1) == [("step", {"action": 6})]


@pytest.mark.parametrize(
    ("name", "text", "made"),
    [
        ("script.json", '["left", "right"]', [("step", {"action": "left"})]),
        ("script.json", '{"7": ["up"], "8": []}', [("step", {"action": "up"})]),
        ("script.jsonl", '{"tool": "look"}\n\n"right"\n', [("look", {})]),
        ("script.jsonl", '{"seed": 8, "actions": []}\n{"seed": 7, "actions": ["up"]}', [("step", {"action": "up"})]),
        ("script.jsonl", "", []),
    ],
)
async def test_a_script_is_read_from_a_file(tmp_path, name, text, made):
    (tmp_path / name).write_text(text)
    assert await calls(ScriptedPolicy.from_file(tmp_path / name), [STEP], seed=7) == made


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("script.json", "[", "script.json: this is not JSON"),
        ("script.json", "3", "a script is a list of actions, or an object with a list for each seed"),
        ("script.json", '{"a": []}', "a seed is a whole number, not 'a'"),
        ("script.json", '{"1": "up"}', "a script is a list of actions, not 'up'"),
        ("script.jsonl", '"up"\n{', "script.jsonl, line 2: this is not JSON"),
        ("script.jsonl", '{"seed": 1, "actions": []}\n"up"', "line 2: either all lines have 'seed'"),
        ("script.jsonl", '{"seed": 1, "actions": 2}', "line 1: a script is a list of actions, not 2"),
        ("script.jsonl", '{"seed": null, "actions": []}', "line 1: a seed is a whole number, not None"),
    ],
)
def test_a_file_that_is_no_script_is_refused_by_name_and_line(tmp_path, name, text, why):
    (tmp_path / name).write_text(text)
    with pytest.raises(PolicyError, match=why):
        ScriptedPolicy.from_file(tmp_path / name)


def test_a_file_that_is_not_there_is_refused_by_name(tmp_path):
    with pytest.raises(PolicyError, match=r"gone\.json: the script cannot be read: No such file"):
        ScriptedPolicy.from_file(tmp_path / "gone.json")


def scripts(seed):
    return []


@pytest.mark.parametrize(
    ("script", "shown"),
    [
        ([1, 2], "ScriptedPolicy(2 actions)"),
        ({1: []}, "ScriptedPolicy(1 seeds)"),
        (scripts, "ScriptedPolicy(scripts)"),
    ],
)
def test_it_shows_what_it_plays(script, shown):
    assert repr(ScriptedPolicy(script)) == shown
