"""What a request must be before anything is done for it. Rows are those of the table of faults."""

from __future__ import annotations

import json

import pytest
import trio

from .machine import log_lines, memory
from .wire import BOTH, Client, ask, connect, initialize, rpc, shake_hands, text_of, tool_call

pytestmark = pytest.mark.children

MIB = 2**20
JSON = ("Content-Type", "application/json")
OURS = "https://app.example"
ROUTES = [
    ("POST", "/mcp"),
    ("GET", "/mcp"),
    ("DELETE", "/mcp"),
    ("POST", "/envs/naughty/mcp"),
    ("POST", "/s/x/mcp"),
    ("POST", "/s/x/agent/mcp"),
    ("GET", "/sse"),
    ("GET", "/envs/naughty/sse"),
    ("POST", "/messages?sessionId=x"),
    ("GET", "/s/x/sse"),
    ("POST", "/s/x/messages?sessionId=x"),
    ("POST", "/sessions"),
    ("GET", "/sessions"),
    ("GET", "/sessions/x"),
    ("DELETE", "/sessions/x"),
    ("GET", "/envs"),
    ("GET", "/envs/naughty"),
    ("GET", "/envs/naughty/openenv/ws"),
    ("POST", "/envs/naughty/openenv/mcp"),
    ("GET", "/envs/naughty/openenv/schema"),
    ("GET", "/health"),
    ("GET", "/ready"),
    ("GET", "/"),
    ("GET", "/ui/x.js"),
    ("GET", "/watch"),
    ("GET", "/watch/sessions/x"),
    ("GET", "/watch/sessions/x/images/1"),
    ("GET", "/no/such/thing"),
]
STRANGERS = [
    ([("Host", "evil.example")], 421),
    ([("Host", "127.0.0.1.evil.example")], 421),
    ([("Host", "evil.example:80@127.0.0.1")], 421),
    ([("Host", "localhost, evil.example")], 421),
    ([("Host", "")], 421),
    ([("Host", "127.0.0.1"), ("Host", "evil.example")], 400),
    ([("Origin", "https://evil.example")], 403),
    ([("Origin", "null")], 403),
    ([("Origin", "https://app.example.evil.example")], 403),
    ([("Origin", "http://app.example")], 403),
    ([("Origin", OURS), ("Origin", "https://evil.example")], 403),
    ([("Sec-Fetch-Site", "cross-site"), ("Sec-Fetch-Mode", "no-cors")], 403),
    ([("Sec-Fetch-Site", "same-site")], 403),
]


@pytest.mark.fault("L19", "L20")
@pytest.mark.parametrize(("headers", "status"), STRANGERS)
async def test_who_comes_from_elsewhere_is_refused_on_every_route_before_anything_starts(muxsim, headers, status):
    """L19, L20."""
    openings = len(log_lines(muxsim, event="session.opening"))
    for method, path in ROUTES:
        body = json.dumps(initialize()).encode() if method == "POST" else b""
        answer = await ask(muxsim.url, method, path, [JSON, ("Accept", "*/*"), *headers], body)
        assert answer.status == status, (method, path)
    assert len(log_lines(muxsim, event="session.opening")) == openings


@pytest.mark.fault("L19")
@pytest.mark.parametrize(("headers", "status"), STRANGERS)
async def test_who_comes_from_elsewhere_is_refused_with_a_valid_session_too(client, headers, status):
    """L19: calls of a known client go a short way, which has the same rules."""
    before = len(await client.heard())
    async with connect(client.url) as connection:
        body = json.dumps(tool_call(7, "say")).encode()
        answer = await connection.ask("POST", client.path, [*client.headers, *headers], body)
    assert answer.status == status
    assert len(await client.heard()) == before + 1


@pytest.mark.fault("L19")
async def test_a_request_without_a_host_is_refused(muxsim):
    """L19."""
    async with connect(muxsim.url) as connection:
        await connection.stream.send_all(b"GET /health HTTP/1.1\r\n\r\n")
        assert (await connection.answer()).status == 400


async def test_loopback_has_many_names_and_all_are_served(muxsim):
    port = muxsim.url.rpartition(":")[2]
    for host in (f"127.0.0.1:{port}", f"localhost:{port}", "LOCALHOST", f"[::1]:{port}", "127.0.0.1"):
        assert (await ask(muxsim.url, "GET", "/health", [("Host", host)])).status == 200


# ---- browsers


