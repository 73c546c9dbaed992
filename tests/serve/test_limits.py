"""What a client may cost before its request is complete, on raw connections. Rows are those of the table of faults."""

from __future__ import annotations

import json
from contextlib import AsyncExitStack, contextmanager, suppress
from dataclasses import dataclass

import pytest
import trio
from harness import Running, muxsim_serve, serving

from .conftest import environment
from .machine import eventually, forget_peak, log_lines, logged, memory, own_descriptors, peak_memory, unread
from .wire import ask, connect, open_session, shake_hands, text_of, tool_call

pytestmark = pytest.mark.children

# Seconds after which muxsim gives up who sends nothing, or little: more than it may stand still for without giving
# everybody more time (`STOOD_STILL`), so that nothing which has come is ever late, however busy the machine.
SHORT = 1.5
NOBODY_IS_LATE = "header_timeout = 600\nbody_timeout = 600\n"
SOMEBODY_IS_LATE = f"header_timeout = {SHORT}\nbody_timeout = {SHORT}\n"
SIZES = """
max_body = "1 MiB"
max_header_bytes = "8 KiB"
max_headers = 40
max_url = 1000
"""
JSON = ("Content-Type", "application/json")
MIB = 2**20


async def reached(url, setting):
    return (await ask(url, "GET", "/health")).json()["limits"][setting]


async def answers_and_closes(connection):
    """The status of what it answers; the connection is closed after it."""
    with trio.fail_after(60):
        answer = await connection.answer()
        await connection.closed_by_server()
    return answer


@dataclass
class Bounded:
    """A muxsim of many tests, and how often each bound had been met when this one began."""

    running: Running
    before: dict[str, int]

    @property
    def url(self):
        return self.running.url

    @property
    def pid(self):
        return self.running.process.pid

    async def met(self):
        """How often each bound has been met since, of those that have."""
        now = (await ask(self.url, "GET", "/health")).json()["limits"]
        return {name: count - self.before[name] for name, count in now.items() if count != self.before[name]}


@contextmanager
def serve_bounded(folder, *settings):
    """Without the zygote that it would make for later sessions."""
    config = "[server]\n" + "\n".join(settings) + environment("naughty", extra="zygote = false")
    with muxsim_serve(folder, config) as running:
        yield running


async def bounded_now(running):
    forget_peak(running.process.pid)
    return Bounded(running, (await ask(running.url, "GET", "/health")).json()["limits"])


@pytest.fixture(scope="module")
def strict_muxsim(tmp_path_factory):
    with serve_bounded(tmp_path_factory.mktemp("strict"), NOBODY_IS_LATE, SIZES) as running:
        yield running


@pytest.fixture(scope="module")
def hasty_muxsim(tmp_path_factory):
    with serve_bounded(tmp_path_factory.mktemp("hasty"), SOMEBODY_IS_LATE, SIZES) as running:
        yield running


@pytest.fixture
async def strict(strict_muxsim):
    """A muxsim with small bounds."""
    return await bounded_now(strict_muxsim)


@pytest.fixture
async def hasty(hasty_muxsim):
    """The same, and it waits for nobody for long."""
    return await bounded_now(hasty_muxsim)


async def send_until_closed(connection, piece):
    """Send it again whenever the server has read the last one, until it closes the connection."""
    with trio.fail_after(60), suppress(trio.BrokenResourceError):
        while True:
            await connection.stream.send_all(piece)
            await eventually(lambda: unread(connection.stream.socket) == 0)


HALF_OPEN = {
    "nothing": b"",
    "an empty line": b"\r\n",
    "half a line": b"POST /mcp HT",
    "half the headers": b"POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Le",
}


@pytest.mark.fault("L6")
async def test_two_hundred_connections_without_whole_headers_are_closed_in_time_and_others_served(hasty):
    """L6."""
    assert await hasty.met() == {}  # it accepts, for which libuv has opened a file by now
    before = own_descriptors(hasty.pid)
    async with AsyncExitStack() as stack:
        for number in range(200):
            connection = await stack.enter_async_context(connect(hasty.url))
            await connection.stream.send_all([*HALF_OPEN.values()][number % len(HALF_OPEN)])
        client = await shake_hands(hasty.url, "/mcp")
        for _ in range(20):
            assert await client.text("say", text="meanwhile") == "meanwhile"

        async def all_closed():
            return (await hasty.met()).get("header_timeout", 0) >= 200  # more, if one of ours was slow

        await eventually(all_closed, within=60)
        assert await client.text("say", text="afterwards") == "afterwards"
        await client.delete()
        await eventually(lambda: own_descriptors(hasty.pid) <= before)


