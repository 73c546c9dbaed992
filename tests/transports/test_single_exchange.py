"""Streamable HTTP of 2026-07-28: every POST is an exchange of its own."""

import asyncio
import json

import pytest
from asyncio_tests import on_asyncio
from fake_asgi import Request, http_headers

from transports import messages, streamable_http
from transports.http_rules import HTTPRefusal
from transports.memory import MemoryReceiver
from transports.streamable_http import HIGH_WATER, SingleExchange, StreamTimes

BOTH = "application/json, text/event-stream"
PATIENT = StreamTimes(silence=60, ping=60, stall=60)
IMPATIENT = StreamTimes(silence=0.001, ping=60, stall=60)


@pytest.fixture(autouse=True)
def _watched_from_the_start(monkeypatch):
    monkeypatch.setattr(streamable_http, "WATCH_AFTER", 0.0)


class Exchange:
    """One POST, and both sides of it."""

    def __init__(self, method="tools/call", *, accept=BOTH, times=PATIENT, receiver=None, **how):
        self.receiver = receiver or MemoryReceiver()
        self.exchange = SingleExchange(times)
        message = messages.request(1, method)
        self.request = Request(
            lambda call: self.exchange.post(message, self.receiver, call), headers=http_headers(accept=accept), **how
        )

    async def received(self):
        """Let the handler run until it has handed the request over and waits for what comes back."""
        for _ in range(20):
            await asyncio.sleep(0)
        assert [message.method for message in self.receiver.received] != []

    def send(self, message):
        self.exchange.send(message, 1)

    def answer(self):
        self.send(messages.result(1, {}))


def progress(number, size=0):
    return messages.notification("notifications/progress", {"progress": number, "filler": "x" * size})


def data_of(request):
    return [json.loads(event.data) for event in request.events]


class Quick(MemoryReceiver):
    """Answers at once."""

    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def receive(self, message):
        super().receive(message)
        self.exchange.send(self.answer, message.id)


# the form of the answer


@on_asyncio
async def test_a_result_that_comes_first_is_one_json_body():
    one = Exchange()
    await one.received()
    one.answer()
    request = await one.request.done()
    assert (request.status, request.body) == (200, b'{"jsonrpc":"2.0","id":1,"result":{}}')
    assert request.headers[b"content-type"] == b"application/json"
    assert b"mcp-session-id" not in request.headers


@pytest.mark.parametrize(
    ("code", "status"),
    [
        (-32601, 404),
        (-32021, 400),
        (-32020, 400),
        (-32022, 400),
        (-32700, 400),
        (-32600, 400),
        (-32602, 200),
        (-1, 200),
    ],
)
@pytest.mark.parametrize("accept", [BOTH, "application/json"])
@on_asyncio
async def test_an_error_that_comes_first_has_its_status(code, status, accept):
    one = Exchange(accept=accept)
    await one.received()
    one.send(messages.error(1, code, "no"))
    request = await one.request.done()
    assert (request.status, json.loads(request.body)["error"]["code"]) == (status, code)


@on_asyncio
async def test_an_answer_that_is_there_at_once_needs_no_waiting():
    one = Exchange(receiver=(quick := Quick(messages.error(1, -32601, "no"))))
    quick.exchange = one.exchange
    assert (await one.request.done()).status == 404
    assert quick.gone == 0


@on_asyncio
async def test_a_notification_that_comes_first_opens_an_event_stream_without_ids_or_priming():
    one = Exchange()
    await one.received()
    one.send(progress(1))
    await one.request.has(1)
    one.send(progress(2))
    one.answer()
    request = await one.request.done()
    assert (request.status, request.streams, request.complete) == (200, True, True)
    assert [data.get("method") for data in data_of(request)] == ["notifications/progress"] * 2 + [None]
    assert data_of(request)[2]["result"] == {}
    assert {event.id for event in request.events} == {""}
    assert request.retry is None


@on_asyncio
async def test_an_error_after_something_else_comes_on_the_stream():
    one = Exchange()
    await one.received()
    one.send(progress(1))
    one.send(messages.error(1, -32601, "no"))
    request = await one.request.done()
    assert request.status == 200
    assert data_of(request)[1]["error"]["code"] == -32601


@on_asyncio
async def test_silence_opens_an_event_stream():
    one = Exchange(times=IMPATIENT)
    await one.request.wait(lambda: one.request.status)
    assert one.request.streams
    assert one.request.events == []
    one.answer()
    request = await one.request.done()
    assert [data["id"] for data in data_of(request)] == [1]


@on_asyncio
async def test_a_silent_stream_is_kept_alive_by_pings():
    one = Exchange(times=StreamTimes(silence=0.001, ping=0.001, stall=60))
    await one.request.wait(lambda: len(one.request.comments) >= 2)
    one.answer()
    await one.request.done()


@on_asyncio
async def test_a_client_that_takes_no_event_stream_gets_the_answer_alone_after_any_silence():
    one = Exchange(accept="application/json", times=IMPATIENT)
    await one.received()
    one.send(progress(1))
    await asyncio.sleep(IMPATIENT.silence * 5)
    assert one.request.status is None
    one.answer()
    request = await one.request.done()
    assert json.loads(request.body)["result"] == {}
    assert one.exchange.dropped == 1


