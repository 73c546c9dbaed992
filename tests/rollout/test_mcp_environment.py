"""What an environment's answers become, whatever its server writes into them."""

from __future__ import annotations

import itertools
import json
import sys

import anyio.lowlevel
import pytest

from muxsim.errors import StartError
from muxsim.rollouts.data.trajectory import Control
from muxsim.rollouts.environments.environment import (
    CallTimeout,
    EnvironmentFailed,
    EnvironmentGone,
    MachineryFailed,
    Opened,
)
from muxsim.rollouts.environments.mcp_environment import MCPEnvironment, shake_hands
from transports.messages import decode

GOOD = {"reward": 1.0, "terminated": True, "truncated": False, "step": 3, "info": {"at": 1}}


class Channel:
    """Gives one answer: a result, or an error."""

    def __init__(self, **answer):
        self.answer = answer
        self.asked = []

    async def finish(self):
        await anyio.lowlevel.checkpoint()
        self.closed = True

    close = finish

    def last_words(self):
        return ("Traceback",)

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


@pytest.mark.parametrize(
    "control",
    [{**GOOD, "reward": "much"}, {**GOOD, "step": "three"}, {**GOOD, "terminated": 1}, {}, None, [1], "over"],
)
async def test_a_malformed_control_plane_is_the_failure_of_its_environment(control):
    with pytest.raises(EnvironmentFailed, match="the control plane is malformed: "):
        await called(result=with_control(control))


@pytest.mark.parametrize(
    "result",
    [
        {"content": "ice"},
        {"content": [1]},
        {"isError": "no"},
        [],
        7,
        {},
        {"content": [{"text": "ice"}]},
        {"content": [{"type": "text"}]},
        {"content": [{"type": "text", "text": 7}]},
        {"content": [{"type": "image", "data": "a b", "mimeType": "image/png"}]},
        {"content": [{"type": "image", "data": "aaaa"}]},
        {"content": [{"type": "resource", "resource": {"uri": "a://b"}}]},
        {"content": [{"type": "resource", "resource": "a://b"}]},
    ],
)
async def test_a_malformed_result_is_the_failure_of_its_environment(result):
    with pytest.raises(EnvironmentFailed, match="the result is malformed: "):
        await called(result=result)


@pytest.mark.parametrize("block", [{"type": "hologram"}, {"type": "text", "text": ""}])
async def test_content_that_is_new_or_empty_is_content(block):
    assert (await called(result={"content": [block]})).content == [block]


async def test_an_environment_that_says_that_it_has_failed_has_failed_and_its_session_is_closed():
    channel = Channel(result=with_control({**GOOD, "reward": None, "failed": "step 2: ConnectionError"}))
    with pytest.raises(EnvironmentFailed, match="step 2: ConnectionError") as caught:
        await MCPEnvironment("session", "lake", 0, channel, Opened()).call("step", {})
    assert (caught.value.stderr, channel.closed) == (("Traceback",), True)


async def test_a_call_that_the_server_refused_is_a_result_without_a_control_plane():
    result = await called(error={"code": -32602, "message": "no such tool"})
    assert (result.is_error, result.content) == (True, [{"type": "text", "text": "no such tool"}])
    assert result.control is None


@pytest.mark.parametrize(
    ("code", "cause", "raised"),
    [
        (-32001, "call_timeout", CallTimeout),
        (-32003, "max_in_flight", MachineryFailed),
        (-32003, "max_waiting", MachineryFailed),
        (-32002, "idle_timeout", MachineryFailed),
        (-32002, "deleted", MachineryFailed),
        (-32002, "internal_error", MachineryFailed),
        (-32000, "backend_exited", EnvironmentGone),
        (-32700, "unreadable_answer", EnvironmentFailed),
    ],
)
async def test_what_muxsim_says_in_the_place_of_an_environment_is_no_result(code, cause, raised):
    with pytest.raises(raised, match="said muxsim"):
        await called(error={"code": code, "message": "said muxsim", "data": {"cause": cause}})


