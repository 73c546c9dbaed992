"""How answers, notifications and requests of the backend travel over HTTP. Rows are those of the table of faults."""

from __future__ import annotations

import json
from functools import partial

import pytest
import trio
from harness import serving

from .conftest import environment
from .machine import eventually, gone, logged, memory, own_descriptors
from .wire import (
    LATEST,
    EventReader,
    ask,
    connect,
    live_sessions,
    modern_call,
    modern_headers,
    open_session,
    parse_events,
    rpc,
    shake_hands,
    sse_client,
    text_of,
    tool_call,
)

pytestmark = pytest.mark.children

MIB = 2**20
EVENT_STREAM = "text/event-stream"
JSON_TYPE = "application/json"


def notification(method, **params):
    return {"jsonrpc": "2.0", "method": method, "params": params}


def cancelled(id):
    return notification("notifications/cancelled", requestId=id)


async def calls_of(client, name):
    """The ids under which the backend has heard calls of this tool."""
    return [message["id"] for message in await client.heard() if message.get("params", {}).get("name") == name]


async def cancellations(client):
    """The ids whose cancellation the backend has heard."""
    heard = await client.heard()
    return [message["params"]["requestId"] for message in heard if message.get("method") == "notifications/cancelled"]


# ---- the form of an answer


async def test_an_answer_that_comes_first_is_plain_json(client):
    answer = await client.post(tool_call(7, "say", {"text": "plain"}))
    assert answer.headers["content-type"] == JSON_TYPE
    assert answer.headers["mcp-session-id"] == client.id
    assert (answer.json()["id"], text_of(answer.json())) == (7, "plain")


async def test_a_notification_that_comes_first_opens_an_event_stream(client):
    answer = await client.post(tool_call(7, "log", {"data": "before"}))
    assert answer.headers["content-type"].startswith(EVENT_STREAM)
    assert answer.headers["mcp-session-id"] == client.id
    noted, called = answer.messages
    assert (noted["method"], noted["params"]["data"]) == ("notifications/message", "before")
    assert (called["id"], text_of(called)) == (7, "logged")


@pytest.mark.parametrize(("version", "primed"), [("2025-03-26", False), ("2025-06-18", False), (LATEST, True)])
async def test_a_stream_starts_with_an_event_to_resume_from_where_the_revision_has_it(muxsim, version, primed):
    client = await shake_hands(muxsim.url, version=version)
    answer = await client.post(tool_call(7, "log"))
    events = parse_events(answer.body)
    assert [event.data == "" for event in events] == [True, False, False][not primed :]
    assert all(event.id for event in events)
    assert (b"retry: " in answer.body) == primed


async def test_silence_opens_an_event_stream_that_pings_keep_alive(talkative, gate):
    """Silence lasts 0.05 s here, and pings come every 0.2."""
    client = await shake_hands(talkative.url)
    async with client.posting(tool_call(7, "slow", {"until": gate.path})) as connection:
        with trio.fail_after(60):
            status, headers = await connection.head()
        assert (status, headers["content-type"].partition(";")[0]) == (200, EVENT_STREAM)
        reader = EventReader(connection)
        await reader.pings(2)
        gate.open()
        events = await reader.rest()
    assert text_of(events[-1].json()) == "at last"


async def test_a_client_that_takes_json_only_gets_the_answer_only(talkative, gate):
    """Its notifications wait on the standing stream; silence opens nothing, which has opened a later call's stream."""
    client = await shake_hands(talkative.url)
    answer = await client.post(tool_call(7, "log"), [("Accept", JSON_TYPE)])
    assert (answer.headers["content-type"], text_of(answer.json())) == (JSON_TYPE, "logged")
    slow = partial(tool_call, name="slow", arguments={"until": gate.path})
    headers = [pair for pair in client.headers if pair[0] != "Accept"]
    async with connect(client.url) as waiting:
        await waiting.send("POST", client.path, [*headers, ("Accept", JSON_TYPE)], json.dumps(slow(7)).encode())
        await until_in_flight(client)
        async with client.posting(slow(8)) as later:
            await later.head()
            gate.open()
            answer = await waiting.answer()
            assert (answer.headers["content-type"], text_of(answer.json())) == (JSON_TYPE, "at last")
    async with client.listening() as connection:
        event = await EventReader(connection).until(lambda message: True)
        assert event.json()["method"] == "notifications/message"


async def test_a_client_that_takes_events_only_gets_its_answer_as_one(client):
    answer = await client.post(tool_call(7, "say", {"text": "event"}), [("Accept", EVENT_STREAM)])
    assert answer.headers["content-type"].startswith(EVENT_STREAM)
    assert text_of(answer.messages[-1]) == "event"


