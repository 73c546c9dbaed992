"""The bell, which wakes whoever waits on either loop."""

import asyncio

import trio
import trio.testing
from asyncio_tests import on_asyncio

from muxsim.runtime.bell import Bell


async def test_a_bell_wakes_every_task_of_trio_that_waits_and_only_those():
    bell, woken = Bell(), []
    bell.ring()

    async def wait(name):
        await bell.wait()
        woken.append(name)

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            for name in ("a", "b"):
                nursery.start_soon(wait, name)
            await trio.testing.wait_all_tasks_blocked()
            assert woken == []
            bell.ring()
            await trio.testing.wait_all_tasks_blocked()
            assert sorted(woken) == ["a", "b"]
            nursery.start_soon(wait, "late")
            await trio.testing.wait_all_tasks_blocked()
            assert len(woken) == 2
            bell.ring()
    assert woken[2] == "late"


@on_asyncio
async def test_a_bell_wakes_a_task_of_asyncio():
    bell = Bell()
    waiting = asyncio.create_task(bell.wait())
    await asyncio.sleep(0)
    assert not waiting.done()
    bell.ring()
    await waiting


def test_a_bell_wakes_tasks_of_both_loops_at_once_whoever_came_first():
    """trio runs as a guest of asyncio, in the same thread."""
    woken = []

    async def wait(bell, name):
        await bell.wait()
        woken.append(name)

    async def main(first):
        bell, done = Bell(), asyncio.get_running_loop().create_future()
        trio_waits, asyncio_waits = asyncio.Event(), trio.Event()

        async def on_trio():
            with trio.fail_after(60):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(wait, bell, "trio")
                    await trio.testing.wait_all_tasks_blocked()
                    trio_waits.set()
                    await asyncio_waits.wait()
                    bell.ring()

        waiting = asyncio.ensure_future(wait(bell, "asyncio")) if first == "asyncio" else None
        await asyncio.sleep(0)
        trio.lowlevel.start_guest_run(
            on_trio,
            run_sync_soon_threadsafe=asyncio.get_running_loop().call_soon_threadsafe,
            done_callback=done.set_result,
        )
        await asyncio.wait_for(trio_waits.wait(), 60)
        waiting = waiting or asyncio.ensure_future(wait(bell, "asyncio"))
        await asyncio.sleep(0)
        asyncio_waits.set()
        (await asyncio.wait_for(done, 60)).unwrap()
        await asyncio.wait_for(waiting, 60)

    for first in ("asyncio", "trio"):
        woken.clear()
        asyncio.run(main(first))
        assert sorted(woken) == ["asyncio", "trio"]


async def test_a_bell_forgets_who_has_given_up_waiting():
    bell = Bell()
    for _ in range(3):
        with trio.move_on_after(0):
            await bell.wait()
    assert not bell._waiting
