"""H11: sessions come and go by the thousand, and muxsim is what it was before.

Five hundred real ones of the smallest child there is, or `MUXSIM_CHURN` of them; ten thousand without processes.
"""

from __future__ import annotations

import gc
import os
import tracemalloc

import pytest
import trio
from serve.conftest import environment
from serve.machine import eventually, memory
from serve.wire import ask, shake_hands
from session.test_sessions import Backend, Pool

from muxsim.observe.events import Events
from muxsim.session.registry import open_sessions
from muxsim.spec import EnvSpec

pytestmark = pytest.mark.children

KIB = 1024
# No handshake is asked of it: it only has to be there, and end with its stdin.
CONFIG = (
    "[server]\nopens_per_second = 0\nmax_starting = 64\n"
    + environment("naughty")
    + '[environments.cat]\ncommand = "cat"\n'
)
WARM_UP = 150
ROUNDS = int(os.environ.get("MUXSIM_CHURN", "500"))
AT_ONCE = 8
# What waits for Python's collector takes memory that is not given back: it may not be much at any time.
BETWEEN_COLLECTIONS = 50


def threads(pid):
    with open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("Threads:"))


async def churn(url, number):
    """So many sessions, opened and deleted, a few at a time."""
    left = iter(range(number))

    async def play():
        for _ in left:
            opened = await ask(url, "POST", "/sessions", body={"env": "cat"})
            assert opened.status == 201, opened
            assert (await ask(url, "DELETE", f"/sessions/{opened.json()['id']}")).status == 204

    with trio.fail_after(60 + ROUNDS / 5):
        async with trio.open_nursery() as nursery:
            for _ in range(AT_ONCE):
                nursery.start_soon(play)


@pytest.mark.fault("H11")
async def test_h11_after_hundreds_of_real_sessions_muxsim_has_no_more_than_before(muxsim):
    """3 KiB for each at most, which is what is remembered for some minutes of the last thousands of ends.

    Pages that malloc happens to keep count too, so half a megabyte is nothing.
    """

    async def come_and_go(number):
        for _ in range(0, number, BETWEEN_COLLECTIONS):
            await churn(muxsim.url, BETWEEN_COLLECTIONS)
            await muxsim.collector.collect()

    await come_and_go(WARM_UP)
    before, threads_before = memory(muxsim.pid), threads(muxsim.pid)
    await come_and_go(ROUNDS)
    assert memory(muxsim.pid) - before <= 3 * ROUNDS * KIB + 512 * KIB
    await eventually(
        lambda: threads(muxsim.pid) <= threads_before
    )  # those that wait for work end after a while without
    await eventually(lambda: not muxsim.leftovers())
    client = await shake_hands(muxsim.url, "/mcp?env=naughty")
    assert await client.text("say", text="here") == "here"


class QuickPool(Pool):
    """Starts at once, and remembers nothing."""

    async def start(self, lease, *, seed, session, listener):
        return Backend()


@pytest.mark.fault("H11")
async def test_h11_ten_thousand_sessions_without_processes_leave_no_object_behind():
    specs = {"game": EnvSpec(name="game", command="game")}

    async def open_and_end(sessions, number):
        for _ in range(number):
            session = await sessions.open("game")
            session.end("deleted", "the test is done with it")
            await session.wait_ended()
            await trio.lowlevel.checkpoint()

    async with open_sessions(QuickPool(), specs, Events()) as sessions:
        tracemalloc.start()
        try:
            await open_and_end(
                sessions, 6000
            )  # by then trio drops deadlines that are over, and no more ends are remembered
            gc.collect()
            before = tracemalloc.get_traced_memory()[0]
            await open_and_end(sessions, 8000)
            gc.collect()
            after = tracemalloc.get_traced_memory()[0]
        finally:
            tracemalloc.stop()
        assert len(sessions) == 0
    assert (after - before) / 8000 < 16, "bytes for each session"
