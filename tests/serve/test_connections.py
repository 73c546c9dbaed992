"""Requests as they stand on a connection, and the two ways through muxsim, which must not differ."""

from __future__ import annotations

import json
import socket
from functools import partial

import pytest
import trio
from harness import Gate, muxsim_serve, serving

from .conftest import environment
from .machine import eventually, own_descriptors
from .wire import BOTH, Answer, connect, initialize, request_bytes, rpc, shake_hands, text_of, tool_call

pytestmark = pytest.mark.children

JSON = ("Content-Type", "application/json")
OURS = "https://app.example"


def posted(client, message, headers=()):
    body = message if isinstance(message, bytes) else json.dumps(message).encode()
    return request_bytes("127.0.0.1", "POST", client.path, [*client.headers, *headers], body)


async def test_requests_sent_at_once_on_one_connection_are_answered_in_order(talkative, tmp_path):
    """The first takes longest, one streams, and the ways alternate."""
    client = await shake_hands(talkative.url)
    gates = {number: Gate(tmp_path / f"gate-{number}") for number in (1, 4)}
    messages = [
        tool_call(1, "slow", {"until": gates[1].path}),
        tool_call(2, "say", {"text": "two"}),
        tool_call(3, "log"),
        tool_call(4, "slow", {"until": gates[4].path}),
        tool_call(5, "say", {"text": "five"}),
        tool_call(6, "big", {"mib": 2}),
        tool_call(7, "say", {"text": "seven"}),
    ]
    for ordinary in ([], [2, 5], [1, 3, 7], [1, 2, 3, 4, 5, 6, 7]):
        async with connect(client.url) as connection:
            requests = [
                posted(client, message, [("Origin", OURS)] * (message["id"] in ordinary)) for message in messages
            ]
            await connection.stream.send_all(b"".join(requests))
            await eventually(partial(is_in_flight, client))
            gates[1].open()
            answers = []
            for message in messages:
                status, headers = await connection.head()
                if message["id"] == 4:  # a silence has opened its stream
                    gates[4].open()
                answers.append(Answer(status, headers, await connection.read_body()).messages[-1])
        for one in gates.values():
            one.shut()
    for one in gates.values():
        one.close()
        assert [answer["id"] for answer in answers] == [1, 2, 3, 4, 5, 6, 7]
        assert [text_of(answer)[:7] for answer in answers] == [
            "at last", "two", "logged", "at last", "five", "0000000", "seven"
        ]  # fmt: skip


async def is_in_flight(client):
    return (await client.session())["in_flight"] >= 1


async def test_a_connection_takes_any_number_of_requests_one_after_the_other(client):
    """Their heads are not counted together: they are longer than one may be."""
    async with connect(client.url) as connection:
        for number in range(500):
            await connection.stream.send_all(posted(client, tool_call(number, "say", {"text": str(number)})))
            answer = await connection.answer()
            assert (answer.status, text_of(answer.json())) == (200, str(number))
        await connection.send("GET", "/health")
        assert (await connection.answer()).json()["status"] == "ok"


@pytest.mark.parametrize("size", [1, 7, 100])
async def test_a_request_in_pieces_is_one_request(client, size):
    """Cut in the middle of its line, headers, characters and body."""
    request = posted(client, tool_call(7, "say", {"text": "snow☃man" * 10}))
    async with connect(client.url) as connection:
        connection.stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for start in range(0, len(request), size):
            await connection.stream.send_all(request[start : start + size])
        assert text_of((await connection.answer()).json()) == "snow☃man" * 10


async def test_a_request_in_chunks_is_one_request(client):
    body = json.dumps(tool_call(7, "say", {"text": "chunked"})).encode()
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n"
    headers = [*client.headers, ("Transfer-Encoding", "chunked")]
    async with connect(client.url) as connection:
        await connection.send("POST", client.path, headers, chunks)
        assert text_of((await connection.answer()).json()) == "chunked"


async def test_a_client_may_wait_to_be_asked_for_its_body(client):
    body = json.dumps(tool_call(7, "say", {"text": "continued"})).encode()
    headers = [*client.headers, ("Expect", "100-continue"), ("Content-Length", str(len(body)))]
    async with connect(client.url) as connection:
        await connection.send("POST", client.path, headers)
        assert await connection.stream.receive_some(25) == b"HTTP/1.1 100 Continue\r\n\r\n"
        await connection.stream.send_all(body)
        assert text_of((await connection.answer()).json()) == "continued"


