"""Pools for programs that are not asynchronous: each runs on trio in a thread of its own, and ends with its last user.

A thread does not survive a fork, so nothing that was made before one is used after it.
"""

from __future__ import annotations

import asyncio
import atexit
import contextvars
import logging
import os
import threading
import weakref
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, suppress
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Final, TypeVar, cast

import anyio
import anyio.lowlevel
import outcome
import sniffio
import trio

from muxsim.errors import MuxsimError
from muxsim.rollouts.environments.environment import EnvironmentPool
from muxsim.rollouts.environments.pool import open_pool
from muxsim.rollouts.environments.remote import connect

T = TypeVar("T")
Closing = Callable[[], Callable[[EnvironmentPool], Awaitable[object]] | None]
"""Finds what closes everything that somebody has open, if there is anything."""
Work = tuple[Callable[..., Awaitable[Any]], tuple[Any, ...]]
"""A coroutine function, which gets the pool, and its other arguments."""
Tell = Callable[[int, Any, Exception | None], object]
"""Takes what the work at a place has returned, or the Exception that it has raised."""
Source = str | Path | EnvironmentPool
"""The path of a config, the URL of a muxsim that serves, or a pool that is open."""

_Key = tuple[int, str, str | None]
"""The process, what is open in it, and with whose token."""

_log: Final = logging.getLogger(__name__)

URLS: Final = ("http://", "https://", "unix:")


class NotHere(MuxsimError):
    """Something was used in another process than the one that made it, or from where its pool cannot be waited for."""