async def test_a_2026_call_gets_the_same_forms(muxsim, talkative, gate):
    session = await open_session(muxsim.url)
    for message, form in (
        (modern_call(7, "say"), JSON_TYPE),
        (modern_call(8, "progress", meta={"progressToken": 1}), EVENT_STREAM),
    ):
        answer = await ask_modern(muxsim.url, session, message)
        assert answer.headers["content-type"].startswith(form)
        assert "mcp-session-id" not in answer.headers
        assert answer.messages[-1]["id"] == message["id"]
    message = modern_call(9, "slow", {"until": gate.path})
    session = await open_session(talkative.url)
    async with connect(talkative.url) as connection:
        path, body = f"/s/{session['id']}/mcp", json.dumps(message).encode()
        await connection.send("POST", path, modern_headers(message), body)
        _, headers = await connection.head()
        assert headers["content-type"].startswith(EVENT_STREAM)
        gate.open()
        assert text_of((await EventReader(connection).rest())[-1].json()) == "at last"


async def ask_modern(url, session, message):
    body = json.dumps(message).encode()
    async with connect(url) as connection:
        return await connection.ask("POST", f"/s/{session['id']}/mcp", modern_headers(message), body)


# ---- who gets what


async def test_progress_comes_under_the_clients_own_token(muxsim):
    """Two clients of one session use the same token at once, of either type."""
    session = await open_session(muxsim.url)
    path = f"/s/{session['id']}/mcp"
    clients = [await shake_hands(muxsim.url, path) for _ in range(2)]
    for token in ("mine", 1):
        for client in clients:
            message = tool_call(7, "progress", {"steps": 3}, {"progressToken": token})
            *steps, called = (await client.post(message)).messages
            assert [step["params"] for step in steps] == [{"progressToken": token, "progress": n} for n in range(3)]
            assert text_of(called) == "done"


async def test_clients_of_one_session_over_every_transport_get_their_own_answers_to_the_same_ids(muxsim):
    session = await open_session(muxsim.url)
    path = f"/s/{session['id']}"
    streamable = [await shake_hands(muxsim.url, f"{path}/mcp") for _ in range(3)]
    answers = {}

    async def call(client, number):
        for round in range(20):
            text = f"{number}.{round}"
            assert text_of((await client.post(tool_call(round, "say", {"text": text}))).messages[0]) == text
        answers[number] = 20

    async def call_modern(number):
        for round in range(20):
            message = modern_call(round, "say", {"text": f"{number}.{round}"})
            assert text_of((await ask_modern(muxsim.url, session, message)).messages[0]) == f"{number}.{round}"
        answers[number] = 20

    async def call_sse(number):
        async with sse_client(muxsim.url, f"{path}/sse") as (_, post, events):
            for round in range(20):
                await post(tool_call(round, "say", {"text": f"{number}.{round}"}))
                message = (await events.next()).json()
                assert (message["id"], text_of(message)) == (round, f"{number}.{round}")
        answers[number] = 20

    async with trio.open_nursery() as nursery:
        for number, client in enumerate(streamable):
            nursery.start_soon(call, client, number)
        nursery.start_soon(call_modern, 3)
        nursery.start_soon(call_sse, 4)
    assert answers == dict.fromkeys(range(5), 20)
    assert (await ask(muxsim.url, "GET", f"/sessions/{session['id']}")).json()["state"] == "ready"


@pytest.mark.fault("L25")
async def test_a_second_request_under_an_id_in_flight_is_refused(client, gate):
    """L25."""
    async with client.posting(tool_call(7, "slow", {"until": gate.path})) as first:
        await until_in_flight(client)
        refused = await client.post(tool_call(7, "say", {"text": "second"}))
        assert (refused.status, refused.error["code"]) == (400, -32600)
        assert refused.json()["id"] == 7
        gate.open()
        answer = await first.answer()
    assert text_of(answer.messages[-1]) == "at last"
    assert await calls_of(client, "say") == []


async def until_in_flight(client, number=1):
    async def in_flight():
        return (await client.session())["in_flight"] >= number

    await eventually(in_flight)


async def test_what_concerns_everybody_reaches_the_standing_stream_of_every_client(muxsim):
    session = await open_session(muxsim.url)
    path = f"/s/{session['id']}"
    clients = [await shake_hands(muxsim.url, f"{path}/mcp") for _ in range(2)]
    async with (
        clients[0].listening() as one,
        clients[1].listening() as other,
        sse_client(muxsim.url, f"{path}/sse") as (_, _, sse_events),
    ):
        assert await clients[0].text("list_changed") == "changed"
        for events in (EventReader(one), EventReader(other), sse_events):
            event = await events.until(lambda message: True)
            assert event.json()["method"] == "notifications/tools/list_changed"


