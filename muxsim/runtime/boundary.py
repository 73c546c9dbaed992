"""What may fail alone: optional parts behind one boundary. One that breaks is told of, switched off, and not missed.

An essential part that fails takes down what depends on it, as it should. What only makes something faster or tells
about it must not: its tasks run on a `Part`, and whoever calls it from outside goes through `optional`.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, TypeVar, cast
from weakref import WeakSet

import trio

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")

Tell = Callable[[str, BaseException], None]
"""Takes the name of a part that has failed, and how. It must not raise."""


class Part:
    """One optional part. It works until something in it fails, which switches it off for good, with its own parts.

    Its tasks are cancelled then, and ``on_off`` is called, to let go of what it holds.
    """

    def __init__(self, name: str, nursery: trio.Nursery, tell: Tell, on_off: Callable[[], None] = lambda: None) -> None:
        self.name = name
        self.is_off = False
        self._nursery = nursery
        self._told = tell
        self._on_off = on_off
        self._scopes: set[trio.CancelScope] = set()
        self._parts: WeakSet[Part] = WeakSet()

    def __repr__(self) -> str:
        return f"<Part {self.name!r}: {'off' if self.is_off else f'{len(self._scopes)} tasks'}>"

    def part(self, name: str, on_off: Callable[[], None] = lambda: None) -> Part:
        """A part of this one, which may fail without it, but goes with it."""
        part = Part(name, self._nursery, self._told, on_off)
        self._parts.add(part)
        return part

    def start_soon(self, function: Callable[..., Awaitable[object]], *args: object) -> None:
        """Run a task that is cancelled when the part is switched off; nothing where it is off already."""
        if not self.is_off:
            self._nursery.start_soon(self._carry, trio.CancelScope(), function, args)

    async def _carry(
        self, scope: trio.CancelScope, function: Callable[..., Awaitable[object]], args: tuple[object, ...]
    ) -> None:
        self._scopes.add(scope)
        try:
            with self.alone(), scope:
                if self.is_off:
                    scope.cancel()
                await function(*args)
        finally:
            self._scopes.discard(scope)

    def attempt(self, function: Callable[..., T], *args: object) -> T | None:
        """What a plain call returns; None if the part is off, or fails in it."""
        if not self.is_off:
            with self.alone():
                return function(*args)
        return None

    @contextmanager
    def alone(self, passing: tuple[type[Exception], ...] = ()) -> Iterator[None]:
        """Go on after this block if it fails, without the part. What is of a type in ``passing`` is no failure."""
        try:
            yield
        except passing:
            raise
        except Exception as error:  # whatever it is, it is the part's own
            self._fail(error)
        except BaseExceptionGroup as group:  # of a nursery that failed as it was cancelled
            failures, rest = group.split(Exception)
            if failures is not None:
                self._fail(failures)
            if rest is not None:
                raise rest from None

    def _fail(self, error: Exception) -> None:
        self._told(self.name, error)
        self.switch_off()

    def switch_off(self) -> None:
        """End all of it."""
        if self.is_off:
            return
        self.is_off = True
        for scope in self._scopes:
            scope.cancel()
        for part in list(self._parts):
            part.switch_off()
        try:
            self._on_off()
        except Exception as error:  # likewise
            self._told(f"the end of {self.name}", error)


class Boundary:
    """Where optional parts live. Open it with `open_boundary`."""

    def __init__(self, nursery: trio.Nursery, tell: Tell) -> None:
        self._nursery = nursery
        self._told = tell

    def part(self, name: str, on_off: Callable[[], None] = lambda: None) -> Part:
        """A part of this name, by which is told that it has failed; ``on_off`` is called if it is switched off."""
        return Part(name, self._nursery, self._told, on_off)


def optional(otherwise: Callable[[], Any], *, passing: tuple[type[Exception], ...] = ()) -> Callable[[F], F]:
    """Of a method of an object with a ``part``: how the rest of muxsim calls into it.

    It gives what ``otherwise`` makes where the part is off, or fails in it; exceptions in ``passing`` are its answer.
    """

    def decorate(method: F) -> F:
        @functools.wraps(method)
        def call(self: Any, *args: Any, **named: Any) -> Any:
            if not self.part.is_off:
                with self.part.alone(passing):
                    return method(self, *args, **named)
            return otherwise()

        @functools.wraps(method)
        async def call_async(self: Any, *args: Any, **named: Any) -> Any:
            if not self.part.is_off:
                with self.part.alone(passing):
                    return await method(self, *args, **named)
            return otherwise()

        return cast("F", call_async if inspect.iscoroutinefunction(method) else call)

    return decorate


@asynccontextmanager
async def background() -> AsyncIterator[trio.Nursery]:
    """A nursery for what serves a block, which is not its own: the block's exception is not wrapped in a group."""
    service = trio.open_nursery()
    nursery = await service.__aenter__()
    try:
        yield nursery
    finally:
        await service.__aexit__(None, None, None)


async def first_of(*waits: Callable[[], Awaitable[object]]) -> None:
    """Wait for the first of these, and leave the others."""
    async with trio.open_nursery() as nursery:

        async def wait(function: Callable[[], Awaitable[object]]) -> None:
            await function()
            nursery.cancel_scope.cancel()

        for function in waits:
            nursery.start_soon(wait, function)


@asynccontextmanager
async def open_boundary(tell: Tell) -> AsyncIterator[Boundary]:
    """A boundary for the length of a block, after which no task is left behind it."""
    async with background() as nursery:
        try:
            yield Boundary(nursery, tell)
        finally:
            nursery.cancel_scope.cancel()
