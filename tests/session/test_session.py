"""One session on a backend and a clock that are not real. Rows are those of the table of faults."""

from __future__ import annotations

from contextlib import asynccontextmanager
from itertools import count

import msgspec
import pytest
import trio
import trio.testing

from muxsim.errors import Busy
from muxsim.observe.counters import Counters
from muxsim.observe.events import (
    BackendRejected,
    BackendStderr,
    ClientAttached,
    ClientDetached,
    Events,
    SessionCrashed,
    SessionEnded,
    SessionLimit,
    SessionReady,
    SessionStarted,
)
from muxsim.placement.backend import BackendExit
from muxsim.session.attachment import Attachment
from muxsim.session.codes import BACKEND_GONE, BUSY, CALL_TIMEOUT, SESSION_ENDED
from muxsim.session.control.own_client import OwnClient
from muxsim.session.session import Session
from muxsim.session.states import State
from muxsim.spec import EnvSpec, Limits
from transports import messages
from transports.errors import PARSE_ERROR, RemoteProtocolError
from transports.memory import MemoryTransport
from transports.messages import Kind

from .fake_backend import FakeBackend, fake_session

NEVER = Limits(idle_timeout=None)


class Backend(FakeBackend):
    """A backend that lives until the test says how it dies."""

    def __init__(self):
        super().__init__({"initialize": lambda request: messages.result(request.id, {})})
        self.fate = trio.Event()
        self.how = BackendExit("the backend exited with status 3", 3, ("last words",))
        self.ended = 0

    async def run(self):
        await self.fate.wait()
        if isinstance(self.how, Exception):
            raise self.how
        return self.how

    async def end(self):
        with trio.CancelScope(shield=True):
            await trio.lowlevel.checkpoint()
        self.ended += 1
        return -15

    def die(self, how=None):
        self.how = how or self.how
        self.fate.set()

    def received(self, method):
        return [message for message in self.sent if message.method == method]

    def answer(self, request):
        self.session.seam.from_backend(messages.result(request.id, {"about": request.method}))


class Client(Attachment):
    """A client whose transport keeps what it gets; ``listening`` as of one that holds a stream open."""

    def __init__(self, session, *, listening=False, shakes_hands=True, **options):
        super().__init__(session, "memory", **options)
        transport = MemoryTransport()
        transport.listening = listening
        self.connect(transport)
        self._numbers = count(1)
        session.attach(self)
        if shakes_hands:
            self.ask("initialize", "hello")

    def ask(self, method="tools/call", id=None):
        id = next(self._numbers) if id is None else id
        self.receive(messages.request(id, method, {}))
        return id

    def answers(self, id):
        return [message for message, about in self.transport.sent if about == id and message.is_answer]

    def error(self, id):
        """The one answer to a request, which is an error."""
        (answer,) = self.answers(id)
        assert answer.kind is Kind.ERROR
        return msgspec.json.decode(answer.members["error"])


class Life:
    """A session under way, with what it reports."""

    def __init__(self, session, backend, reported):
        self.session = session
        self.backend = backend
        self.reported = reported

    def events(self, *kinds):
        return [event for event in self.reported if isinstance(event, kinds)]

    async def ends(self, after, *, begun=0.0):
        """Wait for its end, which has to come that many seconds after ``begun`` on the clock."""
        await self.session.wait_ended()
        assert trio.current_time() - begun == pytest.approx(after, abs=0.01)


@asynccontextmanager
async def life(limits=NEVER, **options):
    """A running session that has shaken hands with nobody yet."""
    events, reported = Events(), []
    events.subscribe(reported.append)
    session = Session("s" * 32, EnvSpec(name="fake", command="fake", limits=limits), 7, events, **options)
    backend = Backend()
    backend.session = session
    session.use(backend)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(session.run)
        await trio.testing.wait_all_tasks_blocked()
        yield Life(session, backend, reported)
        session.end("test", "the test is over")
        await session.wait_ended()


# ---- idle


async def test_a_session_that_nobody_uses_ends_after_its_idle_timeout(autojump_clock):
    """L4."""
    async with life(Limits(idle_timeout=60)) as one:
        begun = trio.current_time()
        await one.ends(60, begun=begun)
        assert one.session.ending.cause == "idle_timeout"
        assert "idle_timeout" in one.session.ending.text


