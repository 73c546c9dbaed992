"""Sessions that a URL names: made by its first request, gone on with by every other, and never begun anew unawares."""

from __future__ import annotations

import json

import pytest
import trio
from harness import muxsim_serve

from .conftest import environment, write_tokens
from .machine import log_lines, logged
from .test_auth import ADA, BOB, HELPER, ROOT, bearer
from .wire import (
    BOTH,
    MODERN,
    ask,
    connect,
    initialize,
    live_sessions,
    modern_call,
    modern_headers,
    rpc,
    shake_hands,
    sse_client,
    text_of,
)

pytestmark = pytest.mark.children

PLAY = "env=naughty&seed=3"
LEGACY = [("Content-Type", "application/json"), ("Accept", BOTH)]


def modern(method, **params):
    message = modern_call(1, "x")
    return {**message, "method": method, "params": {"_meta": message["params"]["_meta"], **params}}


async def say(url, target, text="hello", *, token=None):
    """Call a tool as a client without a handshake does; the whole answer."""
    return await send(url, target, modern_call(1, "say", {"text": text}), token=token)


async def send(url, target, message, *, token=None):
    headers = [*modern_headers(message), *([bearer(token)] if token else [])]
    return await ask(url, "POST", target, headers, json.dumps(message).encode())


async def test_the_first_request_makes_the_session_and_the_others_go_on_with_it(muxsim):
    for path in ("/s/first/mcp", "/s/first/agent/mcp", "/s/first/mcp"):
        assert text_of((await say(muxsim.url, f"{path}?{PLAY}")).json()) == "hello"
    assert [(one["id"], one["seed"], one["calls"]) for one in await live_sessions(muxsim)] == [("first", 3, 3)]
    assert (await say(muxsim.url, "/s/first/mcp")).status == 200
    assert (await ask(muxsim.url, "DELETE", "/sessions/first")).status == 204


@pytest.mark.parametrize("clients", ["modern", "handshake", "both"])
async def test_requests_that_come_at_once_have_one_session(muxsim, clients):
    target, answers = f"/s/at-once-{clients}/mcp?{PLAY}", []

    async def come(number):
        if clients == "modern" or (clients == "both" and number % 2):
            answers.append((await say(muxsim.url, target)).status)
        else:
            client = await shake_hands(muxsim.url, target)
            answers.append(200 if await client.text("say", text="hello") == "hello" else None)

    async with trio.open_nursery() as nursery:
        for number in range(6):
            nursery.start_soon(come, number)
    assert answers == [200] * 6
    assert len(await live_sessions(muxsim)) == 1
    assert len(log_lines(muxsim, event="session.opening", session=f"at-once-{clients}")) == 1


async def test_a_client_that_leaves_ends_itself_and_not_the_session(muxsim):
    target = f"/s/left/mcp?{PLAY}"
    client = await shake_hands(muxsim.url, target)
    assert client.id != "left"
    assert (await client.delete()).status == 204
    assert text_of((await say(muxsim.url, target)).json()) == "hello"


async def test_an_event_stream_makes_one_too_and_does_not_end_it(muxsim):
    async with sse_client(muxsim.url, f"/s/streamed/sse?{PLAY}") as (_, post, events):
        await post(initialize())
        assert "result" in (await events.next()).json()
    assert [one["id"] for one in await live_sessions(muxsim)] == ["streamed"]
    assert text_of((await say(muxsim.url, f"/s/streamed/mcp?{PLAY}")).json()) == "hello"


async def test_an_episode_that_is_over_does_not_begin_anew_by_its_url(muxsim):
    target = f"/s/over/mcp?{PLAY}"
    client = await shake_hands(muxsim.url, target)
    assert (await ask(muxsim.url, "DELETE", "/sessions/over")).status == 204
    for answer in (
        await say(muxsim.url, target),
        await client.post(initialize()),
        await ask(muxsim.url, "POST", target, LEGACY, initialize()),
        await ask(muxsim.url, "GET", f"/s/over/sse?{PLAY}", [("Accept", "text/event-stream")]),
    ):
        assert (answer.status, answer.error["data"]["cause"]) == (404, "deleted")
    assert (await say(muxsim.url, target)).json()["id"] == 1
    assert not await live_sessions(muxsim)
    assert (await ask(muxsim.url, "POST", "/sessions", body={"id": "over", "seed": 3})).status == 201  # this is a wish
    assert (await say(muxsim.url, target)).status == 200


async def test_a_crash_is_an_end_and_a_start_that_failed_is_none(muxsim):
    target = f"/s/crashed/mcp?{PLAY}"
    assert (await say(muxsim.url, target)).status == 200
    await send(muxsim.url, target, modern_call(1, "exit"))
    await logged(muxsim, event="session.ended", session="crashed")
    answer = await say(muxsim.url, target)
    assert (answer.status, answer.error["data"]["cause"]) == (404, "backend_exited")
    for _ in range(2):  # it never answered anything, so there was no episode
        answer = await send(muxsim.url, "/s/leaves/mcp?env=leaving", modern("tools/list"))
        assert "exited with status 7" in answer.error["message"]
    assert len(log_lines(muxsim, event="session.opening", session="leaves")) == 2
    for _ in range(2):
        answer = await send(muxsim.url, "/s/lost/mcp?env=missing", modern("tools/list"))
        assert (answer.status, answer.json()["id"]) == (200, 1)
        assert "/no/such/program" in answer.error["message"]


