"""What is told of clients' requests, to who follows calls."""

from __future__ import annotations

import pytest

from muxsim.observe.events import CallEnded
from muxsim.session.attachment import Attachment
from muxsim.spec import Limits
from transports import messages
from transports.memory import MemoryTransport
from transports.origin import Origin, origin_of

from .fake_backend import fake_session

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


class Played:
    """A session whose calls are followed, and one client of it."""

    def __init__(self, answers, *, followed=True, **wanted):
        self.session, self.backend = fake_session(answers, **wanted)
        self.calls = []
        if followed:
            self.session.conversation._events.follow_calls(self.calls.append)
        self.client = Attachment(self.session, "memory")
        self.client.connect(MemoryTransport())
        self.client.principal = "ada"
        self.session.attach(self.client)

    def ask(self, id, method="tools/call", origin=None, **params):
        request = messages.request(id, method, {"name": "move", **params})
        request.origin = origin
        self.client.receive(request)


def result(**fields):
    return lambda request: messages.result(request.id, fields)


async def test_each_request_of_a_client_is_told_of_when_it_is_over_with_who_asked_and_what_for():
    played = Played({"tools/call": result(content=[]), "prompts/get": result(messages=[]), "ping": result()})
    played.ask(1, origin=Origin("lab-7", TRACE))
    played.ask("two", "prompts/get", name="greeting", _meta={"traceparent": TRACE})
    played.ask(3, "ping")
    called, got, ping = played.calls
    assert isinstance(called, CallEnded)
    assert (called.session, called.env, called.seed, called.pid) == ("s" * 32, "fake", 7, 4711)
    assert (called.method, called.target, called.id, called.error) == ("tools/call", "move", 1, None)
    assert (called.attachment, called.principal, called.request, called.traceparent) == (1, "ada", "lab-7", TRACE)
    assert called.seconds >= 0
    assert called.received == len(messages.request(1, "tools/call", {"name": "move"}).encode())
    assert called.sent == len(played.client.transport.sent[0][0].encode())
    assert (got.target, got.id, got.request, got.traceparent) == ("greeting", "two", None, TRACE)
    assert (ping.method, ping.target) == ("ping", None)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (lambda request: messages.result(request.id, {"content": [], "isError": True}), "tool_error"),
        (lambda request: messages.result(request.id, {"content": [], "isError": False}), None),
        (lambda request: messages.result(request.id, {"structuredContent": {"isError": True}}), None),
        (lambda request: messages.result(request.id, {"content": [{"text": '"isError":true'}]}), None),
        (lambda request: messages.error(request.id, -32602, "no such tool"), "-32602"),
    ],
)
async def test_a_call_has_failed_if_its_answer_is_an_error_or_its_tool_says_so(answer, error):
    played = Played({"tools/call": answer})
    played.ask(1)
    assert [call.error for call in played.calls] == [error]


async def test_what_is_never_answered_is_told_of_once_with_why():
    played = Played({}, limits=Limits(max_in_flight=10, call_timeout=60))
    for id in range(5):
        played.ask(id)
    assert not played.calls
    played.client.receive(messages.notification("notifications/cancelled", {"requestId": 0}))
    played.session.conversation.cancel(played.client, 1)
    played.session.conversation.expire((played.client, 2))
    assert [(call.id, call.error, call.sent) for call in played.calls] == [
        (0, "cancelled", 0),
        (1, "cancelled", 0),
        (2, "call_timeout", 0),
    ]
    other = Attachment(played.session, "memory")
    other.connect(MemoryTransport())
    played.session.attach(other)
    other.receive(messages.request(9, "tools/call", {"name": "other"}))
    played.session.detach(played.client)
    assert [(call.id, call.error) for call in played.calls[3:]] == [(3, "client_gone"), (4, "client_gone")]
    played.session.end("ttl", "its time is over")
    assert [(call.id, call.error, call.attachment) for call in played.calls[5:]] == [(9, "ttl", 2)]


async def test_muxsims_own_reading_is_no_call_and_names_are_no_longer_than_they_may_be():
    played = Played({"tools/call": result(content=[])})
    aside = Attachment(played.session, "own", aside=True)
    aside.connect(MemoryTransport())
    aside.receive(messages.request(1, "tools/call", {"name": "aside"}))
    assert not played.calls
    played.ask("x" * 10_000, name="y" * 10_000)
    (call,) = played.calls
    assert len(call.id) == len(call.target) == 128


async def test_nothing_is_made_where_nobody_follows_and_a_follower_may_come_and_go():
    played = Played({"tools/call": result(content=[])}, followed=False)
    conversation = played.session.conversation
    played.ask(1)
    assert conversation._watch is None
    heard = []
    conversation._events.follow_calls(heard.append)
    played.ask(2)
    conversation._events.follow_calls(heard.append, wanted=False)
    assert [call.id for call in heard] == [2]


async def test_a_follower_that_fails_is_told_no_more_and_missed_by_nobody():
    played = Played({"tools/call": result(content=[])})
    played.session.conversation._events.follow_calls(lambda call: 1 / 0)
    played.ask(1)
    played.ask(2)
    assert [call.id for call in played.calls] == [1, 2]
    assert len(played.client.transport.sent) == 2
    assert len(played.session.conversation._events.call_listeners) == 1


@pytest.mark.parametrize(
    ("headers", "origin"),
    [
        ([], None),
        ([(b"accept", b"*/*")], None),
        ([(b"x-request-id", b"lab-7")], Origin("lab-7")),
        ([(b"x-request-id", b"a b")], None),
        ([(b"x-request-id", b"\x1b[31m")], None),
        ([(b"x-request-id", "ä".encode())], None),
        ([(b"x-request-id", b"x" * 129)], None),
        ([(b"x-request-id", b"")], None),
        ([(b"traceparent", TRACE.encode())], Origin(None, TRACE)),
        ([(b"traceparent", TRACE.encode()), (b"tracestate", b"a=1,b=2")], Origin(None, TRACE, "a=1,b=2")),
        ([(b"tracestate", b"a=1")], None),
        ([(b"traceparent", TRACE.encode()), (b"tracestate", b"x" * 513)], Origin(None, TRACE)),
        ([(b"traceparent", b"00-" + b"0" * 32 + TRACE[35:].encode())], None),
        ([(b"traceparent", TRACE.upper().encode())], None),
        ([(b"traceparent", b"ff" + TRACE[2:].encode())], None),
        ([(b"traceparent", TRACE.encode() + b"\n")], Origin(None, TRACE)),
    ],
)
def test_a_request_is_known_by_what_its_headers_say_in_their_own_form(headers, origin):
    assert origin_of(headers) == origin
