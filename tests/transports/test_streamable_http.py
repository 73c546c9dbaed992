import asyncio
import json

import pytest
from asyncio_tests import on_asyncio
from event_source import Event
from fake_asgi import Request, http_headers

from transports import messages, streamable_http
from transports.http_rules import Accepts, HTTPRefusal
from transports.memory import MemoryReceiver
from transports.streamable_http import HIGH_WATER, RESUMABLE_STREAMS, StreamableHTTP, StreamTimes

BOTH = "application/json, text/event-stream"
JSON_ONLY = "application/json"
STREAM_ONLY = "text/event-stream"
LATEST = "2025-11-25"
# Nothing opens by silence, pings or stalls unless a test wants it to.
PATIENT = StreamTimes(silence=60, ping=60, stall=60)
IMPATIENT = StreamTimes(silence=0.001, ping=60, stall=60)


class Busy(MemoryReceiver):
    """A receiver whose backend is behind, until told otherwise."""

    def __init__(self):
        super().__init__()
        self.go = asyncio.Event()

    @property
    def ready(self):
        return self.go.is_set()

    async def wait_ready(self):
        await self.go.wait()


class Client:
    """One client of the handshake revisions and the transport that serves it."""

    def __init__(self, times=PATIENT, receiver=None, version=LATEST):
        self.receiver = receiver or MemoryReceiver()
        self.transport = StreamableHTTP("session-1", self.receiver, times)
        self.version = version

    def post(self, message, accept=BOTH, **how):
        headers = http_headers(accept=accept, mcp_protocol_version=self.version)
        return Request(lambda call: self.transport.post(message, call), headers=headers, **how)

    def call(self, id=1, **how):
        return self.post(messages.request(id, "tools/call"), **how)

    def get(self, last_event_id=None, accept=STREAM_ONLY, **how):
        headers = http_headers(accept=accept, mcp_protocol_version=self.version, last_event_id=last_event_id)
        return Request(self.transport.get, method="GET", headers=headers, **how)

    async def received(self, count):
        """Let the handlers run until so many messages have been handed over; they wait for nothing before."""
        for _ in range(100):
            if len(self.receiver.received) < count:
                await asyncio.sleep(0)
        assert len(self.receiver.received) == count

    def progress(self, number, about=None, size=0):
        self.transport.send(progress(number, size), about)

    def answer(self, id=1):
        self.transport.send(messages.result(id, {}), id)


def progress(number, size=0):
    return messages.notification("notifications/progress", {"progress": number, "filler": "x" * size})


def number_of(event):
    return json.loads(event.data)["params"]["progress"]


def answers_to(event):
    return json.loads(event.data)["id"]


def last_id(events):
    return events[-1].id


PRIMING = ""


# the form of the answer


@on_asyncio
async def test_an_answer_that_comes_first_is_one_json_body():
    client = Client()
    request = client.call(7)
    await client.received(1)
    client.answer(7)
    await request.done()
    assert (request.status, request.body) == (200, b'{"jsonrpc":"2.0","id":7,"result":{}}')
    assert request.headers[b"content-type"] == b"application/json"
    assert request.headers[b"mcp-session-id"] == b"session-1"
    assert request.headers[b"content-length"] == b"%d" % len(request.body)


@on_asyncio
async def test_an_answer_that_is_there_at_once_is_one_json_body():
    class Quick(MemoryReceiver):
        def receive(self, message):
            client.transport.send(messages.error(message.id, -32601, "no"), message.id)

    client = Client(receiver=Quick())
    request = await client.call().done()
    assert request.status == 200
    assert json.loads(request.body)["error"] == {"code": -32601, "message": "no"}


