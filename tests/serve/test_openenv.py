"""The wire of OpenEnv as it is on the wire: who may have it, what is answered, and what it leaves behind."""

from __future__ import annotations

import json
import signal
from contextlib import closing

import pytest
import trio
from harness import SERVERS, Gate, muxsim_serve, serving

from .conftest import environment
from .machine import eventually, gone, log_lines
from .web_socket import Closed, Refused, web_socket
from .wire import ask, connect

pytestmark = pytest.mark.children

LIMIT = 120
ADA, HELPER, BOB, ROOT = (letter * 40 for letter in "ahbr")
TOKENS = f"ada trainer {ADA}\nada agent {HELPER}\nbob trainer {BOB}\nroot admin {ROOT}\n"
SCORED = f'[environments.scored]\ncommand = "python3"\nargs = ["-I", "-S", "{SERVERS / "scored.py"}"]\nwarm = 0\n'
CONFIG = "\n".join(
    [
        '[server]\nmax_body = "1 MiB"\nping_interval = 0.2\nstall_timeout = 1\nmax_sessions = 4\nmax_pending = 0\n'
        'access_log = true\nmax_failures = 100000\nmax_failed_starts = 0\n[server.auth]\ntokens_file = "tokens"\n',
        environment("naughty", "--seed", "{seed}"),
        environment("common", extra="shared = true"),
        environment("mute", "--mute", extra="start_timeout = 0.5\neof_timeout = 0.1\nterm_timeout = 0.1"),
        SCORED,
        f'[environments.painter]\ncommand = "python3"\nargs = ["-I", "-S", "{SERVERS / "painter.py"}"]\nwarm = 0\n',
    ]
)


def bearer(token):
    return ("Authorization", f"Bearer {token}")


def base(env):
    return f"/envs/{env}/openenv"


def call(name, **arguments):
    return {"type": "call_tool", "tool_name": name, "arguments": arguments}


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    folder = tmp_path_factory.mktemp("openenv")
    (folder / "config").mkdir()
    (folder / "config" / "tokens").write_text(TOKENS)
    (folder / "config" / "tokens").chmod(0o600)
    with muxsim_serve(folder, CONFIG) as running:
        yield running


@pytest.fixture
async def muxsim(served):
    """A muxsim with tokens, which has no session when the test is over: sockets end their own."""
    yield served
    await eventually(lambda: no_sessions(served))


async def sessions(muxsim):
    return (await ask(muxsim.url, "GET", "/sessions", [bearer(ROOT)])).json()["sessions"]


async def no_sessions(muxsim):
    return not await sessions(muxsim)


def socket(muxsim, env="naughty", query="", token=ADA, headers=(), **options):
    return web_socket(muxsim.url, f"{base(env)}/ws{query}", [bearer(token), *headers], **options)


async def post(muxsim, method, env="naughty", token=ADA, **params):
    body = {"jsonrpc": "2.0", "id": 7, "method": method, "params": params}
    answer = await ask(muxsim.url, "POST", f"{base(env)}/mcp", [bearer(token)], body)
    assert answer.status == 200, answer
    return answer.json()


# ---- who may have it


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        (base("naughty") + "/ws", [], 401),
        (base("naughty") + "/ws", [bearer("x" * 40)], 401),
        (base("naughty") + "/ws", [bearer(ADA), ("Origin", "https://evil.example")], 403),
        (base("naughty") + "/ws", [bearer(ADA), ("Host", "evil.example")], 421),
        (base("naughty") + "/ws", [bearer(ADA), ("Sec-WebSocket-Version", "8")], 400),
        (base("nobody") + "/ws", [bearer(ADA)], 404),
        (base("naughty") + "/elsewhere", [bearer(ADA)], 404),
    ],
)
async def test_a_socket_is_refused_by_an_http_status_before_it_is_one(muxsim, path, headers, status):
    with pytest.raises(Refused) as refused:
        async with web_socket(muxsim.url, path, headers):
            pass
    assert refused.value.status == status
    assert refused.value.error["message"]