WRONG = [
    (f"/s/taken/mcp?{PLAY}&ttl=60", 200, None),
    ("/s/taken/mcp?env=naughty", 200, None),
    ("/s/taken/mcp?seed=3", 200, None),
    ("/s/taken/mcp?env=naughty&seed=4", 409, "'taken' is there already"),
    ("/s/taken/mcp?env=brisk&seed=3", 409, "'taken' is there already"),
    ("/s/taken/mcp?env=nobody", 409, "'taken' is there already"),
    ("/s/taken/agent/mcp?env=naughty&seed=4", 409, "'taken' is there already"),
    ("/s/other/mcp?env=nobody", 404, "no environment is called 'nobody'"),
    ("/s/other/mcp?env=common", 400, "one session for all"),
    ("/s/other/mcp?env=naughty&seed=-1", 400, "seed '-1'"),
    ("/s/other/mcp?env=naughty&seed=1&seed=2", 400, "'seed' is given twice"),
    ("/s/other/mcp?env=naughty&ttl=0", 400, "ttl 0"),
    ("/s/other/mcp?env=naughty&ttl=nan", 400, "ttl 'nan'"),
    ("/s/other/mcp?env=naughty&lease=-3", 400, "lease '-3'"),
    ("/s/other/mcp?env=naughty&lease=1e3", 400, "lease '1e3'"),
    ("/s/.other/mcp?env=naughty", 400, "'.other' must be"),
    ("/s/%20/mcp?env=naughty", 400, "' ' must be"),
    ("/s/%C3%A9/mcp?env=naughty", 400, "must be 1 to 64"),
    (f"/s/{'x' * 65}/mcp?env=naughty", 400, "must be 1 to 64"),
    ("/s/other/mcp", 404, "there is no such session"),
    ("/s/other/mcp?environment=naughty", 404, "there is no such session"),
]


async def test_what_a_url_says_wrong_is_an_error_and_makes_nothing(muxsim):
    assert (await say(muxsim.url, f"/s/taken/mcp?{PLAY}")).status == 200
    openings = len(log_lines(muxsim, event="session.opening"))
    for target, status, text in WRONG:
        answer = await say(muxsim.url, target)
        assert answer.status == status, target
        assert text is None or text in answer.error["message"], target
    assert len(log_lines(muxsim, event="session.opening")) == openings


async def test_only_a_request_that_is_in_order_makes_a_session(muxsim):
    target, openings = f"/s/never/mcp?{PLAY}", len(log_lines(muxsim, event="session.opening"))
    unsure = modern("tools/list")
    del unsure["params"]["_meta"]["io.modelcontextprotocol/clientCapabilities"]
    notification = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}}
    for method, message, headers, status in [
        ("POST", modern("initialize"), modern_headers(modern("initialize")), 404),
        ("POST", unsure, modern_headers(unsure), 400),
        ("POST", modern("tools/list"), modern_headers(modern("tools/call")), 400),
        ("POST", notification, modern_headers(notification), 202),
        ("POST", rpc(1, "tools/list"), LEGACY, 400),
        ("GET", {}, [("Accept", "text/event-stream")], 400),
        ("DELETE", {}, [], 400),
        ("GET", {}, [("Accept", "text/event-stream"), ("Mcp-Session-Id", "never")], 404),
        ("DELETE", {}, [("Mcp-Session-Id", "never")], 404),
    ]:
        body = json.dumps(message).encode() if message else b""
        assert (await ask(muxsim.url, method, target, headers, body)).status == status, (method, message)
    assert len(log_lines(muxsim, event="session.opening")) == openings


async def test_a_request_of_neither_kind_is_told_both(muxsim):
    answer = await ask(muxsim.url, "POST", f"/s/never/mcp?{PLAY}", LEGACY, json.dumps(rpc(1, "tools/list")).encode())
    assert "Mcp-Session-Id" in answer.error["message"]
    assert "MCP-Protocol-Version: 2026-07-28" in answer.error["message"]


async def test_who_leaves_before_it_is_there_does_not_keep_others_from_it(muxsim):
    """The first of two lets go while the session is made."""
    target = f"/s/shared-start/mcp?{PLAY}"
    message = json.dumps(modern_call(1, "say", {"text": "hello"})).encode()
    async with connect(muxsim.url) as impatient:
        await impatient.send("POST", target, modern_headers(modern_call(1, "say")), message)
        impatient.drop()
    assert text_of((await say(muxsim.url, target)).json()) == "hello"
    assert len(await live_sessions(muxsim)) == 1