class Running:
    """A pool with the loop that it lives on. Made by `running`; `release` it once for each time."""

    def __init__(
        self, open: Callable[[], AbstractAsyncContextManager[EnvironmentPool]], name: str, key: _Key | None = None
    ) -> None:
        self.name = name
        self._key = key
        self.known: dict[str, list[Any]] = {}
        """What its users have found out about its environments, for each other."""
        self._pid = os.getpid()
        self._users = 0
        self._stopped = False
        self._ready: Future[EnvironmentPool] = Future()
        self._thread = threading.Thread(target=self._run, args=(open,), name=f"muxsim {name}", daemon=True)
        self._tidier = _tidier()

    def __repr__(self) -> str:
        return f"<Running {self.name} for {self._users}>"

    def call(self, function: Callable[..., Awaitable[T]], *args: Any) -> T:
        """Run a coroutine function with the pool before its arguments, and wait for what it returns."""
        told: SimpleQueue[tuple[T, Exception | None]] = SimpleQueue()
        self.begin([(function, args)], lambda _, value, error: told.put((value, error)))
        value, error = told.get()
        try:
            if error is not None:
                raise error
            return value
        finally:
            del error  # it has this frame in its traceback, and so whoever calls

    def call_all(self, works: Sequence[Work]) -> list[Any]:
        """Run all of these at once, and wait for them: what each has returned, or the Exception that it has raised."""
        results: list[Any] = [None] * len(works)
        left = len(works)
        over: SimpleQueue[list[Any]] = SimpleQueue()

        def tell(place: int, value: Any, error: Exception | None) -> None:
            nonlocal left, results
            results[place] = value if error is None else error
            left -= 1
            if not left:  # the caller is woken once, and not for each
                over.put(results)
                results = []  # an error has this in its frames, and so would have itself

        self.begin(works, tell)
        return over.get()

    def start(self, function: Callable[..., Awaitable[T]], *args: Any) -> Future[T]:
        """The same as `call` without waiting."""
        done: Future[T] = Future()
        waiting = [done]  # until it is told: an error has this in its frames, and so would have itself

        def tell(_: int, value: T, error: Exception | None) -> None:
            if error is None:
                waiting.pop().set_result(value)
            else:
                waiting.pop().set_exception(error)  # raised where it is waited for

        self.begin([(function, args)], tell)
        return done

    def begin(self, works: Sequence[Work], tell: Tell) -> None:
        """Begin all of these in one crossing of threads, and do not wait: ``tell`` is called on the pool's loop."""
        pool = self._here()
        # What is under way when the caller's spans are, belongs to them.
        context = contextvars.copy_context()

        async def work(place: int, function: Callable[..., Awaitable[Any]], args: tuple[Any, ...]) -> None:
            try:
                value = await function(pool, *args)
            except Exception as error:  # raised where it is waited for
                tell(place, None, _without_our_frame(error))
            except BaseException:
                tell(place, None, self._ended())
                raise
            else:
                tell(place, value, None)

        def begin() -> None:
            for place, (function, args) in enumerate(works):
                try:
                    context.run(self._tasks.start_soon, work, place, function, args)
                except RuntimeError:  # it ends just now
                    tell(place, None, self._ended())

        try:
            self._loop.run_sync_soon(begin)
        except trio.RunFinishedError:
            raise self._ended() from None

    async def wait(self, function: Callable[..., Awaitable[T]], *args: Any) -> T:
        """The same as `call` for programs that are asynchronous, on whatever loop.

        Where the caller is cancelled, so is the function, and what it has returned all the same is not lost.
        """
        pool = self._here()
        done = anyio.Event()
        awake = _setter(done)
        scope: anyio.CancelScope | None = None
        given_up = False
        result: outcome.Maybe[T] = outcome.Error(self._ended())

        async def work() -> None:
            nonlocal scope, result
            try:
                with anyio.CancelScope() as scope:
                    if not given_up:
                        result = await outcome.acapture(function, pool, *args)
            finally:
                awake()

        def begin() -> None:
            try:
                self._tasks.start_soon(work)
            except RuntimeError:  # it ends just now
                awake()

        def give_up() -> None:
            nonlocal given_up
            given_up = True
            if scope is not None:
                scope.cancel()

        try:
            self._loop.run_sync_soon(begin)
        except trio.RunFinishedError:
            result.unwrap()
        try:
            await done.wait()
        except anyio.get_cancelled_exc_class():
            self._loop.run_sync_soon(give_up)
            with anyio.CancelScope(shield=True):
                await done.wait()
            if isinstance(result, outcome.Value):
                return result.unwrap()
            raise
        return result.unwrap()

    async def aside(self, function: Callable[..., Awaitable[object]], *args: Any) -> None:
        """From the pool's own loop: do this too, which nobody waits for. What it raises is logged."""
        self._tasks.start_soon(_logged, function, *args)

    def finish(self, closing: Closing) -> None:
        """Close what somebody has open, and be without them."""
        with suppress(NotHere):  # in a fork: it is the parent's
            try:
                if (close := closing()) is not None:
                    self.call(close)
            finally:
                self.release()

    def leave(self, closing: Closing) -> None:
        """The same for a garbage collector, which may come in the middle of anything: soon, and not here."""
        if self._pid == os.getpid():
            self._tidier.left.put(partial(self._left, closing))

    def _left(self, closing: Closing) -> None:
        try:
            if (close := closing()) is not None:
                self.start(partial(_logged, close))
        finally:
            self.release()

    def use(self) -> Running:
        """One more user. Raises what opening the pool raises."""
        if not self._users:
            self._thread.start()
        self._users += 1
        try:
            self._here()
        except BaseException:
            self.release()
            raise
        return self

    def release(self) -> None:
        """One user less. With the last one all sessions end, and their processes."""
        self._users -= 1
        if self._users <= 0:
            self.stop()

    def stop(self) -> None:
        """End it, whoever uses it. Calling it again is harmless."""
        self._stopped = True
        if self._key is not None:
            _all.pop(self._key, None)
        if self._pid == os.getpid() and self._ready.done() and self._ready.exception() is None:
            with suppress(trio.RunFinishedError):
                self._loop.run_sync_soon(self._over.set)
            if threading.current_thread() is not self._thread:
                self._thread.join()

    def require_same_process(self) -> None:
        """Raises `NotHere` in a fork of the process that opened it: whoever waits there for its loop waits for ever."""
        if self._pid != os.getpid():
            raise NotHere(f"{self.name} was opened before this process was forked: make environments after the fork")

    def _here(self) -> EnvironmentPool:
        self.require_same_process()
        if threading.current_thread() is self._thread:
            raise NotHere(f"{self.name} cannot wait for itself")
        if self._stopped:
            raise self._ended()
        return self._ready.result()

    def _ended(self) -> NotHere:
        return NotHere(f"{self.name} has ended")

    def _run(self, open: Callable[[], AbstractAsyncContextManager[EnvironmentPool]]) -> None:
        async def serve() -> None:
            async with open() as pool, trio.open_nursery() as self._tasks:
                self._loop, self._over = trio.lowlevel.current_trio_token(), trio.Event()
                self._ready.set_result(pool)
                await self._over.wait()

        try:
            anyio.run(serve, backend="trio")
        except BaseException as error:  # whoever waits for it is told
            if self._ready.done():
                raise
            self._ready.set_exception(error)


class _Open(Running):
    """A pool that somebody has opened: only from a worker thread of its own loop can it be waited for."""

    def __init__(self, pool: EnvironmentPool) -> None:
        super().__init__(_nothing, repr(pool))
        self._pool = pool
        self._token: Any = None

    def call(self, function: Callable[..., Awaitable[T]], *args: Any) -> T:
        run: Any = anyio.from_thread.run
        try:
            if self._token is None:
                self._token = anyio.from_thread.run_sync(anyio.lowlevel.current_token)
            return cast("T", run(function, self._pool, *args))
        except RuntimeError as error:
            if "worker thread" not in str(error):
                raise
            raise NotHere(
                f"{self.name} is open on a loop: use this inside anyio.to_thread.run_sync, or give the config's path"
            ) from None

    def begin(self, works: Sequence[Work], tell: Tell) -> None:
        self.call(all_at_once, works, tell)

    async def wait(self, function: Callable[..., Awaitable[T]], *args: Any) -> T:
        """`Running.wait`, on the loop that the pool is open on."""
        return await function(self._pool, *args)

    async def aside(self, function: Callable[..., Awaitable[object]], *args: Any) -> None:
        """`Running.aside`, but waited for: there are no tasks on that loop which are ours."""
        await _logged(function, *args)

    def use(self) -> Running:
        return self

    def release(self) -> None:
        """It is not ours to end."""

    def _left(self, closing: Closing) -> None:
        close, run = closing(), cast("Any", anyio.from_thread.run)
        if close is not None and self._token is not None:
            run(partial(_logged, close), self._pool, token=self._token)


