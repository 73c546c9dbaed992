"""Sessions of `naughty`, each enclosed as a test tells it."""

from __future__ import annotations

import json
import sys
from contextlib import asynccontextmanager

import trio
from harness import SERVERS

from muxsim.admission.admission import Capacity
from muxsim.admission.pool import open_pool
from muxsim.observe.counters import Counters
from muxsim.observe.events import Events
from muxsim.observe.log import LibraryLog
from muxsim.session.control.own_client import OwnClient
from muxsim.session.registry import open_sessions
from muxsim.spec import Confinement, EnvSpec, Limits
from transports.messages import Kind

LIMIT = 120  # s, for what is not about time, on a machine that is busy with others
BRISK = Limits(eof_timeout=0.1, term_timeout=0.1)
NAUGHTY = ("-I", "-S", str(SERVERS / "naughty.py"))
CAPACITY = Capacity(max_sessions=8, max_pending=0, queue_timeout=60, max_starting=8)


class Here:
    """Sessions of `naughty`, each enclosed as it is told."""

    def __init__(self, pool, sessions, specs, events):
        self.pool = pool
        self._sessions = sessions
        self._specs = specs
        self._events = events

    def events(self, what):
        return [event for event in self._events if isinstance(event, what)]

    async def open(self, limits=BRISK, env=None, zygote=False, name=None, fields=None, **bounds):
        name = name or f"bound{len(self._specs)}"
        options = {
            "args": NAUGHTY[-1:] if zygote else NAUGHTY,
            "env": env or {},
            "zygote": zygote,
            "cwd": "{workspace}",
            "limits": limits,
            "confinement": Confinement(**bounds),
            **(fields or {}),
        }
        self._specs[name] = EnvSpec(name=name, command=sys.executable, **options)
        return await self.open_again(name)

    async def open_again(self, name):
        """One more session of an environment."""
        client = Client(await self._sessions.open(name))
        await client.initialize()
        return client


class Client:
    """The only client of a session."""

    def __init__(self, session):
        self.session = session
        self.pid = session.pid
        self._own = OwnClient(session)

    async def initialize(self):
        params = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "0"}}
        self.greeting = await self._own.ask("initialize", params, LIMIT)
        self._own.notify("notifications/initialized")

    async def call(self, tool, **arguments):
        return await self._own.ask("tools/call", {"name": tool, "arguments": arguments}, LIMIT)

    async def text(self, tool, **arguments):
        answer = await self.call(tool, **arguments)
        assert answer.kind is Kind.RESULT, answer.members
        return json.loads(bytes(answer.members["result"]))["content"][0]["text"]

    async def value(self, tool, **arguments):
        return json.loads(await self.text(tool, **arguments))

    async def is_alive(self):
        return "pid" in await self.value("who")


@asynccontextmanager
async def enclosed_sessions(*bounded, cgroup="auto"):
    """`Here`, with the cgroups that these bounds will need."""
    specs, events, told = {}, Events(Counters(), LibraryLog()), []
    events.subscribe(told.append)
    needing = [EnvSpec(name="needing", command="a", confinement=Confinement(**bounds)) for bounds in bounded]
    with trio.fail_after(60):
        async with (
            open_pool(CAPACITY, specs=needing, cgroup=cgroup, events=events) as pool,
            open_sessions(pool, specs, events) as sessions,
        ):
            yield Here(pool, sessions, specs, told)


def bounded(name, **bounds):
    """An environment with these bounds, which nobody starts."""
    return EnvSpec(name=name, command="a", confinement=Confinement(**bounds))


async def ends_because_of(key, client, tool, **arguments):
    """The call that goes too far gets an error which names the setting; so does the session's end."""
    answer = await client.call(tool, **arguments)
    assert answer.kind is Kind.ERROR
    assert f"({key})" in json.loads(bytes(answer.members["error"]))["message"]
    await client.session.wait_ended()
    assert f"({key})" in client.session.ending.text
