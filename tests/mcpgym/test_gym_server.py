"""The kit behind the official client, in one process."""

import base64
import io
import json
import logging
import random
from contextlib import asynccontextmanager

import numpy as np
import pytest
import trio
from gymnasium import spaces
from mcp import Client, MCPError
from mcp_types import CallToolResult, TextContent
from PIL import Image

from muxsim.mcpgym import GymServer, ToolError, UnsupportedSpace

from .envs import Counter, Scripted

ASK = {"muxsim/control": True}
KEY = "muxsim/control"


@pytest.fixture(params=["legacy", "2026-07-28"])
def era(request):
    return request.param


@asynccontextmanager
async def connected(server, mode="2026-07-28"):
    with trio.fail_after(60):
        async with Client(server.start(seed=5), mode=mode) as client:
            yield client


def counting(**options):
    return GymServer("counter", lambda seed: Counter(), **options)


def scripted(*returns):
    return GymServer("scripted", lambda seed: Scripted(*returns))


def text(result):
    return "".join(block.text for block in result.content)


async def control(client, name):
    [contents] = (await client.read_resource(f"control://{name}")).contents
    assert contents.mime_type == "application/json"
    return json.loads(contents.text)


async def whole_control(client):
    return {name: await control(client, name) for name in ("reward", "status", "info", "initial_state")}


async def test_an_environment_is_one_tool_and_five_control_resources(era):
    async with connected(counting(), era) as client:
        assert [tool.name for tool in (await client.list_tools()).tools] == ["step"]
        resources = (await client.list_resources()).resources
        assert {(resource.uri, resource.mime_type) for resource in resources} == {
            ("control://reward", "application/json"),
            ("control://status", "application/json"),
            ("control://info", "application/json"),
            ("control://initial_state", "application/json"),
            ("control://spaces", "application/json"),
        }


async def test_the_control_resources_follow_the_episode(era):
    async with connected(counting(), era) as client:
        first = {"observation": [0.0, 0.1], "info": {"seed": 5}, "seed": 5}
        assert await whole_control(client) == {
            "reward": {"reward": 0.0, "step": 0},
            "status": {"terminated": False, "truncated": False, "step": 0, "total_reward": 0.0},
            "info": {"seed": 5},
            "initial_state": first,
        }
        await client.call_tool("step", {"action": 1})
        await client.call_tool("step", {"action": 3})
        assert await whole_control(client) == {
            "reward": {"reward": 3.0, "step": 2},
            "status": {"terminated": False, "truncated": False, "step": 2, "total_reward": 4.0},
            "info": {"at": 2},
            "initial_state": first,
        }
        await client.call_tool("step", {"action": 0})
        assert (await control(client, "status"))["terminated"] is True


async def test_a_result_carries_the_control_plane_exactly_when_asked(era):
    async with connected(counting(), era) as client:
        for refusal in (None, {KEY: False}, {KEY: 1}, {KEY: "true"}, {KEY: None}, {"muxsim/other": True}):
            assert KEY not in ((await client.call_tool("step", {"action": "bad"}, meta=refusal)).meta or {})
        asked = await client.call_tool("step", {"action": 2}, meta=ASK)
        assert asked.meta[KEY] == {
            "reward": 2.0,
            "terminated": False,
            "truncated": False,
            "step": 1,
            "info": {"at": 1},
        }
        unasked = await client.call_tool("step", {"action": 2})
        assert KEY not in (unasked.meta or {})


async def test_the_agent_sees_the_observation_and_nothing_of_the_control_plane(era):
    async with connected(counting(), era) as client:
        asked, unasked = [await client.call_tool("step", {"action": 3}, meta=meta) for meta in (ASK, None)]
        assert text(asked) == "[1.0, 0.1]"
        assert text(unasked) == "[2.0, 0.1]"
        for result in (asked, unasked):
            assert result.structured_content is None
            assert result.is_error is False


async def test_a_bad_action_is_a_tool_error_that_says_what_is_good(era):
    async with connected(counting(), era) as client:
        before = await whole_control(client)
        result = await client.call_tool("step", {"action": 9}, meta=ASK)
        assert result.is_error is True
        assert text(result) == "action must be one of 0, 1, 2, 3, not 9"
        assert result.meta[KEY]["reward"] is None
        assert result.meta[KEY]["step"] == 0
        assert await whole_control(client) == before


async def test_a_step_after_the_end_is_a_tool_error_and_changes_nothing(era):
    server = counting()
    async with connected(server, era) as client:
        for _ in range(3):
            last = await client.call_tool("step", {"action": 1}, meta=ASK)
        assert last.meta[KEY]["terminated"] is True
        before = await whole_control(client)
        after = await client.call_tool("step", {"action": 1}, meta=ASK)
        assert after.is_error is True
        assert "the episode has ended" in text(after)
        assert after.meta[KEY] == {**last.meta[KEY], "reward": None}
        assert await whole_control(client) == before
        assert len(server.env.actions) == 3