class Use:
    """Somebody's use of a pool, with what they have open: over when they say so, or when nobody has them any more.

    ``closing`` may not hold on to the ``user``. The pool is to be without this user then, as after `Running.release`.
    """

    def __init__(self, user: object, pool: Running, closing: Closing) -> None:
        self._pool, self._closing = pool, closing
        self._finalizer = weakref.finalize(user, pool.leave, closing)

    @property
    def alive(self) -> bool:
        """Whether it is not over."""
        return self._finalizer.alive

    def end(self) -> None:
        """Close everything, and return when it is. Calling it again is harmless."""
        if self._finalizer.detach() is not None:
            self._pool.finish(self._closing)


class _Tidier:
    """Does in a thread of its own what a garbage collector has found to be done.

    A collector runs within whatever allocates something, with any lock held: it can neither wait for a loop nor start
    a thread: to put something into a `SimpleQueue` is what it may do.
    """

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.left: SimpleQueue[Callable[[], object]] = SimpleQueue()
        threading.Thread(target=self._run, name="muxsim tidies", daemon=True).start()

    def _run(self) -> None:
        while True:
            work = self.left.get()
            try:
                work()
            except (NotHere, RuntimeError):  # it has ended: then so has all that was in it
                continue
            except Exception:  # nobody is left to get it, and more is to be closed
                _log.exception("what nobody has any more could not be closed")


def _tidier() -> _Tidier:
    """That of this process: a thread does not survive a fork."""
    with _lock:
        if not _tidiers or _tidiers[-1].pid != os.getpid():
            _tidiers[:] = [_Tidier()]
        return _tidiers[-1]


async def all_at_once(pool: EnvironmentPool, works: Sequence[Work], tell: Tell) -> None:
    """Do all of these, and return when they are over."""

    async def do(place: int, function: Callable[..., Awaitable[Any]], args: tuple[Any, ...]) -> None:
        try:
            value = await function(pool, *args)
        except Exception as error:  # told, so that the others go on
            tell(place, None, _without_our_frame(error))
        else:
            tell(place, value, None)

    async with anyio.create_task_group() as group:
        for place, (function, args) in enumerate(works):
            group.start_soon(do, place, function, args)


def _without_our_frame(error: Exception) -> Exception:
    """The frame that caught it knows who is told of it: each would keep the other, and who called, for a collector."""
    return error.with_traceback(error.__traceback__ and error.__traceback__.tb_next)


async def _logged(function: Callable[..., Awaitable[object]], *args: Any) -> None:
    try:
        await function(*args)
    except Exception:  # nobody waits for it
        _log.exception("what nobody has any more could not be closed")


def _setter(event: anyio.Event) -> Callable[[], object]:
    """Sets an event of this loop from any thread."""
    if sniffio.current_async_library() == "trio":
        return partial(trio.lowlevel.current_trio_token().run_sync_soon, event.set)
    return partial(asyncio.get_running_loop().call_soon_threadsafe, event.set)


def _nothing() -> Any:
    raise AssertionError("it is open")


def portable(source: Source) -> Source:
    """A source as any process on this machine finds it; a pool that is open stays what it is."""
    if not isinstance(source, str | Path):
        return source
    text = str(source)
    return text if text.startswith(URLS) else os.path.abspath(text)


def kept(source: Source, token: str | None = None) -> Running:
    """The pool of a source, open until the program ends: for trainers that make an environment for every episode.

    Raises as `running` does.
    """
    key = os.getpid(), str(source), token
    with _lock:
        if key not in _kept:
            _kept[key] = running(source, token=token)
        return _kept[key]


def running(source: Source, *, token: str | None = None) -> Running:
    """The pool of a source, opened if nobody of this process has it open; the caller has to `release` it.

    Raises `ConfigError` or `StartError`: it cannot be opened.
    """
    name = portable(source)
    if not isinstance(name, str):
        return _Open(cast("EnvironmentPool", name))
    open: Any = partial(connect, name, token=token) if name.startswith(URLS) else partial(open_pool, name)
    with _lock:
        key = os.getpid(), name, token
        found = _all.get(key)
        if found is None:
            found = _all[key] = Running(open, name, key)
        return found.use()


_all: Final[dict[_Key, Running]] = {}
_kept: Final[dict[_Key, Running]] = {}
_tidiers: Final[list[_Tidier]] = []
_lock: Final = threading.RLock()


@atexit.register
def _stop_all() -> None:
    for one in list(_all.values()):
        one.stop()