async def test_a_page_of_an_allowed_origin_may_ask_before_it_calls(muxsim):
    wanted = [
        ("Origin", OURS),
        ("Access-Control-Request-Method", "POST"),
        ("Access-Control-Request-Headers", "content-type, mcp-session-id, mcp-protocol-version, last-event-id"),
    ]
    for _, path in ROUTES:
        answer = await ask(muxsim.url, "OPTIONS", path, wanted)
        assert answer.status == 200
        assert answer.headers["access-control-allow-origin"] == OURS
        assert "POST" in answer.headers["access-control-allow-methods"]
        allowed = answer.headers["access-control-allow-headers"].lower()
        assert all(name in allowed for name in ("mcp-session-id", "mcp-protocol-version", "last-event-id"))
        own = [*wanted[:2], ("Access-Control-Request-Headers", "x-of-my-own, traceparent")]
        allowed = (await ask(muxsim.url, "OPTIONS", path, own)).headers["access-control-allow-headers"]
        assert {"x-of-my-own", "traceparent"} <= set(allowed.split(", "))
        assert "access-control-allow-credentials" not in answer.headers
        from_elsewhere = [*wanted, ("Access-Control-Request-Private-Network", "true")]
        answer = await ask(muxsim.url, "OPTIONS", path, from_elsewhere)
        assert (answer.status, answer.headers["access-control-allow-private-network"]) == (200, "true")


async def test_a_page_of_an_allowed_origin_can_read_its_session_id(muxsim):
    async with connect(muxsim.url) as connection:
        body = json.dumps(initialize()).encode()
        answer = await connection.ask("POST", "/mcp", [JSON, ("Accept", BOTH), ("Origin", OURS)], body)
    assert answer.status == 200
    assert answer.headers["access-control-allow-origin"] == OURS
    assert "mcp-session-id" in answer.headers["access-control-expose-headers"].lower()
    assert "origin" in answer.headers["vary"].lower()
    client = Client(muxsim.url, "/mcp", answer.headers["mcp-session-id"])
    called = await client.post(tool_call(1, "say", {"text": "here"}), [("Origin", OURS)])
    assert text_of(called.messages[0]) == "here"
    assert called.headers["access-control-allow-origin"] == OURS


async def test_a_page_can_read_why_it_was_refused(muxsim):
    answer = await ask(muxsim.url, "POST", "/mcp", [JSON, ("Origin", OURS)], b"{")
    assert answer.status == 400
    assert answer.headers["access-control-allow-origin"] == OURS


async def test_a_page_of_this_server_itself_may_call(muxsim):
    for origin in (muxsim.url, muxsim.url.replace("127.0.0.1", "localhost")):
        host = origin.removeprefix("http://")
        answer = await ask(muxsim.url, "GET", "/health", [("Host", host), ("Origin", origin)])
        assert answer.status == 200


# ---- bodies


NOT_JSON = [
    b"",
    b"{",
    b"not json",
    b'{"jsonrpc":"2.0","id":1,"method":"ping"}{}',
    b'{"jsonrpc":"2.0","id":1,"method":"ping","params":{"x":"\xff"}}',
    b'{"jsonrpc":"2.0","id":1,"method":"ping","params":{"x":"\xed\xa0\x80"}}',
    b'\xff\xfe{"jsonrpc":"2.0"}',
    b'{"jsonrpc":"2.0","id":1,"method":"ping","params":' + b'{"x":' * 100_000 + b"1" + b"}" * 100_001,
]
NO_MESSAGE = [
    b"null",
    b"3",
    b'"ping"',
    b"{}",
    b"[]",
    b"[" * 100_000,
    b'[{"jsonrpc":"2.0","id":1,"method":"ping"}]',
    b'[{"jsonrpc":"2.0","id":1,"method":"ping"},{"jsonrpc":"2.0","id":2,"method":"ping"}]',
    b'{"jsonrpc":"1.0","id":1,"method":"ping"}',
    b'{"id":1,"method":"ping"}',
    b'{"jsonrpc":"2.0","id":null,"method":"ping"}',
    b'{"jsonrpc":"2.0","id":1.5,"method":"ping"}',
    b'{"jsonrpc":"2.0","id":{},"method":"ping"}',
    b'{"jsonrpc":"2.0","id":true,"method":"ping"}',
    b'{"jsonrpc":"2.0","id":1,"method":7}',
    b'{"jsonrpc":"2.0","id":1}',
]
WAYS = {
    "the short way": [],
    "the ordinary way": [("Origin", OURS)],
}