@pytest.mark.fault("L6")
@pytest.mark.parametrize("sent", HALF_OPEN.values(), ids=HALF_OPEN)
async def test_headers_that_do_not_come_get_a_408_if_they_had_begun(hasty, sent):
    """L6."""
    async with connect(hasty.url) as connection:
        await connection.stream.send_all(sent)
        with trio.fail_after(60):
            if not sent.strip():
                await connection.closed_by_server()
                return
        answer = await answers_and_closes(connection)
    assert answer.status == 408
    assert "server.header_timeout" in answer.error["message"]


@pytest.mark.fault("L6")
async def test_headers_that_trickle_have_no_more_time_than_others(hasty):
    """L6: each byte comes soon after the last."""
    async with connect(hasty.url) as connection:
        await connection.stream.send_all(b"GET /health HTTP/1.1\r\nX: ")
        await send_until_closed(connection, b"x")
    assert (await hasty.met())["header_timeout"] >= 1


@pytest.mark.fault("L6")
async def test_the_headers_of_a_later_request_have_a_deadline_too(hasty):
    """L6."""
    async with connect(hasty.url) as connection:
        assert (await connection.ask("GET", "/health")).status == 200
        await a_header_timeout_passes(hasty)
        assert (await connection.ask("GET", "/health")).status == 200
        await connection.stream.send_all(b"GET /health HTTP/1.1\r\nHo")
        assert (await answers_and_closes(connection)).status == 408


async def a_header_timeout_passes(running):
    """Wait as long as muxsim waits for another connection's head."""
    async with connect(running.url) as connection:
        await connection.stream.send_all(b"GET /health HTTP/1.1\r\nHo")
        assert (await answers_and_closes(connection)).status == 408


async def test_an_empty_line_after_an_answer_keeps_no_connection_for_ever(hasty):
    async with connect(hasty.url) as connection:
        assert (await connection.ask("GET", "/health")).status == 200
        await connection.stream.send_all(b"\r\n")
        with trio.fail_after(60):
            await connection.closed_by_server()


@pytest.mark.fault("L7")
async def test_a_body_that_nobody_wants_is_not_waited_for_for_ever(hasty):
    """L7: its answer was there before it."""
    async with connect(hasty.url) as connection:
        await connection.send("POST", "/nowhere", [("Content-Length", "100000")])
        assert (await connection.answer()).status == 404
        await send_until_closed(connection, b"x")
    assert (await hasty.met())["body_timeout"] == 1


@pytest.mark.fault("L7")
@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunks"])
async def test_a_body_that_trickles_gets_a_408(hasty, chunked):
    """L7."""
    framing = ("Transfer-Encoding", "chunked") if chunked else ("Content-Length", "1000")
    async with connect(hasty.url) as connection, trio.open_nursery() as nursery:
        await connection.send("POST", "/mcp", [JSON, framing])

        nursery.start_soon(send_until_closed, connection, b"1\r\n{\r\n" if chunked else b"{")
        answer = await connection.answer()
        nursery.cancel_scope.cancel()
    assert answer.status == 408
    assert "server.body_timeout" in answer.error["message"]
    assert (await hasty.met())["body_timeout"] == 1


@pytest.mark.fault("L8")
@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunks"])
async def test_a_body_too_large_gets_a_413_before_it_is_in_memory(strict, chunked):
    """L8: 32 MiB, thirty-two times what is allowed."""
    before = memory(strict.pid)
    framing = ("Transfer-Encoding", "chunked") if chunked else ("Content-Length", str(32 * MIB))
    async with connect(strict.url) as connection, trio.open_nursery() as nursery:
        await connection.send("POST", "/mcp", [JSON, framing])

        async def flood():
            try:
                for _ in range(32):
                    await connection.stream.send_all(
                        (b"100000\r\n" if chunked else b"") + bytes(MIB) + b"\r\n" * chunked
                    )
            except trio.BrokenResourceError:
                pass

        nursery.start_soon(flood)
        answer = await connection.answer()
    assert answer.status == 413
    assert "server.max_body" in answer.error["message"]
    assert peak_memory(strict.pid) - before < 8 * MIB
    assert (await strict.met())["max_body"] == 1


BOMBS = {
    "one header of 64 KiB": (431, b"X: " + b"x" * 65536 + b"\r\n\r\n", "max_header_bytes"),
    "ten thousand headers": (431, b"X: x\r\n" * 10_000 + b"\r\n", "max_header"),
    "just too many": (431, b"X: x\r\n" * 40 + b"\r\n", "max_headers"),
    "one header without an end": (431, b"X: " + b"x" * 2**20, "max_header_bytes"),
    "a name without an end": (431, b"x" * 2**20, "max_header_bytes"),
}