@pytest.mark.parametrize("data", [None, {"cause": 7}, "cause", {"reason": "backend_exited"}])
async def test_an_error_without_a_cause_of_muxsims_is_the_servers_own(data):
    game = Game({"error": {"code": -32001, "message": "my own", "data": data}})
    result = await MCPEnvironment("session", "lake", 0, game, Opened()).call("step", {})
    assert (result.is_error, result.content[0]["text"]) == (True, "my own")


async def test_an_error_that_names_the_end_of_the_session_says_so_with_its_last_words():
    data = {"cause": "backend_exited", "stderr": ["out of memory"]}
    with pytest.raises(EnvironmentGone, match="killed by SIGKILL") as caught:
        await called(error={"code": -32000, "message": "killed by SIGKILL", "data": data})
    assert caught.value.stderr == ("out of memory",)


# What an episode has earned


class Game:
    """Answers tool calls one after the other, and reads of the control plane by name; what it lacks is an error."""

    def __init__(self, *results, listed=(), **resources):
        self.results = list(results)
        self.resources = resources
        self.listed = listed
        self.asked = []

    async def ask(self, method, params, timeout):
        await anyio.lowlevel.checkpoint()
        self.asked.append(method if method == "tools/call" else params.get("uri", method))
        answer = self.answer(method, params)
        return decode(json.dumps({"jsonrpc": "2.0", "id": 1, **answer}).encode())

    def answer(self, method, params):
        if method == "tools/call":
            return self.results.pop(0)
        if method == "resources/list":
            return {"result": {"resources": [{"uri": f"control://{name}"} for name in self.listed]}}
        if method == "resources/templates/list":
            return {"result": {"resourceTemplates": []}}
        value = self.resources.get(params["uri"].removeprefix("control://"))
        if value is None:
            return {"error": {"code": -32002, "message": "no such resource"}}
        return {"result": {"contents": [{"text": json.dumps(value)}]}}

    async def finish(self):
        await anyio.lowlevel.checkpoint()

    close = finish

    def last_words(self):
        return ()


def scored(reward, **more):
    return {"result": with_control({**GOOD, "reward": reward, "terminated": False, **more})}


REFUSED = {"error": {"code": -32602, "message": "no such tool"}}
PLAIN = {"result": {"content": [{"type": "text", "text": "ice"}]}}
STATUS = {"terminated": False, "truncated": False, "step": 0, "total_reward": 0.0}


async def earned(game, calls, state=None, *, over=False, shared=False):
    opened = Opened(initial_state=state, published=state is not None, shared=shared)
    environment = MCPEnvironment("session", "lake", 0, game, opened)
    for _ in range(calls):
        await environment.call("step", {})
    return await environment.earned(over=over)


async def test_an_episode_without_a_call_has_earned_what_the_status_says():
    assert await earned(Game(status=STATUS), 0) == 0.0
    assert await earned(Game(status={**STATUS, "total_reward": 0.25}), 0) == 0.25
    assert await earned(Game(status={"terminated": False, "truncated": False}), 0) == 0.0


async def test_an_episode_of_refused_calls_has_earned_what_the_status_says():
    assert await earned(Game(REFUSED, REFUSED, status=STATUS), 2) == 0.0
    assert await earned(Game(scored(0.5), REFUSED, status={**STATUS, "total_reward": 0.75}), 2) == 0.75


async def test_an_episode_whose_calls_have_told_is_not_asked_about_while_it_goes_on():
    game = Game(scored(0.5), scored(0.25), status={**STATUS, "total_reward": 9.0})
    assert await earned(game, 2) == 0.75
    assert game.asked == ["tools/call"] * 2


async def test_rewards_that_are_known_are_no_total_beside_one_that_is_not():
    steps = [scored(0.5, step=1), scored(None, step=2), scored(0.5, step=3)]
    assert await earned(Game(*steps, status={**STATUS, "total_reward": 1.5}), 3) == 1.5
    with pytest.raises(EnvironmentFailed, match="has no total_reward"):
        await earned(Game(*steps, status={"terminated": False, "truncated": False}), 3)
    assert await earned(Game(steps[0], scored(None, step=1), status={**STATUS, "total_reward": 9.0}), 2) == 0.5


