"""Calls from asyncio to trio, in one thread."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest
import trio

from muxsim.guest import trio_guest

SOON = 0.05
LIMIT = 30


@asynccontextmanager
async def nothing():
    yield None


def on_asyncio(test):
    """Run ``test(guest)`` on asyncio, with trio as its guest."""

    async def main():
        async with asyncio.timeout(10), trio_guest(nothing) as guest:
            await test(guest)

    asyncio.run(main())


def test_a_call_returns_and_raises_what_happens_on_trio():
    async def add(one, other):
        await trio.lowlevel.checkpoint()
        return one + other

    async def fail():
        raise KeyError("mine")

    async def test(guest):
        assert await guest.call(add, 1, 2) == 3
        with pytest.raises(KeyError, match="mine"):
            await guest.call(fail)

    on_asyncio(test)


def test_a_cancelled_call_is_cancelled_on_trio_before_its_caller_goes_on():
    told, begun = [], asyncio.Event()

    async def wait():
        begun.set()
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(SOON)
            told.append("cleaned up")

    async def test(guest):
        task = asyncio.ensure_future(guest.call(wait))
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert told == ["cleaned up"]

    on_asyncio(test)


def test_what_finishes_in_spite_of_its_cancellation_is_not_lost():
    """Or nobody would know of the session that it opened, and nobody could end it."""
    begun = asyncio.Event()

    async def make():
        begun.set()
        with trio.CancelScope(shield=True):
            await trio.sleep(SOON)
        return "made"

    async def test(guest):
        task = asyncio.ensure_future(guest.call(make))
        await begun.wait()
        task.cancel()
        assert await task == "made"

    on_asyncio(test)


def test_many_calls_go_on_at_once():
    async def echo(number):
        await trio.sleep(SOON)
        return number

    async def test(guest):
        loop = asyncio.get_running_loop()
        begun = loop.time()
        assert await asyncio.gather(*(guest.call(echo, number) for number in range(200))) == list(range(200))
        assert loop.time() - begun < 20 * SOON

    on_asyncio(test)


def test_guests_of_one_loop_share_its_run_of_trio_and_end_one_by_one():
    async def thread_and_task():
        return trio.lowlevel.current_task().parent_nursery is not None

    async def main():
        async with asyncio.timeout(LIMIT), trio_guest(nothing) as first:
            async with trio_guest(nothing) as second:
                assert await second.call(thread_and_task)
            assert second.finished.done()
            assert not first.finished.done()
            assert await first.call(thread_and_task)
        async with asyncio.timeout(LIMIT), trio_guest(nothing) as after:
            assert await after.call(thread_and_task)

    asyncio.run(main())


def test_guests_that_come_and_go_at_once_find_each_other():
    async def visit():
        async with trio_guest(nothing) as guest:
            await guest.call(trio.lowlevel.checkpoint)

    async def main():
        async with asyncio.timeout(LIMIT):
            for _ in range(3):
                await asyncio.gather(*(visit() for _ in range(10)))

    asyncio.run(main())


def test_a_guest_that_fails_leaves_the_others_alone():
    failing = trio.Event()

    @asynccontextmanager
    async def fails_later():
        async with trio.open_nursery() as nursery:

            async def fail():
                await failing.wait()
                raise KeyError("mine")

            nursery.start_soon(fail)
            yield None

    @asynccontextmanager
    async def fails_at_once():
        raise KeyError("at once")
        yield None

    async def see_it_fail():
        async with trio_guest(fails_later) as guest:
            failing.set()
            await asyncio.wait((guest.finished,))

    async def main():
        async with asyncio.timeout(LIMIT), trio_guest(nothing) as sound:
            with pytest.raises(KeyError, match="at once"):
                async with trio_guest(fails_at_once):
                    pass
            with pytest.raises(ExceptionGroup) as caught:
                await see_it_fail()
            assert caught.group_contains(KeyError)
            await sound.call(trio.lowlevel.checkpoint)

    asyncio.run(main())


def test_a_guest_that_is_cancelled_while_it_opens_is_closed_and_ends():
    told, opening = [], asyncio.Event()

    @asynccontextmanager
    async def never_open():
        opening.set()
        try:
            await trio.sleep_forever()
            yield None
        finally:
            told.append("closed")

    async def enter():
        async with trio_guest(never_open):
            pass

    async def main():
        async with asyncio.timeout(LIMIT):
            task = asyncio.ensure_future(enter())
            await opening.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert told == ["closed"]
            async with trio_guest(nothing) as guest:
                await guest.call(trio.lowlevel.checkpoint)

    asyncio.run(main())
