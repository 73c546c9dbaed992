"""Kept HTTP connections, against a server that says exactly what each test has it say, on both loops."""

from __future__ import annotations

import anyio
import pytest

from muxsim.rollouts.environments import http_connection
from muxsim.rollouts.environments.http_connection import Headers, HTTPBroken, HTTPConnections

from .scripted_http import answer, scripted_http

LIMIT = 60
NO_HEADERS = Headers({})


@pytest.fixture(params=["trio", "asyncio"])
def run(request):
    """Runs a test's function with connections to a server of this answer, on one loop and on the other."""

    def run(answer, test):
        async def main():
            async with scripted_http(answer) as server:
                connections = HTTPConnections("127.0.0.1", int(server.url.rpartition(":")[2]), connect_timeout=LIMIT)
                with anyio.fail_after(LIMIT):
                    await test(server, connections)
                await connections.aclose()

        anyio.run(main, backend=request.param)

    return run


async def posted(connections, body=b"{}", headers=NO_HEADERS):
    got = await connections.exchange("POST", "/mcp?a=b", headers, body)
    try:
        return got.status, dict(got.headers), await got.read()
    finally:
        await got.aclose()


async def broken(connections):
    with pytest.raises(HTTPBroken) as caught:
        await posted(connections)
    return str(caught.value)


def test_requests_follow_one_another_on_one_connection(run):
    async def test(server, connections):
        for number in range(3):
            status, headers, body = await posted(connections, b'{"n":%d}' % number, Headers({"mcp-session-id": "one"}))
            assert (status, headers["x-kind"], body) == (200, "Test", b'{"n":%d}' % number)
        assert server.lines == ["POST /mcp?a=b"] * 3
        assert {request.connection for request in server.requests} == {0}
        assert server.requests[2].headers["mcp-session-id"] == "one"
        assert server.requests[2].headers["host"] == server.url.removeprefix("http://")

    run(lambda request: answer(200, request.body, X_Kind="Test"), test)


def test_exchanges_at_once_have_a_connection_each_and_leave_them_to_later_ones(run):
    async def test(server, connections):
        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(posted, connections)
        assert repr(connections).endswith("3 idle>")
        await posted(connections)
        assert server.connections == 3

    run(lambda request: answer(200, b"x"), test)


CHUNKED = [
    b"HTTP/1.1 103 Early Hints\r\nx-early: yes\r\n\r\n",
    b"HTTP/1.1 200 OK\r\ntransfer-enc",
    b"oding: chunked\r\n\r\n3\r\nabc\r\n",
    b"4\r\ndefg\r\n0\r\n",
    b"\r\n",
]


def test_a_body_in_chunks_and_pieces_is_put_together(run):
    async def test(server, connections):
        for _ in range(2):
            assert await posted(connections) == (200, {"transfer-encoding": "chunked"}, b"abcdefg")
        assert server.connections == 1

    run(lambda request: CHUNKED, test)


def test_a_body_is_there_as_it_comes(run):
    async def test(server, connections):
        got = await connections.exchange("POST", "/", NO_HEADERS, b"")
        parts = []
        while part := await got.part():
            parts.append(part)
        await got.aclose()
        assert b"".join(parts) == b"abcdefg"
        assert await got.part() == b""

    run(lambda request: CHUNKED, test)


def test_a_large_body_arrives_whole(run):
    large = bytes(range(256)) * 4096 * 3

    async def test(server, connections):
        assert (await posted(connections, large))[2] == large

    run(lambda request: answer(200, request.body), test)


def test_a_body_without_a_length_ends_with_the_connection(run):
    async def test(server, connections):
        assert (await posted(connections))[2] == b"abc"
        assert (await posted(connections))[2] == b"abc"
        assert server.connections == 2

    run(lambda request: [b"HTTP/1.1 200 OK\r\n\r\nabc", None], test)


def test_a_connection_that_the_server_means_to_close_is_not_used_again(run):
    async def test(server, connections):
        await posted(connections)
        await posted(connections)
        assert server.connections == 2

    run(lambda request: answer(200, b"x", Connection="close"), test)


def test_a_connection_that_was_closed_while_idle_is_replaced_unseen(run):
    async def test(server, connections):
        await posted(connections)
        while connections._idle[0].usable():  # noqa: ASYNC110 - until the connection's end has come; nothing tells us
            await anyio.sleep(0.001)
        await posted(connections)
        assert server.connections == 2

    run(lambda request: [answer(200, b"x"), None], test)


def test_a_connection_that_was_idle_for_long_is_replaced(run, monkeypatch):
    """Its server may be closing it just when the next request is sent, and that must not be sent twice."""

    async def test(server, connections):
        await posted(connections)
        monkeypatch.setattr(http_connection, "_REUSED_WITHIN", 0)
        await posted(connections)
        assert server.connections == 2

    run(lambda request: answer(200, b"x"), test)


def test_an_answer_that_nobody_reads_to_its_end_takes_its_connection_along(run):
    async def test(server, connections):
        got = await connections.exchange("POST", "/", NO_HEADERS, b"")
        await got.aclose()
        await got.aclose()
        assert (await posted(connections))[2] == b"x"
        assert server.connections == 2

    unfinished = b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nx"
    run(lambda request: answer(200, b"x") if request.connection else unfinished, test)


def test_a_request_that_is_given_up_takes_its_connection_along(run):
    events = []

    async def test(server, connections):
        events.append(asked := anyio.Event())
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(posted, connections)
            await asked.wait()
            tasks.cancel_scope.cancel()
        assert (await posted(connections))[2] == b"x"
        assert server.connections == 2

    def answered(request):
        events[0].set()
        return answer(200, b"x") if request.connection else []

    run(answered, test)


FAULTS = [
    ([None], "the connection was closed before the answer"),
    ([b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc", None], "the connection was closed within the answer"),
    ([b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nab", None], "was closed within the answer"),
    ([b"SSH-2.0-OpenSSH_9.6\r\n"], "the answer is not HTTP"),
    ([b"HTTP/1.1 101 Switching Protocols\r\nupgrade: h2c\r\nconnection: upgrade\r\n\r\n"], "the answer is not HTTP"),
    ([answer(200, b"one") + answer(200, b"two")], "the answer is not HTTP"),
]


@pytest.mark.parametrize(("given", "message"), FAULTS)
def test_what_is_no_answer_is_said(run, given, message):
    async def test(server, connections):
        assert message in await broken(connections)
        assert repr(connections).endswith("0 idle>")

    run(lambda request: given, test)


@pytest.mark.parametrize("backend", ["trio", "asyncio"])
def test_nobody_there_is_said(backend):
    async def main():
        async with scripted_http(None) as server:
            port = int(server.url.rpartition(":")[2])
        message = await broken(HTTPConnections("127.0.0.1", port, connect_timeout=LIMIT))
        assert message.startswith("no connection: ")

    anyio.run(main, backend=backend)


def test_a_header_cannot_bring_another_one_along():
    with pytest.raises(ValueError, match="the header authorization has a character that no header may have"):
        Headers({"authorization": "Bearer x\r\nx-more: yes"})


def test_an_answer_that_comes_after_the_close_leaves_no_connection_behind(run):
    async def test(server, connections):
        got = await connections.exchange("POST", "/", NO_HEADERS, b"")
        await connections.aclose()
        assert await got.read() == b"x"
        await got.aclose()
        assert repr(connections).endswith(" 0 idle>")

    run(lambda request: answer(200, b"x"), test)