@pytest.mark.fault("L9")
@pytest.mark.parametrize("bomb", BOMBS)
async def test_a_header_bomb_gets_a_431(strict, bomb):
    """L9."""
    status, headers, setting = BOMBS[bomb]
    before = memory(strict.pid)
    async with connect(strict.url) as connection, trio.open_nursery() as nursery:

        async def send():
            with suppress(trio.BrokenResourceError):
                await connection.stream.send_all(b"POST /mcp HTTP/1.1\r\nHost: localhost\r\n" + headers)

        nursery.start_soon(send)
        try:
            answer = await answers_and_closes(connection)
            assert answer.status == status
            assert f"server.{setting}" in answer.error["message"]
        except trio.BrokenResourceError:
            # The kernel may drop an answer when more has come than was read; that it was refused shows below.
            pass
    assert sum(count for name, count in (await strict.met()).items() if name.startswith(setting)) == 1
    assert peak_memory(strict.pid) - before < 8 * MIB


@pytest.mark.fault("L9")
async def test_headers_up_to_the_bounds_are_taken(strict):
    """L9."""
    for headers in ([("X", "x")] * 39, [("X", "x" * 8000)]):
        assert (await ask(strict.url, "GET", "/health", headers)).status == 200
    assert (await ask(strict.url, "GET", "/health?" + "x" * 990)).status == 200