async def test_a_request_of_the_backend_outside_any_call_comes_on_the_standing_stream(client, gate):
    async with client.listening() as connection:
        assert await client.text("ask_later", until=gate.path) == "later"
        gate.open()
        request = (await EventReader(connection).until(lambda message: True)).json()
        assert request["method"] == "roots/list"
        answer = {"jsonrpc": "2.0", "id": request["id"], "result": {"roots": [], "mine": 1.0}}
        assert (await client.post(answer)).status == 202
    assert answer in await client.heard()


async def test_a_standing_stream_is_kept_alive_by_pings_and_ends_with_its_session(client):
    async with client.listening() as connection:
        reader = EventReader(connection)
        await reader.pings(2)
        assert (await client.delete()).status == 204
        await reader.rest()


async def test_a_later_standing_stream_takes_the_place_of_an_earlier_one(client):
    async with client.listening() as first, client.listening() as second:
        await EventReader(first).rest()
        assert await client.text("list_changed") == "changed"
        event = await EventReader(second).until(lambda message: True)
        assert event.json()["method"] == "notifications/tools/list_changed"


async def test_ten_mib_pass_the_sse_pair_byte_for_byte(muxsim):
    async with sse_client(muxsim.url) as (_, post, events):
        await post(tool_call(7, "big", {"mib": 10}))
        assert text_of((await events.next()).json()) == "".join(f"{number:07d}\n" for number in range(10 * 2**17))
        await post(tool_call(8, "measure", {"text": "x" * 10 * MIB}))
        assert json.loads(text_of((await events.next()).json()))["bytes"] > 10 * MIB


# ---- clients that go, and come back


@pytest.mark.fault("L1")
async def test_a_client_that_lost_its_connection_gets_the_rest_of_its_call(client, gate):
    """L1: and nothing of it twice."""
    async with client.posting(tool_call(7, "log_then_wait", {"until": gate.path})) as connection:
        await connection.head()
        noted = await EventReader(connection).until(lambda message: True)
        assert noted.json()["method"] == "notifications/message"
        connection.drop()
    async with client.listening([("Last-Event-ID", noted.id)]) as connection:
        gate.open()
        events = await EventReader(connection).rest()
    messages = [event.json() for event in events if event.data]
    assert [(message["id"], text_of(message)) for message in messages] == [(7, "at last")]


@pytest.mark.fault("L1")
async def test_an_answer_that_came_while_the_client_was_away_is_kept_for_it(client, gate):
    """L1."""
    async with client.posting(tool_call(7, "log_then_wait", {"until": gate.path})) as connection:
        await connection.head()
        primed = await EventReader(connection).next()
        connection.drop()
    gate.open()
    await eventually(partial(is_quiet, client))
    async with client.listening([("Last-Event-ID", primed.id)]) as connection:
        messages = [event.json() for event in await EventReader(connection).rest() if event.data]
    assert [message.get("id") for message in messages] == [None, 7]


async def is_quiet(client):
    return await has_in_flight(client, 0)


async def has_in_flight(client, number):
    return (await client.session())["in_flight"] == number


async def test_the_standing_stream_goes_on_after_a_lost_connection(client):
    async with client.listening() as connection:
        assert await client.text("list_changed") == "changed"
        first = await EventReader(connection).until(lambda message: True)
        connection.drop()
    for _ in range(3):
        assert await client.text("list_changed") == "changed"
    async with client.listening([("Last-Event-ID", first.id)]) as connection:
        events = EventReader(connection)
        missed = [await events.next() for _ in range(3)]
    assert {event.json()["method"] for event in missed} == {"notifications/tools/list_changed"}
    assert first.id not in [event.id for event in missed]


@pytest.mark.fault("L28")
@pytest.mark.parametrize("last", ["1-1", "2-1", "999-0", "x", "-", "1-99999999999999999999", "\u00b2-1", "0", "-1"])
async def test_an_event_id_of_another_stream_or_session_gives_no_foreign_event(muxsim, client, last):
    """L28."""
    other = await shake_hands(muxsim.url)
    assert len((await other.post(tool_call(7, "log", {"data": "secret"}))).messages) == 2
    async with client.listening([("Last-Event-ID", last)]) as connection:
        assert await client.text("list_changed") == "changed"
        event = await EventReader(connection).until(lambda message: True)
    assert event.json()["method"] == "notifications/tools/list_changed"


