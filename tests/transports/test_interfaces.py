"""What all transports share: the bell, and the fakes that stand in for either side."""

import asyncio

import trio
import trio.testing
from asyncio_tests import on_asyncio

from transports import messages
from transports.errors import LineTooLong
from transports.interfaces import Bell
from transports.memory import MemoryReceiver, MemoryTransport


async def test_a_bell_wakes_every_task_of_trio_that_waits_and_only_those():
    bell, woken = Bell(), []
    bell.ring()

    async def wait(name):
        await bell.wait()
        woken.append(name)

    with trio.fail_after(10):
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


def test_the_memory_transport_keeps_what_is_sent_until_it_is_closed():
    transport = MemoryTransport()
    message = messages.notification("n")
    transport.send(message, 1)
    transport.withdraw(2)
    transport.close()
    transport.send(message)
    assert transport.sent == [(message, 1)]
    assert (transport.withdrawn, transport.closed, transport.congested) == ([2], True, False)


async def test_the_memory_receiver_keeps_what_it_is_told_and_is_always_ready():
    receiver, message, error = MemoryReceiver(), messages.notification("n"), LineTooLong(1)
    assert receiver.ready
    await receiver.wait_ready()
    receiver.receive(message)
    receiver.rejected(b"x", error)
    receiver.drained()
    receiver.disconnected()
    assert (receiver.received, receiver.rejections) == ([message], [(b"x", error)])
    assert (receiver.drains, receiver.gone) == (1, 1)
