"""A misbehaving backend harms its own session at most. Rows are those of the table of faults."""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio

from .machine import eventually, forget_peak, gone, logged, memory, peak_memory, processes_with
from .wire import EventReader, ask, connect, initialize, live_sessions, rpc, shake_hands, text_of, tool_call

pytestmark = pytest.mark.children

PATIENCE = 60.0
"""Seconds that a test waits on a machine that is busy; what it waits for comes at once where nothing else is to do."""

MIB = 2**20


@asynccontextmanager
async def nobody_else_notices(url):
    """Another session, with a call under way all the time: each is answered."""
    other = await shake_hands(url)
    answered = []

    async def call():
        while True:
            assert await other.text("say", text="here") == "here"
            answered.append(True)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(call)
        yield
        calls = len(answered)
        await eventually(lambda: len(answered) >= calls + 3)
        nursery.cancel_scope.cancel()


async def collect(client, *messages):
    """The answers to messages posted at once, in their order."""
    answers = {}

    async def post(message):
        answers[message["id"]] = await client.post(message)

    async with trio.open_nursery() as nursery:
        for message in messages:
            nursery.start_soon(post, message)
    return [answers[message["id"]] for message in messages]


async def last_answers(client, waiting, deadly, ready=None):
    """The answers to calls that wait and to one that ends the backend; they all have to come at once then."""
    answers = []

    async def post(message):
        answers.append(await client.post(message))

    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            for message in waiting:
                nursery.start_soon(post, message)
            await until_in_flight(client, len(waiting))
            if ready is not None:
                await ready()
            await post(deadly)
    assert len(answers) == len(waiting) + 1
    return answers


async def is_gone(client):
    """The session of this client is 404 on each of its URLs."""
    assert (await client.post(rpc(99, "ping"))).status == 404
    assert (await ask(client.url, "GET", f"/sessions/{client.id}")).status == 404
    assert (await ask(client.url, "POST", f"/s/{client.id}/mcp", body=initialize())).status == 404


DEATHS = [
    pytest.param("exit", -32000, "exited with status 3", 3, "I am leaving", id="exits"),
    pytest.param("kill_itself", -32000, "killed by SIGKILL", -9, "killing myself", id="is killed"),
    pytest.param("close_stdout", -32000, "closed its stdin or stdout", None, "closing stdout", id="closes stdout"),
    pytest.param("half_a_line", -32000, "exited with status 4", 4, "naughty starts", id="exits within a line"),
    pytest.param("leave_stdout_behind", -32000, "exited with status 5", 5, "grandchild", id="leaves stdout open"),
]


@pytest.mark.fault("C1", "C2", "C8", "C9", "C10", "C22")
@pytest.mark.parametrize(("tool", "code", "text", "status", "said"), DEATHS)
async def test_every_request_in_flight_learns_at_once_how_its_backend_ended(muxsim, tool, code, text, status, said):
    """C1, C2, C8, C9, C10, C22."""
    client = await shake_hands(muxsim.url)
    pid = await client.value("who")
    async with nobody_else_notices(muxsim.url):
        answers = await last_answers(client, [tool_call(number, "hang") for number in (1, 2, 3)], tool_call(4, tool))
    for answer in answers:
        (message,) = answer.messages
        error = message["error"]
        assert error["code"] == code
        assert text in error["message"]
        assert error["data"]["exit_status"] == status
        assert any(said in line for line in error["data"]["stderr"])
    assert sorted(answer.messages[0]["id"] for answer in answers) == [1, 2, 3, 4]
    await is_gone(client)
    # What it leaves behind is ended after the clients know, and ignores all but SIGKILL.
    await eventually(lambda: processes_with(pid["env"]["MUXSIM_PROCESS"]) == [])


@pytest.mark.fault("C9")
async def test_a_backend_that_closed_its_stdin_is_ended_by_the_next_message_for_it(muxsim, client):
    """C9: until then it may still answer; nobody can tell from outside."""
    pid = (await client.value("who"))["pid"]
    closed = partial(logged, muxsim, event="backend.stderr", session=client.id, line="closing stdin")
    answers = await last_answers(client, [tool_call(1, "close_stdin")], tool_call(2, "say"), closed)
    assert sorted(answer.messages[0]["id"] for answer in answers) == [1, 2]
    for answer in answers:
        assert "closed its stdin" in answer.messages[0]["error"]["message"]
    await is_gone(client)
    await gone(pid)


async def until_in_flight(client, number):
    async def in_flight():
        return (await client.session())["in_flight"] >= number

    await eventually(in_flight)


