"""One backend after another in a live session: its clients notice nothing, and nothing is answered twice or never."""

from __future__ import annotations

from collections import Counter
from contextlib import asynccontextmanager

import msgspec
import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from muxsim.errors import Busy, StartError
from muxsim.observe.events import BackendRejected, BackendStderr, Events
from muxsim.placement.backend import BackendExit
from muxsim.session.attachment import Attachment
from muxsim.session.codes import BACKEND_GONE
from muxsim.session.control.control import META_KEY
from muxsim.session.session import Session
from muxsim.session.states import State
from muxsim.spec import EnvSpec, Limits
from session.test_control import Lake, control_of
from transports import messages
from transports.errors import RemoteProtocolError
from transports.memory import MemoryTransport
from transports.messages import Kind, decode

GREETING = {"protocolVersion": "2025-11-25", "capabilities": {"roots": {}}, "clientInfo": {"name": "c", "version": "1"}}
URI = "file:///map"
FOREVER = Limits(idle_timeout=None)


class Child:
    """A backend in memory: it answers what is not `held`, and keeps what it was sent."""

    congested = False
    last_words = ()
    way = "fresh"

    def __init__(self, pid, listener, held, version="2025-11-25"):
        self.pid = pid
        self.listener = listener
        self.held = held
        self.version = version
        self.sent = []
        self.ended = False
        self.fate = trio.Event()

    def send(self, message):
        message = decode(message.encode())
        self.sent.append(message)
        if message.kind is Kind.REQUEST and message.method not in self.held:
            self.answer(message)

    def answer(self, request):
        value = {"protocolVersion": self.version} if request.method == "initialize" else {"by": self.pid}
        self.say(messages.result(request.id, value))

    def say(self, message):
        self.listener.from_backend(decode(message.encode()))

    def said(self, method):
        return [message for message in self.sent if message.method == method]

    async def run(self):
        await self.fate.wait()
        return BackendExit("it has exited", 1, ())

    async def end(self):
        self.ended = True
        return 0


class Stage:
    """A session under way whose backends come one after the other."""

    def __init__(self, limits, *, held=(), kind=Child, **options):
        self.children = []
        self.kind = kind
        self.held = set(held)
        self.version = "2025-11-25"
        self.fault = None
        self.gate = None
        self.reported = []
        events = Events()
        events.subscribe(self.reported.append)
        spec = EnvSpec(name="fake", command="fake", limits=limits)
        self.session = Session("s" * 32, spec, 7, events, start=self.start, **options)

    async def start(self, *, listener):
        if self.gate is not None:
            await self.gate.wait()
        if self.fault is not None:
            raise self.fault
        return self.child(listener)

    def child(self, listener):
        self.children.append(self.kind(len(self.children) + 1, listener, self.held, self.version))
        return self.children[-1]

    @property
    def latest(self):
        return self.children[-1]


@asynccontextmanager
async def stage(limits=FOREVER, **options):
    one = Stage(limits, **options)
    one.session.use(one.child(one.session.seam))
    with trio.fail_after(1000):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(one.session.run)
            await trio.testing.wait_all_tasks_blocked()
            yield one
            one.session.end("test", "the test is over")
            await one.session.wait_ended()
    assert all(child.ended for child in one.children)


class Client(Attachment):
    """One that has shaken hands, and keeps what it is sent."""

    def __init__(self, session, *, greets=True):
        super().__init__(session, "memory")
        self.connect(MemoryTransport())
        session.attach(self)
        if greets:
            self.ask("hello", "initialize", GREETING)
            self.say("notifications/initialized")

    def ask(self, id, method="tools/call", params=None):
        self.receive(decode(messages.request(id, method, params or {}).encode()))

    def say(self, method, params=None):
        self.receive(decode(messages.notification(method, params).encode()))

    @property
    def heard(self):
        return [message for message, _ in self.transport.sent]

    def answers(self, id):
        return [message for message in self.heard if message.is_answer and message.id == id]

    def by(self, id):
        """Which child has given the one answer."""
        (answer,) = self.answers(id)
        return msgspec.json.decode(answer.members["result"])["by"]

    def error(self, id):
        (answer,) = self.answers(id)
        return msgspec.json.decode(answer.members["error"])