@pytest.mark.parametrize("first", [progress(1), messages.request("s1", "sampling/createMessage")])
@on_asyncio
async def test_anything_else_that_comes_first_opens_an_event_stream_which_ends_with_the_answer(first):
    client = Client()
    request = client.call()
    await client.received(1)
    client.transport.send(first, 1)
    events = await request.has(2)
    assert request.streams
    assert request.headers[b"mcp-session-id"] == b"session-1"
    assert [event.data for event in events] == [PRIMING, first.encode().decode()]
    client.answer()
    await request.done()
    assert answers_to(request.events[-1]) == 1
    assert request.complete


@on_asyncio
async def test_a_result_does_not_overtake_its_notifications():
    client = Client()
    request = client.call()
    await client.received(1)
    for number in range(1, 4):
        client.progress(number, about=1)
    client.answer()
    await request.done()
    assert [number_of(event) for event in request.events[1:4]] == [1, 2, 3]
    assert answers_to(request.events[4]) == 1


@on_asyncio
async def test_silence_opens_an_event_stream_and_the_answer_comes_on_it():
    client = Client(IMPATIENT)
    request = client.call()
    [priming] = await request.has(1)
    assert priming.data == PRIMING
    assert request.open
    client.answer()
    await request.done()
    assert [answers_to(event) for event in request.events[1:]] == [1]


@on_asyncio
async def test_a_client_that_takes_no_event_stream_waits_for_its_json_through_any_silence():
    client = Client(IMPATIENT)
    request = client.call(accept=JSON_ONLY)
    await client.received(1)
    client.progress(1, about=1)
    await asyncio.sleep(IMPATIENT.silence * 5)
    assert request.status is None
    client.answer()
    await request.done()
    assert (request.status, request.streams) == (200, False)
    assert json.loads(request.body)["id"] == 1


@on_asyncio
async def test_what_else_belongs_to_a_json_only_request_comes_on_the_standing_stream():
    client = Client()
    request = client.call(accept=JSON_ONLY)
    await client.received(1)
    client.progress(1, about=1)
    standing = client.get()
    events = await standing.has(2)
    assert number_of(events[1]) == 1
    client.answer()
    await request.done()
    await standing.hang_up()
    assert len(standing.events) == 2


@on_asyncio
async def test_a_client_that_takes_only_event_streams_gets_one_at_once():
    client = Client()
    request = client.call(accept=STREAM_ONLY)
    await request.has(1)
    client.answer()
    await request.done()
    assert request.streams
    assert [answers_to(event) for event in request.events[1:]] == [1]


@pytest.mark.parametrize(
    "message",
    [messages.notification("notifications/initialized"), messages.result("s1", {}), messages.error("s1", -1, "no")],
)
@on_asyncio
async def test_what_is_no_request_is_handed_over_and_accepted_with_202(message):
    client = Client()
    request = await client.post(message).done()
    assert (request.status, request.body) == (202, b"")
    assert client.receiver.received == [message]


@on_asyncio
async def test_a_post_waits_until_the_backend_keeps_up():
    client = Client(receiver=(busy := Busy()))
    request = client.call()
    notification = client.post(messages.notification("n"))
    await asyncio.sleep(1)
    assert busy.received == []
    busy.go.set()
    await client.received(2)
    client.answer()
    await request.done()
    await notification.done()


@pytest.mark.parametrize(("accept", "version", "status"), [("text/html", LATEST, 406), (BOTH, "v999.0.0", 400)])
@on_asyncio
async def test_a_post_that_is_refused_never_reaches_the_backend(accept, version, status):
    client = Client(version=version)
    with pytest.raises(HTTPRefusal) as refused:
        await client.call(accept=accept).done()
    assert refused.value.status == status
    assert client.receiver.received == []


# priming


@pytest.mark.parametrize("version", [None, "2024-11-05", "2025-03-26", "2025-06-18"])
@on_asyncio
async def test_older_clients_get_no_priming_event_but_ids_all_the_same(version):
    client = Client(version=version)
    request = client.call()
    await client.received(1)
    client.progress(1, about=1)
    [event] = await request.has(1)
    assert number_of(event) == 1
    assert event.id
    assert request.retry is None
    client.answer()
    await request.done()


