"""What is kept of a request before its head is judged, and of one that nobody wants: little, whatever it sends."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from types import SimpleNamespace

import pytest
import uvicorn
from asyncio_tests import on_asyncio
from hypothesis import given, settings
from hypothesis import strategies as st

from muxsim.observe.events import Events
from muxsim.serve.auth.authenticator import Authenticator
from muxsim.serve.auth.callers import NamedToken, Scope
from muxsim.serve.auth.failures import FailureLimit
from muxsim.serve.auth.proxies import TrustedProxies
from muxsim.serve.http.connection import Connection
from muxsim.serve.http.connections import Bounds, Connections
from muxsim.serve.http.ordinary import ToldWhenServed
from muxsim.serve.http.unread import Unread
from muxsim.serve.routes.fast_lane import LONGEST_BODY, FastLane
from transports.asgi import Call
from transports.http_rules import HostRules, HTTPRefusal

TOKEN = "x" * 32
GOOD = {"Host": "127.0.0.1", "Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
READ = 256 * 1024
"""What an event loop reads at once, and uvicorn keeps of a body past its own mark."""
TICK = 0.25
"""Seconds: how often deadlines are looked at."""
BOUNDS = Bounds(100, 100, 10.0, 30.0, 8192, 100, 32768)


class Transport(asyncio.Transport):
    """A connection whose client is the test. It keeps what is written and knows whether somebody reads."""

    def __init__(self):
        super().__init__({"peername": ("127.0.0.1", 1)})
        self.written = b""
        self.reading, self.closed = True, False
        self.answered = asyncio.Event()

    def write(self, data):
        self.written += data
        self.answered.set()

    def pause_reading(self):
        self.reading = False

    def resume_reading(self):
        self.reading = True

    def is_closing(self):
        return self.closed

    def close(self):
        self.closed = True

    abort = close

    def can_write_eof(self):
        return False

    def get_write_buffer_size(self):
        return 0


def connections():
    return Connections(BOUNDS, Events(), Unread(60.0, 2**20, 2**26, Events()), TrustedProxies())


def connection_to(app, newcomer=lambda *_: None, limits=None):
    """A connection on which ``app`` serves what does not go the short way, and its transport."""
    auth = Authenticator([NamedToken("ada", Scope.AGENT, TOKEN)], FailureLimit(100))
    clients = SimpleNamespace(http=lambda id: None)
    mcp = SimpleNamespace(max_body=2**26, clients=clients, newcomer=newcomer)
    gateway = SimpleNamespace(mcp=mcp, rules=HostRules(), auth=auth)
    config = uvicorn.Config(ToldWhenServed(app), lifespan="off", interface="asgi3", log_config=None, ws="none")
    config.load()
    state = uvicorn.server.ServerState()
    connection = Connection(FastLane(gateway), limits or connections(), config=config, server_state=state, app_state={})
    transport = Transport()
    connection.connection_made(transport)
    return connection, transport


def kept(connection):
    """The bytes of bodies that a connection holds, whichever part of it does."""
    requests = [*connection._queue, *([connection._current] if connection._current else [])]
    mine = sum(len(piece) for request in requests for piece in request.body)
    ordinary = connection._ordinary
    cycle = None if ordinary is None else ordinary._protocol.cycle
    return mine + (0 if cycle is None else len(cycle.body))


def head(headers, length):
    lines = "".join(f"{name}: {value}\r\n" for name, value in {**headers, "Content-Length": length}.items())
    return f"POST /mcp HTTP/1.1\r\n{lines}\r\n".encode()


async def _never(scope, receive, send):
    await asyncio.Event().wait()


async def _refuse(scope, receive, send):
    await send({"type": "http.response.start", "status": 401, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})


STRANGERS = {
    "host": {"Host": "evil.example"},
    "origin": {"Origin": "https://evil.example"},
    "no token": {"Authorization": ""},
    "a wrong token": {"Authorization": "Bearer " + "y" * 32},
    "nothing wrong": {},
}


@pytest.mark.fault("L8", "L15", "L19")
@settings(max_examples=40)
@given(
    wrong=st.sampled_from(sorted(STRANGERS)),
    length=st.integers(0, 2**26),
    pieces=st.lists(st.integers(1, READ), max_size=40),
)
def test_no_more_of_a_body_is_kept_than_is_read_at_once_until_somebody_wants_it(wrong, length, pieces):
    """L8, L15, L19."""

    async def play():
        connection, transport = connection_to(_never)
        sent = 0
        connection.data_received(head({**GOOD, **STRANGERS[wrong]}, length))
        for piece in pieces:
            if not transport.reading or sent >= length:
                break
            connection.data_received(bytes(min(piece, length - sent)))
            sent += piece
            assert kept(connection) <= LONGEST_BODY + READ
            if wrong != "nothing wrong":
                assert connection._ordinary is not None  # which asks before it reads
        connection.connection_lost(None)
        assert kept(connection) == 0

    asyncio.run(play())


@pytest.mark.fault("L8")
def test_what_was_kept_of_a_body_is_given_back_with_its_refusal():
    """L8: what still comes is dropped, and the connection closed in time."""

    async def play():
        connection, transport = connection_to(_refuse)
        connection.data_received(head(GOOD, 2**26) + bytes(2**16))
        async with asyncio.timeout(30):
            await transport.answered.wait()
        await asyncio.sleep(0)
        assert transport.written.startswith(b"HTTP/1.1 401 ")
        assert b"connection: close" in transport.written
        for _ in range(10):
            assert kept(connection) == 0
            assert connection._ordinary is None
            connection.data_received(bytes(READ))
        connection.rest_is_late()
        assert transport.closed

    asyncio.run(play())


def test_a_body_that_nobody_wants_is_not_read_for_ever():
    async def play():
        connection, transport = connection_to(_refuse)
        connection.data_received(head(GOOD, 2**40))
        while not transport.closed:
            connection.data_received(bytes(2**20))
            await asyncio.sleep(0)

    asyncio.run(play())


def test_a_connection_keeps_nothing_of_what_has_served_a_request_that_is_answered():
    ask = b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"

    async def play():
        connection, transport = connection_to(_refuse)
        for _ in range(3):
            connection.data_received(ask)
            async with asyncio.timeout(30):
                while not connection.idle:  # noqa: ASYNC110 - its next step is the one that is waited for
                    await asyncio.sleep(0)
            assert connection._ordinary is None
            assert connection._state.connections == {connection}
        assert transport.written.count(b"HTTP/1.1 401 ") == 3
        connection.connection_lost(None)

    asyncio.run(play())


def test_requests_that_wait_for_another_are_read_but_only_so_many():
    """Who does not read does not see that the connection is lost; who reads all keeps what a stranger sends."""
    ask = b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"

    async def play():
        connection, transport = connection_to(_never)
        sent = 0
        while transport.reading:
            connection.data_received(ask)
            sent += len(ask)
            assert sent <= READ
        assert sent > 1000 * len(ask)
        connection.connection_lost(None)
        assert connection.idle

    asyncio.run(play())


@pytest.mark.fault("L6")
@pytest.mark.parametrize("seconds", [2.0, 30.0], ids=["shorter", "longer"])
@on_asyncio
async def test_a_changed_header_timeout_holds_for_everybody_who_is_waited_for_from_then_on(seconds):
    """L6: nobody who came before it shields others, or is shielded."""
    limits = connections()
    _, before = connection_to(_never, limits=limits)
    await asyncio.sleep(1)
    limits.use(replace(BOUNDS, header_timeout=seconds))
    _, after = connection_to(_never, limits=limits)
    await asyncio.sleep(1.9)
    assert (before.closed, after.closed) == (False, False)
    await asyncio.sleep(min(seconds, BOUNDS.header_timeout - 1) - 1.9 + 2 * TICK)
    assert before.closed
    await asyncio.sleep(max(0, seconds - BOUNDS.header_timeout + 1))
    assert after.closed


class _TurnedAway:
    """A newcomer for whom there is no room, which is known at once."""

    ready = True

    def __init__(self, *_):
        self.client = self

    @property
    def value(self):
        raise HTTPRefusal(503, "there is no room")


@pytest.mark.parametrize(("after", "closed"), [(b"", False), (b"\r\n", True)])
def test_a_request_that_is_answered_at_once_leaves_no_head_to_wait_for_but_a_stray_line_does(after, closed):
    """Who says nothing more has its time for the next request, and has not been slow with one."""

    async def play():
        connection, transport = connection_to(_never, _TurnedAway)
        auth = connection._short_way.gateway.auth
        await auth.authenticate(Call({"headers": [(b"authorization", f"Bearer {TOKEN}".encode())]}, None, None))
        body = b'{"jsonrpc":"2.0","id":1,"method":"initialize","params":{}}'
        connection.data_received(head(GOOD, len(body)) + body)
        assert transport.written.startswith(b"HTTP/1.1 503 ")
        if after:
            connection.data_received(after)
        connection.head_is_late(connection.request)
        assert transport.closed is closed
        connection.connection_lost(None)

    asyncio.run(play())
