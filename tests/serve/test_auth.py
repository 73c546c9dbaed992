"""Who may call what, with several principals on one muxsim. Rows are those of the table of faults."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
import trio
from harness import SERVERS, muxsim_serve, serving

from .conftest import environment, write_tokens
from .machine import descendants, log_lines, logged
from .test_http_rules import OURS, ROUTES, STRANGERS
from .wire import (
    BOTH,
    Client,
    ask,
    connect,
    initialize,
    modern_call,
    modern_headers,
    open_session,
    rpc,
    shake_hands,
    sse_client,
    text_of,
    tool_call,
)

pytestmark = pytest.mark.children

JSON = ("Content-Type", "application/json")
ADA, HELPER, BOB, ROOT = (letter * 40 for letter in "ahbr")
VARIABLE = "MUXSIM_TEST_TOKENS"
SCORED = str(SERVERS / "scored.py")

CONFIG = "\n".join(
    [
        '[server]\nlog_level = "debug"\nallowed_origins = ["https://app.example"]\ndefault = "naughty"\n'
        f'max_failures = 100000\n[server.auth]\ntokens_file = "tokens"\ntokens_env = "{VARIABLE}"\n',
        environment("naughty", "--seed", "{seed}"),
        environment("common", extra="shared = true"),
        f'[environments.scored]\ncommand = "python3"\nargs = ["-I", "-S", "{SCORED}"]\n',
        f'[environments.telling]\ncommand = "python3"\nargs = ["-I", "-S", "{SCORED}"]\ncontrol = true\n',
    ]
)


def bearer(token):
    return ("Authorization", f"Bearer {token}")


def with_tokens(folder):
    """The folder, with ada's two tokens and bob's in a file of the config's."""
    write_tokens(folder, f"# the lab\nada trainer {ADA}\nada agent {HELPER}\nbob trainer {BOB}\n")
    return folder


ENVIRON = {VARIABLE: f"root admin {ROOT}"}


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    with muxsim_serve(with_tokens(tmp_path_factory.mktemp("guarded")), CONFIG, env=ENVIRON) as running:
        yield running


@pytest.fixture
async def url(guarded):
    """Of a muxsim with tokens; afterwards it has no session left."""
    yield guarded.url
    with trio.fail_after(60):
        listed = await ask(guarded.url, "GET", "/sessions", [bearer(ROOT)])
        for session in listed.json()["sessions"]:
            await ask(guarded.url, "DELETE", f"/sessions/{session['id']}", [bearer(ROOT)])


# ---- without a token


OPEN = {"/health", "/ready"}


@pytest.mark.fault("L21")
@pytest.mark.parametrize(
    "value", [None, "Bearer nobodys", f"Bearer {ADA}x", f"Basic {ADA}", "Bearer", "Bearer \xff", f"Bearer {ADA} {BOB}"]
)
async def test_who_has_no_token_or_a_wrong_one_gets_401_on_every_route_and_starts_nothing(url, guarded, value):
    """L21."""
    openings = len(log_lines(guarded, event="session.opening"))
    headers = [] if value is None else [("Authorization", value)]
    for method, path in ROUTES:
        body = json.dumps(initialize()).encode() if method == "POST" else b""
        answer = await ask(url, method, path, [JSON, ("Accept", "*/*"), *headers], body)
        expected = 200 if path in OPEN else 404 if path.startswith("/ui/") else 401
        assert answer.status == expected, (method, path)
        if expected == 401:
            assert answer.headers["www-authenticate"].startswith('Bearer realm="muxsim"')
            assert ADA not in answer.body.decode() + answer.headers["www-authenticate"]
    assert len(log_lines(guarded, event="session.opening")) == openings


async def test_health_and_readiness_are_for_everybody_and_what_is_inside_for_the_admin(url):
    assert (await ask(url, "GET", "/health")).json() == {"status": "ok"}
    assert (await ask(url, "GET", "/health", [bearer(BOB)])).json() == {"status": "ok"}
    assert (await ask(url, "GET", "/health", [bearer("wrong" * 8)])).json() == {"status": "ok"}
    assert "sessions" in (await ask(url, "GET", "/health", [bearer(ROOT)])).json()
    assert (await ask(url, "GET", "/ready")).json()["ready"] is True


