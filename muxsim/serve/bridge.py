"""From ASGI handlers, on uvicorn's asyncio loop, to the supervisor, on trio in the same thread."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar, TypeVarTuple

import trio

T = TypeVar("T")
Args = TypeVarTuple("Args")


class Bridge:
    """Runs async functions on trio for handlers that wait for them on asyncio."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery

    async def call(self, function: Callable[..., Awaitable[T]], *args: object) -> T:
        """Run ``function(*args)`` on trio and return or raise what it does; cancelled if the caller is."""
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
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():
                return future.result()  # too late: what was made has to be taken by somebody
            scope.cancel()
            raise