async def test_every_message_either_way_puts_the_idle_end_off(autojump_clock):
    async with life(Limits(idle_timeout=60)) as one:
        client = Client(one.session)
        await trio.sleep(50)
        client.receive(messages.notification("notifications/x"))
        await trio.sleep(50)
        one.session.seam.from_backend(messages.notification("notifications/tools/list_changed"))
        begun = trio.current_time()
        assert one.session.live
        await one.ends(60, begun=begun)


async def test_a_request_in_flight_keeps_a_session_from_being_idle(autojump_clock):
    async with life(Limits(idle_timeout=60)) as one:
        client = Client(one.session)
        client.ask()
        await trio.sleep(1000)
        assert one.session.live
        one.backend.answer(one.backend.sent[-1])
        begun = trio.current_time()
        await one.ends(60, begun=begun)


async def test_a_request_that_was_given_up_does_not(autojump_clock):
    """L2, L3: neither by its client, nor by its time, nor with its client."""
    async with life(Limits(idle_timeout=60, call_timeout=100)) as one:
        client, leaving = Client(one.session), Client(one.session, cancels=True)
        cancelled = client.ask(id="cancelled")
        client.receive(messages.notification("notifications/cancelled", {"requestId": cancelled}))
        client.ask(id="late")
        leaving.ask()
        leaving.disconnected()
        begun = trio.current_time()
        await one.ends(160, begun=begun)


async def test_a_client_that_listens_keeps_a_session_from_being_idle_until_it_goes(autojump_clock):
    """L4: nobody tells when a stream closes, so the end comes one to two timeouts later."""
    async with life(Limits(idle_timeout=60)) as one:
        client = Client(one.session, listening=True)
        await trio.sleep(1000)
        assert one.session.live
        client.transport.listening = False
        begun = trio.current_time()
        await one.session.wait_ended()
        assert 60 <= trio.current_time() - begun <= 120


@pytest.mark.parametrize("idle", [60, 5000, None])
async def test_a_client_that_only_listens_keeps_a_session_no_longer_than_its_quiet_timeout(autojump_clock, idle):
    """L4: a stream that is open, or an endless request, says nothing of somebody's wanting it still."""
    async with life(Limits(idle_timeout=idle, quiet_timeout=1000)) as one:
        client = Client(one.session, listening=True)
        client.ask("subscriptions/listen")
        await trio.sleep(900)
        client.receive(messages.notification("notifications/x"))
        begun = trio.current_time()
        await one.ends(1000, begun=begun)
        assert one.session.ending.cause == "quiet_timeout"
        assert one.session.ending.text == "no message came or went for 1000 s (quiet_timeout)"


async def test_a_call_under_way_is_not_quiet(autojump_clock):
    async with life(Limits(quiet_timeout=60)) as one:
        client = Client(one.session)
        client.ask()
        await trio.sleep(1000)
        assert one.session.live
        one.backend.answer(one.backend.sent[-1])
        begun = trio.current_time()
        await one.ends(60, begun=begun)


async def test_a_lasting_session_is_never_idle(autojump_clock):
    async with life(Limits(idle_timeout=60, quiet_timeout=60), lasting=True) as one:
        await trio.sleep(6000)
        assert one.session.live


# ---- on lease


async def test_a_session_on_lease_ends_when_nobody_renews_it_whatever_is_in_flight(autojump_clock):
    async with life(lease=30) as one:
        client = Client(one.session, listening=True)
        id = client.ask()
        await one.ends(30)
        assert (one.session.ending.cause, one.session.lease) == ("lease", 30)
        assert one.session.ending.text == "nobody renewed its lease for 30 s (lease)"
        assert client.error(id)["code"] == SESSION_ENDED


async def test_a_lease_counts_from_its_last_renewal_or_message_of_a_client(autojump_clock):
    async with life(lease=30) as one:
        for _ in range(3):
            await trio.sleep(25)
            one.session.renew()
        await trio.sleep(25)
        Client(one.session).receive(messages.notification("notifications/x"))
        begun = trio.current_time()
        await trio.sleep(25)
        one.session.seam.from_backend(messages.notification("notifications/tools/list_changed"))
        await one.ends(30, begun=begun)


async def test_what_muxsim_reads_for_itself_renews_no_lease(autojump_clock):
    async with life(lease=30) as one:
        await trio.sleep(20)
        OwnClient(one.session, aside=True).request("resources/read", {}, lambda _: None)
        await one.ends(30)