@pytest.mark.parametrize("query", [f"access_token={ADA}", f"token={ADA}", f"Authorization=Bearer%20{ADA}"])
async def test_a_token_in_a_url_is_none(url, query):
    """L21: URLs stand in logs and histories."""
    assert (await ask(url, "GET", f"/sessions?{query}")).status == 401


@pytest.mark.fault("L19", "L20")
@pytest.mark.parametrize(("strange", "status"), STRANGERS)
async def test_host_and_origin_are_looked_at_before_the_token(url, strange, status):
    """L19, L20: with a token and without."""
    for token in ([], [bearer(ADA)]):
        for method, path in ROUTES:
            body = json.dumps(initialize()).encode() if method == "POST" else b""
            answer = await ask(url, method, path, [JSON, ("Accept", "*/*"), *token, *strange], body)
            assert answer.status == status, (method, path)


async def test_a_page_may_ask_without_a_token_whether_it_may_call(url):
    wanted = [
        ("Origin", OURS),
        ("Access-Control-Request-Method", "POST"),
        ("Access-Control-Request-Headers", "authorization, content-type"),
    ]
    for _, path in ROUTES:
        answer = await ask(url, "OPTIONS", path, wanted)
        assert answer.status == 200, path
        assert "authorization" in answer.headers["access-control-allow-headers"].lower()
        assert (await ask(url, "OPTIONS", path, [("Origin", "https://evil.example"), *wanted[1:]])).status == 403
    assert (await ask(url, "OPTIONS", "/mcp")).status == 401


async def test_a_page_can_read_why_it_was_refused_and_call_with_a_token(url):
    answer = await ask(url, "GET", "/sessions", [("Origin", OURS)])
    assert answer.status == 401
    assert answer.headers["access-control-allow-origin"] == OURS
    assert "www-authenticate" in answer.headers["access-control-expose-headers"].lower()
    assert (await ask(url, "GET", "/sessions", [("Origin", OURS), bearer(ADA)])).status == 200


# ---- somebody else's session


def requests_for(id, client_id):
    """Every request that has to do with a session: method, path, headers, body."""
    call = json.dumps(tool_call(1, "say", {"text": "mine now"})).encode()
    modern = modern_call(1, "say")
    mcp = [JSON, ("Accept", BOTH)]
    client = [*mcp, ("Mcp-Session-Id", client_id)]
    resumed = [("Accept", "text/event-stream"), ("Mcp-Session-Id", client_id), ("Last-Event-ID", "1-0")]
    first = json.dumps(initialize()).encode()
    return [
        ("GET", f"/sessions/{id}", [], b""),
        ("DELETE", f"/sessions/{id}", [], b""),
        ("GET", f"/sessions/{id}/control", [], b""),
        *(("POST", path, mcp, first) for path in (f"/s/{id}/mcp", f"/s/{id}/agent/mcp")),
        *(("POST", path, client, call) for path in (f"/s/{id}/mcp", f"/s/{id}/agent/mcp", "/mcp")),
        *(("GET", path, resumed, b"") for path in (f"/s/{id}/mcp", "/mcp")),
        *(("DELETE", path, client, b"") for path in (f"/s/{id}/mcp", "/mcp")),
        ("POST", f"/s/{id}/mcp", modern_headers(modern), json.dumps(modern).encode()),
        ("GET", f"/s/{id}/sse", [("Accept", "text/event-stream")], b""),
        ("POST", f"/s/{id}/messages?sessionId={client_id}", mcp, call),
        ("POST", f"/messages?sessionId={client_id}", mcp, call),
        ("GET", "/control/reward", [("Mcp-Session-Id", client_id)], b""),
    ]


async def seen(url, token, id, client_id):
    """What somebody gets to see of a session: all of every answer."""
    answers = []
    for method, path, headers, body in requests_for(id, client_id):
        answer = await ask(url, method, path, [*headers, bearer(token)], body)
        answers.append((answer.status, answer.headers, answer.body))
    return answers


