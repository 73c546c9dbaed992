"""One connection, two ways through muxsim: what the parser hands to uvicorn's protocol, and takes back, is in order."""

from __future__ import annotations

import json
import random
import socket
from functools import partial

import pytest
import trio

from .machine import eventually
from .test_connections import OURS, is_in_flight, posted
from .wire import connect, request_bytes, text_of, tool_call

pytestmark = pytest.mark.children


def chunked(client, message, pieces):
    body = json.dumps(message).encode()
    cut = max(1, len(body) // pieces)
    parts = [body[at : at + cut] for at in range(0, len(body), cut)]
    framed = b"".join(b"%x;ext=1\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\nX-Trailer: x\r\n\r\n"
    headers = [*client.headers, ("Transfer-Encoding", "chunked")]
    return request_bytes("127.0.0.1", "POST", client.path, headers) + framed


def mixed(client, number):
    """Requests of every form that is taken, and what the answer to each has to be."""
    call = tool_call(number, "say", {"text": f"text {number}"})
    upgrade = [("Connection", "Upgrade, HTTP2-Settings"), ("Upgrade", "h2c"), ("HTTP2-Settings", "AAMAAABkAAQ")]
    forms = {
        "short": posted(client, call),
        "ordinary": posted(client, call, [("Origin", OURS)]),
        "chunked": chunked(client, call, 5),
        "upgrade": posted(client, call, upgrade),
        "chunked upgrade": chunked(client, call, 2).replace(
            b"\r\n\r\n", b"\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n", 1
        ),
        "get upgrade": request_bytes("127.0.0.1", "GET", "/ready", upgrade),
        "get": request_bytes("127.0.0.1", "GET", "/ready"),
        "options": request_bytes("127.0.0.1", "OPTIONS", "/mcp"),
        "unknown": request_bytes("127.0.0.1", "GET", "/nothing/here"),
        "notification": posted(client, {"jsonrpc": "2.0", "method": "notifications/x"}),
        "large": posted(client, tool_call(number, "measure", {"text": "x" * 100_000})),
    }
    return forms, f"text {number}"


STATUS = {"options": 405, "unknown": 404, "notification": 202}


async def check(connection, form, text):
    answer = await connection.answer()
    assert answer.status == STATUS.get(form, 200), form
    if form in ("short", "ordinary", "chunked", "upgrade", "chunked upgrade"):
        assert text_of(answer.messages[-1]) == text, form


@pytest.mark.parametrize("seed", range(4))
async def test_requests_of_any_form_in_any_order_and_pieces_are_each_answered_in_turn(client, seed):
    """The bytes are cut anywhere: in a head, between two requests, in the middle of a chunk's size."""
    order = random.Random(seed)
    names = list(mixed(client, 0)[0])
    wanted = [(order.choice(names), number) for number in range(1, 25)]
    data = b"".join(mixed(client, number)[0][form] for form, number in wanted)
    async with connect(client.url) as connection, trio.open_nursery() as nursery:
        connection.stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        async def send():
            at = 0
            while at < len(data):
                cut = order.choice([1, 7, 300, 5000, 70_000])
                await connection.stream.send_all(data[at : at + cut])
                at += cut

        nursery.start_soon(send)
        for form, number in wanted:
            await check(connection, form, f"text {number}")


async def test_heads_byte_by_byte_are_heads(client):
    async with connect(client.url) as connection:
        connection.stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for form, data in mixed(client, 7)[0].items():
            head, _, body = data.partition(b"\r\n\r\n")
            for byte in head + b"\r\n\r\n":
                await connection.stream.send_all(bytes([byte]))
            await connection.stream.send_all(body)
            await check(connection, form, "text 7")


async def test_thousands_of_messages_at_once_are_each_answered(client):
    """What needs no waiting is answered in a loop, not one inside the other."""
    one = posted(client, {"jsonrpc": "2.0", "method": "notifications/x"})
    async with connect(client.url) as connection, trio.open_nursery() as nursery:
        nursery.start_soon(connection.stream.send_all, one * 3000 + posted(client, tool_call(1, "say", {"text": "x"})))
        for _ in range(3000):
            assert (await connection.answer()).status == 202
        assert text_of((await connection.answer()).json()) == "x"


async def test_a_head_only_is_answered_without_a_body(client):
    async with connect(client.url) as connection:
        for _ in range(2):
            await connection.stream.send_all(request_bytes("127.0.0.1", "HEAD", "/health"))
            received = b""
            while not received.endswith(b"\r\n\r\n"):
                received += await connection.stream.receive_some(4096)
            assert received.startswith(b"HTTP/1.1 200 ")
            assert received.count(b"\r\n\r\n") == 1
        await connection.stream.send_all(posted(client, tool_call(1, "say", {"text": "x"})))
        assert text_of((await connection.answer()).json()) == "x"


async def test_a_good_request_before_a_bad_one_is_answered_and_the_connection_closed(client, gate):
    async with connect(client.url) as connection:
        good = posted(client, tool_call(1, "slow", {"until": gate.path}))
        await connection.stream.send_all(good + b"NO HTTP AT ALL\r\n\r\n")
        await eventually(partial(is_in_flight, client))
        gate.open()
        assert text_of((await connection.answer()).messages[-1]) == "at last"
        await connection.closed_by_server()


async def test_length_and_chunks_together_are_refused_on_either_way(client):
    async with connect(client.url) as connection:
        data = chunked(client, tool_call(1, "say"), 1).replace(b"\r\n\r\n", b"\r\nContent-Length: 3\r\n\r\n", 1)
        await connection.stream.send_all(data)
        answer = await connection.answer()
        assert (answer.status, answer.headers["content-type"]) == (400, "application/json")
        await connection.closed_by_server()


# ---- early refusals

EARLY = {
    "no such path": (404, "/nowhere", []),
    "a foreign host": (421, "/mcp", [("Host", "evil.example")]),
    "a foreign page": (403, "/mcp", [("Origin", "https://evil.example")]),
    "an unknown session": (404, "/mcp", [("Mcp-Session-Id", "x"), ("Content-Type", "application/json")]),
    "no JSON": (415, "/mcp", [("Content-Type", "text/plain")]),
    "too large": (413, "/mcp", [("Content-Type", "application/json"), ("Content-Length", "99999999999")]),
}


@pytest.mark.parametrize("early", EARLY)
@pytest.mark.parametrize("expects", [False, True])
async def test_after_a_refusal_with_a_body_to_come_the_connection_is_closed(muxsim, early, expects):
    """L8: nothing that comes after the answer is taken for a request, or kept."""
    status, path, headers = EARLY[early]
    given = [("Content-Length", "1000000"), *headers] if early != "too large" else headers
    async with connect(muxsim.url) as connection:
        await connection.send("POST", path, [*given, *[("Expect", "100-continue")] * expects])
        answer = await connection.answer()
        assert (answer.status, answer.headers["connection"]) == (status, "close")
        assert await connection.stream.receive_some(1) == b""
        await connection.stream.send_all(request_bytes("127.0.0.1", "GET", "/health"))


# ---- HTTP/1.0


@pytest.mark.parametrize("tool", ["say", "log"])
async def test_a_client_of_http_1_0_gets_no_chunks(client, tool):
    """L27: neither of an answer, nor of an event stream, whose end is that of its connection."""
    request = posted(client, tool_call(7, tool, {"text": "x"} if tool == "say" else None), [("Origin", OURS)])
    async with connect(client.url) as connection:
        await connection.stream.send_all(request.replace(b"HTTP/1.1", b"HTTP/1.0"))
        received = b""
        while data := await connection.stream.receive_some(65536):
            received += data
    head, _, body = received.partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in head.lower()
    assert b"connection: close" in head.lower()
    lines = body.decode().replace("\r\n", "\n").split("\n")
    messages = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith(("data: {", "{"))]
    assert messages[-1]["id"] == 7
