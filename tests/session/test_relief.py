"""What is ended when memory is short. Rows are those of the table of faults."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from muxsim.admission.admission import MemoryReading
from muxsim.errors import Busy
from muxsim.observe.events import Events
from muxsim.runtime.bell import Bell
from muxsim.session.registry import open_sessions
from muxsim.session.relief import relieving, to_end

from .test_sessions import SPECS
from .test_sessions import Pool as UnlimitedPool


def reading(used, limit=100):
    return MemoryReading(used, limit, "here")


@pytest.mark.parametrize(
    ("used", "sessions", "idle", "ended"),
    [
        (99, 10, [3.0, 1.0, 2.0], []),
        (100, 10, [3.0, 1.0, 2.0], [1.0]),
        (110, 11, [3.0, 1.0, 2.0], [1.0]),
        (111, 11, [3.0, 1.0, 2.0], [1.0, 2.0]),
        (200, 10, [3.0, 1.0, 2.0], [1.0, 2.0, 3.0]),
        (200, 0, [], []),
    ],
)
def test_the_longest_idle_are_ended_as_many_as_the_excess_takes(used, sessions, idle, ended):
    """H12."""
    assert to_end([(time, time) for time in idle], reading(used), sessions) == ended


class Pool(UnlimitedPool):
    """One whose memory is as full as the test says, and that refuses who comes then."""

    def __init__(self):
        super().__init__()
        self.reading = reading(50)
        self.shortage = Bell()
        self.measurements = 0

    async def acquire(self, spec, client=None, session=None):
        if (await self.measure()).over:
            raise Busy("memory is short", 1)
        return await super().acquire(spec, client)

    async def measure(self):
        await trio.lowlevel.checkpoint()
        self.measurements += 1
        if self.reading.over:
            self.shortage.ring()
        return self.reading

    async def wait_short_of_memory(self):
        await self.shortage.wait()


@pytest.fixture
async def pool():
    return Pool()


@pytest.fixture
async def sessions(pool):
    async with open_sessions(pool, SPECS, Events()) as sessions, relieving(sessions, pool, 60, Events()):
        yield sessions


@pytest.mark.fault("H12")
async def test_past_the_memory_limit_the_idle_make_room_and_the_busy_stay(autojump_clock, sessions, pool):
    """H12: shed new opens, close idle."""
    idle, busy = await sessions.open("game"), await sessions.open("game")
    common = await sessions.shared("common")
    await trio.sleep(60)
    busy._life.touch()
    pool.reading = reading(100)
    with pytest.raises(Busy):
        await sessions.open("game")
    with trio.fail_after(1):
        await idle.wait_ended()
    assert idle.ending.cause == "spare_idle"
    assert "server.memory_limit" in idle.ending.text
    pool.reading = reading(50)
    await trio.sleep(100)
    assert busy.live
    assert common.live


@pytest.mark.fault("H12")
async def test_sessions_that_grow_by_themselves_are_noticed_without_any_open(autojump_clock, sessions, pool):
    """H12."""
    session = await sessions.open("game")
    await trio.sleep(100)
    pool.reading = reading(120)
    with trio.fail_after(11):
        await session.wait_ended()


async def test_nobody_measures_while_there_is_no_session(autojump_clock, sessions, pool):
    await trio.sleep(1000)
    assert pool.measurements == 0
    session = await sessions.open("game")
    await trio.sleep(100)
    assert 5 < pool.measurements < 15
    session.end("deleted", "bye")
    await session.wait_ended()
    await trio.sleep(20)
    before = pool.measurements
    await trio.sleep(1000)
    assert pool.measurements == before


async def test_without_patience_nothing_is_ended(pool, autojump_clock):
    async with open_sessions(pool, SPECS, Events()) as sessions, relieving(sessions, pool, None, Events()):
        session = await sessions.open("game")
        pool.reading = reading(120)
        await trio.sleep(500)
        assert session.live