async def test_a_lease_begins_when_there_is_a_process_and_nothing_puts_off_another_end(autojump_clock):
    session = Session("s" * 32, EnvSpec(name="fake", command="fake", limits=Limits(ttl=40)), 7, Events(), lease=30)
    await trio.sleep(20)
    backend = Backend()
    backend.session = session
    session.use(backend)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(session.run)
        await trio.sleep(19)
        assert session.live
        session.renew()
        await session.wait_ended()
    assert session.ending.cause == "ttl"


async def test_a_lasting_session_is_on_no_lease(autojump_clock):
    async with life(lasting=True, lease=1) as one:
        await trio.sleep(100)
        assert one.session.live
        assert one.session.lease is None


# ---- the other times


@pytest.mark.parametrize(
    ("spec_ttl", "wished", "lives"), [(100, None, 100), (None, 50, 50), (100, 50, 50), (50, 100, 100)]
)
async def test_a_session_lives_no_longer_than_its_ttl_however_busy(autojump_clock, spec_ttl, wished, lives):
    async with life(Limits(ttl=spec_ttl), ttl=wished) as one:
        client = Client(one.session, listening=True)
        id = client.ask()
        await one.ends(lives)
        assert one.session.ending.cause == "ttl"
        assert client.error(id)["code"] == SESSION_ENDED


async def test_a_backend_that_does_not_answer_the_handshake_in_time_is_ended(autojump_clock):
    """C5: the time counts from the request, not from the start of the process."""
    async with life(Limits(start_timeout=20)) as one:
        one.backend._answers.clear()
        await trio.sleep(100)
        client = Client(one.session, shakes_hands=False)
        id = client.ask("initialize")
        await one.ends(120)
        assert one.session.ending.cause == "start_timeout"
        assert "start_timeout" in client.error(id)["message"]


@pytest.mark.parametrize(
    "stray",
    [
        messages.error(None, -32700, "what was that"),
        messages.result(99, {}),
        messages.result("1", {"protocolVersion": "2025-11-25"}).with_id("strange"),
        messages.error(99, -32600, "nobody asked"),
    ],
)
async def test_only_an_answer_to_what_was_asked_is_the_first_one(autojump_clock, stray):
    async with life(Limits(start_timeout=20)) as one:
        one.backend._answers.clear()
        client = Client(one.session, shakes_hands=False)
        id = client.ask("initialize")
        one.session.seam.from_backend(stray)
        assert one.session.state is State.STARTED
        assert one.events(SessionReady) == []
        await one.ends(20)
        assert one.session.ending.cause == "start_timeout"
        assert "start_timeout" in client.error(id)["message"]


async def test_what_the_start_of_the_process_took_is_taken_from_the_time_to_answer(autojump_clock):
    session = Session("s" * 32, EnvSpec(name="fake", command="fake", limits=Limits(start_timeout=20)), 7, Events())
    await trio.sleep(15)
    backend = Backend()
    backend.session = session
    backend._answers.clear()
    session.use(backend)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(session.run)
        client = Client(session, shakes_hands=False)
        client.ask("initialize")
        began = trio.current_time()
        await session.wait_ended()
    assert session.ending.cause == "start_timeout"
    assert trio.current_time() - began == pytest.approx(5, abs=0.1)


async def test_a_start_that_takes_longer_than_clients_may_is_no_fault_of_theirs(autojump_clock):
    """Whoever shakes hands waits for it; the time for that begins when there is a process to speak to."""
    spec = EnvSpec(name="game", command="game", limits=Limits(handshake_timeout=5))
    session, backend = Session("s", spec, 1, Events()), Backend()
    await trio.sleep(20)
    session.use(backend)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(session.run)
        began = trio.current_time()
        await session.wait_ended()
    assert session.ending.cause == "handshake_timeout"
    assert trio.current_time() - began == pytest.approx(5, abs=0.1)


async def test_once_it_has_answered_a_session_may_take_its_time(autojump_clock):
    async with life(Limits(start_timeout=20, idle_timeout=None)) as one:
        client = Client(one.session)
        assert one.session.state is State.READY
        client.ask()
        await trio.sleep(1000)
        assert one.session.live


