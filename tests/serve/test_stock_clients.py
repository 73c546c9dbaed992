"""What clients of eval-protocol and reward-kit ask for beside MCP: seeds in the handshake, rewards and ends by HTTP."""

from __future__ import annotations

import json

import pytest
from harness import SERVERS, muxsim_serve

from .conftest import environment, write_tokens
from .machine import log_lines
from .test_auth import ADA, BOB, HELPER, bearer
from .wire import BOTH, Client, ask, initialize, shake_hands

pytestmark = pytest.mark.children

MCP = [("Content-Type", "application/json"), ("Accept", BOTH)]
SCORED = SERVERS / "scored.py"
CONFIG = f"""[server]
max_failures = 100000
[server.auth]
tokens_file = "tokens"
[environments.counting]
command = "python3"
args = ["-I", "-S", "{SCORED}", "--counting", "--seed", "{{seed}}"]
[environments.uncounted]
command = "python3"
args = ["-I", "-S", "{SCORED}"]
{environment("naughty")}"""


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stock")
    write_tokens(folder, f"ada trainer {ADA}\nada agent {HELPER}\nbob trainer {BOB}\n")
    with muxsim_serve(folder, CONFIG) as running:
        yield running


def greeting(**extra):
    message = initialize()
    message["params"]["clientInfo"]["_extra"] = extra
    return message


async def greet(running, path="/envs/counting/mcp/", *, token=ADA, **extra):
    """A client as theirs is, which adds a slash to its URL."""
    answer = await ask(running.url, "POST", path, [*MCP, bearer(token)], greeting(**extra))
    assert "result" in answer.json(), answer
    return Client(running.url, path, answer.headers["mcp-session-id"], extra=(bearer(token),))


async def control(running, name, part, *, at="/envs/counting/control", method="GET", token=ADA):
    body = {"seed": 1} if method == "POST" else b""
    return await ask(running.url, method, f"{at}/{part}", [("Mcp-Session-Id", name), bearer(token)], body)


async def seed_of(running, client):
    return (await ask(running.url, "GET", f"/sessions/{client.id}", [bearer(ADA)])).json()["seed"]


async def test_the_seed_of_a_handshake_is_the_sessions_where_the_url_has_none(running):
    for seed in (0, 7, 2**31 - 1):
        assert await seed_of(running, await greet(running, seed=seed, session_id="a", config={"seed": 3})) == seed
    assert await seed_of(running, await greet(running, "/mcp?env=counting", seed=8)) == 8
    assert await seed_of(running, await greet(running, "/envs/counting/mcp?seed=5", seed=7)) == 5
    drawn = {await seed_of(running, await greet(running, token=HELPER, seed=7)) for _ in range(3)}
    assert len(drawn) == 3, "an agent does not choose its episode by what only trainers say"
    for extra in ({}, {"seed": None}, {"session_id": None}):
        await greet(running, **extra)


@pytest.mark.parametrize(
    "extra",
    [{"seed": seed} for seed in (-1, 2**31, 1.5, "7", True, [1])] + [{"session_id": name} for name in (1, "x" * 257)],
)
async def test_what_nobody_can_mean_is_an_error_that_names_it(running, extra):
    before = len(log_lines(running, event="session.opening"))
    answer = await ask(running.url, "POST", "/envs/counting/mcp", [*MCP, bearer(ADA)], greeting(**extra))
    (key,) = extra
    assert (answer.status, answer.json()["id"], answer.error["code"]) == (200, 0, -32602)  # another status cancels it
    assert f"clientInfo._extra.{key} " in answer.error["message"]
    assert len(log_lines(running, event="session.opening")) == before


async def test_a_client_that_says_anything_else_there_is_welcome(running):
    for extra in ("text", [1], {"seeds": 1, "deep": {"session_id": 4}}):
        message = initialize()
        message["params"]["clientInfo"]["_extra"] = extra
        answer = await ask(running.url, "POST", "/envs/counting/mcp", [*MCP, bearer(ADA)], message)
        assert "result" in answer.json()


@pytest.mark.parametrize(("at", "name"), [("/envs/counting/control", "row"), ("/control", "row"), ("/control", None)])
async def test_each_call_is_paid_once_and_the_end_is_told_by_either_name(running, at, name):
    client = await greet(running, session_id="row")
    name, rewards = name or client.id, []
    assert (await control(running, name, "reward", at=at)).json() == {"reward": 0.0, "step_count": 0}
    assert (await control(running, name, "initial_state", at=at)).json() == {"part": "initial_state"}
    for tool in ("step", "look", "step", "look", "step"):
        await client.call(tool)
        for _ in range(2):  # whoever asks again gets the same again
            answer = (await control(running, name, "reward", at=at)).json()
        rewards.append(answer["reward"])
        status = (await control(running, name, "status", at=at)).json()
        assert status["step_count"] == answer["step_count"]
    assert rewards == [1, 0, 2, 0, 3]
    assert status == {"step_count": 3, "terminated": True, "truncated": False, "step": 3, "total_reward": 6}
    assert (await client.delete()).status == 204
    assert (await control(running, name, "reward", at=at)).status == 404


