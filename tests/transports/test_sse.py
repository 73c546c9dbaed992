import asyncio
import json

import pytest
from asyncio_tests import on_asyncio
from event_source import Event
from fake_asgi import Request, http_headers

from transports import messages
from transports.memory import MemoryReceiver
from transports.sse import SSE
from transports.streamable_http import HIGH_WATER, StreamTimes

PATIENT = StreamTimes(silence=0.001, ping=60, stall=60)
ENDPOINT = Event("/messages?sessionId=c-1", "endpoint")


class Client:
    """One client of the HTTP+SSE pair and the transport that serves it."""

    def __init__(self, times=PATIENT, receiver=None):
        self.receiver = receiver or MemoryReceiver()
        self.transport = SSE("c-1", "/messages?sessionId=c-1", self.receiver, times)

    def get(self, **how):
        headers = http_headers(accept="text/event-stream")
        return Request(self.transport.get, method="GET", headers=headers, **how)

    def post(self, message):
        return Request(lambda call: self.transport.post(message, call))


def numbered(number, size=0):
    return messages.notification("n", {"number": number, "filler": "x" * size})


def numbers(events):
    return [json.loads(event.data)["params"]["number"] for event in events if event.name == "message"]


@on_asyncio
async def test_the_stream_begins_with_the_url_to_post_to():
    client = Client()
    stream = client.get()
    assert await stream.has(1) == [ENDPOINT]
    assert (stream.status, stream.streams) == (200, True)
    await stream.hang_up()


@on_asyncio
async def test_a_posted_message_is_handed_over_and_accepted_with_202():
    client = Client()
    message = messages.request(1, "initialize")
    request = await client.post(message).done()
    assert request.status == 202
    assert client.receiver.received == [message]


@on_asyncio
async def test_everything_comes_on_the_one_stream_in_order_whatever_it_is_about():
    client = Client()
    client.transport.send(numbered(1))
    stream = client.get()
    await stream.has(2)
    client.transport.send(numbered(2), 1)
    client.transport.send(numbered(3), "unknown")
    client.transport.send(messages.result(1, {}), 1)
    client.transport.withdraw(2)
    events = await stream.has(5)
    assert numbers(events[:4]) == [1, 2, 3]
    assert json.loads(events[4].data) == {"jsonrpc": "2.0", "id": 1, "result": {}}
    assert stream.open
    await stream.hang_up()


@on_asyncio
async def test_the_client_has_gone_when_its_stream_has():
    client = Client()
    stream = client.get()
    await stream.has(1)
    assert client.receiver.gone == 0
    await stream.hang_up()
    assert client.receiver.gone == 1


@on_asyncio
async def test_a_client_that_goes_before_its_first_event_has_gone_too():
    client = Client()
    stream = client.get(breaks_at=2)
    with pytest.raises(OSError, match="broken"):
        await stream.done()
    assert client.receiver.gone == 1


@on_asyncio
async def test_closing_ends_the_stream_after_what_is_queued():
    client = Client()
    stream = client.get()
    await stream.has(1)
    client.transport.send(numbered(1))
    client.transport.close()
    client.transport.close()
    await stream.done()
    assert numbers(stream.events) == [1]
    assert stream.complete


@on_asyncio
async def test_a_silent_stream_is_kept_alive_by_pings():
    client = Client(StreamTimes(silence=60, ping=0.001, stall=60))
    stream = client.get()
    await stream.wait(lambda: len(stream.comments) >= 2)
    assert stream.events == [ENDPOINT]
    await stream.hang_up()


@on_asyncio
async def test_a_client_that_does_not_read_congests_and_drains_as_it_reads():
    client = Client()
    stream = client.get(reads=False)
    for number in range(1, 5):
        client.transport.send(numbered(number, HIGH_WATER // 3))
    assert client.transport.congested
    assert client.receiver.drains == 0
    stream.read()
    assert numbers(await stream.has(5)) == [1, 2, 3, 4]
    assert not client.transport.congested
    assert client.receiver.drains == 1
    await stream.hang_up()


@on_asyncio
async def test_a_client_that_goes_away_is_no_longer_waited_for():
    client = Client()
    stream = client.get()
    await stream.has(1)
    stream._reads.clear()
    for number in range(1, 5):
        client.transport.send(numbered(number, HIGH_WATER))
    assert client.transport.congested
    await stream.hang_up()
    assert not client.transport.congested
    client.transport.send(numbered(5, HIGH_WATER * 2))
    assert not client.transport.congested


@on_asyncio
async def test_a_reader_that_takes_nothing_for_too_long_has_gone_L5():
    client = Client(StreamTimes(silence=60, ping=60, stall=0.001))
    stream = client.get()
    await stream.has(1)
    stream._reads.clear()
    client.transport.send(numbered(1))
    with pytest.raises(ConnectionAbortedError):
        await stream.done()
    assert client.receiver.gone == 1


@on_asyncio
async def test_a_post_waits_until_the_backend_keeps_up():
    class Busy(MemoryReceiver):
        def __init__(self):
            super().__init__()
            self.go = asyncio.Event()

        @property
        def ready(self):
            return self.go.is_set()

        async def wait_ready(self):
            await self.go.wait()

    client = Client(receiver=(busy := Busy()))
    request = client.post(numbered(1))
    await asyncio.sleep(1)
    assert (busy.received, request.status) == ([], None)
    busy.go.set()
    assert (await request.done()).status == 202
    assert len(busy.received) == 1
