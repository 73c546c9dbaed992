"""A line for each HTTP request, whichever way it goes, where that is wanted."""

from __future__ import annotations

from contextlib import closing

import pytest
from harness import Gate, serving

from .conftest import environment
from .machine import eventually, log_lines
from .test_logs_command import ADA, AGENT, ROOT, SIGHT, TOKENS, bearer
from .wire import Answer, ask, connect, rpc, shake_hands, tool_call

pytestmark = pytest.mark.children

LOGGED = "[server]\naccess_log = true\nstream_silence = 0.05\n"


async def requests(muxsim, count):
    await eventually(lambda: len(log_lines(muxsim, event="http.request")) >= count)
    return log_lines(muxsim, event="http.request")


async def test_each_request_is_a_line_whichever_way_it_was_answered(tmp_path):
    async with serving(tmp_path, LOGGED + environment("naughty")) as muxsim:
        await ask(muxsim.url, "GET", "/health?secret=1", [("X-Request-ID", "lab-1")])
        client = await shake_hands(muxsim.url, "/mcp")  # the short way, which opens a session, and a notification
        for _ in range(3):  # the same head, from the second on
            assert await client.text("say", text="hello") == "hello"
        with closing(Gate(tmp_path / "gate")) as gate:
            async with client.posting(tool_call(8, "slow", {"until": gate.path})) as waiting:
                status, headers = await waiting.head()
                gate.open()
                streamed = Answer(status, headers, await waiting.read_body())
        assert streamed.headers["content-type"].startswith("text/event-stream")
        assert (await client.delete()).status == 204
        assert (await ask(muxsim.url, "GET", "/nothing\x7f")).status in (400, 404)
        lines = await requests(muxsim, 9)
        assert [(line["method"], line["path"], line["status"]) for line in lines[:8]] == [
            ("GET", "/health", 200),
            ("POST", "/mcp", 200),
            ("POST", "/mcp", 202),
            *[("POST", "/mcp", 200)] * 4,
            ("DELETE", "/mcp", 204),
        ]
        assert lines[0]["request"] == "lab-1"
        for line in lines:
            assert line["peer"] == "127.0.0.1"
            assert line["seconds"] >= 0
            assert line["bytes"] > 0
            assert "principal" not in line
        assert lines[6]["seconds"] >= 0.05, "from its head on, and not from when it became a stream"
        assert lines[6]["bytes"] > len(streamed.body)
        assert "secret" not in muxsim.log.read_text()


async def test_a_line_has_the_name_of_whoever_has_a_good_token_and_of_nobody_else(tmp_path):
    (tmp_path / "tokens").write_text(TOKENS.format(ada=ADA, agent=AGENT, root=ROOT, sight=SIGHT))
    (tmp_path / "tokens").chmod(0o600)
    config = f"{LOGGED}[server.auth]\ntokens_file = '{tmp_path}/tokens'\n"
    async with serving(tmp_path, config + environment("naughty")) as muxsim:
        assert (await ask(muxsim.url, "GET", "/sessions", [bearer(ROOT)])).status == 200
        assert (await ask(muxsim.url, "GET", "/sessions", [bearer("x" * 32)])).status == 401
        client = await shake_hands(muxsim.url, "/mcp", headers=[bearer(ADA)])
        for _ in range(2):
            assert await client.text("say", text="hello") == "hello"
        lines = await requests(muxsim, 6)
        assert [line.get("principal") for line in lines] == ["root", None, *["ada"] * 4]
        assert not [token for token in (ADA, ROOT, "x" * 32) if token in muxsim.log.read_text()]


async def test_what_is_no_request_and_a_client_that_leaves_are_lines_too(tmp_path):
    async with serving(tmp_path, LOGGED + environment("naughty")) as muxsim:
        async with connect(muxsim.url) as connection:
            await connection.stream.send_all(b"GET /\x1b[31m HTTP/1.1\r\n\r\n")
            await connection.closed_by_server()
        (line,) = await requests(muxsim, 1)
        assert line["status"] == 400
        client = await shake_hands(muxsim.url, "/mcp")
        before = len(await requests(muxsim, 3))
        async with client.posting(tool_call(9, "hang")):
            await eventually(lambda: log_lines(muxsim))
        left = (await requests(muxsim, before + 1))[-1]
        assert (left["method"], left["path"]) == ("POST", "/mcp")


async def test_nothing_of_it_is_there_where_it_is_not_wanted(tmp_path):
    async with serving(tmp_path, environment("naughty")) as muxsim:
        client = await shake_hands(muxsim.url)
        assert (await client.post(rpc(1, "ping"))).status == 200
        assert not log_lines(muxsim, event="http.request")