@pytest.mark.fault("L16")
async def test_somebody_elses_session_is_not_there_in_the_same_words_as_one_that_never_was(url):
    """L16: made by a handshake, by request, or over SSE; by any of their ids."""
    client = await shake_hands(url, headers=[bearer(ADA)])
    made = await open_session(url, [bearer(ADA)])
    joined = await shake_hands(url, f"/s/{made['id']}/mcp", headers=[bearer(ADA)])
    never = await seen(url, BOB, "f" * 32, "e" * 32)
    assert {status for status, *_ in never} == {404}
    assert await seen(url, BOB, client.id, client.id) == never
    assert await seen(url, BOB, made["id"], joined.id) == never
    async with sse_client(url, headers=[bearer(ADA)]) as (_, post, events):
        listed = (await ask(url, "GET", "/sessions", [bearer(ADA)])).json()["sessions"]
        stream = events.endpoint.rpartition("=")[2]
        assert await seen(url, BOB, listed[-1]["id"], stream) == never
        await post(tool_call(7, "say", {"text": "still mine"}))
        assert text_of((await events.until(lambda message: message.get("id") == 7)).json()) == "still mine"
    assert await client.text("say", text="still mine") == "still mine"
    assert await joined.text("say", text="still mine") == "still mine"


@pytest.mark.fault("L16")
async def test_the_same_connection_does_not_carry_over_from_one_token_to_another(url):
    """L16, L21: a connection that has carried calls well is asked again when a header changes."""
    client = await shake_hands(url, headers=[bearer(ADA)])
    call = json.dumps(tool_call(1, "say", {"text": "x"})).encode()
    plain = [pair for pair in client.headers if pair[0] != "Authorization"]
    async with connect(url) as connection:
        for token, status in [(ADA, 200), (ADA, 200), (BOB, 404), (ADA, 200), (None, 401), ("x" * 40, 401), (ADA, 200)]:
            headers = plain if token is None else [*plain, bearer(token)]
            answer = await connection.ask("POST", client.path, headers, call)
            assert answer.status == status, token
            # As the short way writes it; the other one begins with the length.
            assert next(iter(answer.headers)) == ("content-type" if status == 200 else "content-length")


@pytest.mark.fault("L14", "L16")
async def test_how_a_session_has_failed_is_told_to_whose_it_was_and_to_nobody_else(url):
    """Who comes too late for an answer can still learn what became of the environment; no agent can."""
    client = await shake_hands(url, "/mcp?env=naughty", headers=[bearer(ADA)])
    await client.post(tool_call(1, "exit"))
    never = await ask(url, "GET", f"/sessions/{'0' * 32}", [bearer(BOB)])
    for token in (ADA, ROOT):
        answer = await ask(url, "GET", f"/sessions/{client.id}", [bearer(token)])
        assert (answer.status, answer.error["message"]) == (404, "the backend exited with status 3")
        assert answer.error["data"]["cause"] == "backend_exited"
        assert "I am leaving" in answer.error["data"]["stderr"]
    other = await ask(url, "GET", f"/sessions/{client.id}", [bearer(BOB)])
    assert (other.status, other.body) == (404, never.body)
    assert (await ask(url, "GET", f"/sessions/{client.id}", [bearer(HELPER)])).status == 403
    for path in (f"/s/{client.id}/mcp", f"/s/{client.id}/agent/mcp"):
        answer = await ask(url, "POST", path, [bearer(HELPER)], body=initialize())
        assert answer.status == 404
        assert b"leaving" not in answer.body


async def test_sessions_are_listed_to_their_owner_and_to_the_admin(url):
    one, other = await open_session(url, [bearer(ADA)]), await open_session(url, [bearer(BOB)])

    async def listed(token):
        return [session["id"] for session in (await ask(url, "GET", "/sessions", [bearer(token)])).json()["sessions"]]

    assert await listed(ADA) == [one["id"]]
    assert await listed(BOB) == [other["id"]]
    assert await listed(ROOT) == [one["id"], other["id"]]


