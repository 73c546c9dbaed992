"""trio as a guest of a running asyncio loop, in the same thread. Nothing else in muxsim knows how that is done.

What owns processes is written for trio's nurseries; uvicorn and many trainers run on asyncio. As a guest trio costs no
lock and no thread of ours, and calls go across either way as plain calls.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Generic, TypeVar

import trio
from outcome import Outcome

T = TypeVar("T")
V = TypeVar("V")


class Guest(Generic[V]):
    """A value that lives on trio, for code on asyncio; ``finished`` is done when trio is, even before its time."""

    def __init__(self, value: V, nursery: trio.Nursery, finished: asyncio.Future[None]) -> None:
        self.value = value
        self.finished = finished
        self._nursery = nursery

    async def call(self, function: Callable[..., Awaitable[T]], *args: object) -> T:
        """Run ``function(*args)`` on trio and return or raise what it does; cancelled if the caller is.

        What finishes in spite of its cancellation is returned all the same, so that nothing it made is lost.
        """
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        scope = trio.CancelScope()

        async def run() -> None:
            with scope:
                try:
                    result = await function(*args)
                except Exception as error:  # it belongs to the caller, on the other loop
                    if not future.done():
                        future.set_exception(error)
                    return
                if not future.done():
                    future.set_result(result)
            if not future.done():
                future.cancel()

        self._nursery.start_soon(run)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            scope.cancel()
            await asyncio.wait((future,))
            if future.cancelled():
                raise
            return future.result()  # it had finished: what it made is the caller's to end


@asynccontextmanager
async def trio_guest(
    open_value: Callable[[], AbstractAsyncContextManager[V]], clock: trio.abc.Clock | None = None
) -> AsyncIterator[Guest[V]]:
    """Run ``open_value()`` on trio, by ``clock``, for the length of a block, which runs on asyncio.

    An error of the trio side comes out of the block's end; the block itself is not interrupted by it.
    """
    loop = asyncio.get_running_loop()
    started: asyncio.Future[Guest[V]] = loop.create_future()
    done: asyncio.Future[None] = loop.create_future()
    stop = trio.Event()

    async def supervise() -> None:
        async with open_value() as value, trio.open_nursery() as nursery:
            started.set_result(Guest(value, nursery, done))
            await stop.wait()
            nursery.cancel_scope.cancel()

    def finished(result: Outcome[None]) -> None:
        if not started.done():
            _settle(started, result)
            done.set_result(None)
        else:
            _settle(done, result)

    trio.lowlevel.start_guest_run(
        supervise,
        run_sync_soon_threadsafe=loop.call_soon_threadsafe,
        run_sync_soon_not_threadsafe=loop.call_soon,
        done_callback=finished,
        host_uses_signal_set_wakeup_fd=True,
        clock=clock,
    )
    guest = await started
    try:
        yield guest
    finally:
        stop.set()
        await _uninterrupted(done)


def watch_on_this_loop() -> Callable[[int, Callable[[], None]], Callable[[], None]]:
    """A `transports.interfaces.Watch` by the running asyncio loop, which sees a pipe sooner than its guest does."""
    loop = asyncio.get_running_loop()

    def watch(fd: int, callback: Callable[[], None]) -> Callable[[], None]:
        loop.add_reader(fd, callback)
        return functools.partial(_unwatch, loop, fd)

    return watch


def _unwatch(loop: asyncio.AbstractEventLoop, fd: int) -> None:
    loop.remove_reader(fd)


def _settle(future: asyncio.Future[Any], result: Outcome[None]) -> None:
    try:
        future.set_result(result.unwrap())
    except BaseException as error:  # trio's main task failed: whoever waits for it gets to know
        future.set_exception(error)


async def _uninterrupted(future: asyncio.Future[None]) -> None:
    """Wait for ``future`` whatever happens to the waiting task: processes are being ended meanwhile."""
    cancelled = False
    while not future.done():
        try:
            await asyncio.shield(future)
        except asyncio.CancelledError:
            cancelled = True
    future.result()
    if cancelled:
        raise asyncio.CancelledError