@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_a_connection_that_is_to_be_closed_is_closed_after_the_answer(client, version):
    request = posted(client, tool_call(7, "say", {"text": "last"}), [("Connection", "close")] * (version == "1.1"))
    async with connect(client.url) as connection:
        await connection.stream.send_all(request.replace(b"HTTP/1.1", b"HTTP/" + version.encode()))
        assert text_of((await connection.answer()).json()) == "last"
        await connection.closed_by_server()


# ---- both ways


REQUESTS = {
    "a call": tool_call(7, "say", {"text": "x"}),
    "a call with a string id": tool_call("seven", "say", {"text": "☃"}),
    "a big answer": tool_call(7, "big", {"mib": 1}),
    "a big request": tool_call(7, "measure", {"text": "x" * 300_000}),
    "a call that notifies first": tool_call(7, "log"),
    "a call with progress": tool_call(7, "progress", {"steps": 2}, {"progressToken": "t"}),
    "an error of the backend": tool_call(7, "own_error", {"code": -5}),
    "an unknown method": rpc(7, "no/such/method"),
    "a ping": rpc("p", "ping"),
    "a second handshake": initialize(7),
    "a notification": {"jsonrpc": "2.0", "method": "notifications/x"},
    "an answer to nothing": {"jsonrpc": "2.0", "id": 99, "result": {}},
    "an unreadable answer": tool_call(7, "bad_utf8_reply"),
    "no message": {"jsonrpc": "2.0", "id": 7},
    "no JSON": b"{",
    "pretty JSON": json.dumps(tool_call(7, "say", {"text": "x"}), indent=2).encode(),
}
ACCEPTS = {
    "both": BOTH,
    "JSON": "application/json",
    "events": "text/event-stream",
    "all": "*/*",
    "neither": "text/html",
}


@pytest.fixture(scope="module")
def patient(tmp_path_factory):
    """A muxsim for which a busy machine's silence is none: the form of an answer is up to what comes first."""
    config = f'[server]\nstream_silence = 600\nallowed_origins = ["{OURS}"]\n' + environment("naughty")
    with muxsim_serve(tmp_path_factory.mktemp("patient"), config) as running:
        yield running


@pytest.mark.parametrize("accept", ACCEPTS.values(), ids=ACCEPTS)
async def test_the_short_way_and_the_ordinary_way_give_the_same_answers(patient, accept):
    """An Origin, which only browsers send, takes the ordinary way."""
    client = await shake_hands(patient.url, "/mcp")
    for name, message in REQUESTS.items():
        short = await client.post(message, [("Accept", accept)])
        ordinary = await client.post(message, [("Accept", accept), ("Origin", OURS)])
        assert seen(short) == seen(ordinary), name


@pytest.mark.parametrize("accept", ACCEPTS.values(), ids=ACCEPTS)
async def test_a_head_that_was_seen_before_gives_the_same_answers(patient, accept):
    """Only the length of its body differs from that of the call before on the connection."""
    client = await shake_hands(patient.url, "/mcp")
    for name, message in REQUESTS.items():
        async with connect(client.url) as connection:
            answers = []
            for one in (tool_call(1, "say", {"text": "before"}), message, tool_call(1, "say", {"text": "after"})):
                given = [("Content-Type", "application/json"), ("Accept", accept), *client.headers[2:]]
                body = one if isinstance(one, bytes) else json.dumps(one).encode()
                answers.append(await connection.ask("POST", client.path, given, body))
            fresh = await client.post(message, [("Accept", accept), ("Origin", OURS)])
            assert seen(answers[1]) == seen(fresh), name
            assert seen(answers[0])[:3] == seen(answers[2])[:3]


@pytest.mark.parametrize("name", [name for name in ACCEPTS if name != "neither"])
async def test_a_call_that_takes_long_is_answered_in_the_same_form_on_both_ways(talkative, gate, name):
    """Silence opens a stream for who takes one."""
    client = await shake_hands(talkative.url)
    message, answers = tool_call(7, "slow", {"until": gate.path}), []
    for more in ([], [("Origin", OURS)]):
        headers = [client.headers[0], ("Accept", ACCEPTS[name]), *client.headers[2:], *more]
        async with connect(client.url) as connection:
            await connection.send("POST", client.path, headers, json.dumps(message).encode())
            if name == "JSON":
                await eventually(partial(is_in_flight, client))
                gate.open()
            head = await connection.head()
            if name != "JSON":
                gate.open()
            answers.append(seen(Answer(*head, await connection.read_body())))
        gate.shut()
    short, ordinary = answers
    assert short == ordinary
    assert short[1] == ("application/json" if name == "JSON" else "text/event-stream")