async def test_the_admin_may_look_into_and_end_any_session(url):
    client = await shake_hands(url, headers=[bearer(ADA)])
    path = f"/sessions/{client.id}"
    assert (await ask(url, "GET", path, [bearer(ROOT)])).json()["env"] == "naughty"
    joined = await shake_hands(url, f"/s/{client.id}/mcp", headers=[bearer(ROOT)])
    assert await joined.text("say", text="hello") == "hello"
    assert (await ask(url, "DELETE", path, [bearer(ROOT)])).status == 204
    assert (await client.post(rpc(1, "ping"))).status == 404


async def test_a_shared_session_is_everybodys_and_only_the_admins_to_end(url):
    one = await shake_hands(url, "/envs/common/mcp", headers=[bearer(ADA)])
    other = await shake_hands(url, "/envs/common/mcp", headers=[bearer(BOB)])
    pids = {(await client.value("who"))["pid"] for client in (one, other)}
    assert len(pids) == 1
    (shared,) = (await ask(url, "GET", "/sessions", [bearer(BOB)])).json()["sessions"]
    for token in (ADA, BOB):
        refused = await ask(url, "DELETE", f"/sessions/{shared['id']}", [bearer(token)])
        assert refused.status == 403
        assert "admin" in refused.error["message"]
    stolen = Client(url, other.path, one.id, extra=(bearer(BOB),))
    assert (await stolen.post(tool_call(1, "say"))).status == 404
    assert (await ask(url, "DELETE", f"/sessions/{shared['id']}", [bearer(ROOT)])).status == 204


async def test_another_token_of_the_same_name_goes_on_with_a_session(url, guarded):
    made = await open_session(url, [bearer(ADA)])
    agent = await shake_hands(url, f"/s/{made['id']}/agent/mcp", headers=[bearer(HELPER)])
    assert await agent.text("say", text="hello") == "hello"
    (line,) = log_lines(guarded, event="session.opening", session=made["id"])
    assert line["principal"] == "ada"


# ---- what an agent's token is good for


@pytest.mark.parametrize(
    ("method", "path", "needed"),
    [
        ("GET", "/sessions", "trainer"),
        ("POST", "/sessions", "trainer"),
        ("GET", "/sessions/ID", "trainer"),
        ("DELETE", "/sessions/ID", "trainer"),
        ("GET", "/sessions/ID/control", "trainer"),
        ("POST", "/sessions/ID/fork", "trainer"),
        ("GET", "/control/reward", "trainer"),
        ("GET", "/control/status", "trainer"),
        ("POST", "/leases", "trainer"),
        ("GET", "/s/ID/control", "trainer"),
        ("GET", "/s/ID/control/reward", "trainer"),
        ("GET", "/envs/naughty/control/reward", "trainer"),
        ("POST", "/envs/naughty/control/reset_session", "trainer"),
        ("GET", "/envs/naughty", "trainer"),
        ("GET", "/metrics", "monitor"),
        ("GET", "/no/such/thing", "admin"),
    ],
)
async def test_an_agents_token_is_good_for_mcp_only(url, method, path, needed):
    made = await open_session(url, [bearer(ADA)])
    refused = await ask(url, method, path.replace("ID", made["id"]), [bearer(HELPER)], {} if method == "POST" else b"")
    assert refused.status == 403
    assert f'error="insufficient_scope", scope="{needed}"' in refused.headers["www-authenticate"]


WISH = {"muxsim/control": True}


async def control_seen(ask_for):
    """What one client of a session with a control plane gets to see of it."""
    called = await ask_for("tools/call", {"name": "step", "arguments": {}, "_meta": WISH})
    listed = await ask_for("resources/list", {})
    read = await ask_for("resources/read", {"uri": "control://reward"})
    shouted = await ask_for("resources/read", {"uri": " CONTROL://reward"})
    return {
        "called": "muxsim/control" in called["result"].get("_meta", {}),
        "listed": any(one["uri"].startswith("control://") for one in listed["result"]["resources"]),
        "read": "result" in read or "result" in shouted,
    }


NOTHING = {"called": False, "listed": False, "read": False}
ALL = {"called": True, "listed": True, "read": True}


