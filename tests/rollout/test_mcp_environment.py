"""What an environment's answers become, whatever its server writes into them."""

from __future__ import annotations

import json

import anyio.lowlevel
import pytest

from muxsim.rollouts.environment import CallTimeout, EnvironmentGone, Opened
from muxsim.rollouts.mcp_environment import MCPEnvironment
from muxsim.rollouts.trajectory import Control
from transports.messages import decode

GOOD = {"reward": 1.0, "terminated": True, "truncated": False, "step": 3, "info": {"at": 1}}


class Channel:
    """Gives one answer: a result, or an error."""

    def __init__(self, **answer):
        self.answer = answer
        self.asked = []

    async def ask(self, method, params, timeout):
        await anyio.lowlevel.checkpoint()
        self.asked.append((method, params, timeout))
        return decode(json.dumps({"jsonrpc": "2.0", "id": 1, **self.answer}).encode())


async def called(**answer):
    environment = MCPEnvironment("session", "lake", 0, Channel(**answer), Opened())
    return await environment.call("step", {"to": "on"})


def with_control(control):
    return {"content": [{"type": "text", "text": "ice"}], "_meta": {"muxsim/control": control}}


async def test_a_call_asks_for_the_control_plane_and_gets_it_in_the_same_trip():
    channel = Channel(result=with_control(GOOD))
    result = await MCPEnvironment("session", "lake", 0, channel, Opened()).call("step", {"to": "on"}, timeout=3)
    assert channel.asked == [
        ("tools/call", {"name": "step", "arguments": {"to": "on"}, "_meta": {"muxsim/control": True}}, 3)
    ]
    assert result.control == Control(reward=1.0, terminated=True, step=3, info={"at": 1})
    assert (result.content, result.is_error) == ([{"type": "text", "text": "ice"}], False)


@pytest.mark.parametrize("control", [{**GOOD, "reward": "much"}, {**GOOD, "step": "three"}, {}, None, [1], "over"])
async def test_a_malformed_control_plane_is_an_unknown_reward_and_no_fault_of_the_policy(control):
    result = await called(result=with_control(control))
    assert result.content == [{"type": "text", "text": "ice"}]
    assert result.control.reward is None
    assert result.control.problem.startswith("the control plane is malformed: ")


@pytest.mark.parametrize("result", [{"content": "ice"}, {"content": [1]}, {"isError": "no"}, [], 7])
async def test_a_malformed_result_is_an_error_that_says_so(result):
    made = await called(result=result)
    assert made.is_error
    assert made.content[0]["text"].startswith("the result is malformed: ")
    assert made.control.reward is None


async def test_a_call_that_the_server_refused_is_a_result_with_nothing_earned():
    result = await called(error={"code": -32602, "message": "no such tool"})
    assert (result.is_error, result.content) == (True, [{"type": "text", "text": "no such tool"}])
    assert (result.control.reward, result.control.problem) == (None, "the call was refused")


async def test_a_call_that_was_too_late_for_muxsim_is_a_timeout():
    with pytest.raises(CallTimeout, match="no answer within 5 s"):
        await called(error={"code": -32001, "message": "no answer within 5 s"})


async def test_an_error_that_names_the_end_of_the_session_says_so_with_its_last_words():
    data = {"cause": "crashed", "stderr": ["out of memory"]}
    with pytest.raises(EnvironmentGone, match="killed by SIGKILL") as caught:
        await called(error={"code": -32000, "message": "killed by SIGKILL", "data": data})
    assert caught.value.stderr == ("out of memory",)