async def test_an_exception_of_the_environment_is_its_failure_and_so_is_every_call_behind_it(era, caplog):
    server = scripted(("ok", 1.0, False, False, {}), RuntimeError("secret 42"), ("again", 2.0, False, False, {}))
    async with connected(server, era) as client:
        await client.call_tool("step", {"action": 0})
        failed = await client.call_tool("step", {"action": 0}, meta=ASK)
        assert failed.is_error is True
        assert text(failed) == "the environment failed in step 2 (RuntimeError)"
        failure = "the environment failed in step 2 (RuntimeError): RuntimeError: secret 42"
        unscored = {"reward": None, "terminated": False, "truncated": False, "step": 1, "info": {}}
        assert failed.meta[KEY] == {**unscored, "failed": failure}
        assert "Traceback" in caplog.text
        assert "secret 42" in caplog.text  # the log and the trainer have what the agent does not get to read
        again = await client.call_tool("step", {"action": 0}, meta=ASK)
        told = "no further step is possible: the environment failed in step 2 (RuntimeError)"
        assert (text(again), again.meta[KEY]) == (told, failed.meta[KEY])
        assert (await whole_control(client))["status"]["failed"] == failure
        assert len(server.env.returns) == 1


@pytest.mark.parametrize("reward", [np.nan, np.float32(np.inf)])
async def test_a_reward_that_is_not_finite_is_a_tool_error_and_the_last_step(era, reward):
    server = scripted(("o", reward, False, False, {}), ("o", 1.0, False, False, {}))
    async with connected(server, era) as client:
        before = await whole_control(client)
        for _ in range(2):
            result = await client.call_tool("step", {"action": 0}, meta=ASK)
            assert result.is_error is True
            assert "reward" not in text(result)
            assert result.meta[KEY]["reward"] is None
            assert "the reward is not finite" in result.meta[KEY]["failed"]
        after = await whole_control(client)
        assert after["status"].pop("failed") == result.meta[KEY]["failed"]
        assert after == before
        assert len(server.env.returns) == 1


async def test_an_observation_that_cannot_be_shown_is_the_failure_of_the_environment(era):
    server = scripted((object(), 2.0, False, False, {}))
    async with connected(server, era) as client:
        result = await client.call_tool("step", {"action": 0}, meta=ASK)
        assert result.is_error is True
        assert (result.meta[KEY]["reward"], result.meta[KEY]["step"]) == (None, 1)
        assert result.meta[KEY]["failed"].startswith("the tool step failed (TypeError): ")


async def test_named_actions_replace_the_numbers(era):
    server = counting(actions=["A", "B", "C", "D"])
    async with connected(server, era) as client:
        [tool] = (await client.list_tools()).tools
        assert tool.input_schema["properties"]["action"]["enum"] == ["A", "B", "C", "D"]
        result = await client.call_tool("step", {"action": "D"}, meta=ASK)
        assert result.meta[KEY]["reward"] == 3.0


async def test_structured_actions_reach_the_environment_as_elements_of_its_space():
    space = spaces.Dict({"push": spaces.Box(-1, 1, (2,), np.float32), "jump": spaces.Discrete(2)})
    server = GymServer("dict", lambda seed: Counter(space))
    async with connected(server) as client:
        await client.call_tool("step", {"action": {"push": [0.5, -1], "jump": 1}})
    [action] = server.env.actions
    assert space.contains(action)


async def test_tools_of_the_author_replace_step_and_may_take_several(era):
    server = counting()

    @server.tool()
    def twice(action: int):
        """Do it twice."""
        server.step(action)
        return server.step(action)

    @server.tool()
    async def look() -> str:
        """Look."""
        await trio.lowlevel.checkpoint()
        return f"you see {server.observation[0]:.0f}"

    async with connected(server, era) as client:
        assert [tool.name for tool in (await client.list_tools()).tools] == ["twice", "look"]
        result = await client.call_tool("twice", {"action": 2}, meta=ASK)
        assert (text(result), result.meta[KEY]["reward"], result.meta[KEY]["step"]) == ("[2.0, 0.1]", 4.0, 2)
        looked = await client.call_tool("look", meta=ASK)
        assert (text(looked), looked.meta[KEY]["reward"], looked.meta[KEY]["step"]) == ("you see 2", 0.0, 2)


async def test_a_step_that_fails_halfway_through_a_call_keeps_the_rewards_before_it(era):
    server = scripted(("o", 1.5, True, False, {}))

    @server.tool()
    def twice():
        server.step(0)
        server.step(0)

    async with connected(server, era) as client:
        result = await client.call_tool("twice", meta=ASK)
        assert result.is_error is True
        assert (result.meta[KEY]["reward"], result.meta[KEY]["step"]) == (1.5, 1)