@on_asyncio
async def test_the_priming_event_has_an_id_of_its_own_and_says_when_to_come_back():
    client = Client()
    request = client.call(accept=STREAM_ONLY)
    [priming] = await request.has(1)
    assert priming == Event("", "message", priming.id)
    assert priming.id
    assert request.retry == 1000
    client.answer()
    await request.done()
    assert request.events[1].id != priming.id


@on_asyncio
async def test_event_ids_are_unique_within_the_session():
    client = Client()
    requests = [client.get(), *(client.call(id, accept=STREAM_ONLY) for id in range(5))]
    await client.received(5)
    client.progress(1)
    for id in range(5):
        client.progress(1, about=id)
        client.answer(id)
    for request in requests[1:]:
        await request.done()
    await requests[0].has(2)
    client.transport.close()
    await requests[0].done()
    ids = [event.id for request in requests for event in request.events]
    assert len(ids) == len(set(ids)) == 2 + 5 * 3


# the standing stream


@on_asyncio
async def test_what_belongs_to_no_request_is_kept_for_the_standing_stream():
    client = Client()
    client.progress(1)
    client.progress(2, about="no such request")
    standing = client.get()
    await standing.has(3)
    client.progress(3)
    events = await standing.has(4)
    assert [number_of(event) for event in events[1:]] == [1, 2, 3]
    assert standing.headers[b"mcp-session-id"] == b"session-1"
    await standing.hang_up()


@on_asyncio
async def test_the_client_is_listening_until_it_has_read_all_of_an_answer():
    """One that reads slowly is there, though nothing is in flight any more."""
    client = Client()
    request = client.call(reads=False)
    await client.received(1)
    client.progress(1, about=1)
    client.answer()
    for _ in range(20):  # for the handler to begin its stream
        await asyncio.sleep(0)
    assert client.transport.listening
    request.read()
    await request.done()
    assert not client.transport.listening


@on_asyncio
async def test_the_client_is_listening_while_its_standing_stream_is_open():
    client = Client()
    assert not client.transport.listening
    standing = client.get()
    await standing.has(1)
    assert client.transport.listening
    await standing.hang_up()
    assert not client.transport.listening


@on_asyncio
async def test_a_second_standing_stream_takes_the_place_of_the_first():
    client = Client()
    first = client.get()
    await first.has(1)
    second = client.get()
    await second.has(1)
    await first.done()
    assert first.complete
    client.progress(1)
    assert number_of((await second.has(2))[1]) == 1
    assert client.transport.listening
    await second.hang_up()


@pytest.mark.parametrize("accept", [JSON_ONLY, "text/html"])
@on_asyncio
async def test_a_get_that_takes_no_event_stream_is_refused_with_406(accept):
    with pytest.raises(HTTPRefusal) as refused:
        await Client().get(accept=accept).done()
    assert refused.value.status == 406


@on_asyncio
async def test_a_silent_stream_is_kept_alive_by_pings():
    client = Client(StreamTimes(silence=0.001, ping=0.001, stall=60))
    standing, request = client.get(), client.call()
    await standing.wait(lambda: len(standing.comments) >= 2)
    await request.wait(lambda: len(request.comments) >= 2)
    assert len(standing.events) == len(request.events) == 1
    client.answer()
    await request.done()
    await standing.hang_up()


# a client that loses its connection


@on_asyncio
async def test_a_lost_connection_cancels_nothing_L1():
    client = Client()
    request = client.call(accept=STREAM_ONLY)
    await request.has(1)
    await request.hang_up()
    assert len(client.receiver.received) == 1
    assert client.receiver.gone == 0


@on_asyncio
async def test_an_answer_that_came_after_the_stream_broke_is_kept_for_last_event_id():
    client = Client(IMPATIENT)
    request = client.call()
    await request.has(1)
    await request.hang_up()
    client.progress(1, about=1)
    client.answer()
    resumed = await client.get(last_id(request.events)).done()
    assert number_of(resumed.events[0]) == 1
    assert answers_to(resumed.events[1]) == 1
    assert resumed.complete