async def test_each_call_has_its_own_time_and_the_session_goes_on(autojump_clock):
    """C7: the backend is told, and its late answer reaches nobody."""
    async with life(Limits(call_timeout=10, idle_timeout=None)) as one:
        client = Client(one.session)
        first = client.ask()
        await trio.sleep(6)
        second = client.ask()
        await trio.sleep(5)
        assert client.error(first)["code"] == CALL_TIMEOUT
        assert client.answers(second) == []
        call = one.backend.received("tools/call")[0]
        (cancelled,) = one.backend.received("notifications/cancelled")
        assert msgspec.json.decode(cancelled.params)["requestId"] == call.id
        one.backend.answer(call)
        one.backend.answer(one.backend.received("tools/call")[1])
        await trio.sleep(100)
        assert (len(client.answers(first)), len(client.answers(second))) == (1, 1)
        assert client.answers(second)[0].kind is Kind.RESULT
        assert one.session.live


async def test_a_subscription_has_no_time(autojump_clock):
    async with life(Limits(call_timeout=10)) as one:
        client = Client(one.session)
        id = client.ask("subscriptions/listen")
        await trio.sleep(1000)
        assert client.answers(id) == []
        assert not one.session.busy


# ---- its end


async def test_a_dead_backend_is_one_error_for_each_request_and_the_end_of_the_session(autojump_clock):
    """C1, C2."""
    async with life() as one:
        clients = [Client(one.session) for _ in range(3)]
        ids = [(client, client.ask(id="same")) for client in clients]
        one.backend.die()
        await one.session.wait_ended()
        for client, id in ids:
            assert client.error(id) == {
                "code": BACKEND_GONE,
                "message": "the backend exited with status 3",
                "data": {"cause": "backend_exited", "exit_status": 3, "stderr": ["last words"]},
            }
            assert client.transport.closed
        (ended,) = one.events(SessionEnded)
        assert ended.cause == "backend_exited"
        assert ended.stderr == ("last words",)
        assert ended.pid == one.backend.pid
        assert one.backend.ended == 1


async def test_who_comes_too_late_is_told_so(autojump_clock):
    async with life() as one:
        client = Client(one.session)
        one.session.end("deleted", "the session was deleted")
        client.transport.closed = False
        assert "the session was deleted" in client.error(client.ask())["message"]
        client.receive(messages.notification("notifications/x"))
        client.disconnected()
        assert [message.method for message in one.backend.sent] == ["initialize"]


async def test_only_the_first_reason_of_an_end_counts(autojump_clock):
    async with life() as one:
        client = Client(one.session)
        id = client.ask()
        one.session.end("deleted", "first")
        one.session.end("shutdown", "second")
        one.backend.die()
        await one.session.wait_ended()
        one.session.end("ttl", "third")
        assert one.session.ending.cause == "deleted"
        assert client.error(id)["message"] == "first"
        assert [event.cause for event in one.events(SessionEnded)] == ["deleted"]
        assert one.backend.ended == 1


async def test_a_bug_in_one_session_is_reported_and_ends_only_it(autojump_clock):
    """H15."""
    async with life() as one:
        client = Client(one.session)
        id = client.ask()
        one.backend.die(RuntimeError("a bug of ours"))
        await one.session.wait_ended()
        assert client.error(id)["data"] == {"cause": "internal_error"}
        (crashed,) = one.events(SessionCrashed)
        assert "a bug of ours" in crashed.traceback
        assert one.backend.ended == 1


async def test_a_session_whose_task_is_cancelled_ends_its_processes_first(autojump_clock):
    events = Events()
    session = Session("s" * 32, EnvSpec(name="fake", command="fake", limits=NEVER), 7, events)
    backend = Backend()
    backend.session = session
    session.use(backend)
    client = Client(session)
    id = client.ask()
    with trio.move_on_after(5):
        await session.run()
    assert backend.ended == 1
    assert client.error(id)["data"] == {"cause": "shutdown"}
    assert (session.state, session.pid) == (State.ENDED, None)


async def test_a_session_ends_with_the_client_whose_handshake_made_it_and_with_no_other(autojump_clock):
    async with life() as one:
        owner, guest = Client(one.session, ends_session=True), Client(one.session)
        guest.disconnected()
        assert one.session.live
        owner.disconnected()
        await one.session.wait_ended()
        assert one.session.ending.cause == "client_gone"


