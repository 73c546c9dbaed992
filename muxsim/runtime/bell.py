"""A bell for tasks of two loops in one thread."""

from __future__ import annotations

import anyio


class Bell:
    """Wakes the tasks that wait for it, on whichever loops they run; ringing it is a plain call from any of them.

    trio runs as a guest in the same thread, so the ringer, and other waiters too, may be on another loop than a waiter.
    """

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: list[anyio.Event] = []  # a session has two, and each set is four times the size

    def ring(self) -> None:
        """Wake every task waiting now."""
        if self._waiting:
            waiting, self._waiting = self._waiting, []
            for event in waiting:
                event.set()

    async def wait(self) -> None:
        """Wait for the next ring."""
        event = anyio.Event()  # each its own: one belongs to the loop that it was made on
        self._waiting.append(event)
        try:
            await event.wait()
        finally:
            if event in self._waiting:
                self._waiting.remove(event)