CONFIG = (
    '[server]\nlog_level = "debug"\ndefault = "naughty"\nmax_failures = 100000\nmax_failed_starts = 0\n'
    f'[server.auth]\ntokens_file = "tokens"\n{environment("naughty", "--seed", "{seed}")}'
    f"{environment('newer', '--modern')}"
)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("handles")
    write_tokens(folder, f"ada trainer {ADA}\nada agent {HELPER}\nbob trainer {BOB}\nroot admin {ROOT}\n")
    with muxsim_serve(folder, CONFIG) as running:
        yield running


async def test_a_session_is_its_principals_whoever_knows_the_id(guarded):
    url, target = guarded.url, f"/s/hers/mcp?{PLAY}"
    assert (await say(url, target, token=HELPER)).status == 200
    assert (await ask(url, "GET", "/sessions/hers", [bearer(ADA)])).json()["owner"] == "ada"
    assert (await say(url, target, token=ADA)).status == 200
    refused = await say(url, target, token=BOB)
    assert (refused.status, refused.json()["id"]) == (409, 1)
    assert (await say(url, target)).status == 401
    assert (await ask(url, "DELETE", "/sessions/hers", [bearer(ADA)])).status == 204
    assert (await say(url, target, token=HELPER)).error["data"] == {"cause": "deleted"}
    assert (await say(url, target, token=ROOT)).error["data"] == {"cause": "deleted", "by": "ada"}
    assert (await say(url, target, token=BOB)).status == 200  # of hers he knows nothing
    assert (await ask(url, "DELETE", "/sessions/hers", [bearer(BOB)])).status == 204


async def test_the_control_plane_of_such_a_url_is_for_trainers(guarded):
    url = guarded.url
    assert (await say(url, f"/s/played/mcp?{PLAY}", token=HELPER)).status == 200
    for path in ("/s/played/control", "/s/played/control/status"):
        assert (await ask(url, "GET", path, [bearer(HELPER)])).status == 403
        assert (await ask(url, "GET", path, [bearer(BOB)])).status == 404
    assert set((await ask(url, "GET", "/s/played/control", [bearer(ADA)])).json()["problems"]) > {"reward"}
    assert (await ask(url, "GET", "/s/played/control/status", [bearer(ADA)])).status == 502  # naughty has none
    assert (await ask(url, "GET", "/s/played/control/nothing", [bearer(ADA)])).status == 404


async def test_discovery_names_both_eras_and_both_are_served(guarded):
    url, target = guarded.url, "/s/eras/mcp?env=newer"
    spoken = (await send(url, target, modern("server/discover"), token=HELPER)).json()["result"]["supportedVersions"]
    assert spoken == [MODERN, "2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05"]
    client = await shake_hands(url, target, headers=[bearer(HELPER)])
    assert await client.text("say", text="as before") == "as before"
    assert text_of((await say(url, target, token=HELPER)).json()) == "hello"
    older = await send(url, f"/s/older/mcp?{PLAY}", modern("server/discover"), token=HELPER)
    assert older.error["code"] == -32601  # which sends its client to the handshake
    implicit = (await send(url, "/mcp?env=newer", modern("server/discover"), token=HELPER)).json()["result"]
    assert MODERN not in implicit["supportedVersions"]


async def test_leases_are_renewed_all_at_once_by_whose_sessions_they_are(guarded):
    url = guarded.url
    wish = {"env": "naughty", "lease": 600}
    ids = [(await ask(url, "POST", "/sessions", [bearer(ADA)], wish)).json()["id"] for _ in range(2)]
    named = await say(url, f"/s/leased/mcp?{PLAY}&lease=600", token=HELPER)
    assert named.status == 200
    for token, gone in [(ADA, ["nobody"]), (ROOT, ["nobody"]), (BOB, [*ids, "leased", "nobody"])]:
        answer = await ask(url, "POST", "/leases", [bearer(token)], {"sessions": [*ids, "leased", "nobody"]})
        assert answer.json() == {"renewed": 4 - len(gone), "gone": gone}
    assert (await ask(url, "POST", "/leases", [bearer(HELPER)], {"sessions": ids})).status == 403
    for body in ({}, {"sessions": "a"}, {"sessions": [1]}, {"sessions": [], "all": True}):
        refused = await ask(url, "POST", "/leases", [bearer(ADA)], body)
        assert (refused.status, '{"sessions": [id, …]}' in refused.error["message"]) == (400, True)
    for lease in (0, -1, "long", True):
        assert (await ask(url, "POST", "/sessions", [bearer(ADA)], {**wish, "lease": lease})).status == 400
    short = (await ask(url, "POST", "/sessions", [bearer(ADA)], {**wish, "lease": 0.2})).json()["id"]
    await logged(guarded, event="session.ended", session=short, cause="lease")
    answer = await ask(url, "GET", f"/sessions/{short}", [bearer(ADA)])
    assert (answer.status, answer.error["data"]) == (404, {"cause": "lease"})
    for id in (*ids, "leased"):
        assert (await ask(url, "DELETE", f"/sessions/{id}", [bearer(ADA)])).status == 204