async def test_its_life_is_told_in_order(autojump_clock):
    async with life() as one:
        client = Client(one.session)
        one.session.seam.stderr("a line")
        one.session.seam.unreadable(b"noise", RemoteProtocolError(PARSE_ERROR, "not JSON"))
        client.disconnected()
        one.session.end("deleted", "bye")
        await one.session.wait_ended()
        assert [type(event) for event in one.reported] == [
            SessionStarted,
            ClientAttached,
            SessionReady,
            BackendStderr,
            BackendRejected,
            ClientDetached,
            SessionEnded,
        ]
        assert {(event.session, event.env, event.seed, event.pid) for event in one.reported} == {
            (one.session.id, "fake", 7, one.backend.pid)
        }


# ---- what cannot be read


async def test_noise_is_counted_and_the_first_of_it_reported(autojump_clock):
    """C12."""
    async with life() as one:
        for number in range(100):
            one.session.seam.unreadable(
                b"noise %d " % number + b"x" * 1000, RemoteProtocolError(PARSE_ERROR, "not JSON")
            )
        counters = Counters()
        for event in one.reported:
            counters(event)
        assert counters.total("lines_rejected", "fake") == 100
        reported = [event for event in one.events(BackendRejected) if not event.again]
        assert reported == one.events(BackendRejected)[:5]
        assert reported[0].line.startswith("noise 0 x")
        assert all(len(event.line) <= 200 for event in reported)


async def test_an_unreadable_answer_is_an_error_of_its_request(autojump_clock):
    """C14."""
    async with life() as one:
        client = Client(one.session)
        first, second = client.ask(), client.ask()
        call = one.backend.received("tools/call")[0]
        line = b'{"jsonrpc":"1.0","id":%d,"result":{}}' % call.id
        one.session.seam.unreadable(line, RemoteProtocolError(PARSE_ERROR, "not this JSON-RPC"))
        assert client.error(first)["code"] == PARSE_ERROR
        assert client.answers(second) == []
        assert one.session.live


# ---- who has to wait for whom


async def test_a_slow_client_stops_the_backend_until_it_has_caught_up(autojump_clock):
    """C26, L5."""
    async with life() as one:
        slow, quick = Client(one.session), Client(one.session)
        slow.transport.congested = True
        one.session.seam.from_backend(messages.notification("notifications/tools/list_changed"))
        assert not one.session.seam.clients_ready
        assert [message.method for message, _ in quick.transport.sent] == ["", "notifications/tools/list_changed"]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(one.session.seam.wait_clients_ready)
            await trio.testing.wait_all_tasks_blocked()
            quick.drained()
            assert not one.session.seam.clients_ready
            slow.transport.congested = False
            slow.drained()
        assert one.session.seam.clients_ready


@pytest.mark.parametrize("go", ["the client", "the session"])
async def test_a_backend_does_not_wait_for_a_slow_client_that_is_gone(autojump_clock, go):
    async with life() as one:
        slow = Client(one.session)
        slow.transport.congested = True
        one.session.seam.from_backend(messages.notification("notifications/tools/list_changed"))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(one.session.seam.wait_clients_ready)
            await trio.testing.wait_all_tasks_blocked()
            if go == "the client":
                slow.disconnected()
            else:
                one.session.end("deleted", "bye")
        assert one.session.seam.clients_ready


@pytest.mark.parametrize("relief", ["it catches up", "the session ends"])
async def test_clients_wait_for_a_slow_backend(autojump_clock, relief):
    """C29."""
    async with life() as one:
        client = Client(one.session)
        one.backend.congested = True
        assert not client.ready
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.wait_ready)
            await trio.testing.wait_all_tasks_blocked()
            if relief == "it catches up":
                one.backend.congested = False
                one.session.seam.backend_drained()
            else:
                one.session.end("deleted", "bye")
        assert client.ready


async def test_refusing_an_id_in_flight_leaves_the_first_request_its_deadline_and_its_score_L25(
    autojump_clock: trio.testing.MockClock,
):
    session, _ = fake_session({"tools/call": lambda request: None}, limits=Limits(call_timeout=5))
    attachment, transport = Attachment(session, "memory"), MemoryTransport()
    attachment.connect(transport)
    session.attach(attachment)
    attachment.receive(messages.request(0, "initialize", {}))
    for _ in range(2):
        attachment.receive(messages.request(1, "tools/call", {"name": "move"}))
    assert messages.error_code(transport.sent[-1][0]) == -32600
    async with trio.open_nursery() as nursery:
        nursery.start_soon(session._life._keep_time)
        await trio.sleep(6)
        nursery.cancel_scope.cancel()
    assert messages.error_code(transport.sent[-1][0]) == -32001, "the first request ran into its own deadline"


