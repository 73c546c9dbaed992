"""What is not read: for how long, how much for whom, and who has to wait. Connections, sessions and time are fake."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from muxsim.observe.counters import Counters
from muxsim.observe.events import Events
from muxsim.serve.http.unread import Reader, Unread

STALL, BUFFERED, MOST = 60.0, 1000, 4000


class Loop:
    """Time goes on when the test says so."""

    def __init__(self):
        self.now = 100.0
        self.due = []

    def time(self):
        return self.now

    def call_at(self, when, callback, *args):
        self.due.append((when, callback, args))

    def pass_time(self, seconds):
        end = self.now + seconds
        while self.due and min(when for when, *_ in self.due) <= end:
            self.due.sort(key=lambda one: one[0])
            when, callback, args = self.due.pop(0)
            self.now = max(self.now, when)
            callback(*args)
        self.now = max(self.now, end)


class Session:
    """Its conversation knows for whom its backend waits."""

    def __init__(self, id, lasting=False):
        self.id, self.shared = id, lasting
        self.held = set()
        self.conversation = SimpleNamespace(hold=self.held.add, release=self.held.discard)


class Client:
    """A client of a session, by identity."""

    def __init__(self, session):
        self.session = session


class Connection:
    """A connection with so many bytes in it; it tells what every transport would."""

    def __init__(self, world, reader):
        self.world, self.reader, self.loop = world, reader, world.loop
        self.size, self.cut = 0, False
        self.transport = SimpleNamespace(get_write_buffer_size=lambda: self.size, abort=self.abort)

    def abort(self):
        self.size, self.cut = 0, True

    def write(self, size):
        self.size += size
        self.world.unread.begin(self)

    def read(self, size):
        self.size = max(0, self.size - size)
        if not self.size:
            self.world.unread.end(self)


class World:
    """Some clients of some sessions, and what they have not read."""

    def __init__(self):
        self.loop, self.counters, self.readers = Loop(), Counters(), []
        self.unread = Unread(STALL, BUFFERED, MOST, Events(self.counters))
        self.unread.ask(lambda share: [one.attachment for one in self.readers if one.share == share])

    def connection(self, share="ada", session=None, client=None):
        client = client or (Client(session) if session else None)
        reader = Reader(share, client)
        if client is not None:
            self.readers.append(reader)
            self.unread.joined(reader)
        return Connection(self, reader)


@pytest.fixture
def world():
    return World()


def test_who_reads_nothing_for_so_long_is_cut_and_counted(world):
    one = world.connection()
    one.write(10)
    world.loop.pass_time(STALL - 1)
    assert not one.cut
    world.loop.pass_time(2)
    assert one.cut
    assert (world.counters.limits()["stall_timeout"], world.unread.bytes) == (1, 0)


def test_who_reads_a_little_now_and_then_is_not_cut(world):
    one = world.connection()
    one.write(100)
    for _ in range(20):
        one.read(1)
        world.loop.pass_time(STALL / 2)
    assert not one.cut


def test_a_time_in_which_muxsim_was_stopped_is_not_the_clients_fault(world):
    one = world.connection()
    one.write(100)
    world.loop.now += 10 * STALL
    world.loop.pass_time(1)
    assert not one.cut


def test_the_backend_waits_for_a_client_with_too_much_and_goes_on_when_most_is_read(world):
    session = Session("s")
    client = Client(session)
    first, second = world.connection(client=client), world.connection(client=client)
    first.write(BUFFERED)
    assert not session.held
    second.write(1)
    assert session.held == {client}
    second.read(1)
    assert session.held
    first.read(BUFFERED * 3 // 4)
    world.loop.pass_time(1)
    assert not session.held


def test_all_backends_of_a_share_wait_past_its_budget_and_no_others(world):
    mine, others = [Session(str(number)) for number in range(6)], Session("other")
    connections = [world.connection(session=session) for session in mine]
    world.connection("bob", session=others)
    for one in connections[:5]:
        one.write(MOST // 5 + 1)
    assert all(session.held for session in mine)
    assert not others.held
    assert world.counters.limits()["max_unread"] == 1
    late = Session("late")
    world.connection(session=late)
    assert late.held, "who comes later waits too"
    for one in connections[:5]:
        one.read(MOST)
    assert not any(session.held for session in [*mine, late])


def test_on_a_shared_session_the_connection_is_cut_and_nobody_waits(world):
    session = Session("s", lasting=True)
    slow, brisk = world.connection(session=session), world.connection(session=session)
    slow.write(BUFFERED + 1)
    for _ in range(10):
        brisk.write(BUFFERED + 1)
        brisk.read(BUFFERED + 1)
        world.loop.pass_time(0.5)
    assert (slow.cut, brisk.cut, session.held) == (True, False, set())
    flood = [world.connection("eve", session=session) for _ in range(20)]
    for one in flood:
        one.write(BUFFERED)
    assert world.unread.bytes <= MOST + BUFFERED
    assert not session.held


@pytest.mark.parametrize(("at_once", "later"), [(True, 0.0), (False, 2.0)])
def test_what_a_session_has_said_goes_with_it(world, at_once, later):
    session = Session("s")
    mine, others = world.connection(session=session), world.connection(session=Session("t"))
    for one in (mine, others):
        one.write(10)
    world.unread.end_session("s", at_once=at_once)
    assert mine.cut is at_once
    world.loop.pass_time(later)
    assert (mine.cut, others.cut) == (True, False)


class AnyOrder(RuleBasedStateMachine):
    """Whatever is written, read and lost: the counts agree, the bound holds, and who is waited for has a reason."""

    @initialize()
    def open(self):
        self.world = World()
        self.sessions = [Session("a"), Session("b"), Session("shared", lasting=True)]
        self.connections = [
            self.world.connection(share, session) for share in ("ada", "bob") for session in self.sessions * 2
        ]

    @rule(number=st.integers(0, 11), size=st.integers(1, 1500))
    def write(self, number, size):
        one = self.connections[number]
        session = one.reader.attachment.session
        # One answer at a time; a backend that waits says nothing.
        if not one.cut and not one.size and not session.held:
            one.write(size)

    @rule(number=st.integers(0, 11), size=st.integers(1, 1500))
    def read(self, number, size):
        self.connections[number].read(size)

    @rule(seconds=st.sampled_from([0.3, 1.5, STALL]))
    def pass_time(self, seconds):
        self.world.loop.pass_time(seconds)

    @rule(number=st.integers(0, 11))
    def reconnect(self, number):
        one = self.connections[number]
        if one.cut:
            self.connections[number] = Connection(self.world, one.reader)

    @rule()
    def look(self):
        self.world.loop.pass_time(0.3)
        assert self.world.unread.bytes == sum(one.size for one in self.connections)

    @invariant()
    def the_bound_holds(self):
        for share in ("ada", "bob"):
            assert sum(one.size for one in self.connections if one.reader.share == share) <= MOST + 1500

    @invariant()
    def nobody_waits_for_nothing(self):
        if not any(one.size for one in self.connections):
            assert not any(session.held for session in self.sessions)
            assert not self.world.unread.bytes


TestAnyOrder = AnyOrder.TestCase