def params_of(message):
    return None if message.params is None else msgspec.json.decode(message.params)


async def test_clients_notice_nothing_of_another_backend(autojump_clock):
    async with stage() as one:
        first, second = Client(one.session), Client(one.session)
        first.ask(1)
        before = [len(client.heard) for client in (first, second)]
        await one.session.replace_backend()
        assert [len(client.heard) for client in (first, second)] == before
        assert not first.transport.closed
        first.ask(2)
        second.ask(2)
        late = Client(one.session)
        assert (first.by(1), first.by(2), second.by(2)) == (1, 2, 2)
        assert msgspec.json.decode(late.answers("hello")[0].members["result"]) == {"protocolVersion": "2025-11-25"}
        one.latest.say(messages.notification("notifications/tools/list_changed"))
        assert {client.heard[-1].method for client in (first, second, late)} == {"notifications/tools/list_changed"}
        assert (one.session.state, one.session.pid) == (State.READY, 2)
        assert one.children[0].ended


async def test_another_backend_is_told_what_the_last_one_had_been_told_and_before_anything_else(autojump_clock):
    async with stage() as one:
        client = Client(one.session)
        client.ask(1, "logging/setLevel", {"level": "info"})
        client.ask(2, "resources/subscribe", {"uri": URI})
        client.ask(3, "resources/subscribe", {"uri": "file:///gone"})
        client.ask(4, "resources/unsubscribe", {"uri": "file:///gone"})
        client.ask(5, "logging/setLevel", {"level": "debug"})
        client.ask(6)
        for _ in range(2):
            await one.session.replace_backend()
        client.ask(7)
        assert [(message.method, params_of(message)) for message in one.latest.sent] == [
            ("initialize", GREETING),
            ("notifications/initialized", None),
            ("logging/setLevel", {"level": "debug"}),
            ("resources/subscribe", {"uri": URI}),
            ("tools/call", {}),
        ]
        assert all(len(client.answers(id)) == 1 for id in ("hello", 1, 2, 3, 4, 5, 6, 7))


async def test_a_handshake_that_its_client_completes_only_afterwards_is_completed_once(autojump_clock):
    async with stage() as one:
        client = Client(one.session, greets=False)
        client.ask("hello", "initialize", GREETING)
        await one.session.replace_backend()
        assert [message.method for message in one.latest.sent] == ["initialize"]
        client.say("notifications/initialized")
        assert [message.method for message in one.latest.sent] == ["initialize", "notifications/initialized"]


async def test_a_session_without_a_handshake_has_none_replayed(autojump_clock):
    """As all of 2026-07-28."""
    async with stage() as one:
        client = Client(one.session, greets=False)
        client.ask(1)
        await one.session.replace_backend()
        client.ask(2)
        assert [message.method for message in one.latest.sent] == ["tools/call"]
        assert client.by(2) == 2


async def test_what_is_in_flight_gets_one_error_and_what_comes_meanwhile_one_answer_of_the_new_backend(autojump_clock):
    async with stage(held={"tools/call"}) as one:
        client = Client(one.session)
        client.ask("old")
        one.held.clear()
        one.gate = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(one.session.replace_backend)
            await trio.testing.wait_all_tasks_blocked()
            assert client.error("old")["code"] == BACKEND_GONE
            assert client.error("old")["data"] == {"cause": "backend_replaced"}
            assert one.session.state is State.RESTORING
            client.ask("old")
            client.ask("new")
            assert not client.ready
            one.gate.set()
        assert client.ready
        assert client.by("new") == 2
        assert [message.kind for message in client.answers("old")] == [Kind.ERROR, Kind.RESULT]
        one.children[0].answer(one.children[0].said("tools/call")[0])
        assert len(client.heard) == 4


async def test_nothing_that_the_last_backend_still_says_reaches_anybody(autojump_clock):
    async with stage() as one:
        client = Client(one.session)
        await one.session.replace_backend()
        old, heard = one.children[0], len(client.heard)
        old.say(messages.notification("notifications/tools/list_changed"))
        old.say(messages.request(1, "roots/list"))
        old.listener.unreadable(b"noise", RemoteProtocolError(-32700, "not JSON"))
        old.listener.stderr("last words")
        assert len(client.heard) == heard
        assert [event for event in one.reported if isinstance(event, BackendStderr | BackendRejected)] == []