@pytest.mark.parametrize("env", ["scored", "telling"])
async def test_an_agents_token_sees_no_control_plane_whichever_way_it_comes(url, env):
    """By a handshake, on a session's own URLs, over SSE, and without a handshake."""
    made = await open_session(url, [bearer(ADA)], env=env)
    paths = [f"/mcp?env={env}", f"/envs/{env}/mcp", f"/s/{made['id']}/mcp", f"/s/{made['id']}/agent/mcp"]
    trainer = await shake_hands(url, paths[2], headers=[bearer(ADA)])
    assert await control_seen(trainer.request) == ALL
    for path in paths:
        agent = await shake_hands(url, path, headers=[bearer(HELPER)])
        assert await control_seen(agent.request) == NOTHING, path
        assert (await ask(url, "GET", "/control/reward", [bearer(HELPER), ("Mcp-Session-Id", agent.id)])).status == 403
    for path in (f"/sse?env={env}", f"/envs/{env}/sse", f"/s/{made['id']}/sse"):
        async with sse_client(url, path, headers=[bearer(HELPER)]) as (_, post, events):
            assert await control_seen(over_sse(post, events)) == NOTHING, path
    assert await control_seen(trainer.request) == ALL


def over_sse(post, events):
    numbers = iter(range(1, 1000))

    async def ask_for(method, params):
        number = next(numbers)
        await post(rpc(number, method, params))
        return (await events.until(lambda message: message.get("id") == number)).json()

    return ask_for


async def test_an_agents_token_sees_no_control_plane_without_a_handshake_either(url):
    made = await open_session(url, [bearer(ADA)], env="scored")
    trainer = await shake_hands(url, f"/s/{made['id']}/mcp", headers=[bearer(ADA)])
    assert await control_seen(trainer.request) == ALL
    path = f"/s/{made['id']}/mcp"
    for token, expected in ((HELPER, False), (ADA, True)):
        message = modern_call(1, "step", meta=WISH)
        answer = await ask(url, "POST", path, [*modern_headers(message), bearer(token)], json.dumps(message).encode())
        assert ("muxsim/control" in answer.messages[-1]["result"].get("_meta", {})) is expected


async def test_an_agents_token_cannot_speak_as_its_trainers_client(url):
    """An agent knows its session's id from its URL, and with a handshake's session that is the header too."""
    client = await shake_hands(url, "/mcp?env=scored", headers=[bearer(ADA)])
    for path in ("/mcp", f"/s/{client.id}/mcp"):
        for _ in range(2):
            stolen = Client(url, path, client.id, extra=(bearer(HELPER),))
            assert (await stolen.post(tool_call(1, "step", meta=WISH))).status == 404
            assert (await stolen.delete()).status == 404
    assert (await client.post(rpc(1, "ping"))).status == 200


# ---- what never shows


@pytest.mark.fault("L21")
async def test_tokens_are_in_no_log_no_error_and_no_childs_environment(tmp_path):
    """L21."""
    tokens = (ADA, HELPER, BOB, ROOT)
    async with serving(with_tokens(tmp_path), CONFIG, env=ENVIRON) as running:
        bodies = []
        for token in (*tokens, "w" * 40):
            for path in ("/sessions", "/health", "/no/such/thing", "/s/x/mcp", f"/mcp?access_token={token}"):
                answer = await ask(running.url, "GET", path, [bearer(token), ("Accept", BOTH)])
                bodies.append(answer.body.decode() + str(answer.headers))
        client = await shake_hands(running.url, headers=[bearer(ROOT)])
        shown = json.dumps(await client.value("who"))
        environments = [environ_of(pid) for pid in (running.process.pid, *descendants(running.process.pid))]
        assert len(environments) > 2
        bodies.append((await client.post(tool_call(9, "exit"))).body.decode())
    said = "\n".join([*bodies, shown, *environments, running.log.read_text()])
    assert [token for token in (*tokens, "w" * 40) if token in said] == []
    assert VARIABLE not in shown


def environ_of(pid):
    """The environment that a process was started with, as every process of the same user can read it."""
    return Path(f"/proc/{pid}/environ").read_bytes().decode("utf-8", "replace")