async def test_a_target_too_long_gets_a_414(strict):
    async with connect(strict.url) as connection:
        await connection.stream.send_all(b"GET /" + b"x" * 1000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n")
        answer = await answers_and_closes(connection)
    assert answer.status == 414
    assert "server.max_url" in answer.error["message"]
    assert (await strict.met())["max_url"] == 1


@pytest.mark.fault("L9", "L27")
async def test_trailers_are_bounded_and_nobodys_headers(strict):
    """L9, L27: a session header that comes after the body opens no session."""
    client = await shake_hands(strict.url, "/mcp")
    body = json.dumps(tool_call(1, "say", {"text": "x"})).encode()
    chunk = b"%x\r\n%b\r\n0\r\n" % (len(body), body)
    framing = ("Transfer-Encoding", "chunked")
    async with connect(strict.url) as connection:
        trailer = f"Mcp-Session-Id: {client.id}\r\n\r\n".encode()
        headers = [pair for pair in client.headers if pair[0] != "Mcp-Session-Id"]
        await connection.send("POST", "/mcp", [*headers, framing], chunk + trailer)
        assert (await connection.answer()).status == 400
    async with connect(strict.url) as connection:
        with suppress(trio.BrokenResourceError):  # it is cut off before it has sent all
            await connection.send("POST", "/mcp", [*client.headers, framing], chunk + b"X: " + b"x" * 8 * MIB)
        await connection.closed_by_server()
    assert (await strict.met())["max_header_bytes"] == 1


@pytest.mark.fault("L27")
async def test_a_bad_request_behind_a_good_one_is_not_answered_in_its_place(strict, gate):
    """L27: the connection is closed instead."""
    client = await shake_hands(strict.url, "/mcp")
    body = json.dumps(tool_call(1, "slow", {"until": gate.path})).encode()
    async with connect(strict.url) as connection:
        await connection.send("POST", "/mcp", client.headers, body)
        await connection.stream.send_all(b"POST / HTTP/1.1\r\nX: " + b"x" * 10_000 + b"\r\n\r\n")
        gate.open()
        received = b""
        with trio.fail_after(60):
            while data := await connection.stream.receive_some(65536):
                received += data
    assert b" 431 " not in received


@pytest.mark.parametrize("setting", ["max_connections", "max_connections_per_peer"])
async def test_connections_past_the_cap_get_a_503_and_places_come_back(tmp_path, setting):
    config = f"[server]\n{setting} = 5\nheader_timeout = 60\n" + environment("naughty")
    async with serving(tmp_path, config) as muxsim, AsyncExitStack() as stack:
        held = [await stack.enter_async_context(connect(muxsim.url)) for _ in range(5)]
        for connection in held:
            assert (await connection.ask("GET", "/health")).status == 200
        async with connect(muxsim.url) as connection:
            answer = await answers_and_closes(connection)
            assert (answer.status, answer.headers["retry-after"]) == (503, "1")
            assert f"server.{setting}" in answer.error["message"]
        held[0].drop()

        async def has_room():
            async with connect(muxsim.url) as connection:
                return (await connection.ask("GET", "/health")).status == 200

        await eventually(has_room)
        assert (await held[1].ask("GET", "/health")).json()["limits"][setting] >= 1


async def test_the_short_way_still_works_under_strict_bounds(strict):
    client = await shake_hands(strict.url, "/mcp")
    answer = await client.post(tool_call(1, "measure", {"text": "x" * 300_000}))
    assert text_of(answer.json()) is not None
    assert (await client.delete()).status == 204


async def test_requests_of_both_ways_on_one_connection_count_towards_no_bound(hasty):
    """The bounds are of one request: forty of a kilobyte each, taken past the parser, are not a long head."""
    client = await shake_hands(hasty.url, "/mcp")
    async with connect(hasty.url) as connection:
        for number in range(40):
            body = json.dumps(tool_call(number, "say", {"text": "x" * 1000})).encode()
            answer = await connection.ask("POST", "/mcp", client.headers, body)
            assert (answer.status, text_of(answer.json())) == (200, "x" * 1000)
            if number % 10 == 0:
                assert (await connection.ask("GET", "/health")).status == 200
        await a_header_timeout_passes(hasty)
        assert (await connection.ask("POST", "/mcp", client.headers, body)).status == 200
    assert (await hasty.met()).keys() == {"header_timeout"}


# ---- of sessions

SESSION_LIMITS = """[server]
max_buffered = "64 KiB"
handshake_timeout = 2
max_in_flight = 3
max_line = "1 MiB"
"""


@pytest.fixture
async def bounded(tmp_path):
    environments = environment("naughty") + environment("brisk", extra="call_timeout = 0.4")
    async with serving(tmp_path, SESSION_LIMITS + environments) as muxsim:
        yield muxsim


async def test_a_session_that_no_client_shakes_hands_with_ends(bounded):
    session = await open_session(bounded.url)
    ended = await logged(bounded, event="session.ended", session=session["id"])
    assert ended["cause"] == "handshake_timeout"
    client = await shake_hands(bounded.url)
    session = await open_session(bounded.url)
    await logged(bounded, event="session.ended", session=session["id"])
    assert await client.text("say", text="still here") == "still here"
    assert await reached(bounded.url, "handshake_timeout") == 2


async def test_one_more_request_than_may_be_in_flight_gets_an_error_that_names_the_setting(bounded, gate):
    client = await shake_hands(bounded.url)

    async def in_flight():
        return (await client.session())["in_flight"]

    async with AsyncExitStack() as stack:
        for number in range(3):
            await stack.enter_async_context(client.posting(tool_call(f"slow {number}", "slow", {"until": gate.path})))
        await becomes(in_flight, 3)
        for headers in ([], [("Accept", "application/json")]):
            refused = (await client.post(tool_call(7, "say", {"text": "x"}), headers)).json()
            assert (refused["id"], refused["error"]["code"]) == (7, -32003)
            assert "(max_in_flight)" in refused["error"]["message"]
        gate.open()
        await becomes(in_flight, 0)
    assert len(log_lines(bounded, event="session.limit", limit="max_in_flight")) == 1, "told once, counted each time"
    assert await client.text("say", text="room again") == "room again"
    assert await reached(bounded.url, "max_in_flight") == 2


async def becomes(asked, wanted):
    async def is_it():
        return await asked() == wanted

    await eventually(is_it)


async def test_calls_out_of_time_make_room_and_are_counted(bounded):
    client = await shake_hands(bounded.url, "/mcp?env=brisk")
    for _ in range(5):  # two more than there is room for at once
        assert "call_timeout" in (await client.call("hang"))["error"]["message"]
    assert await reached(bounded.url, "call_timeout") == 5


async def test_a_line_too_long_is_counted(bounded):
    client = await shake_hands(bounded.url)
    assert "(max_line)" in (await client.call("big", mib=2))["error"]["message"]
    assert await reached(bounded.url, "max_line") == 1


@pytest.mark.fault("L5")
async def test_a_client_that_does_not_read_holds_up_its_own_session_only(bounded):
    """L5: at 64 KiB; that is counted."""
    client, other = await shake_hands(bounded.url), await shake_hands(bounded.url)
    async with client.listening(receive_buffer=4096):
        await client.post({"jsonrpc": "2.0", "method": "notifications/x"})
        flood = tool_call(1, "notification_flood", {"count": 16_000})
        async with client.posting(flood, [("Accept", "application/json, text/event-stream")]):
            await logged(bounded, event="session.limit", limit="max_buffered", within=60)
            assert await other.text("say", text="not me") == "not me"
    assert await reached(bounded.url, "max_buffered") >= 1
