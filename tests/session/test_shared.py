"""One session for many principals: each hears what is its own, and nobody waits for one who does not read."""

from __future__ import annotations

import itertools
import json

import pytest
import trio

from muxsim.observe.events import Events, SessionLimit
from muxsim.session.agent_view import AgentAttachment
from muxsim.session.attachment import Attachment
from muxsim.session.audience import LONGEST_URI, MOST_SUBSCRIPTIONS
from muxsim.session.flow import SHARED_PATIENCE, SHARED_SLACK
from muxsim.session.session import Session
from muxsim.spec import EnvSpec
from transports import messages
from transports.memory import MemoryTransport
from transports.messages import Kind

from .fake_backend import FakeBackend

LOG = messages.notification("notifications/message", {"level": "info", "data": "a secret"})
CUSTOM = messages.notification("notifications/custom", {"data": "a secret"})
CHANGED = messages.notification("notifications/tools/list_changed")
QUESTION = messages.request("q", "sampling/createMessage", {"messages": ["a secret"]})


def updated(uri):
    return messages.notification("notifications/resources/updated", {"uri": uri})


class Shared:
    """A shared session that runs, and clients of it by name."""

    def __init__(self, lasting=True):
        self.events = []
        listeners = Events()
        listeners.subscribe(self.events.append)
        spec = EnvSpec(name="common", command="common", shared=True)
        self.session = Session("s" * 32, spec, 7, listeners, lasting=lasting)
        self.backend = FakeBackend({})
        self.backend.session = self.session
        self.session.use(self.backend)
        self.numbers = itertools.count(1)

    def client(self, principal, *, attached=True, kind=Attachment):
        attachment = kind(self.session, "memory")
        attachment.principal = principal
        attachment.connect(MemoryTransport())
        if attached:
            self.session.attach(attachment)
        return attachment

    def ask(self, client, method="tools/call", **params):
        id = next(self.numbers)
        client.receive(messages.request(id, method, params))
        return id

    def answer_all(self):
        for message in list(self.backend.sent):
            if message.kind is Kind.REQUEST:
                self.session.seam.from_backend(messages.result(message.id, {}))
        self.backend.sent.clear()


def heard(client):
    return [message.method or message.kind.value for message, _ in client.transport.sent]


@pytest.mark.parametrize("names", [("ann", "bob"), (None, None), ("ann", None)])
@pytest.mark.parametrize("asks", [(True, False), (True, True), (False, False)])
async def test_what_belongs_to_no_call_goes_to_nobody_where_there_are_several_principals(names, asks):
    shared = Shared()
    clients = [shared.client(name) for name in names]
    for client, calls in zip(clients, asks, strict=True):
        if calls:
            shared.ask(client)
    for message in (LOG, CUSTOM, QUESTION):
        shared.session.seam.from_backend(message)
    assert [heard(client) for client in clients] == [[], []]
    refusal = shared.backend.sent[-1]
    assert (refusal.kind, refusal.id) == (Kind.ERROR, "q")
    shared.session.seam.from_backend(CHANGED)
    assert [heard(client) for client in clients] == [[CHANGED.method]] * 2


async def test_one_principal_hears_it_all_on_however_many_connections():
    shared = Shared()
    first, second = shared.client("ann"), shared.client("ann")
    shared.ask(first)
    for message in (LOG, QUESTION):
        shared.session.seam.from_backend(message)
    assert heard(first) == [LOG.method, QUESTION.method]
    first.receive(messages.result("q", {}))
    assert shared.backend.sent[-1].id == "q"
    second.disconnected()
    shared.session.seam.from_backend(LOG)
    assert heard(first)[-1] == LOG.method


async def test_what_a_principal_has_caused_may_come_late_and_still_goes_to_nobody_else():
    shared = Shared()
    gone = shared.client("ann")
    shared.ask(gone)
    shared.answer_all()
    gone.disconnected()
    stays = shared.client("bob")
    shared.ask(stays)
    for message in (LOG, QUESTION):
        shared.session.seam.from_backend(message)
    assert heard(stays) == []


async def test_a_client_of_one_request_counts_as_a_principal_too():
    shared = Shared()
    stays, once = shared.client(None), shared.client(None, attached=False)
    id = shared.ask(once)
    shared.session.seam.from_backend(LOG)
    assert (heard(stays), heard(once)) == ([], [])
    once.session.conversation.cancel(once, id)
    shared.session.seam.from_backend(LOG)
    assert heard(stays) == [], "the call that was given up may still be running"


async def test_what_says_which_call_it_belongs_to_goes_to_that_alone():
    shared = Shared()
    first, second = shared.client("ann"), shared.client("bob")
    for client in (first, second):
        shared.ask(client, _meta={"progressToken": "mine"})
    token = shared.backend.sent[-1].members["params"]
    [number] = json.loads(bytes(token))["_meta"].values()
    shared.session.seam.from_backend(
        messages.notification("notifications/progress", {"progressToken": number, "progress": 1})
    )
    shared.answer_all()
    assert heard(first) == ["result"]
    assert heard(second) == ["notifications/progress", "result"]


