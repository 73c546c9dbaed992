"""Pools for programs of other loops: what is waited for comes, and what is given up is neither lost nor left behind."""

import gc
import logging
import signal
import threading
import weakref
from contextlib import asynccontextmanager, suppress
from functools import partial

import anyio
import pytest
import trio

from adapters.fakes import FakePool
from muxsim.adapters.running import NotHere, Running, Use, running

LOOPS = pytest.mark.parametrize("loop", ["trio", "asyncio"])


@asynccontextmanager
async def a_pool():
    yield "the pool"


@pytest.fixture
def pool():
    """A pool that runs in a thread of its own, as that of a config does."""
    running = Running(a_pool, "a pool").use()
    yield running
    running.release()


@LOOPS
def test_a_program_on_any_loop_waits_for_what_runs_on_the_pools_own(loop, pool):
    async def fails(_):
        raise ValueError("as it is")

    async def program():
        async def told(pool, *args):
            await anyio.lowlevel.checkpoint()
            return pool, *args

        with anyio.fail_after(60):
            assert await pool.wait(told, 1) == ("the pool", 1)
            with pytest.raises(ValueError, match="as it is"):
                await pool.wait(fails)

    anyio.run(program, backend=loop)


class Endless:
    """Something that begins in the pool's loop, and is over when `release` is called there, whatever is given up."""

    def __init__(self):
        self.begun, self.over = threading.Event(), threading.Event()

    async def given_up(self, _):
        self.begun.set()
        try:
            await anyio.sleep_forever()
        finally:
            self.over.set()

    async def opened(self, _):
        self._released = anyio.Event()
        self.begun.set()
        with anyio.CancelScope(shield=True):
            await self._released.wait()
        return "a session"

    async def release(self, _):
        self._released.set()


@LOOPS
def test_who_gives_up_waits_until_what_was_begun_has_been_given_up_too(loop, pool):
    endless = Endless()

    async def program():
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(pool.wait, endless.given_up)
            assert await anyio.to_thread.run_sync(endless.begun.wait, 60)
            tasks.cancel_scope.cancel()
        assert endless.over.is_set()

    anyio.run(program, backend=loop)


@LOOPS
def test_what_has_been_opened_all_the_same_is_handed_over_to_be_closed(loop, pool):
    endless = Endless()
    handed = []

    async def open(scope):
        with scope:
            handed.append(await pool.wait(endless.opened))

    async def program():
        scope = anyio.CancelScope()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(open, scope)
            assert await anyio.to_thread.run_sync(endless.begun.wait, 60)
            scope.cancel()
            await anyio.to_thread.run_sync(pool.call, endless.release)
        assert handed == ["a session"]

    anyio.run(program, backend=loop)


def test_a_pool_that_has_ended_says_so():
    running = Running(a_pool, "a pool").use()
    running.release()

    async def program():
        await running.wait(None)

    with pytest.raises(NotHere, match="a pool has ended"):
        anyio.run(program, backend="asyncio")
    with pytest.raises(NotHere, match="a pool has ended"):
        running.call(None)
    running.release()


def test_many_begin_in_one_crossing_of_threads_and_who_fails_is_told_by_its_place(pool, monkeypatch):
    crossings, loop = [], pool.call(current_loop)
    monkeypatch.setattr(pool, "_loop", Loop(loop, crossings))
    together = [0]

    async def work(pool, place):
        together[0] += 1
        while together[0] < 3:  # none is over before all have begun
            await anyio.lowlevel.checkpoint()
        if place == 1:
            raise ValueError("as it is")
        return pool, place

    first, failed, last = pool.call_all([(work, (place,)) for place in range(3)])
    assert (first, last) == (("the pool", 0), ("the pool", 2))
    assert str(failed) == "as it is"
    assert len(crossings) == 1


async def current_loop(_):
    return trio.lowlevel.current_trio_token()


class Loop:
    """A loop of trio's, and every crossing to it."""

    def __init__(self, loop, crossings):
        self._loop, self._crossings = loop, crossings

    def run_sync_soon(self, function):
        self._crossings.append(function)
        self._loop.run_sync_soon(function)