async def test_a_late_answer_to_what_the_last_backend_asked_answers_nothing_of_the_new_one(autojump_clock):
    async with stage() as one:
        client = Client(one.session)
        one.latest.say(messages.request(1, "roots/list"))
        await one.session.replace_backend()
        withdrawn = client.heard[-1]
        assert (withdrawn.method, params_of(withdrawn)["requestId"]) == ("notifications/cancelled", 1)
        one.latest.say(messages.request(1, "roots/list"))
        asked = client.heard[-1]
        client.receive(messages.result(1, {"roots": ["late"]}))
        assert [message for message in one.latest.sent if message.is_answer] == []
        client.receive(messages.result(asked.id, {"roots": []}))
        (answer,) = [message for message in one.latest.sent if message.is_answer]
        assert (answer.id, msgspec.json.decode(answer.members["result"])) == (1, {"roots": []})
        one.latest.say(messages.request(2, "roots/list"))
        one.latest.say(messages.notification("notifications/cancelled", {"requestId": 2}))
        assert params_of(client.heard[-1])["requestId"] == client.heard[-2].id


async def test_a_backend_that_asks_its_client_something_before_it_answers_the_handshake_is_answered(autojump_clock):
    async with stage() as one:
        client = Client(one.session)
        one.held.add("initialize")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(one.session.replace_backend)
            await trio.testing.wait_all_tasks_blocked()
            one.latest.say(messages.request("q", "ping"))
            one.latest.say(messages.notification("notifications/message", {"level": "info", "data": "I am up"}))
            client.receive(messages.result(client.heard[-1].id, {}))
            assert [message.id for message in one.latest.sent if message.is_answer] == ["q"]
            one.latest.answer(one.latest.said("initialize")[0])
        assert "notifications/message" not in {message.method for message in client.heard}


async def test_a_subscription_stream_goes_on_and_is_acknowledged_once(autojump_clock):
    key = "io.modelcontextprotocol/subscriptionId"

    def tell(method):
        number = one.latest.said("subscriptions/listen")[0].id
        one.latest.say(messages.notification(method, {"_meta": {key: number}}))

    async with stage(held={"subscriptions/listen"}) as one:
        client = Client(one.session, greets=False)
        client.ask(1)
        client.ask("stream", "subscriptions/listen", {"notifications": {"toolsListChanged": True}})
        tell("notifications/subscriptions/acknowledged")
        await one.session.replace_backend()
        tell("notifications/subscriptions/acknowledged")
        tell("notifications/tools/list_changed")
        assert [message.method for message in client.heard[1:]] == [
            "notifications/subscriptions/acknowledged",
            "notifications/tools/list_changed",
        ]
        assert params_of(client.heard[-1])["_meta"] == {key: "stream"}
        assert client.answers("stream") == []


async def test_handshakes_that_wait_for_one_in_flight_go_to_the_new_backend(autojump_clock):
    async with stage() as one:
        Client(one.session, greets=False).ask(1)
        one.held.add("initialize")
        first, second = Client(one.session), Client(one.session)
        one.held.clear()
        await one.session.replace_backend()
        assert first.error("hello")["code"] == BACKEND_GONE
        assert second.answers("hello")[0].kind is Kind.RESULT


# ---- the control plane


class Playing(Child):
    """A child with a game of its own, which counts from where it likes."""

    def __init__(self, *args, steps=0):
        super().__init__(*args)
        self.lake = Lake()
        self.lake.step, self.lake.total = steps, steps * 0.5

    def answer(self, request):
        answers = self.lake.answers()
        if request.method in answers:
            self.say(answers[request.method](request))
        else:
            super().answer(request)


@asynccontextmanager
async def game(*steps):
    """A stage on which each backend has made so many steps before anybody calls it."""
    ahead = iter(steps)
    async with stage(kind=lambda *args: Playing(*args, steps=next(ahead))) as one:
        yield one, Client(one.session)


def call(client, id):
    client.ask(id, params={"name": "move", "arguments": {}, "_meta": {META_KEY: True}})