async def test_the_level_of_logs_is_not_set_for_others():
    shared = Shared()
    first = shared.client("ann")
    shared.ask(first, "logging/setLevel", level="debug")
    assert len(shared.backend.sent) == 1, "alone, a client has the server to itself"
    second = shared.client("bob")
    shared.ask(second, "logging/setLevel", level="emergency")
    assert len(shared.backend.sent) == 1
    assert heard(second) == ["result"]


@pytest.mark.parametrize("kind", [Attachment, AgentAttachment])
@pytest.mark.parametrize("method", ["logging/setLevel", "resources/unsubscribe"])
async def test_what_muxsim_answers_itself_is_answered_to_every_kind_of_client(kind, method):
    shared = Shared()
    first, second = shared.client("ann", kind=kind), shared.client("bob", kind=kind)
    shared.ask(second, "resources/subscribe", uri="map://a")
    shared.ask(first, method, uri="map://a", level="debug")
    assert heard(first) == ["result"]


async def test_that_a_resource_has_changed_is_for_those_who_subscribed_to_it():
    shared = Shared()
    first, second, third = (shared.client(name) for name in ("ann", "bob", None))
    shared.ask(first, "resources/subscribe", uri="File:///a/b/")
    shared.ask(second, "resources/subscribe", uri="file:///a")
    for uri in ("file:///a/b", "file:///a/c?x", "file:///ab", "file:///a/b/c", 3):
        shared.session.seam.from_backend(updated(uri))
    assert heard(first) == [updated("").method] * 2
    assert heard(second) == [updated("").method] * 3
    assert heard(third) == []


async def test_one_client_does_not_unsubscribe_another():
    shared = Shared()
    first, second = shared.client("ann"), shared.client("bob")
    for client in (first, second):
        shared.ask(client, "resources/subscribe", uri="x:y")
    shared.answer_all()
    shared.ask(first, "resources/unsubscribe", uri="x:y")
    assert shared.backend.sent == []
    assert heard(first) == ["result", "result"]
    shared.session.seam.from_backend(updated("x:y"))
    assert (len(heard(first)), len(heard(second))) == (2, 2)
    shared.ask(second, "resources/unsubscribe", uri="x:y")
    assert [message.method for message in shared.backend.sent] == ["resources/unsubscribe"]


async def test_subscriptions_are_bounded():
    shared = Shared()
    client = shared.client("ann")
    for number in range(MOST_SUBSCRIPTIONS + 1):
        shared.ask(client, "resources/subscribe", uri=f"x:{number}")
        shared.answer_all()
    shared.ask(client, "resources/subscribe", uri="x" * (LONGEST_URI + 1))
    assert heard(client) == ["result"] * MOST_SUBSCRIPTIONS + ["error", "error"]
    client.disconnected()
    other = shared.client("ann")
    shared.ask(other, "resources/subscribe", uri="x:y")
    assert heard(other) == []


def limits_met(shared):
    return [event.limit for event in shared.events if isinstance(event, SessionLimit)]


async def test_a_client_that_does_not_read_is_cut_and_the_backend_read_on():
    shared = Shared()
    slow, quick = shared.client("ann"), shared.client("bob")
    shared.ask(slow)
    slow.transport.congested = True
    shared.session.seam.from_backend(CHANGED)
    assert shared.session.seam.clients_ready
    assert not slow.cut, "one large answer puts anybody behind"
    large = messages.notification(CHANGED.method, {"filler": "x" * 2**20})
    for _ in range(SHARED_SLACK // 2**20 + 1):
        shared.session.seam.from_backend(large)
        assert shared.session.seam.clients_ready
    assert slow.cut
    assert slow.transport.closed
    assert limits_met(shared) == ["max_buffered"]
    before = len(slow.transport.sent)
    shared.answer_all()
    shared.session.seam.from_backend(CHANGED)
    assert len(slow.transport.sent) == before
    assert heard(quick)[-1] == CHANGED.method
    shared.backend.sent.clear()
    shared.ask(slow)
    assert shared.backend.sent == []


async def test_a_client_that_has_been_behind_for_long_is_cut_and_one_that_caught_up_is_not(autojump_clock):
    shared = Shared()
    slow, catching_up = shared.client("ann"), shared.client("bob")
    for client in (slow, catching_up):
        client.transport.congested = True
    shared.session.seam.from_backend(CHANGED)
    catching_up.transport.congested = False
    catching_up.drained()
    await trio.sleep(SHARED_PATIENCE * 1.1)
    catching_up.transport.congested = True
    shared.session.seam.from_backend(CHANGED)
    assert (slow.cut, catching_up.cut) == (True, False)


async def test_where_one_client_has_a_session_its_backend_waits_for_it():
    alone = Shared(lasting=False)
    client = alone.client("ann")
    client.transport.congested = True
    for _ in range(3):
        alone.session.seam.from_backend(messages.notification(CHANGED.method, {"filler": "x" * SHARED_SLACK}))
    assert not alone.session.seam.clients_ready
    assert not client.cut