async def test_failures_in_tools_reach_the_agent_only_as_far_as_the_author_meant(era, caplog):
    server = counting()

    @server.tool()
    def meant():
        raise ToolError("the door is locked")

    @server.tool()
    def unmeant():
        raise KeyError("secret")

    async with connected(server, era) as client:
        results = [await client.call_tool(name, meta=ASK) for name in ("meant", "unmeant")]
        failures = [result.meta[KEY].get("failed") for result in results]
        assert failures == [None, "the tool unmeant failed (KeyError): KeyError: 'secret'"]
        assert [(text(result), result.is_error) for result in results] == [
            ("the door is locked", True),
            ("the tool unmeant failed (KeyError)", True),
        ]
        assert [record.levelno for record in caplog.records if "muxsim" in record.name] == [logging.ERROR]


async def test_a_result_that_the_author_made_keeps_what_is_in_it_and_nothing_of_an_earlier_call(era):
    server = counting()
    made = CallToolResult(content=[TextContent(type="text", text="x")], structured_content={"a": 1}, _meta={"own": 1})
    server.tool(name="result")(lambda: made)
    async with connected(server, era) as client:
        asked = await client.call_tool("result", meta=ASK)
        assert asked.structured_content == {"a": 1}
        assert (asked.meta["own"], asked.meta[KEY]["step"]) == (1, 0)
        unasked = await client.call_tool("result")
        assert unasked.meta["own"] == 1
        assert KEY not in unasked.meta


async def test_calls_at_once_are_taken_one_after_the_other():
    server = counting()

    @server.tool()
    async def slow(action: int):
        await trio.lowlevel.checkpoint()
        content = server.step(action)
        await trio.lowlevel.checkpoint()
        return content

    rewards = []

    async def play(client, action):
        result = await client.call_tool("slow", {"action": action}, meta=ASK)
        rewards.append((action, result.meta[KEY]["reward"]))

    async with connected(server) as client, trio.open_nursery() as nursery:
        for action in (1, 2, 3):
            nursery.start_soon(play, client, action)
    assert sorted(rewards) == [(1, 1.0), (2, 2.0), (3, 3.0)]


async def test_an_unknown_tool_or_resource_is_a_protocol_error(era):
    async with connected(counting(), era) as client:
        with pytest.raises(MCPError, match=r"Unknown tool: 'fly'\. There is: step") as caught:
            await client.call_tool("fly", {})
        assert caught.value.code == -32602
        with pytest.raises(MCPError, match="Resource not found"):
            await client.read_resource("control://nothing")


async def test_images_of_the_rendered_frame_are_content_too(era):
    server = GymServer("seen", lambda seed: Counter(render_mode="rgb_array"), observation="text+image")
    async with connected(server, era) as client:
        result = await client.call_tool("step", {"action": 0})
        assert [block.type for block in result.content] == ["text", "image"]
        first = (await control(client, "initial_state"))["observation"]
        assert [block["type"] for block in first] == ["text", "image"]


def test_images_have_the_size_that_the_author_or_the_command_line_says():
    def size(**options):
        server = GymServer("seen", lambda seed: Counter(render_mode="rgb_array"), observation="image", **options)
        return server, lambda: Image.open(io.BytesIO(base64.b64decode(server.observe()[0].data))).size

    server, shown = size()
    server.start(seed=0)
    assert shown() == (3, 2)
    server, shown = size(frame_size=(30, 20))
    server.start(seed=0)
    assert shown() == (30, 20)
    server.parser.set_defaults(frame_size=(6, 4))
    server.start(seed=0)
    assert shown() == (6, 4)


def test_a_server_without_images_has_no_option_for_their_size():
    with pytest.raises(SystemExit):
        counting().parser.parse_args(["--frame-size", "3x2"])


async def test_the_instructions_may_show_the_first_observation():
    server = counting(instructions="You are at {observation}.", describe=lambda observation, env: "the door")
    async with connected(server, "legacy") as client:
        assert client.instructions == "You are at the door."
        assert (await control(client, "initial_state"))["observation"] == "the door"


def test_the_seed_reaches_everything_that_an_environment_draws_from():
    def draws(seed):
        server = counting()
        server.start(seed)
        env = server.env
        return [
            env.np_random.random(),
            env.action_space.sample(),
            random.random(),
            np.random.random(),
            server.control.seed,
        ]

    for seed in (0, 7, 2**40):
        assert draws(seed) == draws(seed)
    assert draws(0) != draws(1)


def test_an_environment_of_which_no_step_tool_can_be_made_is_refused_at_the_start():
    server = GymServer("graph", lambda seed: Counter(spaces.Graph(spaces.Discrete(2), None)))
    with pytest.raises(UnsupportedSpace, match=r"write tools with @server.tool\(\)"):
        server.start(seed=0)


def test_before_the_start_there_is_no_environment():
    server = counting()
    assert repr(server) == "<GymServer 'counter' not started>"
    with pytest.raises(RuntimeError, match="counter has not been started"):
        server.step(0)


def test_two_tools_of_one_name_are_refused():
    server = counting()
    server.tool(name="look")(lambda: "a")
    with pytest.raises(ValueError, match="there is a tool 'look' already"):
        server.tool(name="look")(lambda: "b")