@pytest.mark.fault("C2")
async def test_an_error_shows_the_last_lines_of_stderr_in_order(client):
    """C2: the tail is what helps."""
    said = [f"line {number}" for number in range(50)]
    error = (await client.call("exit", code=0, say=said))["error"]
    assert error["data"]["stderr"] == said[-20:]
    assert error["data"]["exit_status"] == 0


@pytest.mark.fault("C3")
async def test_a_backend_that_exits_at_its_start_fails_the_handshake_with_status_and_stderr(muxsim):
    """C3."""
    with trio.fail_after(PATIENCE):
        answer = await ask(muxsim.url, "POST", "/mcp?env=leaving", body=initialize(5))
    (message,) = answer.messages
    assert answer.status == 200
    assert message["id"] == 5
    assert message["error"]["data"]["exit_status"] == 7
    assert message["error"]["data"]["stderr"] == ["naughty starts", "it cannot start today"]
    assert message["error"]["message"].endswith("exited with status 7; its last line on stderr: it cannot start today")
    assert await live_sessions(muxsim) == []


@pytest.mark.fault("C3")
async def test_a_client_over_sse_is_told_too_why_the_backend_of_its_handshake_has_gone(muxsim):
    """C3."""
    async with connect(muxsim.url) as connection:
        await connection.send("GET", "/sse?env=leaving", [("Accept", "text/event-stream")])
        await connection.head()
        events = EventReader(connection)
        posted = await ask(muxsim.url, "POST", f"/{(await events.next()).data}", body=initialize(5))
        if posted.status == 404:  # it has gone already
            error = posted.error
        else:
            error = (await events.until(lambda message: message.get("id") == 5)).json()["error"]
    assert error["message"].endswith("exited with status 7; its last line on stderr: it cannot start today")


@pytest.mark.fault("C5")
async def test_a_backend_that_never_answers_the_handshake_is_ended_after_its_start_timeout(muxsim):
    """C5."""
    async with nobody_else_notices(muxsim.url):
        answer = await ask(muxsim.url, "POST", "/mcp?env=mute", body=initialize(5))
    (message,) = answer.messages
    assert "start_timeout" in message["error"]["message"]
    assert [session["env"] for session in await live_sessions(muxsim)] == ["naughty"]


@pytest.mark.fault("C6")
async def test_a_slow_start_succeeds_and_delays_nobody_else(muxsim):
    """C6."""
    async with trio.open_nursery() as nursery:

        async def start():
            client = await shake_hands(muxsim.url, "/mcp?env=slow&seed=78")
            assert await client.text("say", text="awake") == "awake"

        async with nobody_else_notices(muxsim.url):
            nursery.start_soon(start)
            await logged(muxsim, event="session.started", env="slow", seed=78)
        muxsim.gate.open()
    muxsim.gate.shut()


@pytest.mark.fault("C7")
async def test_a_call_past_its_timeout_gets_an_error_and_the_backend_a_cancellation(muxsim):
    """C7: the session goes on."""
    client = await shake_hands(muxsim.url, "/mcp?env=brisk")
    message = await client.call("hang")
    assert message["error"]["code"] == -32001
    assert "call_timeout" in message["error"]["message"]
    while "result" not in (answer := await client.call("heard")):
        pass  # which has no more time, and may need it
    _, _, call, cancelled, *_ = map(json.loads, json.loads(text_of(answer)))
    assert call["params"]["name"] == "hang"
    assert cancelled["method"] == "notifications/cancelled"
    assert cancelled["params"]["requestId"] == call["id"]


@pytest.mark.fault("C7")
async def test_a_stopped_backend_times_out_its_calls_and_can_still_be_deleted(muxsim):
    """C7: a stopped process takes no SIGTERM before its SIGCONT."""
    client = await shake_hands(muxsim.url, "/mcp?env=brisk")
    pid = (await client.session())["pid"]
    assert "call_timeout" in (await client.call("stop_itself"))["error"]["message"]
    assert (await client.delete()).status == 204
    await gone(pid)


@pytest.mark.fault("C19")
async def test_a_backend_that_ignores_everything_is_killed_in_its_grace(muxsim):
    """C19."""
    client = await shake_hands(muxsim.url, "/mcp?env=stubborn")
    pid = (await client.value("who"))["pid"]
    with trio.fail_after(PATIENCE):
        assert (await client.delete()).status == 204
    await gone(pid)


