"""How much of what is not complete there may be for one client, and who of them waits."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muxsim.observe.counters import Counters
from muxsim.observe.events import Events
from muxsim.serve.auth.callers import ANYONE
from muxsim.serve.http.unfinished import Unfinished
from muxsim.serve.http.web_socket import Times, WebSocket
from muxsim.serve.routes import guard
from muxsim.serve.routes.bodies import Bodies
from transports.asgi import Call
from transports.http_rules import HTTPRefusal

SMALL = 64 * 1024
MOST = 100 * 1024


def world():
    events = Events()
    counters = Counters()
    events.subscribe(counters)
    return Unfinished(MOST, events), counters


def test_past_the_bound_only_the_oldest_of_a_clients_goes_on_and_others_clients_do():
    unfinished, counters = world()
    first, second = unfinished.begin("ada"), unfinished.begin("ada")
    of_bob = unfinished.begin("bob")
    for one in (first, second, of_bob):
        one.add(SMALL)
    assert [one.may_go_on for one in (first, second, of_bob)] == [True, False, True]
    assert counters.limits()["max_unfinished"] == 1
    told = []
    second.on_room = lambda: told.append(second.may_go_on)
    first.add(MOST)
    first.end()
    assert told == [True]


def test_one_body_may_be_as_large_as_it_likes():
    unfinished, _ = world()
    one = unfinished.begin("ada")
    one.add(10 * MOST)
    assert one.may_go_on
    one.end()
    one.end()
    one.add(5)
    assert unfinished.bytes == 0


def test_what_waits_for_a_backend_counts_too_and_what_is_small_is_read_all_the_same():
    unfinished, counters = world()
    with ExitStack() as waiting:
        waiting.enter_context(unfinished.waiting("ada", 2 * MOST))
        first, small, of_bob = unfinished.begin("ada"), unfinished.begin("ada"), unfinished.begin("bob")
        first.add(SMALL)
        of_bob.add(SMALL)
        assert [one.may_go_on for one in (first, small, of_bob)] == [False, True, True]
        assert counters.limits()["max_unfinished"] == 1
        told = []
        first.on_room = lambda: told.append(first.may_go_on)
    assert told == [True]
    for one in (first, small, of_bob):
        one.end()
    assert repr(unfinished) == "<Unfinished 0 bytes of 0 clients>"


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, SMALL), st.booleans()), max_size=60))
def test_some_body_of_each_client_can_always_go_on_and_what_is_complete_leaves_nothing(steps):
    unfinished, _ = world()
    bodies = {number: unfinished.begin("ab"[number % 2]) for number in range(6)}
    waiting = dict(bodies)
    for number, size, ends in steps:
        body = bodies[number]
        if number in waiting and body.may_go_on:
            body.add(size)
            if ends:
                body.end()
                del waiting[number]
        for share in "ab":
            mine = [one for one in waiting.values() if one.share == share]
            assert not mine or any(one.may_go_on for one in mine)
            assert sum(one.size for one in mine[1:]) <= MOST + len(mine) * 2 * SMALL
    for body in waiting.values():
        body.end()
    assert unfinished.bytes == 0


def test_what_becomes_less_and_a_bound_that_is_raised_make_room_that_is_told_of():
    unfinished, _ = world()
    first, second = unfinished.begin("ada"), unfinished.begin("ada")
    first.add(MOST)
    second.add(SMALL)
    told = []
    second.on_room = lambda: told.append(second.may_go_on)
    first.add(1 - MOST)
    assert told == [True]
    first.add(MOST)
    assert not second.may_go_on
    unfinished.use(10 * MOST)
    assert told == [True, True]


class Connection:
    """What a `WebSocket` has of its connection; ``timers`` are those that go on, with their times."""

    def __init__(self):
        self.timers = {}
        self.loop = self
        self.transport = SimpleNamespace(
            write=lambda data: None,
            is_closing=lambda: False,
            pause_reading=lambda: None,
            resume_reading=lambda: None,
        )

    def call_later(self, seconds, function):
        key = object()
        self.timers[key] = function
        return SimpleNamespace(cancel=lambda: self.timers.pop(key, None))

    def await_goodbye(self):
        pass

    def finish(self):
        pass

    def fire(self):
        (function,) = self.timers.values()
        function()


def web_socket(unfinished):
    protocols = pytest.importorskip("websockets.server"), pytest.importorskip("websockets.client")
    uri = pytest.importorskip("websockets.uri").parse_uri("ws://127.0.0.1/")
    state = pytest.importorskip("websockets.protocol").State.OPEN
    connection = Connection()
    server = protocols[0].ServerProtocol(state=state)
    client = protocols[1].ClientProtocol(uri, state=state)
    socket = WebSocket(connection, server, Times(ping=600.0, text=30.0), lambda: unfinished.begin("ada"))

    def sent(text=None):
        client.send_close() if text is None else client.send_text(text)
        return b"".join(client.data_to_send())

    return connection, socket, sent


def test_each_text_of_a_socket_has_the_time_that_a_text_has_though_each_read_ends_within_the_next():
    unfinished, _ = world()
    connection, socket, sent = web_socket(unfinished)
    data = b"".join(sent(b"%d" % number * 100) for number in range(9))
    seen = []
    for start in range(0, len(data), 150):
        socket.came(data[start : start + 150])
        seen.append((len(socket._texts), *connection.timers))
        assert len(connection.timers) <= 1
    assert len(socket._texts) == 9
    assert connection.timers == {}
    assert unfinished.bytes == 0
    of_text = {}
    for texts, *timers in seen:
        for timer in timers:
            of_text.setdefault(timer, set()).add(texts)
    assert all(len(texts) == 1 for texts in of_text.values())


def test_a_goodbye_is_one_also_where_it_comes_together_with_a_text():
    unfinished, _ = world()
    _, socket, sent = web_socket(unfinished)
    socket.came(sent(b"the last word") + sent())
    assert socket.over
    assert socket.said_goodbye


def test_a_text_that_had_to_wait_for_others_of_its_client_is_not_said_to_be_late():
    unfinished, _ = world()
    connection, socket, sent = web_socket(unfinished)
    with unfinished.waiting("ada", 2 * MOST):
        socket.came(sent(b"x" * 2 * SMALL)[:-1])
        connection.fire()
    assert socket.over
    assert not socket.was_too_slow
    assert socket._protocol.close_sent.code == 1013
    assert "max_unfinished" in socket._protocol.close_sent.reason


@pytest.mark.parametrize(("held", "status", "limit"), [(2 * MOST, 503, "max_unfinished"), (0, 408, "body_timeout")])
def test_a_body_that_had_to_wait_for_others_of_its_client_is_not_said_to_be_late(held, status, limit):
    """Nor is one late that came for ever, where it had not."""
    unfinished, _ = world()
    scope = {"type": "http", "headers": [], "client": ("127.0.0.1", 1), guard._CALLER: ANYONE}

    async def read():
        pieces = 0

        async def receive():
            nonlocal pieces
            pieces += 1
            if pieces > 1:
                await asyncio.Event().wait()
            return {"type": "http.request", "body": b"x" * SMALL, "more_body": True}

        call = Call(scope, receive, None)
        with unfinished.waiting("127.0.0.1", held):
            await Bodies(2**30, 0.0, unfinished).read(call)

    with pytest.raises(HTTPRefusal) as refused:
        asyncio.run(read())
    assert (refused.value.status, refused.value.limit) == (status, limit)
    assert limit in refused.value.message