@on_asyncio
async def test_a_resumed_stream_goes_on_live_beside_the_standing_one():
    client = Client(IMPATIENT)
    standing = client.get()
    request = client.call()
    await request.has(1)
    await request.hang_up()
    client.progress(1, about=1)
    resumed = client.get(last_id(request.events))
    assert number_of((await resumed.has(1))[0]) == 1
    client.progress(2, about=1)
    client.progress(3)
    client.answer()
    await resumed.done()
    assert number_of(resumed.events[1]) == 2
    assert answers_to(resumed.events[2]) == 1
    assert number_of((await standing.has(2))[1]) == 3
    assert standing.open
    await standing.hang_up()


@on_asyncio
async def test_a_stream_is_resumed_after_the_last_event_the_client_saw():
    client = Client()
    request = client.call()
    await client.received(1)
    for number in range(1, 5):
        client.progress(number, about=1)
    events = await request.has(5)
    await request.hang_up()
    client.answer()
    seen_two = events[2].id
    for _ in range(2):
        resumed = await client.get(seen_two).done()
        assert [number_of(event) for event in resumed.events[:2]] == [3, 4]
        assert answers_to(resumed.events[2]) == 1
    nothing_more = await client.get(last_id(resumed.events)).done()
    assert nothing_more.events == []


@on_asyncio
async def test_the_standing_stream_is_resumed_after_the_last_event_the_client_saw():
    client = Client()
    standing = client.get()
    client.progress(1)
    client.progress(2)
    events = await standing.has(3)
    await standing.hang_up()
    client.progress(3)
    again = client.get(events[1].id)
    assert [number_of(event) for event in await again.has(2)] == [2, 3]
    await again.hang_up()


@pytest.mark.parametrize(
    "foreign",
    ["", "x", "-", "999-1", "1-", "1-x", "-1", "1--1", "1-1-1", "1-+1", "1-1.0", "9" * 40, "1-" + "9" * 5000, "²-²"],
)
@on_asyncio
async def test_an_event_id_that_is_not_of_this_session_gets_the_standing_stream_and_nothing_else_L28(foreign):
    client = Client()
    request = client.call()
    await client.received(1)
    client.progress(1, about=1)
    await request.has(2)
    await request.hang_up()
    resumed = client.get(foreign.encode().decode("latin-1"))
    await resumed.wait(lambda: resumed.status)
    client.progress(2)
    await resumed.wait(lambda: any(event.data for event in resumed.events))
    assert [number_of(event) for event in resumed.events if event.data] == [2]
    await resumed.hang_up()


@on_asyncio
async def test_another_sessions_event_id_brings_none_of_its_events_L28():
    one, other = Client(), Client()
    request = one.call(accept=STREAM_ONLY)
    await request.has(1)
    await request.hang_up()
    one.answer()
    resumed = other.get(last_id(request.events))
    await resumed.wait(lambda: resumed.status)
    other.transport.close()
    await resumed.done()
    assert [event.data for event in resumed.events if event.data] == []


@on_asyncio
async def test_a_call_in_flight_can_be_resumed_however_long_it_takes(monkeypatch):
    monkeypatch.setattr(streamable_http, "RESUME_WINDOW", -1.0)
    client = Client()
    request = client.call("long", accept=STREAM_ONLY)
    await request.has(1)
    await request.hang_up()
    other = client.call("other", accept=STREAM_ONLY)
    await other.has(1)
    client.answer("long")
    resumed = await client.get(last_id(request.events)).done()
    assert answers_to(resumed.events[0]) == "long"
    await other.hang_up()