@on_asyncio
async def test_a_client_that_takes_only_event_streams_gets_one_with_the_answer():
    one = Exchange(accept="text/event-stream")
    await one.request.wait(lambda: one.request.status)
    one.send(messages.error(1, -32601, "no"))
    request = await one.request.done()
    assert (request.status, request.streams) == (200, True)
    assert data_of(request)[0]["error"]["code"] == -32601


@pytest.mark.parametrize(
    ("method", "accept"),
    [("subscriptions/listen", "application/json"), ("tools/call", "text/html"), ("subscriptions/listen", "text/html")],
)
@on_asyncio
async def test_a_client_that_cannot_take_the_answer_is_refused_before_anything_is_handed_over(method, accept):
    one = Exchange(method, accept=accept)
    with pytest.raises(HTTPRefusal) as refused:
        await one.request.done()
    assert refused.value.status == 406
    assert (one.receiver.received, one.receiver.gone) == ([], 0)


@on_asyncio
async def test_a_listen_stream_sends_each_message_as_it_comes():
    one = Exchange("subscriptions/listen")
    await one.received()
    for number in range(1, 4):
        one.send(messages.notification("notifications/tools/list_changed"))
        await one.request.has(number)
    assert one.request.open
    await one.request.hang_up()
    assert one.receiver.gone == 1


@on_asyncio
async def test_the_request_waits_until_the_backend_keeps_up():
    class Busy(MemoryReceiver):
        def __init__(self):
            super().__init__()
            self.go = asyncio.Event()

        @property
        def ready(self):
            return self.go.is_set()

        async def wait_ready(self):
            await self.go.wait()

    one = Exchange(receiver=(busy := Busy()))
    await asyncio.sleep(1)
    assert busy.received == []
    busy.go.set()
    await one.received()
    one.answer()
    assert (await one.request.done()).status == 200


# a client that goes away


@pytest.mark.parametrize("accept", [BOTH, "application/json", "text/event-stream"])
@pytest.mark.parametrize("times", [PATIENT, IMPATIENT])
@on_asyncio
async def test_a_client_that_goes_before_its_answer_is_reported_once_L2(accept, times):
    one = Exchange(accept=accept, times=times)
    await one.received()
    await one.request.hang_up()
    assert one.receiver.gone == 1


@on_asyncio
async def test_a_client_that_goes_in_the_middle_of_its_stream_is_reported_once_L2():
    one = Exchange()
    await one.received()
    one.send(progress(1))
    await one.request.has(1)
    await one.request.hang_up()
    assert one.receiver.gone == 1
    one.answer()
    assert one.receiver.gone == 1


@on_asyncio
async def test_a_client_that_goes_after_its_answer_is_not_reported():
    one = Exchange(reads=False)
    await one.received()
    one.send(progress(1))
    one.answer()
    await one.request.hang_up()
    assert one.receiver.gone == 0


@on_asyncio
async def test_an_answer_and_a_disconnect_at_once_is_no_disconnect():
    one = Exchange()
    await one.received()
    one.request._gone.set()
    one.answer()
    await one.request.done()
    assert one.receiver.gone == 0


@pytest.mark.parametrize("end", [SingleExchange.close, lambda exchange: exchange.withdraw(1)])
@on_asyncio
async def test_a_response_ends_with_its_session_or_its_cancellation(end):
    one = Exchange()
    await one.received()
    one.send(progress(1))
    await one.request.has(1)
    end(one.exchange)
    request = await one.request.done()
    assert request.complete
    assert len(request.events) == 1
    assert one.receiver.gone == 0


# slow readers


@on_asyncio
async def test_a_client_that_does_not_read_congests_and_drains_as_it_reads():
    one = Exchange(reads=False)
    await one.received()
    for number in range(1, 5):
        one.send(progress(number, HIGH_WATER // 3))
    assert one.exchange.congested
    assert one.receiver.drains == 0
    one.request.read()
    await one.request.has(4)
    assert not one.exchange.congested
    assert one.receiver.drains == 1
    one.answer()
    await one.request.done()
    assert [data["params"]["progress"] for data in data_of(one.request)[:4]] == [1, 2, 3, 4]


@on_asyncio
async def test_a_client_that_goes_away_is_no_longer_waited_for():
    one = Exchange(reads=False)
    await one.received()
    one.send(progress(1, HIGH_WATER * 2))
    one.send(progress(2))
    assert one.exchange.congested
    await one.request.hang_up()
    assert not one.exchange.congested
    assert (one.receiver.drains, one.receiver.gone) == (1, 1)


@on_asyncio
async def test_a_reader_that_takes_nothing_for_too_long_loses_its_stream_and_its_call():
    one = Exchange(times=StreamTimes(silence=60, ping=60, stall=0.001))
    await one.received()
    one.send(progress(1))
    await one.request.has(1)
    one.request._reads.clear()
    one.send(progress(2))
    with pytest.raises(ConnectionAbortedError):
        await one.request.done()
    assert one.receiver.gone == 1


@on_asyncio
async def test_after_a_big_answer_nothing_is_left_to_wait_for():
    """It is sent as one body, which nobody takes from the stream piece by piece."""
    one = Exchange()
    await one.received()
    one.send(messages.result(1, "x" * HIGH_WATER))
    assert (await one.request.done()).status == 200
    assert not one.exchange.congested
    assert one.receiver.drains == 1
