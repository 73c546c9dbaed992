"""A task that outlives the step that began it, on either loop: what an async generator needs to work between yields.

A generator may not hold a nursery open across a yield: whoever leaves it early would close the nursery from another
task. So the work runs beside the program's own tasks, under a scope that the generator ends.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import sniffio
import trio

from muxsim.rollouts.play.own_code import is_cancellation


class Detached:
    """Runs ``work`` in a task of its own until it is done or `end` is called."""

    def __init__(self, work: Callable[[], Awaitable[None]]) -> None:
        self._work = work
        self._scope = anyio.CancelScope()
        self._over = anyio.Event()
        self._failure: BaseException | None = None
        self._task: Any = None
        if sniffio.current_async_library() == "trio":
            trio.lowlevel.spawn_system_task(self._run, context=contextvars.copy_context())
        else:
            self._task = asyncio.get_running_loop().create_task(self._run())  # kept: the loop holds tasks weakly

    async def end(self) -> None:
        """End the work if it goes on, wait until it is over, and raise what it raised."""
        self._scope.cancel()
        with anyio.CancelScope(shield=True):
            await self._over.wait()
        if self._failure is not None:
            raise self._failure

    async def _run(self) -> None:
        try:
            with self._scope:
                await self._work()
        except BaseException as error:  # on trio an exception of such a task would end the program
            if is_cancellation(error):
                raise
            self._failure = error
        finally:
            self._over.set()