@pytest.mark.fault("L1")
async def test_to_go_is_not_to_cancel_for_a_client_of_a_handshake_revision(muxsim, client, gate):
    """L1: while it waits for JSON, and on an event stream."""
    before = own_descriptors(muxsim.pid)
    async with client.posting(tool_call("a", "hang")) as connection:
        await until_in_flight(client, 1)
        connection.drop()
    async with client.posting(tool_call("b", "log_then_wait", {"until": gate.path})) as connection:
        await connection.head()
        connection.drop()
    await eventually(lambda: own_descriptors(muxsim.pid) <= before)  # it knows that they have gone
    assert await cancellations(client) == []
    assert (await client.session())["in_flight"] == 2
    gate.open()
    await eventually(partial(has_in_flight, client, 1))


@pytest.mark.fault("L2")
@pytest.mark.parametrize("tool", ["hang", "log_then_wait"], ids=["before any answer", "on an event stream"])
async def test_to_go_is_to_cancel_for_a_client_of_2026(muxsim, tool, gate):
    """L2: the backend hears its own id, and nobody the rest."""
    session = await open_session(muxsim.url)
    watcher = await shake_hands(muxsim.url, f"/s/{session['id']}/mcp")
    message = modern_call("c", tool, {"until": gate.path}, {"io.modelcontextprotocol/logLevel": "debug"})
    async with connect(muxsim.url) as connection:
        body = json.dumps(message).encode()
        await connection.send("POST", f"/s/{session['id']}/mcp", modern_headers(message), body)
        if tool == "log_then_wait":
            await connection.head()
        else:
            await eventually(partial(heard_call, watcher, tool))
        connection.drop()
    await eventually(partial(cancellations, watcher))
    assert await cancellations(watcher) == await calls_of(watcher, tool)
    gate.open()
    assert await watcher.text("slow", until=gate.path) == "at last"


async def heard_call(client, tool):
    return await calls_of(client, tool)


@pytest.mark.fault("L3")
async def test_a_cancellation_reaches_the_backend_under_its_own_id_and_ends_the_stream(talkative, gate):
    """L3: `slow` answers all the same, which nobody gets to see."""
    client = await shake_hands(talkative.url)
    async with client.posting(tool_call("mine", "slow", {"until": gate.path})) as connection:
        await connection.head()
        assert (await client.post(cancelled("mine"))).status == 202
        with trio.fail_after(60):
            events = await EventReader(connection).rest()
    assert [event.data for event in events if event.data] == []
    assert await cancellations(client) == await calls_of(client, "slow")
    async with client.listening() as connection:
        gate.open()
        assert await client.text("slow", until=gate.path) == "at last"
        assert await client.text("list_changed") == "changed"
        event = await EventReader(connection).until(lambda message: True)
    assert event.json()["method"] == "notifications/tools/list_changed"


@pytest.mark.fault("L3")
async def test_a_cancellation_before_any_answer_ends_the_request_too(client):
    """L3."""
    async with client.posting(tool_call("mine", "hang")) as connection:
        await until_in_flight(client)
        assert (await client.post(cancelled("mine"))).status == 202
        with trio.fail_after(60):
            answer = await connection.answer()
    assert answer.status < 500
    assert b'"result"' not in answer.body
    assert (await client.session())["in_flight"] == 0


@pytest.mark.fault("L3", "L25")
async def test_nobody_can_cancel_what_is_not_their_own(muxsim, gate):
    """L3, L25: another client of the session uses the same id."""
    session = await open_session(muxsim.url)
    one, other = [await shake_hands(muxsim.url, f"/s/{session['id']}/mcp") for _ in range(2)]
    async with one.posting(tool_call(7, "slow", {"until": gate.path})) as connection:
        await until_in_flight_of(muxsim, session)
        for id in (7, "7", 1, 2, 3, None, {}):
            assert (await other.post(cancelled(id))).status == 202
        gate.open()
        answer = await connection.answer()
    assert text_of(answer.messages[-1]) == "at last"
    assert await cancellations(one) == []


async def until_in_flight_of(muxsim, session):
    async def in_flight():
        return (await ask(muxsim.url, "GET", f"/sessions/{session['id']}")).json()["in_flight"]

    await eventually(in_flight)


# ---- slow readers