# ---- bounds


async def test_no_more_clients_attach_than_may_L25(autojump_clock):
    """One more is refused and counted, until one has gone."""
    async with life(Limits(max_attachments=2)) as one:
        first, _ = Client(one.session), Client(one.session)
        with pytest.raises(Busy, match="max_attachments"):
            Client(one.session)
        assert [event.limit for event in one.events(SessionLimit)] == ["max_attachments"]
        first.disconnected()
        Client(one.session)
        assert one.session.statistics().attachments == 2


async def test_on_a_shared_session_clients_that_left_without_a_word_make_way_L25(autojump_clock):
    """Nothing else ends them; one that listens, or waits for an answer, is there."""
    async with life(Limits(max_attachments=4, idle_timeout=60), lasting=True) as one:
        one.backend._answers["tools/call"] = lambda request: None
        listening, waiting, silent = Client(one.session, listening=True), Client(one.session), Client(one.session)
        waiting.ask()
        await trio.sleep(61)
        recent = Client(one.session)
        Client(one.session)
        assert silent.transport.closed
        assert not any(other.transport.closed for other in (listening, waiting, recent))
        with pytest.raises(Busy, match="max_attachments"):
            Client(one.session)


async def test_a_session_waits_for_no_client_that_has_gone():
    """What it has left unread in its connection is its connection's affair."""
    async with life(lasting=False) as one:
        here, gone = Client(one.session), Client(one.session)
        for client in (here, gone):
            one.session.conversation.hold(client)
        assert not one.session.seam.clients_ready
        gone.disconnected()
        one.session.conversation.release(here)
        assert one.session.seam.clients_ready
        one.session.conversation.hold(gone)
        assert one.session.seam.clients_ready


async def test_handshakes_that_wait_for_the_first_are_requests_in_flight_C29():
    async with life(Limits(max_in_flight=3)) as one:
        one.backend._answers["initialize"] = lambda request: None
        clients = [Client(one.session) for _ in range(4)]
        assert clients[-1].error("hello")["code"] == BUSY
        again = clients[1]
        assert again.error(again.ask("initialize"))["code"] == BUSY


async def test_no_more_requests_than_max_in_flight_wait_for_their_answers_C29():
    """One more is refused, until one of them is answered."""
    async with life(Limits(max_in_flight=2)) as one:
        client, other = Client(one.session), Client(one.session, shakes_hands=False)
        first, second = client.ask(), client.ask()
        refused, also_refused = client.ask(), other.ask()
        for who, id in ((client, refused), (other, also_refused)):
            assert who.error(id)["code"] == BUSY
            assert "max_in_flight" in who.error(id)["message"]
        assert client.answers(first) == client.answers(second) == []
        assert [event.limit for event in one.events(SessionLimit)] == ["max_in_flight"] * 2
        one.session.seam.from_backend(messages.result(one.backend.sent[-1].id, {}))
        assert client.answers(client.ask()) == []


async def test_a_request_whose_id_is_in_flight_is_refused_as_such_also_past_max_in_flight_L25():
    async with life(Limits(max_in_flight=1)) as one:
        client = Client(one.session)
        id = client.ask()
        client.ask(id=id)
        assert client.answers(id) == []
        (refusal,) = [message for message, about in client.transport.sent if about is None and message.is_answer]
        assert refusal.id == id


async def test_no_more_requests_of_the_backend_than_max_in_flight_wait_for_a_client():
    """A client that never answers costs no memory without end."""
    async with life(Limits(max_in_flight=2)) as one:
        client = Client(one.session)
        for number in range(5):
            one.session.seam.from_backend(messages.request(f"s{number}", "roots/list", {}))
        assert [message.id for message, _ in client.transport.sent if message.kind is Kind.REQUEST] == ["s0", "s1"]
        errors = [message for message in one.backend.sent if message.kind is Kind.ERROR]
        assert [message.id for message in errors] == ["s2", "s3", "s4"]
        assert "max_in_flight" in str(errors[0].encode())