# ---- guesses


@pytest.mark.fault("L15")
async def test_a_thousand_guesses_from_one_address_are_stopped_and_its_sessions_go_on(tmp_path):
    """L15: guessed sessions, and guessed tokens."""
    config = CONFIG.replace("max_failures = 100000", "max_failures = 100")
    async with serving(with_tokens(tmp_path), config, env=ENVIRON) as running:
        client = await shake_hands(running.url, headers=[bearer(ADA)])
        async with connect(running.url) as connection:
            answers = [await connection.ask("GET", f"/sessions/{n:032x}", [bearer(ADA)]) for n in range(101)]
            assert [answer.status for answer in answers] == [404] * 101
            assert [answer.headers.get("connection") for answer in answers] == [None] * 100 + ["close"]
            await connection.closed_by_server()
        async with connect(running.url) as connection:
            answers = [await connection.ask("GET", "/sessions", [bearer(f"{n:032x}")]) for n in range(1000)]
            assert [answer.status for answer in answers] == [401] * 100 + [429] * 900
            # A token that nobody here has used cannot be told from a guess; one in use goes on, as do its sessions.
            assert (await connection.ask("GET", "/sessions", [bearer(BOB)])).status == 429
            assert "server.max_failures" in answers[-1].error["message"]
            assert 0 < int(answers[-1].headers["retry-after"]) <= 60
        assert await client.text("say", text="still here") == "still here"
        assert (await ask(running.url, "GET", f"/sessions/{client.id}", [bearer(ADA)])).status == 200
        assert (await shake_hands(running.url, headers=[bearer(ADA)])).id != client.id


@pytest.mark.fault("L15")
async def test_guesses_are_counted_by_address_without_tokens_too(tmp_path):
    """L15."""
    async with serving(tmp_path, "[server]\nmax_failures = 5\n" + environment("naughty")) as running:
        client = await shake_hands(running.url)
        answers = [await ask(running.url, "DELETE", "/mcp", [("Mcp-Session-Id", f"{n:032x}")]) for n in range(8)]
        assert [answer.status for answer in answers] == [404] * 8
        assert (await ask(running.url, "GET", "/health")).json()["limits"]["max_failures"] == 3
        # A client whose session has really ended goes by the status, and initializes again.
        assert (await client.delete()).status == 204
        assert (await client.post(tool_call(1, "say"))).status == 404
        client = await shake_hands(running.url)
        assert await client.text("say", text="still here") == "still here"


# ---- tokens change


@pytest.mark.fault("L21")
async def test_a_reload_takes_a_token_out_of_use_also_on_the_connection_that_it_has_used(tmp_path):
    """L21: and puts new ones to use; sessions and their owners go on."""
    async with serving(with_tokens(tmp_path), CONFIG, env=ENVIRON) as running:
        client = await shake_hands(running.url, headers=[bearer(ADA)])
        call = json.dumps(tool_call(1, "say", {"text": "x"})).encode()
        tokens = tmp_path / "config" / "tokens"
        async with connect(running.url) as connection:
            for _ in range(3):
                assert (await connection.ask("POST", client.path, client.headers, call)).status == 200
            tokens.write_text("ada trainer too-short\n")
            running.process.send_signal(signal.SIGHUP)
            refused = await logged(running, event="muxsim.reload_failed")
            assert "tokens: line 1: a token must be" in refused["problem"]
            assert "too-short" not in refused["problem"]
            assert (await connection.ask("POST", client.path, client.headers, call)).status == 200
            tokens.write_text(f"ada trainer {'n' * 40}\n")
            running.process.send_signal(signal.SIGHUP)
            await logged(running, event="muxsim.reloaded")
            assert (await connection.ask("POST", client.path, client.headers, call)).status == 401
            renewed = Client(running.url, client.path, client.id, extra=(bearer("n" * 40),))
            assert await renewed.text("say", text="the same session") == "the same session"
            assert (await connection.ask("GET", "/sessions", [bearer(BOB)])).status == 401
            assert (await connection.ask("GET", "/sessions", [bearer(ROOT)])).status == 200