@pytest.mark.parametrize("cut", [40, 200, -30, -1])
async def test_a_head_that_was_seen_before_may_come_in_pieces(client, cut):
    async with connect(client.url) as connection:
        connection.stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for number in range(3):
            request = posted(client, tool_call(number, "say", {"text": str(number) * 20}))
            await connection.stream.send_all(request[:cut])
            await trio.lowlevel.checkpoint()
            await connection.stream.send_all(request[cut:])
            assert text_of((await connection.answer()).json()) == str(number) * 20


async def test_a_head_that_was_seen_before_opens_nothing_once_its_session_has_ended(muxsim):
    client = await shake_hands(muxsim.url)
    async with connect(client.url) as connection:
        for status in (200, 404):
            await connection.stream.send_all(posted(client, tool_call(1, "say", {"text": "x"})))
            answer = await connection.answer()
            assert answer.status == status
            if status == 200:
                assert (await client.delete()).status == 204


@pytest.mark.fault("L19")
async def test_another_host_after_a_head_that_was_seen_before_is_refused(client):
    """L19: what was found out about one head is not carried over to another."""
    request = posted(client, tool_call(1, "say", {"text": "x"}))
    async with connect(client.url) as connection:
        await connection.stream.send_all(request)
        assert (await connection.answer()).status == 200
        await connection.stream.send_all(request.replace(b"Host: 127.0.0.1", b"Host: evil.test"))
        assert (await connection.answer()).status == 421


def seen(answer):
    """What of an answer a client goes by, without what differs from one stream to the next."""
    kind = answer.headers.get("content-type", "").partition(";")[0]
    messages = [] if not answer.body else answer.messages
    return answer.status, kind, answer.headers.get("mcp-session-id"), messages


@pytest.mark.fault("L7")
async def test_a_body_in_no_hurry_is_given_up_in_time(tmp_path):
    """L7: with a session and without one; no backend hears of it."""
    config = "[server]\nbody_timeout = 0.5\n" + environment("naughty")
    async with serving(tmp_path, config) as muxsim:
        client = await shake_hands(muxsim.url, "/mcp")
        before = own_descriptors(muxsim.process.pid)
        body = json.dumps(tool_call(7, "say")).encode()
        for headers in (client.headers, [JSON]):
            async with connect(muxsim.url) as connection:
                await connection.send("POST", "/mcp", [*headers, ("Content-Length", str(len(body)))])
                await connection.stream.send_all(body[:10])
                with trio.fail_after(60):
                    assert (await connection.answer()).status == 408
                    await connection.closed_by_server()
        await eventually(lambda: own_descriptors(muxsim.process.pid) <= before)
        assert [message["method"] for message in await client.heard()][2:] == ["tools/call"]


async def test_a_connection_dropped_in_the_middle_of_anything_leaves_nothing(muxsim, client, gate):
    """A head, half a body, a call that runs, a stream that streams; sixty times."""
    whole = posted(client, tool_call("d", "slow", {"until": gate.path}))
    before = own_descriptors(muxsim.pid)
    for cut in range(0, len(whole) + 1, len(whole) // 60):
        async with connect(client.url) as connection:
            await connection.stream.send_all(whole[:cut])
            connection.drop()
    await eventually(lambda: own_descriptors(muxsim.pid) <= before)
    gate.open()
    assert await client.text("say", text="still here") == "still here"


@pytest.mark.fault("L27")
@pytest.mark.parametrize(
    "request_head",
    [
        b"POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /mcp HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n\r\n",
        b"POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        b"POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
        b"GET /health HTTP/1.1\nHost : localhost\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
    ids=["length and chunks", "bad chunk", "negative length", "two lengths", "space in a name", "TLS"],
)
async def test_bytes_that_are_no_http_are_refused_and_the_connection_closed(muxsim, request_head):
    """L27."""
    async with connect(muxsim.url) as connection:
        await connection.stream.send_all(request_head)
        with trio.fail_after(60):
            answer = await connection.answer()
            assert 400 <= answer.status < 500
            await connection.closed_by_server()