@pytest.mark.fault("C26", "L5")
async def test_a_slow_reader_of_a_flood_gets_every_message_and_stops_nobody_but_its_own_backend(muxsim, client):
    """C26, L5: 32 MiB of notifications for a client that looks away for a while."""
    other = await shake_hands(muxsim.url)
    before, count = memory(muxsim.pid), 3200
    async with connect(muxsim.url, receive_buffer=4096) as connection:
        message = tool_call(7, "notification_flood", {"count": count, "size": 10_000})
        await connection.send("POST", client.path, client.headers, json.dumps(message).encode())
        await connection.head()
        most = 0
        for _ in range(100):
            assert await other.text("say", text="here") == "here"
            most = max(most, memory(muxsim.pid))
        assert most - before < 16 * MIB
        messages = [event.json() for event in await EventReader(connection).rest() if event.data]
    assert [message["params"]["data"]["number"] for message in messages[:-1]] == list(range(count))
    assert text_of(messages[-1]) == "flooded"


async def is_cut_off(url):
    return (await ask(url, "GET", "/health")).json()["limits"]["stall_timeout"] >= 1


@pytest.mark.fault("L5")
async def test_a_client_that_never_reads_loses_its_stream_and_its_session_goes_on(tmp_path):
    """L5: another client of the same session waits for that no longer than the stall_timeout."""
    config = "[server]\nstall_timeout = 0.5\n" + environment("naughty")
    async with serving(tmp_path, config) as muxsim:
        session = await open_session(muxsim.url)
        path = f"/s/{session['id']}/mcp"
        stalled, other = await shake_hands(muxsim.url, path), await shake_hands(muxsim.url, path)
        async with connect(muxsim.url, receive_buffer=4096) as connection:
            message = tool_call(7, "progress_flood", {"count": 2000, "size": 10_000}, {"progressToken": "mine"})
            await connection.send("POST", stalled.path, stalled.headers, json.dumps(message).encode())
            await connection.head()
            with trio.fail_after(60):
                assert await other.text("say", text="here") == "here"
            await eventually(partial(is_cut_off, muxsim.url))
        assert await stalled.text("say", text="back") == "back"
        assert (await ask(muxsim.url, "GET", f"/sessions/{session['id']}")).status == 200
        assert "Traceback" not in muxsim.log.read_text()


@pytest.mark.fault("L5")
async def test_whoever_is_cut_off_is_logged_as_no_mistake_of_muxsims(tmp_path):
    """L5: uvicorn has to hear first that the connection is no more."""
    config = "[server]\nstall_timeout = 2\n" + environment("naughty")
    async with serving(tmp_path, config) as muxsim:
        session = await open_session(muxsim.url)
        async with connect(muxsim.url, receive_buffer=4096) as connection:
            message = modern_call(7, "progress_flood", {"count": 3000, "size": 10_000}, {"progressToken": "mine"})
            path = f"/s/{session['id']}/mcp"
            await connection.send("POST", path, modern_headers(message), json.dumps(message).encode())
            await connection.head()
            await eventually(partial(is_cut_off, muxsim.url))
        muxsim.stop()
        levels = {json.loads(line)["level"] for line in muxsim.log.read_text().splitlines()}
        assert "error" not in levels, muxsim.log.read_text()


@pytest.mark.fault("L5")
async def test_an_sse_client_that_never_reads_is_taken_for_gone(tmp_path):
    """L5."""
    config = "[server]\nstall_timeout = 0.5\n" + environment("naughty")
    async with (
        serving(tmp_path, config) as muxsim,
        sse_client(muxsim.url, "/sse", receive_buffer=4096) as (_, post, _),
    ):
        (session,) = await live_sessions(muxsim)
        await post(tool_call(7, "notification_flood", {"count": 2000, "size": 10_000}))
        await logged(muxsim, event="session.ended", session=session["id"], cause="client_gone", within=60)
        await gone(session["pid"])


@pytest.mark.fault("C26")
async def test_a_standing_stream_that_nobody_opens_never_stops_a_session(client):
    """C26: what concerns no call is kept up to a limit, and the oldest dropped."""
    for _ in range(20):
        answer = await client.post(
            tool_call(7, "notification_flood", {"count": 100, "size": 10_000}), [("Accept", JSON_TYPE)]
        )
        assert text_of(answer.json()) == "flooded"
    async with client.listening() as connection:
        events = EventReader(connection)
        numbers = [(await events.until(is_log)).json()["params"]["data"]["number"] for _ in range(50)]
    assert numbers == [(numbers[0] + step) % 100 for step in range(50)]
    assert (await client.post(rpc(8, "ping"))).json()["result"] == {}


def is_log(message):
    return message["method"] == "notifications/message"