@pytest.mark.fault("C11")
async def test_an_answer_in_tiny_pieces_that_cut_characters_arrives_whole(client):
    """C11."""
    assert await client.text("pieces") == "snow☃man🏔 " * 40


@pytest.mark.fault("C12", "C13", "C14")
@pytest.mark.parametrize(
    ("tool", "text"),
    [("not_json", "after noise"), ("not_messages", "after no messages"), ("bad_utf8", "after bad bytes")],
)
async def test_what_is_no_message_is_skipped_and_logged(muxsim, client, tool, text):
    """C12, C13, C14: the answer behind the noise arrives, and nothing of the noise does."""
    (message,) = (await client.post(tool_call(7, tool))).messages
    assert (message["id"], text_of(message)) == (7, text)
    await logged(muxsim, event="backend.rejected", session=client.id)
    assert await client.text("say", text="alive") == "alive"


@pytest.mark.fault("C14")
@pytest.mark.parametrize("tool", ["bad_utf8_reply", "old_reply"])
async def test_an_answer_that_cannot_be_read_becomes_an_error_of_its_request_alone(client, tool):
    """C14."""
    (message,) = (await client.post(tool_call(7, tool))).messages
    assert message["id"] == 7
    assert message["error"]["code"] == -32700
    assert await client.text("say", text="alive") == "alive"


@pytest.mark.fault("C15")
async def test_a_line_past_the_limit_ends_its_session_in_bounded_memory(muxsim):
    """C15: the limit is 24 MiB here, the line 100 MiB."""
    client = await shake_hands(muxsim.url)
    forget_peak(muxsim.pid)
    before = memory(muxsim.pid)
    async with nobody_else_notices(muxsim.url):
        message = await client.call("endless_line", mib=100)
    assert "max_line" in message["error"]["message"]
    assert peak_memory(muxsim.pid) - before < 48 * MIB
    await is_gone(client)


@pytest.mark.fault("C16")
async def test_a_big_answer_arrives_byte_for_byte(client):
    """C16."""
    text = await client.text("big", mib=16)
    assert text == "".join(f"{number:07d}\n" for number in range(16 * 2**17))


@pytest.mark.fault("C17")
async def test_a_flood_on_stderr_neither_stops_its_session_nor_grows_memory(muxsim, client):
    """C17: 64 MiB of it; the ring keeps the last lines, the log a few."""
    before = memory(muxsim.pid)
    logged_before = muxsim.log.stat().st_size
    async with nobody_else_notices(muxsim.url):
        assert await client.text("stderr_flood", mib=64) == "flooded"
    assert memory(muxsim.pid) - before < 16 * MIB
    assert muxsim.log.stat().st_size - logged_before < MIB
    assert (await client.call("exit"))["error"]["data"]["stderr"][-2:] == ["the last line", "I am leaving"]


@pytest.mark.fault("C18")
async def test_a_backend_without_stderr_goes_on(client):
    """C18."""
    assert await client.text("close_stderr") == "closed"
    assert await client.text("say", text="alive") == "alive"
    assert (await client.call("half_a_line"))["error"]["data"]["exit_status"] == 4


@pytest.mark.fault("C20", "C21")
@pytest.mark.parametrize("kind", ["group", "setsid", "double"])
async def test_a_grandchild_is_gone_with_its_session(muxsim, client, kind):
    """C20, C21."""
    grandchild = (await client.value("spawn", kind=kind))["pid"]
    assert (await client.delete()).status == 204
    await gone(grandchild)


@pytest.mark.fault("C23")
async def test_of_two_answers_to_one_request_the_first_counts(client):
    """C23."""
    (message,) = (await client.post(tool_call(7, "twice"))).messages
    assert text_of(message) == "first"
    assert await client.text("say", text="next") == "next"


@pytest.mark.fault("C24")
async def test_answers_to_unknown_ids_are_dropped_and_a_number_is_known_as_a_text_too(client):
    """C24."""
    (message,) = (await client.post(tool_call(7, "unknown_ids"))).messages
    assert (message["id"], text_of(message)) == (7, "right")