@pytest.mark.parametrize("ahead", [0, 1, 40])
async def test_a_call_is_credited_with_what_it_has_earned_however_another_backend_counts(autojump_clock, ahead):
    async with game(0, ahead) as (one, client):
        call(client, 1)
        await one.session.replace_backend()
        call(client, 2)
        call(client, 3)
        controls = [control_of(client.answers(id)[0]) for id in (1, 2, 3)]
        assert [control["reward"] for control in controls] == [0.5, 0.5, 0.5]
        assert [control["step"] for control in controls] == [1, ahead + 1, ahead + 2]


async def test_a_call_whose_control_plane_goes_with_its_backend_has_no_reward_and_the_next_has_its_own(autojump_clock):
    async with game(0, 40) as (one, client):
        one.held.add("resources/read")
        call(client, 1)
        call(client, 2)
        one.held.clear()
        await one.session.replace_backend()
        lost, own = control_of(client.answers(1)[0]), control_of(client.answers(2)[0])
        assert (lost["reward"], lost["terminated"], own["reward"]) == (None, None, 0.5)
        assert "control://" in lost["problem"]


async def test_a_call_that_was_to_be_scored_and_had_not_been_made_is_made_by_the_new_backend(autojump_clock):
    async with game(0, 40) as (one, client):
        client.ask(1, params={"name": "move"})
        one.held.add("resources/read")
        call(client, 2)  # which reads the counts first, since nobody has after the call before
        assert len(one.latest.said("tools/call")) == 1
        one.held.clear()
        await one.session.replace_backend()
        assert control_of(client.answers(2)[0])["reward"] == 0.5


# ---- how it may fail


async def fails_to_replace(one, client, why):
    with pytest.raises(StartError, match=why):
        await one.session.replace_backend()
    await one.session.wait_ended()
    assert client.transport.closed
    return one.session.ending.cause


@pytest.mark.parametrize("fault", [StartError("no such program"), Busy("no memory is left", 5)])
async def test_a_session_ends_for_which_no_other_backend_can_be_started(autojump_clock, fault):
    async with stage() as one:
        client, one.fault = Client(one.session), fault
        assert await fails_to_replace(one, client, str(fault)) == "restore_failed"
        assert one.session.pid is None


async def test_a_session_ends_whose_new_backend_settles_on_another_revision(autojump_clock):
    async with stage() as one:
        client, one.version = Client(one.session), "2024-11-05"
        assert await fails_to_replace(one, client, "2024-11-05") == "restore_failed"


async def test_a_session_ends_whose_new_backend_dies_before_it_stands_where_the_last_one_stood(autojump_clock):
    async with stage() as one:
        client = Client(one.session)
        one.held |= {"initialize", "tools/call"}
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fails_to_replace, one, client, "it has exited")
            await trio.testing.wait_all_tasks_blocked()
            client.ask("meanwhile")
            one.latest.fate.set()
        assert client.error("meanwhile")["code"] == BACKEND_GONE


@pytest.mark.parametrize("hangs", ["its start", "its handshake"])
async def test_a_session_ends_whose_new_backend_takes_longer_than_a_start_may(autojump_clock, hangs):
    async with stage(Limits(start_timeout=20, idle_timeout=None)) as one:
        client, begun = Client(one.session), trio.current_time()
        if hangs == "its start":
            one.gate = trio.Event()
        else:
            one.held.add("initialize")
        assert await fails_to_replace(one, client, "start_timeout") == "start_timeout"
        assert trio.current_time() - begun == pytest.approx(20, abs=0.1)


async def test_a_backend_is_replaced_only_once_it_is_ready_and_by_one_at_a_time(autojump_clock):
    async with stage() as one:
        with pytest.raises(Busy, match="started"):
            await one.session.replace_backend()
        Client(one.session)
        one.gate = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(one.session.replace_backend)
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(Busy, match="restoring"):
                await one.session.replace_backend()
            one.gate.set()
        assert one.session.pid == 2


async def test_a_session_can_be_ended_while_it_has_no_backend(autojump_clock):
    async with stage() as one:
        client = Client(one.session)
        one.gate = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fails_to_replace, one, client, "enough")
            await trio.testing.wait_all_tasks_blocked()
            client.ask("waits")
            one.session.end("deleted", "enough")
        assert client.error("waits")["message"] == "enough"


# ---- whatever happens

