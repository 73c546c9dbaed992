"""trio as a guest of a running asyncio loop, in the same thread. Nothing else in muxsim knows how that is done.

What owns processes is written for trio's nurseries; uvicorn and many trainers run on asyncio. As a guest trio costs no
lock and no thread of ours, and calls go across either way as plain calls.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Final, Generic, TypeVar
from weakref import WeakKeyDictionary

import trio
from outcome import Outcome

from muxsim.errors import Busy

T = TypeVar("T")
V = TypeVar("V")


# Seconds after which whoever asked may look for the muxsim that takes the place of this one.
_ENDED_RETRY: Final = 5.0


class GuestEnded(Busy):
    """trio has ended, or is about to, and with it what was called there."""

    def __init__(self) -> None:
        super().__init__("this muxsim is shutting down", _ENDED_RETRY)


class Guest(Generic[V]):
    """A value that lives on trio, for code on asyncio; ``finished`` is done when trio is, even before its time."""

    def __init__(self, value: V, nursery: trio.Nursery, finished: asyncio.Future[None]) -> None:
        self.value = value
        self.finished = finished
        self._nursery = nursery

    async def call(self, function: Callable[..., Awaitable[T]], *args: object) -> T:
        """Run ``function(*args)`` on trio and return or raise what it does; cancelled if the caller is.

        What finishes in spite of its cancellation is returned or raised all the same, so that nothing it made is lost;
        the caller's own cancellation then comes at its next wait. Raises `GuestEnded` for what trio's end cut short.
        """
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        scope = trio.CancelScope()
        if self.finished.done():
            raise GuestEnded
        try:
            self._nursery.start_soon(_carry, future, scope, function, args)
        except RuntimeError:  # it takes no more tasks
            raise GuestEnded from None
        was_cancelled = await self._outlast(future, scope)
        if not future.done():
            raise GuestEnded
        if was_cancelled and not future.cancelled():
            _cancel_at_next_wait()
        return future.result()

    async def _outlast(self, future: asyncio.Future[T], scope: trio.CancelScope) -> bool:
        """Wait until a call is over, or trio is; whether the caller was cancelled meanwhile."""
        was_cancelled = False
        while not (future.done() or self.finished.done()):
            try:
                await asyncio.wait((future, self.finished), return_when=asyncio.FIRST_COMPLETED)
            except asyncio.CancelledError:
                was_cancelled = True
                scope.cancel()
        return was_cancelled


async def _carry(
    future: asyncio.Future[T], scope: trio.CancelScope, function: Callable[..., Awaitable[T]], args: tuple[object, ...]
) -> None:
    """On trio: run a call and settle its future, whatever becomes of either."""
    error: BaseException | None = None
    try:
        with scope:
            result = await function(*args)
            if not future.done():
                future.set_result(result)
    except (trio.Cancelled, BaseExceptionGroup) as cut_short:  # trio ends: its own cancellation is for nobody else
        error = cut_short if isinstance(cut_short, ExceptionGroup) else GuestEnded()
    except asyncio.CancelledError:  # of something on the other loop that it waited for by a plain call
        pass
    except Exception as its_own:  # it belongs to the caller, on the other loop
        error = its_own
    if future.done():
        return
    if error is None:
        future.cancel()
    else:
        future.set_exception(error)


def _cancel_at_next_wait() -> None:
    """Cancel the running task anew when it waits next, unless whoever cancelled it has taken that back by then."""
    task = asyncio.current_task()
    assert task is not None
    wanted = task.cancelling()

    def cancel() -> None:
        if wanted and task.cancelling() >= wanted:
            task.uncancel()
            task.cancel()

    asyncio.get_running_loop().call_soon(cancel)


class _Host:
    """trio's run on one asyncio loop, which its guests share: a thread has room for one. The last to leave ends it."""

    def __init__(self, loop: asyncio.AbstractEventLoop, clock: trio.abc.Clock | None) -> None:
        self.guests = 0
        self.started: asyncio.Future[trio.Nursery] = loop.create_future()
        self.finished: asyncio.Future[None] = loop.create_future()
        self._stop = trio.Event()
        trio.lowlevel.start_guest_run(
            self._run,
            run_sync_soon_threadsafe=loop.call_soon_threadsafe,
            run_sync_soon_not_threadsafe=loop.call_soon,
            done_callback=self._has_finished,
            host_uses_signal_set_wakeup_fd=True,
            clock=clock,
        )

    async def _run(self) -> None:
        async with trio.open_nursery() as nursery:
            self.started.set_result(nursery)
            await self._stop.wait()

    def _has_finished(self, result: Outcome[None]) -> None:
        if not self.started.done():
            _settle(self.started, result)
            self.finished.set_result(None)
        else:
            _settle(self.finished, result)

    async def leave(self) -> None:
        """One guest less; without any, wait for trio's end."""
        self.guests -= 1
        if not self.guests:
            self._stop.set()
            await _uninterrupted(self.finished)


_hosts: WeakKeyDictionary[asyncio.AbstractEventLoop, _Host] = WeakKeyDictionary()


async def _enter(clock: trio.abc.Clock | None) -> _Host:
    """The host of the running loop, with one guest more."""
    loop = asyncio.get_running_loop()
    while (host := _hosts.get(loop)) is not None and not host.guests and not host.finished.done():
        await asyncio.wait((host.finished,))  # its last guest has gone, and it is about to end
    if host is None or not host.guests:
        host = _hosts[loop] = _Host(loop, clock)
    host.guests += 1
    return host


@asynccontextmanager
async def trio_guest(
    open_value: Callable[[], AbstractAsyncContextManager[V]], clock: trio.abc.Clock | None = None
) -> AsyncIterator[Guest[V]]:
    """Run ``open_value()`` on trio for the length of a block, which runs on asyncio.

    An error of the trio side comes out of the block's end; the block itself is not interrupted by it. Guests of one
    loop share one run of trio, by the ``clock`` of the first.
    """
    loop = asyncio.get_running_loop()
    started: asyncio.Future[Guest[V]] = loop.create_future()
    done: asyncio.Future[None] = loop.create_future()
    stop, scope = trio.Event(), trio.CancelScope()

    async def open_and_wait() -> None:
        async with open_value() as value, trio.open_nursery() as nursery:
            started.set_result(Guest(value, nursery, done))
            await stop.wait()
            nursery.cancel_scope.cancel()

    async def supervise() -> None:
        failure = None
        with scope:
            try:
                await open_and_wait()
            except Exception as error:  # this guest's own; the others of the loop go on
                failure = error
        settle(failure)

    def settle(failure: BaseException | None) -> None:
        if failure is not None and not done.done():
            (done if started.done() else started).set_exception(failure)
        if not done.done():
            done.set_result(None)
        started.cancel()

    host = await _enter(clock)
    host.finished.add_done_callback(lambda over: settle(over.exception()))  # before its time, and the guest with it
    try:
        (await asyncio.shield(host.started)).start_soon(supervise)
        try:
            yield await asyncio.shield(started)
        except BaseException:
            if not started.done():
                scope.cancel()
            raise
        finally:
            stop.set()
            await _uninterrupted(done)
    finally:
        await host.leave()


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