@pytest.mark.fault("L10", "L11")
@pytest.mark.parametrize("headers", WAYS.values(), ids=WAYS)
async def test_a_body_that_is_no_message_is_refused_and_never_reaches_the_backend(client, headers):
    """L10, L11."""
    before = len(await client.heard())
    for code, bodies in ((-32700, NOT_JSON), (-32600, NO_MESSAGE)):
        for body in bodies:
            answer = await client.post(body, headers)
            assert (answer.status, answer.error["code"]) == (400, code), body[:100]
    assert len(await client.heard()) == before + 1


@pytest.mark.fault("L10", "L11")
async def test_a_handshake_that_is_no_message_starts_nothing(muxsim):
    """L10, L11."""
    openings = len(log_lines(muxsim, event="session.opening"))
    for body in (*NOT_JSON, *NO_MESSAGE):
        for path in ("/mcp", "/envs/naughty/mcp"):
            assert (await ask(muxsim.url, "POST", path, [JSON], body)).status == 400
    assert len(log_lines(muxsim, event="session.opening")) == openings


@pytest.mark.fault("L12", "L13", "L14")
@pytest.mark.parametrize("headers", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize(
    ("changed", "status"),
    [
        (("Content-Type", "text/plain"), 415),
        (("Content-Type", "application/x-www-form-urlencoded"), 415),
        (("Content-Type", "application/jsonp"), 415),
        (("Accept", "text/html"), 406),
        (("Accept", "application/xml, image/png"), 406),
        (("Mcp-Protocol-Version", "2019-01-01"), 400),
        (("Mcp-Protocol-Version", "latest"), 400),
        (("Mcp-Protocol-Version", ""), 400),
        (("Mcp-Session-Id", "0" * 32), 404),
        (("Mcp-Session-Id", ""), 404),
        (("Mcp-Session-Id", "\u00ff"), 404),
    ],
)
async def test_a_call_with_a_wrong_header_is_refused_and_never_reaches_the_backend(client, headers, changed, status):
    """L12, L13, L14."""
    before = len(await client.heard())
    answer = await client.post(tool_call(7, "say"), [changed, *headers])
    assert answer.status == status
    assert answer.error["message"]
    assert len(await client.heard()) == before + 1


@pytest.mark.fault("L12")
async def test_what_a_content_type_and_an_accept_may_carry_besides_is_ignored(client):
    """L12."""
    for kind in ("application/json; charset=utf-8", "Application/JSON", "application/json;charset=UTF-8"):
        assert text_of((await client.post(tool_call(7, "say"), [("Content-Type", kind)])).messages[0]) == ""
    for accepted in (
        "*/*",
        "application/*, text/*;q=0.5",
        "application/json;q=0.9,text/event-stream",
        "text/html, */*;q=0.1",
    ):
        assert text_of((await client.post(tool_call(7, "say"), [("Accept", accepted)])).messages[0]) == ""


@pytest.mark.fault("L14")
async def test_a_request_without_a_session_header_is_told_what_it_lacks(muxsim):
    """L14."""
    headers = [JSON, ("Accept", BOTH), ("Mcp-Protocol-Version", "2025-11-25")]
    for message in (rpc(7, "ping"), tool_call(7, "say")):
        answer = await ask(muxsim.url, "POST", "/mcp", headers, json.dumps(message).encode())
        assert answer.status == 400
        assert answer.json()["id"] == 7
        assert "Mcp-Session-Id" in answer.error["message"]
    assert (await ask(muxsim.url, "GET", "/mcp", [("Accept", "text/event-stream")])).status == 400
    assert (await ask(muxsim.url, "DELETE", "/mcp")).status == 400


@pytest.mark.fault("L12")
async def test_a_stream_for_who_takes_none_is_refused_before_anything_starts(muxsim, client):
    """L12."""
    openings = len(log_lines(muxsim, event="session.opening"))
    for path in ("/sse?env=naughty", "/envs/naughty/sse", client.path, f"/s/{client.id}/sse"):
        headers = [("Accept", "application/json"), ("Mcp-Session-Id", client.id)]
        assert (await ask(muxsim.url, "GET", path, headers)).status == 406
    assert len(log_lines(muxsim, event="session.opening")) == openings


async def test_a_method_that_no_route_has_is_refused_before_anything_starts(muxsim):
    openings = len(log_lines(muxsim, event="session.opening"))
    for method, path in [("PUT", "/mcp"), ("PATCH", "/sessions"), ("HEAD", "/sse"), ("HEAD", "/mcp"), ("POST", "/sse")]:
        async with connect(muxsim.url) as connection:
            await connection.send(method, path)
            status, _ = await connection.head()
        assert status == 405, (method, path)
    for method, path in [("PUT", "/mcp"), ("DELETE", "/sse"), ("POST", "/health"), ("OPTIONS", "/envs")]:
        answer = await ask(muxsim.url, method, path)
        assert (answer.status, answer.headers["content-type"]) == (405, "application/json")
        assert answer.headers["allow"] in answer.error["message"]
    assert len(log_lines(muxsim, event="session.opening")) == openings


# ---- sizes


@pytest.mark.fault("L8")
async def test_a_body_that_says_it_is_too_long_is_refused_before_it_is_sent(muxsim, client):
    """L8: the limit is 12 MiB here."""
    for path, headers in ((client.path, client.headers), ("/mcp", [JSON]), ("/sessions", [JSON])):
        async with connect(muxsim.url) as connection:
            await connection.send("POST", path, [*headers, ("Content-Length", str(13 * MIB))])
            answer = await connection.answer()
            assert answer.status == 413
            await connection.closed_by_server()


@pytest.mark.fault("L8")
async def test_a_body_that_grows_too_long_is_refused_while_it_comes(muxsim, client):
    """L8: in chunks, without a length; muxsim holds no more than the limit of it."""
    before = memory(muxsim.pid)
    async with connect(muxsim.url) as connection, trio.open_nursery() as nursery:
        await connection.send("POST", client.path, [*client.headers, ("Transfer-Encoding", "chunked")])

        async def send_forever():
            piece = b"%x\r\n%b\r\n" % (MIB, b"x" * MIB)
            try:
                while True:
                    await connection.stream.send_all(piece)
            except trio.BrokenResourceError:
                pass

        nursery.start_soon(send_forever)
        answer = await connection.answer()
        nursery.cancel_scope.cancel()
    assert answer.status == 413
    assert memory(muxsim.pid) - before < 64 * MIB
    assert await client.text("say", text="still here") == "still here"


# ---- the session's own rules


@pytest.mark.fault("L24")
async def test_a_second_handshake_is_the_backends_to_judge_and_the_session_goes_on(client):
    """L24."""
    answer = (await client.post(initialize(5))).messages[0]
    assert (answer["id"], answer["result"]["serverInfo"]["name"]) == (5, "naughty")
    assert [message["method"] for message in await client.heard()].count("initialize") == 2
    assert await client.text("say", text="still here") == "still here"


@pytest.mark.fault("L24")
async def test_a_call_before_the_handshake_is_complete_is_the_backends_to_judge(muxsim):
    """L24."""
    answer = await ask(muxsim.url, "POST", "/mcp", [("Accept", BOTH)], initialize())
    client = Client(muxsim.url, "/mcp", answer.headers["mcp-session-id"])
    assert await client.text("say", text="early") == "early"


@pytest.mark.fault("L24")
async def test_an_unknown_method_and_an_unknown_notification_reach_the_backend(client):
    """L24."""
    answer = await client.request("naughty/unheard", {"x": 1})
    assert answer["error"]["code"] == -32601
    assert (await client.post({"jsonrpc": "2.0", "method": "notifications/unheard"})).status == 202
    assert [message["method"] for message in await client.heard()][-3:-1] == [
        "naughty/unheard",
        "notifications/unheard",
    ]


@pytest.mark.fault("L26")
@pytest.mark.parametrize(
    "name", ["nobody", "../naughty", "naughty;id", "--help", "naughty%00", "NAUGHTY", "%2e%2e%2fnaughty"]
)
async def test_an_environment_that_is_none_is_404_and_starts_nothing(muxsim, name):
    """L26."""
    openings = len(log_lines(muxsim, event="session.opening"))
    for path in (f"/mcp?env={name}", f"/envs/{name}/mcp"):
        answer = await ask(muxsim.url, "POST", path, [("Accept", BOTH)], initialize(5))
        assert answer.status == 404
    assert (await ask(muxsim.url, "GET", f"/sse?env={name}")).status == 404
    assert len(log_lines(muxsim, event="session.opening")) == openings


@pytest.mark.fault("L14")
async def test_a_session_of_one_url_is_not_served_on_another(muxsim, client):
    """L14, L16: a client's header works on the URLs of its own session only."""
    other = await shake_hands(muxsim.url)
    stranger = Client(muxsim.url, f"/s/{other.id}/mcp", client.id)
    assert (await stranger.post(rpc(1, "ping"))).status == 404
    own = Client(muxsim.url, f"/s/{client.id}/mcp", client.id)
    assert await own.text("say", text="mine") == "mine"