HELD = ("tools/call", "tools/list", "resources/read", "initialize")
HAPPENINGS = st.lists(
    st.one_of(
        st.tuples(st.just("ask"), st.sampled_from(HELD)),
        st.tuples(st.just("answer"), st.integers(0, 5)),
        st.tuples(st.just("cancel"), st.integers(0, 5)),
        st.tuples(st.just("leave"), st.integers(0, 2)),
        st.tuples(st.just("question"), st.none()),
        st.tuples(st.just("reply"), st.integers(0, 5)),
        st.tuples(st.just("replace"), st.none()),
        st.tuples(st.just("late"), st.integers(0, 5)),
    ),
    max_size=30,
)


@given(HAPPENINGS)
def test_whatever_happens_each_request_is_answered_once_and_only_by_who_was_asked(happenings):
    trio.run(_whatever, happenings, clock=trio.testing.MockClock(autojump_threshold=0))


async def _whatever(happenings):
    async with stage() as one:
        play = _Play(one)
        for what, which in happenings:
            await getattr(play, what)(which)
        play.check()


class _Play:
    """Three clients, as many backends as it takes, and what each is owed."""

    def __init__(self, one):
        self.one = one
        self.clients = [Client(one.session) for _ in range(3)]
        one.held |= set(HELD)
        self.asked = {}
        self.excused = set()
        self.questions = {}

    def pick(self, things, which):
        return things[which % len(things)] if things else None

    async def ask(self, method):
        number = len(self.asked)
        client = self.clients[number % len(self.clients)]
        client.ask(number, method, GREETING if method == "initialize" else {})
        self.asked[number] = client, self.one.latest.pid

    def waiting_at(self, child):
        return [request for request in child.sent if request.kind is Kind.REQUEST and request.method in HELD]

    async def answer(self, which):
        if (request := self.pick(self.waiting_at(self.one.latest), which)) is not None:
            self.one.latest.answer(request)  # which it may have answered before

    async def late(self, which):
        child = self.one.children[which % len(self.one.children)]
        if (request := self.pick(self.waiting_at(child), which)) is not None:
            child.answer(request)

    async def cancel(self, which):
        if (number := self.pick(list(self.asked), which)) is not None:
            self.asked[number][0].say("notifications/cancelled", {"requestId": number})
            self.excused.add(number)

    async def leave(self, which):
        client, self.clients[which] = self.clients[which], Client(self.one.session, greets=False)
        client.disconnected()
        self.excused |= {number for number, (who, _) in self.asked.items() if who is client}

    async def question(self, _):
        """Backends number theirs from 0, so that one asks under the ids of another, but under none of its own twice."""
        mark, id = len(self.questions), sum(child is self.one.latest for child in self.questions.values())
        self.questions[mark] = self.one.latest
        self.one.latest.say(messages.request(id, "roots/list", {"mark": mark}))

    async def reply(self, which):
        heard = [
            (client, message) for client in self.clients for message in client.heard if message.method == "roots/list"
        ]
        if (one := self.pick(heard, which)) is not None:
            one[0].receive(messages.result(one[1].id, params_of(one[1])))  # which may be late, or the second

    async def replace(self, _):
        if self.one.session.state is State.READY:
            self.one.held.discard("initialize")
            await self.one.session.replace_backend()
            self.one.held.add("initialize")

    def check(self):
        for child in [self.one.latest] * 3:  # a handshake that failed lets the next one go
            for request in self.waiting_at(child):
                child.answer(request)
        for number, (client, pid) in self.asked.items():
            answers = client.answers(number)
            assert len(answers) <= 1 if number in self.excused else len(answers) == 1
            for answer in answers:
                if answer.kind is Kind.RESULT and "by" in (value := msgspec.json.decode(answer.members["result"])):
                    assert value["by"] == pid
        for child in self.one.children:
            ids = Counter(message.id for message in child.sent if message.kind is Kind.REQUEST)
            assert set(ids.values()) <= {1}
            given = [params["mark"] for params in map(_mark, child.sent) if params]
            assert all(self.questions[mark] is child for mark in given)
            assert len(set(given)) == len(given)
        assert self.one.session.statistics().in_flight == 0


def _mark(message):
    return message.is_answer and message.kind is Kind.RESULT and msgspec.json.decode(message.members["result"])
