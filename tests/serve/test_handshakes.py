"""A handshake is answered alike whether a process is ready for its session, and so goes the short way, or is not."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager

import pytest
import trio
from harness import Gate, muxsim_serve

from .conftest import environment
from .machine import eventually
from .wire import BOTH, Answer, ask, connect, initialize, live_sessions, rpc, shake_hands, tool_call

pytestmark = pytest.mark.children

START = 120.0
"""Seconds in which a process is ready, on a machine that is busy with other tests."""

SILENCE = 0.3

WAITING = "warm = 2"
JSON = [("Content-Type", "application/json")]


def also_waiting(name, *options):
    """The environment twice: as ``name`` without, and as ``name``-waiting with processes that wait."""
    return environment(name, *options) + environment(f"{name}-waiting", *options).replace("warm = 0", WAITING)


CONFIG = (
    f'[server]\nstream_silence = {SILENCE}\ndefault = "plain-waiting"\n'
    + also_waiting("plain", "--seed", "{seed}")
    + also_waiting("slow", "--until", "GATE")
    + also_waiting("leaving", "--exit", "7")
    + environment("mute", "--mute")
)
WAYS = pytest.mark.parametrize("way", ["", "-waiting"])


@pytest.fixture(scope="module")
def door(tmp_path_factory):
    """Where handshakes of the environment `slow` wait."""
    found = Gate(tmp_path_factory.mktemp("door") / "gate")
    yield found
    found.close()


@pytest.fixture(scope="module")
def running(tmp_path_factory, door):
    folder = tmp_path_factory.mktemp("handshakes")
    # A cache of its own: whether processes wait does not depend on what ran here before.
    with muxsim_serve(
        folder, CONFIG.replace("GATE", door.path), env={"MUXSIM_CACHE": str(folder / "cache")}
    ) as running:
        yield running


@pytest.fixture
async def muxsim(running):
    """Afterwards it has no session left."""
    yield running
    for session in await live_sessions(running):
        await ask(running.url, "DELETE", f"/sessions/{session['id']}")
    await eventually(lambda: no_session(running))


async def no_session(running):
    return not (await ask(running.url, "GET", "/sessions")).json()["sessions"]


async def health(running, *headers):
    return (await ask(running.url, "GET", "/health", headers)).json()


@asynccontextmanager
async def ready(running, env):
    """A process waits where one is to, and is used in this block."""

    async def slots():
        return (await health(running))["warm"].get(env)

    async def is_ready():
        return (await slots())["ready"]

    if env.endswith("-waiting"):
        await eventually(is_ready, START)
        before = (await slots())["hits"]
        yield
        assert (await slots())["hits"] == before + 1
    else:
        assert await slots() is None
        yield


async def ask_to_begin(running, path, *headers, id=7):
    return await ask(running.url, "POST", path, headers or [("Accept", BOTH)], initialize(id))


@WAYS
@pytest.mark.parametrize("path", ["/mcp?env={env}&seed=5", "/envs/{env}/mcp?seed=5"])
async def test_a_handshake_makes_a_session_of_its_seed_and_one_client_of_it(muxsim, way, path):
    env = f"plain{way}"
    async with ready(muxsim, env):
        client = await shake_hands(muxsim.url, path.format(env=env))
    assert (await client.value("who"))["argv"] == ["--seed", "5"]
    (session,) = await live_sessions(muxsim)
    assert (session["id"], session["seed"], session["attachments"]) == (client.id, 5, 1)
    client.path = f"/s/{client.id}/mcp"
    assert await client.text("say", text="here") == "here"
    assert (await client.delete()).status == 204
    assert (await client.post(tool_call(9, "who"))).status == 404


async def test_both_ways_answer_the_same(muxsim):
    answers = []
    for env in ("plain", "plain-waiting"):
        async with ready(muxsim, env):
            answers.append(await ask_to_begin(muxsim, f"/mcp?env={env}&seed=5"))
    plain, waiting = answers
    assert plain.status == waiting.status == 200
    assert plain.json() == waiting.json()
    assert plain.headers.pop("mcp-session-id") != waiting.headers.pop("mcp-session-id")
    assert plain.headers == waiting.headers


async def test_the_environment_of_a_client_that_names_none_is_the_default(muxsim):
    async with ready(muxsim, "plain-waiting"):
        client = await shake_hands(muxsim.url, "/mcp")
    assert (await client.session())["env"] == "plain-waiting"


@WAYS
@pytest.mark.parametrize("accept", [BOTH, "application/json"])
async def test_an_answer_that_takes_long_comes_in_the_form_that_the_client_takes(muxsim, door, way, accept):
    async with ready(muxsim, f"slow{way}"), connect(muxsim.url) as connection:
        headers = [("Accept", accept), *JSON]
        await connection.send("POST", f"/mcp?env=slow{way}", headers, json.dumps(initialize(7)).encode())
        streams = accept == BOTH
        if not streams:
            await eventually(lambda: has_lived(muxsim, 2 * SILENCE))
            door.open()
        head = await connection.head()  # where it streams, a silence has made it begin
        if streams:
            door.open()
        answer = Answer(*head, await connection.read_body())
        door.shut()
    assert answer.headers["content-type"] == ("text/event-stream; charset=utf-8" if streams else "application/json")
    assert answer.messages[-1]["id"] == 7
    assert "serverInfo" in answer.messages[-1]["result"]
    assert (await ask(muxsim.url, "GET", f"/sessions/{answer.headers['mcp-session-id']}")).status == 200


@WAYS
@pytest.mark.parametrize(("accept", "age"), [(BOTH, 0), ("application/json", 2 * SILENCE)])
async def test_a_session_whose_client_goes_before_it_knows_its_id_ends(muxsim, way, accept, age):
    async with ready(muxsim, f"slow{way}"), connect(muxsim.url) as connection:
        headers = [("Accept", accept), *JSON]
        await connection.send("POST", f"/mcp?env=slow{way}", headers, json.dumps(initialize(7)).encode())
        await eventually(lambda: has_lived(muxsim, age))
        connection.drop()
    await eventually(lambda: no_session(muxsim))


async def has_lived(running, age):
    return [session for session in await live_sessions(running) if session["age"] >= age]


@WAYS
async def test_a_backend_that_ends_at_once_is_the_answer(muxsim, way):
    answer = await ask_to_begin(muxsim, f"/mcp?env=leaving{way}")
    assert answer.status == 200
    assert "7" in answer.error["message"]
    await eventually(lambda: no_session(muxsim))


@WAYS
@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/mcp?env=plain{way}&seed=-1", 400),
        ("/mcp?env=plain{way}&seed=x", 400),
        ("/mcp?env=plian", 404),
        ("/envs/plian/mcp", 404),
    ],
)
async def test_a_session_that_there_cannot_be_is_refused(muxsim, way, path, status):
    answer = await ask_to_begin(muxsim, path.format(way=way))
    assert (answer.status, answer.json()["id"]) == (status, 7)


@WAYS
@pytest.mark.parametrize("message", [rpc(7, "tools/list"), {"jsonrpc": "2.0", "method": "initialize"}, [], "text"])
async def test_what_is_no_handshake_makes_no_session(muxsim, way, message):
    answer = await ask(muxsim.url, "POST", f"/mcp?env=plain{way}", [("Accept", BOTH)], message)
    assert answer.status == 400
    assert await no_session(muxsim)


@WAYS
async def test_a_client_that_wants_no_more_of_its_connection_gets_it_closed(muxsim, way):
    async with ready(muxsim, f"plain{way}"), connect(muxsim.url) as connection:
        headers = [("Accept", BOTH), ("Connection", "close"), *JSON]
        answer = await connection.ask("POST", f"/mcp?env=plain{way}", headers, json.dumps(initialize(7)).encode())
        assert answer.json()["id"] == 7
        await connection.closed_by_server()


@pytest.mark.parametrize("accept", [BOTH, "application/json"])
@pytest.mark.parametrize("behind", [0, 1, 3, 30])
@pytest.mark.fault("L4")
async def test_a_handshake_whose_connection_is_lost_ends_its_session_whatever_came_behind_it(muxsim, behind, accept):
    """On that connection: requests that wait for it, and are the last that the server has seen."""
    async with connect(muxsim.url) as connection:
        headers = [("Accept", accept), *JSON]
        await connection.send("POST", "/mcp?env=mute", headers, json.dumps(initialize(7)).encode())
        await eventually(lambda: begun(muxsim), START)
        for _ in range(behind):
            await connection.send("GET", "/health")
        connection.drop()
        await eventually(lambda: no_session(muxsim), START)


async def begun(muxsim):
    return len(await live_sessions(muxsim)) == 1


@WAYS
async def test_a_client_beyond_its_share_is_refused_and_counted_once(tmp_path, way):
    config = "[server]\nmax_sessions_per_client = 1\n" + also_waiting("plain", "--seed", "{seed}")
    with muxsim_serve(tmp_path, config) as muxsim, trio.fail_after(START):
        env = f"plain{way}"
        async with ready(muxsim, env):
            await shake_hands(muxsim.url, f"/mcp?env={env}")
        if way:
            await eventually(lambda: waits(muxsim, env), START)
        answer = await ask_to_begin(muxsim, f"/mcp?env={env}")
        assert (answer.status, answer.json()["id"]) == (429, 7)
        assert int(answer.headers["retry-after"]) > 0
        limits = (await health(muxsim))["limits"]
        assert {name: count for name, count in limits.items() if count} == {"max_sessions_per_client": 1}
        assert len(await live_sessions(muxsim)) == 1


async def waits(muxsim, env, *headers):
    return (await health(muxsim, *headers))["warm"][env]["ready"]


# ---- who may make a session

ROOT, BOB = (("Authorization", f"Bearer {name * 10}") for name in ("root", "bobs"))


@WAYS
async def test_a_token_that_nobody_has_used_is_no_good_while_its_address_guesses(tmp_path, way):
    config = '[server]\nmax_failures = 5\n[server.auth]\ntokens_file = "tokens"\n'
    (tmp_path / "config").mkdir()
    tokens = tmp_path / "config" / "tokens"
    tokens.write_text(f"root admin {'root' * 10}\nbob trainer {'bobs' * 10}\n")
    tokens.chmod(0o600)
    with muxsim_serve(tmp_path, config + also_waiting("plain")) as muxsim, trio.fail_after(START):
        path = f"/mcp?env=plain{way}"
        assert (await ask_to_begin(muxsim, path, ("Accept", BOTH), ROOT)).status == 200
        await eventually(lambda: waits(muxsim, "plain-waiting", ROOT), START)
        for _ in range(6):
            guessed = await ask_to_begin(muxsim, path, ("Accept", BOTH), ("Authorization", f"Bearer {'x' * 40}"))
        assert guessed.status == 429
        assert (await ask_to_begin(muxsim, path, ("Accept", BOTH), BOB)).status == 429
        assert (await ask_to_begin(muxsim, path, ("Accept", BOTH), ROOT)).status == 200