async def test_nothing_is_kept_of_each_call_so_that_what_was_earned_is_told_at_once_after_ever_so_many():
    environment = MCPEnvironment("s", "lake", 0, Game(*[scored(0.5)] * 100), Opened())

    told, sizes = [], set()
    for _ in range(100):
        await environment.call("step", {})
        told.append(await environment.earned())
        sizes.add(sum(sys.getsizeof(value) for value in vars(environment).values()))
    assert (told[0], told[-1]) == (0.5, 50.0)
    assert len(sizes) == 1


async def test_an_episode_that_is_over_has_earned_nothing_where_the_environment_counts_otherwise():
    with pytest.raises(EnvironmentFailed, match=r"its results come to 0\.75, and control://status says 9"):
        await earned(Game(scored(0.5), scored(0.25), status={**STATUS, "total_reward": 9.0}), 2, over=True)
    with pytest.raises(EnvironmentFailed, match="the simulator is gone"):
        await earned(Game(scored(0.5), status={**STATUS, "failed": "the simulator is gone"}), 1, over=True)


@pytest.mark.parametrize("status", [{"total_reward": 0.75}, {"total_reward": 0.7500001}, {"step": 2}, None])
async def test_a_count_that_is_the_same_or_not_there_contradicts_nothing(status):
    assert await earned(Game(scored(0.5), scored(0.25), status=status), 2, over=True) == 0.75


async def test_an_episode_that_is_over_has_earned_nothing_where_the_environments_count_cannot_be_read():
    with pytest.raises(EnvironmentFailed, match="are in doubt: control://status is malformed"):
        await earned(Game(scored(0.5), scored(0.25), status="odd"), 2, over=True)


@pytest.mark.parametrize("over", [True, False])
async def test_what_others_earn_in_a_shared_session_is_none_of_the_episodes(over):
    status = {**STATUS, "step": 40, "total_reward": 40.0}
    assert await earned(Game(status=status), 0, over=over, shared=True) == 0.0
    assert await earned(Game(scored(0.5), status=status), 1, over=over, shared=True) == 0.5
    assert await earned(Game(scored(0.5), REFUSED, status=status), 2, over=over, shared=True) == 0.5


async def test_without_a_control_plane_nothing_is_earned_and_that_is_asked_once():
    game = Game(PLAIN, PLAIN)
    assert await earned(game, 2) is None
    assert game.asked == ["tools/call"] * 2
    assert await earned(Game(), 0) is None
    assert await earned(Game(REFUSED), 1) is None


async def test_an_initial_state_alone_is_no_control_plane():
    state = {"observation": "a lake"}
    assert await earned(Game(PLAIN, PLAIN, listed=["initial_state"]), 2, state) is None
    assert await earned(Game(listed=["initial_state"]), 0, state) is None


@pytest.mark.parametrize("first", [scored(1.0), None])
async def test_a_control_plane_that_was_there_and_is_gone_is_the_failure_of_its_environment(first):
    state = None if first else {"observation": "a lake"}
    given = [first, PLAIN] if first else [PLAIN]
    with pytest.raises(EnvironmentFailed, match="the control plane is gone"):
        await earned(Game(*given, listed=["reward", "status"]), len(given), state)


async def test_an_error_that_does_not_say_that_there_is_no_control_plane_leaves_it_to_the_servers_list():
    class Burning(Game):
        def answer(self, method, params):
            if method == "resources/read":
                return {"error": {"code": -32603, "message": "the disk is on fire"}}
            return super().answer(method, params)

    with pytest.raises(EnvironmentFailed, match="the control plane is gone"):
        await earned(Burning(listed=["status"]), 0)
    with pytest.raises(EnvironmentFailed, match="the control plane is gone"):
        await earned(Burning(REFUSED, listed=["status"]), 1)
    assert await earned(Burning(REFUSED, listed=["initial_state"]), 1) is None