@pytest.mark.parametrize("way", ["call", "start", "call_all"])
def test_what_has_failed_holds_nobody_after_it_has_been_handled(way, pool):
    """Who waits for a collector ends late: a session ends with the last reference to its environment."""

    class Caller:
        def ask(self):
            async def fails(_):
                raise ValueError("as it is")

            if way == "call_all":
                raise pool.call_all([(fails, ())])[0]
            if way == "start":
                pool.start(fails).result()
            pool.call(fails)

    gc.collect()
    gc.disable()
    try:
        caller, gone = Caller(), threading.Event()
        held = weakref.ref(caller, lambda _: gone.set())
        with suppress(ValueError):
            caller.ask()
        del caller
        assert gone.wait(60), held  # the pool's thread may have the error in hand a moment longer
    finally:
        gc.enable()


@pytest.mark.parametrize("way", ["call", "call_all"])
def test_who_waits_is_interrupted(way, pool):
    """A Ctrl-C ends the waiting; what was begun goes on, and has ended with the pool."""
    endless = Endless()

    def interrupt():
        if endless.begun.wait(60):
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    interrupted = threading.Thread(target=interrupt)
    interrupted.start()
    with pytest.raises(KeyboardInterrupt):
        pool.call(endless.opened) if way == "call" else pool.call_all([(endless.opened, ())])
    interrupted.join()
    pool.call(endless.release)


class User:
    """Somebody with something open."""

    def __init__(self, pool):
        self.closed = threading.Event()
        self.use = Use(self, pool, partial(self._closing, self.closed))

    @staticmethod
    def _closing(closed):
        async def close(_):
            await anyio.lowlevel.checkpoint()
            closed.set()

        return close


@LOOPS
def test_what_a_collector_finds_on_the_loop_of_an_open_pool_is_closed_without_waiting_there(loop):
    """It may run in the middle of anything, of what a loop does with its locks held too."""

    async def program():
        held = running(FakePool())

        async def nothing(_):
            await anyio.lowlevel.checkpoint()

        made = await anyio.to_thread.run_sync(lambda: (held.call(nothing), User(held))[1])
        closed = made.closed
        del made
        gc.collect()  # on the loop's own thread
        with anyio.fail_after(60):
            await anyio.to_thread.run_sync(closed.wait)

    anyio.run(program, backend=loop)


def test_what_a_collector_finds_in_the_thread_of_a_pool_is_closed_too(pool):
    pool.use()  # or its last user goes
    users = [User(pool)]
    closed = users[0].closed

    async def collected(_):
        users.clear()
        gc.collect()

    pool.call(collected)
    assert closed.wait(60)


class Torn:
    """Somebody with something that cannot be closed."""

    def __init__(self, pool):
        self.use = Use(self, pool, self._closing)

    @staticmethod
    def _closing():
        async def close(_):
            await anyio.lowlevel.checkpoint()
            raise RuntimeError("it hangs together still")

        return close


class Heard(logging.Handler):
    """What is logged, and that something was."""

    def __init__(self):
        super().__init__()
        self.errors, self.one = [], threading.Event()

    def emit(self, record):
        self.errors.append(str(record.exc_info[1]))
        self.one.set()


@pytest.fixture
def heard():
    handler, logger = Heard(), logging.getLogger("muxsim.adapters.running")
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)


@pytest.mark.parametrize("last", [False, True])
def test_what_a_collector_has_closed_in_vain_is_logged(last, heard):
    held = Running(a_pool, "a pool").use()
    if not last:
        held.use()
    torn = [Torn(held)]
    torn.clear()
    gc.collect()
    assert heard.one.wait(60)
    assert heard.errors == ["it hangs together still"]
    held.stop()


@LOOPS
def test_what_a_collector_has_closed_in_vain_in_an_open_pool_is_logged(loop, heard):
    async def program():
        held = running(FakePool())

        async def nothing(_):
            await anyio.lowlevel.checkpoint()

        torn = [await anyio.to_thread.run_sync(lambda: (held.call(nothing), Torn(held))[1])]
        torn.clear()
        gc.collect()
        with anyio.fail_after(60):
            await anyio.to_thread.run_sync(heard.one.wait)

    anyio.run(program, backend=loop)
    assert heard.errors == ["it hangs together still"]


def test_who_says_so_has_everything_closed_when_that_returns_and_only_once(pool):
    pool.use()
    user = User(pool)
    user.use.end()
    assert user.closed.is_set()
    assert not user.use.alive
    user.closed.clear()
    user.use.end()
    closed = user.closed
    del user
    gc.collect()
    assert not closed.is_set()