@on_asyncio
async def test_every_call_in_flight_can_be_resumed_however_many_there_are():
    client = Client()
    requests = [client.call(id, accept=STREAM_ONLY) for id in range(RESUMABLE_STREAMS + 5)]
    for request in requests:
        await request.has(1)
        await request.hang_up()
    for id, request in enumerate(requests):
        client.answer(id)
        resumed = await client.get(last_id(request.events)).done()
        assert answers_to(resumed.events[0]) == id


async def finished_streams(client, count):
    """So many calls that had an event stream and are answered; their requests."""
    requests = []
    for id in range(count):
        request = client.call(id, accept=STREAM_ONLY)
        await request.has(1)
        client.answer(id)
        requests.append(await request.done())
    return requests


async def can_be_resumed(client, request):
    resumed = client.get(request.events[0].id)
    await resumed.wait(lambda: resumed.status)
    await resumed.hang_up()
    return any(event.data for event in resumed.events)


@on_asyncio
async def test_only_the_last_finished_streams_are_kept():
    client = Client()
    requests = await finished_streams(client, RESUMABLE_STREAMS + 5)
    assert [await can_be_resumed(client, request) for request in requests] == [False] * 5 + [True] * RESUMABLE_STREAMS


@on_asyncio
async def test_finished_streams_are_forgotten_after_a_while(monkeypatch):
    client = Client()
    monkeypatch.setattr(streamable_http, "RESUME_WINDOW", -1.0)
    old, *_ = await finished_streams(client, 2)
    assert not await can_be_resumed(client, old)


@on_asyncio
async def test_a_connection_that_breaks_before_the_first_event_leaves_the_stream_unattended():
    client = Client(IMPATIENT)
    request = client.call(breaks_at=2)
    with pytest.raises(OSError, match="broken"):
        await request.done()
    client.progress(1, about=1, size=HIGH_WATER * 2)
    assert not client.transport.congested


# ids


@on_asyncio
async def test_an_id_that_is_in_flight_is_refused_and_the_first_request_is_answered_L25():
    client = Client()
    first = client.call(1)
    await client.received(1)
    with pytest.raises(HTTPRefusal) as refused:
        await client.call(1).done()
    assert (refused.value.status, refused.value.id) == (400, 1)
    assert len(client.receiver.received) == 1
    client.answer(1)
    assert json.loads((await first.done()).body)["id"] == 1


@on_asyncio
async def test_an_id_may_be_used_again_once_it_is_answered():
    client = Client()
    for count in (1, 2):
        request = client.call(1)
        await client.received(count)
        client.answer(1)
        assert (await request.done()).status == 200


@on_asyncio
async def test_a_number_and_its_text_are_two_ids():
    client = Client()
    number, text = client.call(1), client.call("1")
    await client.received(2)
    client.answer("1")
    assert json.loads((await text.done()).body)["id"] == "1"
    assert number.open
    client.answer(1)
    assert json.loads((await number.done()).body)["id"] == 1


# slow readers