async def test_a_refused_call_behind_which_the_control_plane_is_gone_is_a_failure_too():
    with pytest.raises(EnvironmentFailed, match="the control plane is gone"):
        await earned(Game(scored(1.0), REFUSED), 2)


async def test_a_refused_call_tells_whether_the_episode_has_ended():
    environment = MCPEnvironment("s", "lake", 0, Game(REFUSED, status={**STATUS, "terminated": True}), Opened())
    result = await environment.call("step", {})
    assert (result.control.terminated, result.control.reward) == (True, None)


async def test_a_call_that_failed_and_made_a_step_leaves_no_total_where_the_status_has_none():
    game = Game(scored(1.0, step=1), REFUSED, status={"terminated": False, "step": 2})
    with pytest.raises(EnvironmentFailed, match="no total_reward"):
        await earned(game, 2)


@pytest.mark.parametrize("status", [{"terminated": False, "step": 0}, {"terminated": False}])
async def test_refused_calls_that_made_no_step_have_earned_nothing_where_the_status_has_no_total(status):
    assert await earned(Game(REFUSED, REFUSED, status=status), 2) == 0.0


async def test_a_reward_of_null_for_a_call_that_did_not_fail_is_a_problem():
    environment = MCPEnvironment("s", "lake", 0, Game(scored(None)), Opened())
    result = await environment.call("step", {})
    assert (result.control.reward, result.control.problem) == (None, "the reward is null")


# How a session begins


class Start(Channel):
    """Answers each method with what it is given, as often as it is asked."""

    def __init__(self, **answers):
        self.answers = {"initialize": {"result": {}}, "tools/list": {"result": {"tools": []}}, **answers}
        self.pages = 0

    async def ask(self, method, params, timeout):
        await anyio.lowlevel.checkpoint()
        answer = self.answers.get(method, {"error": {"code": -32601, "message": "no such method"}})
        if callable(answer):
            answer = answer(params)
        return decode(json.dumps({"jsonrpc": "2.0", "id": 1, **answer}).encode())

    async def notify(self, method):
        await anyio.lowlevel.checkpoint()


def listing(tools, **more):
    return {"tools/list": {"result": {"tools": tools, **more}}}


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        ({"initialize": {"result": []}}, "the answer to initialize is malformed"),
        ({"initialize": {"error": {"code": 1, "message": "not today"}}}, "initialize: not today"),
        (listing(None), "tools/list is malformed"),
        (listing("none"), "tools/list is malformed"),
        (listing([{"inputSchema": {"type": "object"}}]), "missing required field `name`"),
        (listing([{"name": 7}]), "tools/list is malformed"),
        (listing([{"name": "a", "inputSchema": []}]), "tools/list is malformed"),
        (listing([], nextCursor=7), "tools/list is malformed"),
        (listing([{"name": "a"}], nextCursor=""), "tools/list does not end: nextCursor '' has been there before"),
        ({"tools/list": {"result": 5}}, "tools/list is malformed"),
        ({"tools/list": {"error": {"code": 1, "message": "lost it"}}}, "tools/list: lost it"),
        ({"resources/read": {"result": {"contents": [{"text": "{"}]}}}, "control://initial_state is not JSON"),
        ({"resources/read": {"result": {"contents": 3}}}, "control://initial_state is malformed"),
    ],
)
async def test_a_beginning_that_makes_no_sense_is_a_failed_start_that_says_what_is_wrong(answers, words):
    with pytest.raises(StartError) as caught:
        await shake_hands(Start(**answers), 5)
    assert words in str(caught.value)


async def test_a_list_of_tools_with_ever_new_cursors_ends_too():
    numbers = itertools.count()

    def page(params):
        return {"result": {"tools": [], "nextCursor": f"page {next(numbers)}"}}

    with pytest.raises(StartError, match="does not end: there is another page after 100"):
        await shake_hands(Start(**{"tools/list": page}), 5)
