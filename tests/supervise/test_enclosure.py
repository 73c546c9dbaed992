"""Bounds of a spec, and which of them a backend met; then real children that want too much."""

import errno
import json
import os
import resource
import signal
import sys

import pytest
import trio
from harness import SERVERS

from muxsim.events import Events
from muxsim.session.own_client import OwnClient
from muxsim.session.sessions import open_sessions
from muxsim.spec import Confinement, EnvSpec, Limits
from muxsim.supervise.enclosure import cpu_seconds, rlimits, shown_size, verdict
from muxsim.supervise.pool import open_pool
from transports.messages import Kind

MIB = 2**20
NAUGHTY = ("-I", "-S", str(SERVERS / "naughty.py"))
BRISK = Limits(eof_timeout=0.1, term_timeout=0.1)
XCPU, XFSZ, KILL = -signal.SIGXCPU, -signal.SIGXFSZ, -signal.SIGKILL


def test_what_nobody_bounds_stays_as_it_is():
    assert rlimits(Confinement()) == {}


def test_every_bound_that_setrlimit_takes_becomes_one():
    everything = Confinement(max_cpu_seconds=5, max_address_space=10 * MIB, max_open_files=20, max_file_size=MIB)
    assert rlimits(everything) == {
        resource.RLIMIT_CPU: (5, 6),
        resource.RLIMIT_AS: (10 * MIB, 10 * MIB),
        resource.RLIMIT_NOFILE: (20, 20),
        resource.RLIMIT_FSIZE: (MIB, MIB),
    }


@pytest.mark.parametrize(
    ("bounds", "returncode", "cpu", "key"),
    [
        ({"max_cpu_seconds": 5}, XCPU, 5.0, "max_cpu_seconds"),
        ({"max_cpu_seconds": 5}, KILL, 6.0, "max_cpu_seconds"),  # it had ignored SIGXCPU
        ({"max_cpu_seconds": 5}, KILL, 4.9, None),
        ({"max_cpu_seconds": 5}, 1, 6.0, None),
        ({"max_cpu_seconds": 5}, None, 0.0, None),
        ({}, XCPU, 5.0, None),  # by a limit that is not ours
        ({}, KILL, 500.0, None),
        ({"max_file_size": MIB}, XFSZ, 0.0, "max_file_size"),
        ({"max_file_size": MIB}, XCPU, 0.0, None),
        ({"max_file_size": MIB}, 0, 0.0, None),
        ({}, XFSZ, 0.0, None),
    ],
)
def test_a_bound_is_blamed_only_for_what_it_did(bounds, returncode, cpu, key):
    said = verdict(Confinement(**bounds), returncode, cpu)
    assert said is None if key is None else f"({key})" in said


@pytest.mark.parametrize(
    ("size", "text"), [(MIB, "1 MiB"), (3 * 2**30, "3 GiB"), (1536, "1536 bytes"), (2048, "2 KiB"), (1, "1 bytes")]
)
def test_sizes_are_told_as_the_config_has_them(size, text):
    assert shown_size(size) == text


def test_the_time_of_a_process_that_is_not_there_is_nothing():
    assert cpu_seconds(2**22 + 1) == 0.0
    assert cpu_seconds(os.getpid()) > 0.0


# real children


class Here:
    """Sessions of `naughty`, each enclosed as it is told."""

    def __init__(self, sessions, specs):
        self._sessions = sessions
        self._specs = specs

    async def open(self, limits=BRISK, **bounds):
        name = f"bound{len(self._specs)}"
        spec = EnvSpec(
            name=name,
            command=sys.executable,
            args=NAUGHTY,
            cwd="{workspace}",
            limits=limits,
            confinement=Confinement(**bounds),
        )
        self._specs[name] = spec
        client = Client(await self._sessions.open(name))
        await client.initialize()
        return client


class Client:
    """The only client of a session."""

    def __init__(self, session):
        self.session = session
        self._own = OwnClient(session)

    async def initialize(self):
        params = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "0"}}
        await self._own.ask("initialize", params, 10)
        self._own.notify("notifications/initialized")

    async def call(self, tool, **arguments):
        return await self._own.ask("tools/call", {"name": tool, "arguments": arguments}, 15)

    async def value(self, tool, **arguments):
        answer = await self.call(tool, **arguments)
        assert answer.kind is Kind.RESULT, answer.members
        return json.loads(json.loads(bytes(answer.members["result"]))["content"][0]["text"])

    async def is_alive(self):
        return "pid" in await self.value("who")


@pytest.fixture
async def here():
    specs = {}
    with trio.fail_after(25):
        async with (
            open_pool(limit=8, max_waiting=0, queue_timeout=5) as pool,
            open_sessions(pool, specs, Events()) as sessions,
        ):
            yield Here(sessions, specs)


async def ends_because_of(key, client, tool, **arguments):
    """The call that goes too far gets an error which names the setting; so does the session's end."""
    answer = await client.call(tool, **arguments)
    assert answer.kind is Kind.ERROR
    assert f"({key})" in json.loads(bytes(answer.members["error"]))["message"]
    await client.session.wait_ended()
    assert f"({key})" in client.session.ending.text


@pytest.mark.children
@pytest.mark.parametrize("ignore", [False, True])
async def test_a_backend_that_computes_too_long_is_killed_and_the_reason_told(here, ignore):
    greedy, other = await here.open(max_cpu_seconds=1), await here.open(max_cpu_seconds=1)
    await ends_because_of("max_cpu_seconds", greedy, "burn_cpu", ignore=ignore)
    assert await other.is_alive()


@pytest.mark.children
async def test_a_backend_that_writes_too_large_a_file_is_killed_and_the_reason_told(here):
    greedy, other = await here.open(max_file_size=MIB), await here.open(max_file_size=MIB)
    await ends_because_of("max_file_size", greedy, "grow_file", mib=2, die=True)
    assert await other.is_alive()


@pytest.mark.children
@pytest.mark.parametrize(
    ("bounds", "tool", "modest", "greedy", "error"),
    [
        ({"max_file_size": 3 * MIB}, "grow_file", {"mib": 3}, {"mib": 4}, ["OSError", errno.EFBIG]),
        ({"max_address_space": 512 * MIB}, "take_memory", {"mib": 8}, {"mib": 600}, ["MemoryError", None]),
        ({"max_open_files": 20}, "open_files", {"count": 3}, {"count": 20}, ["OSError", errno.EMFILE]),
    ],
)
async def test_a_bound_that_a_backend_can_bear_is_an_error_of_its_own(here, bounds, tool, modest, greedy, error):
    client = await here.open(**bounds)
    assert "result" in await client.value(tool, **modest)
    assert list((await client.value(tool, **greedy)).values()) == error
    assert await client.is_alive()


@pytest.mark.children
async def test_niceness_and_the_lack_of_new_privileges_reach_the_backend(here):
    modest, trusted = await here.open(nice=7), await here.open(no_new_privs=False)
    own = os.getpriority(os.PRIO_PROCESS, 0)
    assert os.getpriority(os.PRIO_PROCESS, modest.session.pid) == own + 7
    assert os.getpriority(os.PRIO_PROCESS, trusted.session.pid) == own
    assert "NoNewPrivs:\t1\n" in (await modest.value("read_file", path="/proc/self/status"))["result"]
    assert "NoNewPrivs:\t0\n" in (await trusted.value("read_file", path="/proc/self/status"))["result"]
