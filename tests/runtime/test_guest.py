"""Calls from asyncio to trio, in one thread."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest
import trio
import uvloop

from muxsim.runtime.guest import GuestEnded, trio_guest

LIMIT = 60


@asynccontextmanager
async def nothing():
    yield None


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def on_asyncio(request):
    """Runs ``test(guest)`` on asyncio, with trio as its guest."""

    def run(test):
        async def main():
            async with asyncio.timeout(LIMIT), trio_guest(nothing) as guest:
                await test(guest)

        run_alone(main, request.param)

    return run


def run_alone(main, loop_factory=None):
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(main())


async def make_when_cancelled(begun):
    """What finishes in spite of its cancellation, and only then."""
    begun.set()
    try:
        await trio.sleep_forever()
    except trio.Cancelled:
        return "made"


def test_a_call_returns_and_raises_what_happens_on_trio(on_asyncio):
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


def test_a_cancelled_call_is_cancelled_on_trio_before_its_caller_goes_on(on_asyncio):
    told, begun, cleaning, clean = [], asyncio.Event(), asyncio.Event(), trio.Event()

    async def wait():
        begun.set()
        try:
            await trio.sleep_forever()
        finally:
            cleaning.set()
            with trio.CancelScope(shield=True):
                await clean.wait()
            told.append("cleaned up")

    async def test(guest):
        task = asyncio.ensure_future(guest.call(wait))
        await begun.wait()
        task.cancel()
        await cleaning.wait()
        assert not task.done()
        clean.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert told == ["cleaned up"]

    on_asyncio(test)


def test_what_finishes_in_spite_of_its_cancellation_is_not_lost(on_asyncio):
    """Or nobody would know of the session that it opened, and nobody could end it."""
    begun = asyncio.Event()

    async def test(guest):
        task = asyncio.ensure_future(guest.call(make_when_cancelled, begun))
        await begun.wait()
        task.cancel()
        assert await task == "made"

    on_asyncio(test)


def test_many_calls_go_on_at_once(on_asyncio):
    begun, all_have = [], trio.Event()

    async def echo(number):
        begun.append(number)
        if len(begun) == 200:
            all_have.set()
        await all_have.wait()
        return number

    async def test(guest):
        assert await asyncio.gather(*(guest.call(echo, number) for number in range(200))) == list(range(200))

    on_asyncio(test)


# ---- a cancellation is neither swallowed nor lost


def test_a_caller_that_was_cancelled_gets_what_was_made_and_is_cancelled_at_its_next_wait(on_asyncio):
    begun, got = asyncio.Event(), []

    async def test(guest):
        async def caller():
            got.append(await guest.call(make_when_cancelled, begun))
            await asyncio.Event().wait()

        task = asyncio.ensure_future(caller())
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert got == ["made"]

    on_asyncio(test)


def test_being_cancelled_twice_does_not_cut_short_what_finishes_in_spite_of_it(on_asyncio):
    begun, twice, got = asyncio.Event(), trio.Event(), []

    async def make():
        begun.set()
        with trio.CancelScope(shield=True):
            await twice.wait()
        return "made"

    async def test(guest):
        async def caller():
            got.append(await guest.call(make))
            await asyncio.Event().wait()

        task = asyncio.ensure_future(caller())
        await begun.wait()
        task.cancel()
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.sleep(0)
        twice.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert got == ["made"]

    on_asyncio(test)


def test_a_cancellation_that_its_owner_has_taken_back_reaches_nobody_else(on_asyncio):
    async def make(limit):
        limit.reschedule(0)
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            return "made"

    async def test(guest):
        async with asyncio.timeout(None) as limit:
            assert await guest.call(make, limit) == "made"
        assert limit.expired()
        for _ in range(3):
            await asyncio.sleep(0)  # it would come here
        assert asyncio.current_task().cancelling() == 0

    on_asyncio(test)


def test_an_error_in_spite_of_a_cancellation_is_raised_and_the_cancellation_kept(on_asyncio):
    begun, got = asyncio.Event(), []

    async def fail():
        begun.set()
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            raise KeyError("mine") from None

    async def test(guest):
        async def caller():
            try:
                await guest.call(fail)
            except KeyError as error:
                got.append(error)
            await asyncio.Event().wait()

        task = asyncio.ensure_future(caller())
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert len(got) == 1

    on_asyncio(test)


def test_what_a_call_cancels_on_trio_for_itself_is_its_own(on_asyncio):
    async def cancel_itself():
        with trio.CancelScope() as scope:
            scope.cancel()
            await trio.sleep_forever()
        return scope.cancelled_caught

    async def test(guest):
        assert await guest.call(cancel_itself) is True

    on_asyncio(test)


def test_a_cancellation_of_the_other_loop_that_comes_out_of_a_call_ends_that_call_alone(on_asyncio):
    async def fail():
        raise asyncio.CancelledError

    async def test(guest):
        with pytest.raises(asyncio.CancelledError):
            await guest.call(fail)
        assert not guest.finished.done()

    on_asyncio(test)


# ---- across the end of the guest


async def wait_on_trio(begun):
    begun.set()
    await trio.sleep_forever()


async def clean_up_with_an_error(begun):
    begun.set()
    try:
        await trio.sleep_forever()
    finally:
        raise KeyError("on its way out")


@pytest.mark.parametrize("function", [wait_on_trio, clean_up_with_an_error])
@pytest.mark.parametrize("loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_a_call_that_the_end_of_the_guest_cuts_short_says_so(function, loop_factory):
    async def main():
        async with asyncio.timeout(LIMIT):
            async with trio_guest(nothing) as guest:
                begun = asyncio.Event()
                call = asyncio.ensure_future(guest.call(function, begun))
                await begun.wait()
                assert not call.done()
            with pytest.raises((GuestEnded, KeyError)):
                await call

    run_alone(main, loop_factory)


@pytest.mark.parametrize("loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_a_call_after_the_end_of_the_guest_says_so(loop_factory):
    async def main():
        async with asyncio.timeout(LIMIT):
            async with trio_guest(nothing) as guest:
                pass
            with pytest.raises(GuestEnded):
                await guest.call(wait_on_trio, asyncio.Event())

    run_alone(main, loop_factory)


def test_a_call_made_while_the_guest_ends_returns_or_says_so():
    ending, go_on = asyncio.Event(), trio.Event()

    @asynccontextmanager
    async def slow_to_end():
        yield
        ending.set()
        with trio.CancelScope(shield=True):
            await go_on.wait()

    async def main():
        async with asyncio.timeout(LIMIT):
            async with trio_guest(slow_to_end) as guest:

                async def call_late():
                    await ending.wait()
                    try:
                        with pytest.raises(GuestEnded):
                            await guest.call(wait_on_trio, asyncio.Event())
                    finally:
                        go_on.set()

                calling = asyncio.ensure_future(call_late())
            await calling

    run_alone(main)


def test_a_call_across_a_crash_of_the_guest_says_so_and_its_block_raises_the_crash():
    @asynccontextmanager
    async def crashing():
        async with trio.open_nursery() as nursery:
            yield nursery

    async def crash():
        raise ZeroDivisionError

    async def host():
        async with trio_guest(crashing) as guest:
            begun = asyncio.Event()
            call = asyncio.ensure_future(guest.call(wait_on_trio, begun))
            await begun.wait()
            guest.value.start_soon(crash)
            with pytest.raises(GuestEnded):
                await call

    async def main():
        async with asyncio.timeout(LIMIT):
            with pytest.raises(BaseExceptionGroup) as raised:
                await host()
            assert raised.group_contains(ZeroDivisionError)

    run_alone(main)


def test_a_caller_cancelled_while_the_guest_ends_is_cancelled_or_told_and_never_hangs():
    async def main():
        async with asyncio.timeout(LIMIT):
            async with trio_guest(nothing) as guest:
                begun = asyncio.Event()
                call = asyncio.ensure_future(guest.call(wait_on_trio, begun))
                await begun.wait()
                call.cancel()
            with pytest.raises((asyncio.CancelledError, GuestEnded)):
                await call

    run_alone(main)


# ---- several guests of one loop


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
