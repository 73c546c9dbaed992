"""Calls from asyncio to trio, in one thread."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest
import trio

from muxsim.guest import trio_guest

SOON = 0.05


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