@on_asyncio
async def test_a_client_that_does_not_read_congests_and_drains_as_it_reads():
    client = Client()
    request = client.call(reads=False)
    await client.received(1)
    client.progress(1, about=1, size=HIGH_WATER // 2)
    assert not client.transport.congested
    client.progress(2, about=1, size=HIGH_WATER // 2)
    client.progress(3, about=1)
    assert client.transport.congested
    assert client.receiver.drains == 0
    request.read()
    await request.has(4)
    assert not client.transport.congested
    assert client.receiver.drains == 1
    client.answer()
    await request.done()
    assert [number_of(event) for event in request.events[1:4]] == [1, 2, 3]


@on_asyncio
async def test_congestion_ends_only_well_below_where_it_began():
    client = Client()
    standing = client.get()
    await standing.has(1)
    stream = client.transport._standing
    for number in range(5):
        client.progress(number, size=HIGH_WATER // 4)
    assert client.transport.congested
    taken = []
    async for _ in stream.read():
        taken.append(client.transport.congested)
        if len(taken) == 5:
            break
    assert taken == [True, True, True, True, False]
    assert client.receiver.drains == 1
    await standing.hang_up()


@on_asyncio
async def test_a_client_that_goes_away_is_no_longer_waited_for():
    client = Client()
    request = client.call(reads=False)
    await client.received(1)
    client.progress(1, about=1, size=HIGH_WATER * 2)
    client.progress(2, about=1)
    assert client.transport.congested
    await request.hang_up()
    assert not client.transport.congested
    assert client.receiver.drains == 1


@on_asyncio
async def test_a_client_without_a_standing_stream_stops_nobody():
    client = Client()
    for number in range(5):
        client.progress(number, size=HIGH_WATER)
    assert not client.transport.congested


@on_asyncio
async def test_a_reader_that_takes_nothing_for_too_long_loses_its_stream_L5():
    client = Client(StreamTimes(silence=60, ping=60, stall=0.001))
    standing = client.get()
    await standing.has(1)
    standing._reads.clear()
    client.progress(1, size=HIGH_WATER * 2)
    client.progress(2)
    assert client.transport.congested
    with pytest.raises(ConnectionAbortedError):
        await standing.done()
    assert not client.transport.listening
    assert not client.transport.congested
    assert client.receiver.drains == 1


# the end


@on_asyncio
async def test_closing_ends_every_stream_after_what_is_queued():
    client = Client()
    standing, streaming, waiting = client.get(), client.call(1, accept=STREAM_ONLY), client.call(2)
    await standing.has(1)
    await streaming.has(1)
    await client.received(2)
    client.progress(1)
    client.progress(2, about=1)
    client.transport.close()
    client.transport.close()
    for request in (standing, streaming, waiting):
        await request.done()
        assert request.complete
    assert number_of(standing.events[1]) == 1
    assert number_of(streaming.events[1]) == 2
    assert repr(client.transport) == "<StreamableHTTP session- 0 exchanges closed>"


@on_asyncio
async def test_a_cancelled_request_ends_without_an_answer_but_for_a_client_that_takes_no_stream():
    client = Client()
    streaming, waiting, json_only = (
        client.call(1, accept=STREAM_ONLY),
        client.call(2),
        client.call(3, accept=JSON_ONLY),
    )
    await streaming.has(1)
    await client.received(3)
    for id in (1, 2, 3):
        client.transport.withdraw(id)
    for request in (streaming, waiting):
        await request.done()
        assert request.complete
        assert [event.data for event in request.events if event.data] == []
    answer = await json_only.done()
    said = json.loads(answer.body)
    assert (answer.status, said["id"], said["error"]["code"]) == (200, 3, -32800)
    client.transport.withdraw("never seen")
    again = client.call(1)
    await client.received(4)
    client.answer(1)
    assert (await again.done()).status == 200


# handing over in two steps, as the short way of a common call does


@pytest.mark.parametrize("accept", [BOTH, STREAM_ONLY])
@on_asyncio
async def test_a_request_that_was_handed_over_already_goes_on_as_an_event_stream(accept):
    client = Client()
    stream = client.transport.begin(messages.request(1, "m"), Accepts(json=True, stream=True))
    client.progress(1, about=1)
    headers = http_headers(accept=accept, mcp_protocol_version=LATEST)
    request = Request(lambda call: client.transport.resume(stream, call), headers=headers)
    await request.has(2)
    await request.hang_up()
    client.answer()
    resumed = await client.get(last_id(request.events)).done()
    assert answers_to(resumed.events[0]) == 1


@on_asyncio
async def test_a_json_only_request_that_was_handed_over_already_waits_for_its_json():
    client = Client(IMPATIENT)
    stream = client.transport.begin(messages.request(1, "m"), Accepts(json=True, stream=False))
    headers = http_headers(accept=JSON_ONLY, mcp_protocol_version=LATEST)
    request = Request(lambda call: client.transport.resume(stream, call), headers=headers)
    await asyncio.sleep(IMPATIENT.silence * 3)
    client.answer()
    assert json.loads((await request.done()).body)["id"] == 1
