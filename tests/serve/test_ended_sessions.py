"""What becomes known of a session that has ended: its cause, for some minutes, to those who could see it."""

from __future__ import annotations

import os
import signal

import pytest
from harness import muxsim_serve

from .conftest import environment, write_tokens
from .machine import log_lines, logged
from .test_auth import ADA, BOB, HELPER, ROOT, bearer, requests_for, seen
from .wire import BOTH, Client, ask, initialize, open_session, rpc, shake_hands, sse_client, tool_call

pytestmark = pytest.mark.children

MCP = [("Content-Type", "application/json"), ("Accept", BOTH)]
IDLE = "nothing happened for 2 s (idle_timeout)"
CONFIG = "\n".join(
    [
        '[server]\nlog_level = "debug"\ndefault = "naughty"\nmax_failures = 100000\n'
        '[server.auth]\ntokens_file = "tokens"\n',
        environment("naughty", extra="max_failed_starts = 0"),
        environment("idle", extra="idle_timeout = 2"),
        environment("common", extra="shared = true"),
    ]
)


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ended")
    write_tokens(folder, f"ada trainer {ADA}\nada agent {HELPER}\nbob trainer {BOB}\nroot admin {ROOT}\n")
    with muxsim_serve(folder, CONFIG) as running:
        yield running


async def delete_by_root(running, client):
    assert (await ask(running.url, "DELETE", f"/sessions/{client.id}", [bearer(ROOT)])).status == 204


async def leave(running, client):
    assert (await client.delete()).status == 204


async def exit_by_itself(running, client):
    await client.post(tool_call(1, "exit"))


async def kill_the_guardian(running, client):
    os.kill(log_lines(running, event="process.guardian_started")[-1]["pid"], signal.SIGKILL)


async def nothing(running, client):
    """Its time runs out."""


# Who ends it, with what data and words for those who could see it, and with what words for an agent.
ENDS = [
    (delete_by_root, {"cause": "deleted", "by": "root"}, "the session was deleted by root", "the session was deleted"),
    (leave, {"cause": "client_gone"}, "the client has gone", "the client has gone"),
    (exit_by_itself, {"cause": "backend_exited"}, "the backend exited with status 3", "the backend has ended"),
    (kill_the_guardian, {"cause": "guardian_died"}, "the backend was killed, since muxsim's", "the backend has ended"),
    (nothing, {"cause": "idle_timeout"}, IDLE, IDLE),
]


@pytest.mark.fault("L14", "L16")
@pytest.mark.parametrize(("end", "data", "text", "bare"), ENDS, ids=[end.__name__ for end, *_ in ENDS])
async def test_every_end_is_told_wherever_its_client_comes_and_to_nobody_else(running, end, data, text, bare):
    """L14, L16: bob gets what he gets of a session that never was, to the byte."""
    url = running.url
    client = await shake_hands(url, "/mcp?env=idle" if end is nothing else "/mcp", headers=[bearer(ADA)])
    async with sse_client(url, f"/s/{client.id}/sse", headers=[bearer(ADA)]) as (_, _, events):
        stream = events.endpoint.rpartition("=")[2]
        joined = await shake_hands(url, f"/s/{client.id}/mcp", headers=[bearer(ADA)])
    await end(running, client)
    await logged(running, event="session.ended", session=client.id, **data)
    for caller in (ADA, ROOT):
        told = await answers_to(url, caller, own_requests(client.id, client.id, joined.id, stream))
        for path, answer in told.items():
            error = answer.error
            assert (answer.status, error["data"]["cause"]) == (404, data["cause"]), path
            assert error["message"].startswith(bare if "/agent/" in path else text), path
            assert ("by" in error["data"] or "stderr" in error["data"]) <= ("/agent/" not in path), path
    agents = await answers_to(url, HELPER, [("POST", f"/s/{client.id}/mcp", MCP, initialize())])
    assert [answer.error["message"] for answer in agents.values()] == [bare]
    for own in (client.id, joined.id, stream):
        assert await seen(url, BOB, client.id, own) == await seen(url, BOB, "f" * 32, "e" * 32)


def own_requests(id, made, joined, stream):
    """Every request of a client of a session: by the session's id, by its own, and by that of its event stream."""
    requests = [
        one
        for own in (made, joined)
        for one in requests_for(id, own)
        if "messages" not in one[1] and not (own == joined and one[1] == "/mcp")
    ]
    posts = [f"/messages?sessionId={stream}", f"/s/{id}/messages?sessionId={stream}"]
    return [*requests, *(("POST", path, MCP, tool_call(1, "say")) for path in posts)]


async def answers_to(url, token, requests):
    answers = {}
    for method, path, headers, body in requests:
        answers[f"{len(answers)} {path}"] = await ask(url, method, path, [*headers, bearer(token)], body)
    return answers


async def test_a_shared_session_that_has_ended_tells_its_clients_and_its_successor_serves_them(running):
    client = await shake_hands(running.url, "/envs/common/mcp", headers=[bearer(ADA)])
    sessions = (await ask(running.url, "GET", "/sessions", [bearer(ADA)])).json()["sessions"]
    (id,) = [session["id"] for session in sessions if session["env"] == "common"]
    await ask(running.url, "DELETE", f"/sessions/{id}", [bearer(ROOT)])
    assert (await client.post(rpc(1, "ping"))).error["data"]["by"] == "root"
    stranger = Client(running.url, client.path, client.id, extra=(bearer(BOB),))
    assert "data" not in (await stranger.post(rpc(1, "ping"))).error
    again = await shake_hands(running.url, "/envs/common/mcp", headers=[bearer(ADA)])
    assert await again.text("say", text="hello") == "hello"


async def test_an_id_that_is_used_again_is_the_new_sessions(running):
    mine = [bearer(ADA)]
    await open_session(running.url, mine, id="again")
    assert (await ask(running.url, "DELETE", "/sessions/again", mine)).status == 204
    assert (await ask(running.url, "GET", "/sessions/again", mine)).error["data"] == {"cause": "deleted", "by": "ada"}
    await open_session(running.url, mine, id="again")
    assert (await ask(running.url, "GET", "/sessions/again", mine)).status == 200


async def delete(running, client):
    assert (await ask(running.url, "DELETE", f"/sessions/{client.id}")).status == 204


async def reset(running, client):
    path = "/control/reset_session"
    assert (await ask(running.url, "POST", path, [("Mcp-Session-Id", client.id)])).status == 200


@pytest.mark.parametrize(("end", "cause"), [(delete, "deleted"), (reset, "reset")])
async def test_where_nobody_has_a_name_the_address_is_who_did_it(tmp_path, end, cause):
    with muxsim_serve(tmp_path, environment("naughty")) as running:
        client = await shake_hands(running.url, "/mcp")
        await end(running, client)
        line = await logged(running, event="session.ended", session=client.id)
        (row,) = (await ask(running.url, "GET", "/sessions?state=ended")).json()["sessions"]
        error = (await ask(running.url, "GET", f"/sessions/{client.id}")).error
    assert (line["cause"], line["by"]) == (cause, "127.0.0.1")
    assert row["why"].endswith(" by 127.0.0.1")
    assert error["message"].endswith(" by 127.0.0.1")
    assert error["data"] == {"cause": cause, "by": "127.0.0.1"}