async def test_what_asks_for_no_socket_is_told_what_this_url_is(muxsim):
    answer = await ask(muxsim.url, "GET", base("naughty") + "/ws", [bearer(ADA)])
    assert (answer.status, answer.headers["upgrade"]) == (426, "websocket")


async def test_without_websockets_the_upgrade_is_refused_with_what_to_install(tmp_path):
    stub = tmp_path / "websockets"
    stub.mkdir()
    (stub / "__init__.py").write_text("raise ImportError('not here')")
    async with serving(tmp_path, environment("naughty"), env={"PYTHONPATH": str(tmp_path)}) as running:
        with pytest.raises(Refused) as refused:
            async with web_socket(running.url, base("naughty") + "/ws"):
                pass
        assert refused.value.status == 501
        assert "mcp-muxsim[openenv]" in refused.value.error["message"]
        assert (await ask(running.url, "GET", base("naughty") + "/health")).json() == {"status": "healthy"}


async def test_what_came_behind_the_request_for_a_socket_is_no_part_of_one(muxsim):
    async with connect(muxsim.url) as connection:
        head = (
            f"GET {base('naughty')}/ws HTTP/1.1\r\nHost: {connection.host}\r\nAuthorization: Bearer {ADA}\r\n"
            "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        )
        await connection.stream.send_all(head.encode() + b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await connection.head())[0] == 400


# ---- documents


async def test_what_clients_read_before_they_play_starts_nothing(muxsim):
    async def read(name):
        answer = await ask(muxsim.url, "GET", f"{base('scored')}/{name}", [bearer(HELPER)])
        assert answer.status == 200
        return answer.json()

    schema = await read("schema")
    assert schema["action"]["title"] == "CallToolAction"
    assert schema["action"]["required"] == ["tool_name"]
    assert schema.keys() >= {"observation", "state"}
    assert await read("health") == {"status": "healthy"}
    assert (await read("metadata")).keys() >= {"name", "description"}
    document = await read("openapi.json")
    assert document["info"]["version"]
    assert not document["paths"].keys() & {"/reset", "/step", "/state"}
    for path in ("reset", "step", "state"):
        assert (await ask(muxsim.url, "POST", f"{base('scored')}/{path}", [bearer(ADA)], {})).status == 501
    assert await sessions(muxsim) == []


# ---- a socket is a session


async def test_one_socket_is_one_session_with_its_owner_and_address(muxsim):
    async with socket(muxsim) as one:
        assert (await one.ask("state"))["data"]["step_count"] == 0
        assert await sessions(muxsim) == [], "no process before it is needed"
        first = await one.ask("reset", {"seed": 0, "episode_id": "mine", "split": "train"})
        assert first["type"] == "observation"
        assert (first["data"]["reward"], first["data"]["done"]) == (None, False)
        assert first["data"]["metadata"]["seed"] == 0
        assert (await one.ask("state"))["data"]["episode_id"] == "mine"
        [session] = await sessions(muxsim)
        assert (session["owner"], session["peer"], session["seed"]) == ("ada", "127.0.0.1", 0)
        said = await one.ask("step", call("who"))
        pid = json.loads(said["data"]["observation"]["result"]["data"])["pid"]
        second = await one.ask("reset", {})
        assert second["data"]["metadata"]["session"] != session["id"], "a reset is a new process"
        await gone(pid)
    await eventually(lambda: no_sessions(muxsim))
    attached = log_lines(muxsim, event="session.attached", session=session["id"])
    assert attached[0]["transport"] == "openenv"
    assert attached[0]["principal"] == "ada"
    await eventually(lambda: log_lines(muxsim, event="http.request", path=base("naughty") + "/ws", status=101))


async def test_a_step_has_its_reward_and_end_beside_the_observation(muxsim):
    async with socket(muxsim, "scored") as one:
        first = await one.ask("reset", {"seed": 5})
        assert not {"tools", "tool_name"} & first["data"]["observation"].keys()
        tools = (await one.ask("step", {"type": "list_tools"}))["data"]["observation"]["tools"]
        assert [tool["name"] for tool in tools] == ["env_step"], "step is a name that harnesses keep for themselves"
        assert tools[0].keys() == {"name", "description", "input_schema"}
        for step in (1, 2):
            data = (await one.ask("step", {"tool_name": "env_step"}))["data"]
            assert (data["reward"], data["done"]) == (step, False)
            assert data["observation"] == {
                "tool_name": "env_step",
                "result": {
                    "content": [{"type": "text", "text": "stepped"}],
                    "structured_content": None,
                    "is_error": False,
                    "data": "stepped",
                },
                "error": None,
            }
            assert data["metadata"]["seed"] == 5
            assert data["metadata"]["total_reward"] == (1 if step == 1 else 3)
            assert data["metadata"]["end_reason"] is None
        refused = (await one.ask("step", call("step")))["data"]
        assert refused["observation"]["error"]["error_type"] == "tool_not_found"
        assert "env_step" in refused["observation"]["error"]["message"]
        assert refused["reward"] is None
        assert (await one.ask("state"))["data"]["step_count"] == 2


async def test_a_reward_that_is_not_known_is_no_nought_in_the_total(muxsim):
    """The total is the environment's own count from there on: that of the painter is always 0.5."""
    async with socket(muxsim, "painter") as one:
        await one.ask("reset", {"seed": 5})
        said = [(await one.ask("step", call("draw", way=way)))["data"] for way in ("same", "same", "unknown", "same")]
        assert [data["reward"] for data in said] == [0.5, 0.5, None, 0.5]
        assert [data["metadata"]["total_reward"] for data in said] == [0.5, 1.0, 0.5, 0.5]
        assert "problem" in said[2]["metadata"]


async def test_who_steps_without_a_reset_is_told_so_beside_the_observation(muxsim):
    async with socket(muxsim, "scored") as one:
        step = (await one.ask("step", call("env_step")))["data"]
        assert "no reset" in step["metadata"]["warning"]
        assert "warning" not in (await one.ask("reset"))["data"]["metadata"]


async def test_frames_that_are_wrong_are_answered_in_order_and_the_socket_goes_on(muxsim):
    async with socket(muxsim) as one:
        wrong = {
            b"{": "INVALID_JSON",
            b"[]": "VALIDATION_ERROR",
            b'{"type": "dance"}': "UNKNOWN_TYPE",
            b'{"type": "step"}': "VALIDATION_ERROR",
            b'{"type": "step", "data": {"tool": "say"}}': "VALIDATION_ERROR",
            b'{"type": "step", "data": {"tool_name": "say", "arguments": []}}': "VALIDATION_ERROR",
            b'{"type": "reset", "data": {"seed": -1}}': "VALIDATION_ERROR",
            b'{"type": "reset", "data": {"seed": 1.5}}': "VALIDATION_ERROR",
            b'{"type": "reset", "data": {"seed": "1"}}': "VALIDATION_ERROR",
        }
        for frame in wrong:  # all at once
            await one.send(frame)
        for code in wrong.values():
            answer = await one.receive()
            assert (answer["type"], answer["data"]["code"]) == ("error", code)
        assert (await one.ask("step", call("say", text="hello")))["data"]["observation"]["result"]["data"] == "hello"


async def test_a_backend_that_dies_is_an_error_and_no_end_of_the_episode_until_a_reset(muxsim):
    async with socket(muxsim) as one:
        await one.ask("reset", {"seed": 1})
        for _ in range(2):
            died = await one.ask("step", call("exit"))
            assert (died["type"], died["data"]["code"]) == ("error", "EXECUTION_ERROR")
        assert (await one.ask("reset", {"seed": 1}))["type"] == "observation"


async def test_a_start_that_fails_and_a_full_muxsim_have_codes_of_their_own(muxsim):
    async with socket(muxsim, "mute") as mute:
        failed = await mute.ask("reset")
        assert failed["data"]["code"] == "FACTORY_ERROR"
    await eventually(lambda: no_sessions(muxsim))
    async with socket(muxsim) as a, socket(muxsim) as b, socket(muxsim) as c, socket(muxsim) as d, socket(muxsim) as e:
        for one in (a, b, c, d):
            assert (await one.ask("reset"))["type"] == "observation"
        full = await e.ask("reset")
        assert full["data"]["code"] == "CAPACITY_REACHED"
        assert (full["data"]["active_sessions"], full["data"]["max_sessions"]) == (4, 4)
        refused = (await post(muxsim, "openenv/session/create"))["error"]
        assert (refused["code"], refused["data"]["max_sessions"]) == (-32000, 4)
        await d.goodbye()
        await eventually(lambda: reset_is_taken(e))


async def reset_is_taken(one):
    return (await one.ask("reset"))["type"] == "observation"


async def test_a_shared_environment_is_joined_and_left_as_it_is(muxsim):
    async with socket(muxsim, "common") as one, socket(muxsim, "common") as other:
        first, second = await one.ask("reset", {"seed": 3}), await other.ask("reset", {"seed": 4})
        assert "shared" in first["data"]["metadata"]["warning"]
        assert first["data"]["metadata"]["session"] == second["data"]["metadata"]["session"]
    [session] = await sessions(muxsim)
    await ask(muxsim.url, "DELETE", f"/sessions/{session['id']}", [bearer(ROOT)])


# ---- what a socket may do


async def test_pings_are_answered_while_a_call_runs(muxsim, gate):
    async with socket(muxsim) as one:
        await one.send({"type": "step", "data": call("slow", until=gate.path)})
        await one.ping(b"there?")
        while not one.pongs:
            await one.next_event_of_control()
        assert one.pongs == [b"there?"]
        gate.open()
        assert (await one.receive())["data"]["observation"]["result"]["data"] == "at last"


@pytest.mark.parametrize(
    ("kind", "payload", "code"), [("text", b"x" * 2**21, 1009), ("binary", b"x", 1003), ("text", b"\xff", 1007)]
)
async def test_what_is_no_text_of_reasonable_size_ends_the_socket_and_its_session(muxsim, kind, payload, code):
    async with socket(muxsim) as one:
        assert (await one.ask("reset"))["type"] == "observation"
        getattr(one.protocol, f"send_{kind}")(payload)
        await one.flush_or_fail()
        with pytest.raises(Closed) as closed:
            await one.receive()
        assert closed.value.code == code
        await eventually(lambda: no_sessions(muxsim))
        health = (await ask(muxsim.url, "GET", "/health", [bearer(ROOT)])).json()
        assert (health["limits"].get("max_body", 0) > 0) or code != 1009


async def test_a_text_may_come_in_pieces(muxsim):
    async with socket(muxsim) as one:
        one.protocol.send_text(b'{"type": ', fin=False)
        one.protocol.send_ping(b"between")
        one.protocol.send_continuation(b'"state"}', fin=True)
        await one.flush()
        assert (await one.receive())["type"] == "state"


async def test_who_does_not_read_is_cut_and_the_session_ends(muxsim):
    async with socket(muxsim, receive_buffer=4096) as one:
        await one.ask("reset")
        await one.send({"type": "step", "data": call("big", mib=8)})
        await eventually(lambda: no_sessions(muxsim))
    assert log_lines(muxsim, event="session.ended", cause="client_gone")


async def test_a_client_that_is_lost_in_the_middle_of_a_call_leaves_no_process(muxsim, gate):
    async with socket(muxsim) as one:
        said = await one.ask("step", call("who"))
        pid = json.loads(said["data"]["observation"]["result"]["data"])["pid"]
        await one.send({"type": "step", "data": call("slow", until=gate.path)})
        await eventually(lambda: busy(muxsim))
        one.connection.drop()
        await gone(pid)


async def busy(muxsim):
    return any(session["in_flight"] for session in await sessions(muxsim))


async def test_a_muxsim_that_is_stopped_closes_its_sockets_and_leaves_nothing(tmp_path):
    async with (
        serving(tmp_path, environment("naughty")) as running,
        web_socket(running.url, base("naughty") + "/ws") as one,
    ):
        said = await one.ask("step", call("who"))
        pid = json.loads(said["data"]["observation"]["result"]["data"])["pid"]
        assert await trio.to_thread.run_sync(running.stop, signal.SIGTERM) == 0
        with pytest.raises(Closed) as closed:
            await one.receive()
        assert closed.value.code == 1001
        await gone(pid)


async def test_a_token_that_is_taken_away_ends_the_sockets_that_were_opened_with_it(served, muxsim):
    tokens = served.log.parent / "config" / "tokens"
    async with socket(muxsim) as mine, socket(muxsim, token=BOB) as bobs:
        said = await bobs.ask("step", call("who"))
        pid = json.loads(said["data"]["observation"]["result"]["data"])["pid"]
        assert (await mine.ask("reset"))["type"] == "observation"
        tokens.write_text(TOKENS.replace(BOB, "z" * 40))
        try:
            served.process.send_signal(signal.SIGHUP)
            with pytest.raises(Closed) as closed:
                await bobs.receive()
            assert closed.value.code == 1008
            await gone(pid)
            assert (await mine.ask("step", call("say", text="on")))["type"] == "observation"
        finally:
            tokens.write_text(TOKENS)
            served.process.send_signal(signal.SIGHUP)
    await eventually(lambda: len(log_lines(muxsim, event="muxsim.reloaded")) >= 2)


# ---- agents


async def test_an_agents_token_may_only_call_tools(muxsim):
    async with socket(muxsim, "scored", token=HELPER) as one:
        for frame in ("reset", "state"):
            assert (await one.ask(frame))["data"]["code"] == "EXECUTION_ERROR"
        asked = {"jsonrpc": "2.0", "id": "a", "method": "tools/call", "params": {"name": "env_step"}}
        answer = (await one.ask("mcp", asked))["data"]
        assert answer["id"] == "a"
        assert answer["result"]["data"] == "stepped"
        assert answer["result"].keys() == {"content", "structured_content", "is_error", "data"}


async def test_a_session_made_by_its_id_is_played_by_a_trainer_and_an_agent_and_outlives_the_socket(muxsim):
    made = (await post(muxsim, "openenv/session/create", "scored"))["result"]["session_id"]
    assert await sessions(muxsim) == []
    played = await post(muxsim, "tools/call", "scored", HELPER, name="env_step", session_id=made)
    assert played["result"]["data"] == "stepped"
    async with socket(muxsim, "scored", f"?session_id={made}") as one:
        data = (await one.ask("step", call("env_step")))["data"]
        assert data["reward"] == 2, "what the agent's call has earned is not this one's"
        async with socket(muxsim, "scored", f"?session_id={made}") as second:
            assert (await second.receive())["data"]["code"] == "SESSION_ERROR"
            with pytest.raises(Closed):
                await second.receive()
        await one.goodbye()
    assert len(await sessions(muxsim)) == 1
    stolen = await post(muxsim, "tools/call", "scored", BOB, name="env_step", session_id=made)
    assert stolen["error"]["code"] == -32602
    assert "error" in await post(muxsim, "openenv/session/close", "scored", HELPER, session_id=made)
    assert (await post(muxsim, "openenv/session/close", "scored", session_id=made))["result"]["closed"] is True
    assert (await post(muxsim, "openenv/session/close", "scored", session_id=made))["error"]["code"] == -32602


async def test_a_session_that_is_closed_under_its_socket_ends_with_it(muxsim):
    made = (await post(muxsim, "openenv/session/create"))["result"]["session_id"]
    async with socket(muxsim, query=f"?session_id={made}") as one:
        await one.ask("reset")
        closing = (await post(muxsim, "openenv/session/close", session_id=made))["result"]
        assert (closing["closed"], closing["closing"]) == (False, True)
        assert (await one.ask("state"))["type"] == "state"
        await one.goodbye()


async def test_json_rpc_is_answered_with_200_and_its_own_errors(muxsim):
    async def code(body):
        answer = await ask(muxsim.url, "POST", base("naughty") + "/mcp", [bearer(ADA), *JSON], body)
        assert answer.status == 200
        return answer.json()["error"]["code"]

    assert await code(b"{") == -32700
    assert await code(b"[]") == -32600
    assert (await post(muxsim, "initialize"))["error"]["code"] == -32601
    assert (await post(muxsim, "resources/read", uri="control://reward"))["error"]["code"] == -32601
    assert (await post(muxsim, "tools/call", name="nothing"))["error"]["code"] == -32602
    assert (await post(muxsim, "tools/call", name="own_error", arguments={"code": 5}))["error"]["code"] == -32603
    assert (await post(muxsim, "tools/call", session_id="x", name="say"))["error"]["code"] == -32602
    alone = await post(muxsim, "tools/call", name="say", arguments={"text": "alone"})
    assert alone["result"]["data"] == "alone"


JSON = [("Content-Type", "application/json")]


async def test_the_tools_are_known_from_the_last_session_and_need_no_other(muxsim):
    async with socket(muxsim, "scored") as one:
        await one.ask("reset")
    await eventually(lambda: no_sessions(muxsim))
    async with socket(muxsim, "scored") as one:
        listed = await one.ask("step", {"type": "list_tools"})
        assert listed["data"]["observation"]["tools"][0]["name"] == "env_step"
        assert (await post(muxsim, "tools/list", "scored"))["result"]["tools"][0]["inputSchema"] == {"type": "object"}
        assert await sessions(muxsim) == []


async def test_a_gate_that_nobody_opens_holds_up_no_other_socket(muxsim, tmp_path):
    with closing(Gate(tmp_path / "shut")) as shut:
        async with socket(muxsim) as waiting, socket(muxsim) as one:
            await waiting.send({"type": "step", "data": call("slow", until=shut.path)})
            said = await one.ask("step", call("say", text="meanwhile"))
            assert said["data"]["observation"]["result"]["data"] == "meanwhile"


def in_halves(socket, size):
    """The frame of a text that is no JSON, of this size, in two halves."""
    socket.protocol.send_text(b"x" * size)
    data = b"".join(socket.protocol.data_to_send())
    return data[: len(data) // 2], data[len(data) // 2 :]


async def test_a_text_that_does_not_become_complete_ends_its_socket(tmp_path):
    config = "[server]\nbody_timeout = 0.2\n" + environment("naughty")
    async with serving(tmp_path, config) as running, web_socket(running.url, base("naughty") + "/ws") as one:
        await one.connection.stream.send_all(in_halves(one, 1000)[0])
        with pytest.raises(Closed) as closed, trio.fail_after(LIMIT):
            await one.receive()
        assert closed.value.code == 1008
        await eventually(lambda: limit_met(running, "body_timeout"))


async def limit_met(muxsim, setting):
    return (await ask(muxsim.url, "GET", "/health")).json()["limits"].get(setting, 0) > 0


async def test_past_a_bound_the_halves_of_texts_that_one_client_has_sent_wait_for_the_oldest(tmp_path):
    config = '[server]\nbody_timeout = 600\nmax_unfinished = "64 KiB"\n' + environment("naughty")
    async with (
        serving(tmp_path, config) as running,
        web_socket(running.url, base("naughty") + "/ws") as first,
        web_socket(running.url, base("naughty") + "/ws") as second,
    ):
        begun, rest = in_halves(first, 2**17)
        await first.connection.stream.send_all(begun)
        half, other_half = in_halves(second, 2**17)
        await second.connection.stream.send_all(half)
        await eventually(lambda: limit_met(running, "max_unfinished"))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(second.connection.stream.send_all, other_half)
            await first.connection.stream.send_all(rest)
            with trio.fail_after(LIMIT):
                assert [(await one.receive())["type"] for one in (first, second)] == ["error", "error"]