async def test_calls_between_two_reads_are_paid_together_and_what_cannot_be_told_is_null(running):
    client = await greet(running, session_id="row")
    await client.call("step")
    await client.call("step")
    assert (await control(running, "row", "reward")).json() == {"reward": 3.0, "step_count": 2}
    uncounted = await greet(running, "/envs/uncounted/mcp", session_id="other")
    await uncounted.call("step")
    answer = (await control(running, "other", "reward", at="/envs/uncounted/control")).json()
    assert answer == {"reward": 1.0, "step_count": None}
    assert (await control(running, client.id, "nothing")).status == 404
    for one in (client, uncounted):
        await one.delete()


async def test_a_server_without_a_control_plane_has_no_rewards(running):
    client = await greet(running, "/envs/naughty/mcp", session_id="bare")
    for part in ("reward", "status", "initial_state"):
        assert (await control(running, "bare", part, at="/envs/naughty/control")).status == 502
    await client.delete()


async def test_a_name_is_that_of_its_principals_clients_and_of_one_of_them_only(running):
    mine, his = await greet(running, session_id="same"), await greet(running, token=BOB, session_id="same")
    await mine.call("step")
    assert (await control(running, "same", "status")).json()["step_count"] == 1
    assert (await control(running, "same", "status", token=BOB)).json()["step_count"] == 0
    assert (await control(running, "same", "status", at="/envs/naughty/control")).status == 404
    assert (await control(running, "other", "status")).status == 404
    twin = await greet(running, session_id="same")
    refused = await control(running, "same", "reward")
    assert (refused.status, "2 clients go by" in refused.error["message"]) == (409, True)
    assert (await control(running, twin.id, "status")).json()["step_count"] == 0
    await twin.delete()
    assert (await control(running, "same", "status")).json()["step_count"] == 1
    for client in (mine, his):
        await client.delete()


async def test_an_agent_gets_none_of_it(running):
    agent = await greet(running, token=HELPER, seed=7, session_id="agent")
    for name in ("agent", agent.id):
        for method, part in (("GET", "reward"), ("GET", "status"), ("POST", "reset_session")):
            for at in ("/control", "/envs/counting/control"):
                assert (await control(running, name, part, at=at, method=method, token=HELPER)).status == 403
        assert (await control(running, name, "reward")).status == 404
    assert (await control(running, "agent", "reset_session", method="POST")).json()["ended"] == 0
    assert "result" in await agent.request("ping")
    await agent.delete()


async def test_a_reset_ends_the_episode_and_the_next_handshake_begins_another(running):
    client = await greet(running, session_id="again", seed=1)
    await client.call("step")
    reset = await control(running, "again", "reset_session", method="POST")
    assert (reset.status, reset.json()["ended"]) == (200, 1)
    assert (await client.post(json.dumps({"jsonrpc": "2.0", "id": 9, "method": "ping"}).encode())).error["data"] == {
        "cause": "reset",
        "by": "ada",
    }
    assert (await client.delete()).status == 204, "it closes its session, which is over"
    assert (await control(running, "again", "reset_session", method="POST")).json()["ended"] == 0
    successor = await greet(running, session_id="again", seed=1)
    assert (await control(running, "again", "status")).json()["step_count"] == 0
    await successor.delete()
    unnamed = await ask(running.url, "POST", "/control/reset_session", [bearer(ADA)], {})
    assert unnamed.status == 400


async def test_a_client_of_a_session_that_was_there_reads_what_has_been_earned_since_its_beginning(running):
    made = (await ask(running.url, "POST", "/sessions", [bearer(ADA)], {"env": "counting"})).json()
    path = f"/s/{made['id']}/mcp"
    player = await shake_hands(running.url, path, headers=[bearer(ADA)])
    await player.call("step")
    late = await shake_hands(running.url, path, headers=[bearer(ADA)])
    assert (await control(running, late.id, "reward")).json() == {"reward": 1.0, "step_count": 1}
    reset = await control(running, late.id, "reset_session", method="POST")
    assert reset.json()["ended"] == 1
    assert (await ask(running.url, "GET", f"/sessions/{made['id']}", [bearer(ADA)])).error["data"]["cause"] == "reset"