@pytest.mark.fault("C25")
async def test_requests_of_many_backends_with_the_same_ids_reach_their_own_clients(muxsim):
    """C25: each backend asks under id 1 while its client calls under id 1; both find their own."""
    texts = {}

    async def play(number):
        client = await shake_hands(muxsim.url, capabilities={"sampling": {}})
        async with client.posting(tool_call(1, "sample")) as connection:
            await connection.head()
            events = EventReader(connection)
            request = (await events.until(lambda message: "method" in message)).json()
            reply = {"jsonrpc": "2.0", "id": request["id"], "result": {"mine": number}}
            assert (request["method"], request["id"]) == ("sampling/createMessage", 1)
            assert (await client.post(reply)).status == 202
            texts[number] = json.loads(text_of((await events.until(lambda message: "result" in message)).json()))

    async with trio.open_nursery() as nursery:
        for number in range(50):
            nursery.start_soon(play, number)
    assert texts == {number: {"jsonrpc": "2.0", "id": 1, "result": {"mine": number}} for number in range(50)}


@pytest.mark.fault("C27")
async def test_a_backend_has_only_its_three_streams_open(client):
    """C27."""
    assert sorted(await client.value("fds")) == ["0", "1", "2"]


@pytest.mark.fault("C28")
async def test_a_backend_sees_no_variable_that_nobody_gave_it(client):
    """C28: muxsim's own environment holds a secret here, and its client's id would open the session's URLs."""
    env = (await client.value("who"))["env"]
    assert "MUXSIM_TEST_SECRET" not in env
    assert client.id not in json.dumps(env)
    assert env["PATH"] == os.environ["PATH"]


@pytest.mark.fault("C29")
async def test_a_backend_that_does_not_read_slows_its_own_clients_only(muxsim, client, gate):
    """C29: 40 MiB of calls for a backend that looks away; muxsim holds little of it, and all arrive."""
    before, answers = memory(muxsim.pid), []
    calls = [tool_call(number, "measure", {"text": "x" * MIB}) for number in range(200, 240)]

    async def send_them():
        answers.extend(await collect(client, *calls))

    async with nobody_else_notices(muxsim.url), trio.open_nursery() as nursery:
        nursery.start_soon(partial(client.call, "block", until=gate.path))
        await until_in_flight(client, 1)
        nursery.start_soon(send_them)
        await until_in_flight(client, 2)
        highest = memory(muxsim.pid)
        gate.open()
    highest = max(highest, memory(muxsim.pid))
    assert {json.loads(text_of(answer.messages[0]))["bytes"] > MIB for answer in answers} == {True}
    assert highest - before < 64 * MIB


PAYLOAD = (
    '{"name":"echo","arguments":{"big":12345678901234567890123,"float":1.0,"exponent":1E5,"minus":-0,'
    '"separators":"a\u2028b\u2029c","escaped":"\\u0041\\/\\ud83d\\ude00","text":"NaN Infinity","null":null,'
    '"a":{"z":1,"y":[ 1 , 2 ],"a":{}},"a":"twice"},"unknown":{"\u00e9":[1.10]},"_meta":{"mine/own":[0.10]}}'
)


@pytest.mark.fault("C30")
async def test_what_a_request_and_its_answer_carry_is_relayed_byte_for_byte(client):
    """C30: numbers, order of keys, spaces, escapes, unknown fields, _meta."""
    body = b'{"jsonrpc":"2.0","id":7,"method":"tools/call","params":%b}' % PAYLOAD.encode()
    answer = await client.post(body)
    assert answer.body == b'{"jsonrpc":"2.0","id":7,"result":{"content":[],"params":%b}}' % PAYLOAD.encode()


@pytest.mark.fault("C30")
async def test_an_error_of_the_backends_own_is_relayed_as_it_is(client):
    """C30."""
    error = (await client.call("own_error", code=-31999))["error"]
    assert error == {"code": -31999, "message": "my own error", "data": {"mine": [1.0, None]}}
    error = await client.request("no/such/method", {"x": 1})
    assert error["error"]["data"] == {"method": "no/such/method"}


@pytest.mark.fault("C30")
async def test_only_its_first_ids_and_tokens_are_the_backends_own(client):
    """C30: the client's id, whatever its type, comes back as it was."""
    for id in ("1", 1, "", 2**53, -5, "\u2028"):
        (message,) = (await client.post(tool_call(id, "say", {"text": "x"}))).messages
        assert message["id"] == id
        assert type(message["id"]) is type(id)


async def test_a_request_of_ten_mib_arrives_byte_for_byte(client):
    text = "".join(f"{number:07d}\n" for number in range(10 * 2**17))
    params = {"name": "measure", "arguments": {"text": text}}
    raw = json.dumps(params).encode()
    answer = await client.post(b'{"jsonrpc":"2.0","id":7,"method":"tools/call","params":%b}' % raw)
    assert json.loads(text_of(answer.messages[-1])) == {"bytes": len(raw), "sha256": hashlib.sha256(raw).hexdigest()}
