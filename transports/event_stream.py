"""One event stream to an HTTP client: what waits for its reader, and what one that comes back may ask for again."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Final

from transports.messages import Message

# What is kept for a reader that is not there, or has lost its connection; the newest message is kept whatever its size.
KEPT_BYTES: Final = 1024 * 1024
KEPT_MESSAGES: Final = 256


class EventStream:
    """Messages in order, numbered from 1. One reader at a time; a new reader takes the place of the old one.

    While it is ``attended``, everything stays until it has been taken, and counts as ``backlog``. Unattended, at most
    `KEPT_BYTES` and `KEPT_MESSAGES` are kept and the oldest are dropped (and counted): a client that never opens
    its standing stream, or has left a call's stream, must not stop a session.
    """

    __slots__ = (
        "_kept",
        "_kept_bytes",
        "_next",
        "_reader",
        "_unread",
        "_waiter",
        "attended",
        "dropped",
        "ended",
        "name",
        "on_taken",
    )

    def __init__(self, name: str, on_taken: Callable[[], None], *, attended: bool) -> None:
        self.name = name
        self.attended = attended
        self.on_taken = on_taken
        self.ended = False
        self.dropped = 0
        self._kept: deque[tuple[int, Message, int]] = deque()
        self._kept_bytes = 0
        self._next = 1
        self._unread = 0
        self._reader: object | None = None
        self._waiter: Callable[[], None] | None = None

    def __repr__(self) -> str:
        state = "ended" if self.ended else "attended" if self.attended else "unattended"
        return f"<EventStream {self.name} {state}, {len(self._kept)} kept>"

    @property
    def backlog(self) -> int:
        """Bytes that somebody who is there has not taken yet."""
        return self._unread if self.attended else 0

    def put(self, message: Message, *, last: bool = False) -> None:
        """Add one message; ``last`` ends the stream after it."""
        number = self._kept[-1][0] + 1 if self._kept else self._next
        size = len(message.encode())
        self._kept.append((number, message, size))
        self._kept_bytes += size
        self._unread += size
        self.ended = self.ended or last
        if not self.attended:
            self._trim(keep_unread=False)
        self.wake()

    def end(self) -> None:
        """End the stream after what is queued."""
        self.ended = True
        self.wake()

    def first(self) -> Message | None:
        """The first message that has not been taken, left where it is."""
        index = self._next_index()
        return None if index is None else self._kept[index][1]

    def on_change(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` once, when something is added, the stream ends, or somebody calls `wake`."""
        self._waiter = callback

    async def wait(self, timeout: float) -> None:
        """Wait until there is something to take, the stream has ended, or ``timeout`` seconds have passed."""
        if self.ended or self.first() is not None:
            return
        timer = asyncio.get_running_loop().call_later(timeout, self.wake)
        try:
            await self._wait_change()
        finally:
            timer.cancel()

    async def _wait_change(self) -> None:
        changed = asyncio.get_running_loop().create_future()
        self._waiter = lambda: None if changed.done() else changed.set_result(None)
        await changed

    async def read(self, after: int | None = None) -> AsyncIterator[tuple[int, Message]]:
        """Messages and their numbers until the stream ends; ``after`` goes back (or ahead) to the message behind it."""
        if after is not None and self._kept:
            self._next = min(after, self._kept[-1][0]) + 1
        self.attended = True
        reader = self._reader = object()
        self._unread = sum(size for number, _, size in self._kept if number >= self._next)
        self.wake()
        try:
            while self._reader is reader:
                if (item := self._take()) is not None:
                    yield item
                elif self.ended:
                    return
                else:
                    await self._wait_change()
        finally:
            if self._reader is reader:
                self._reader = None
                self.unread()

    def unread(self) -> None:
        """Nobody is there any more, unless a reader is: one may be lost before it has begun to `read`."""
        if self._reader is None and self.attended:
            self.attended = False
            self._trim(keep_unread=False)
            self.on_taken()

    def _take(self) -> tuple[int, Message] | None:
        index = self._next_index()
        if index is None:
            return None
        number, message, size = self._kept[index]
        self._next = number + 1
        self._unread -= size
        self._trim(keep_unread=True)
        self.on_taken()
        return number, message

    def _next_index(self) -> int | None:
        if not self._kept:
            return None
        index = max(self._next - self._kept[0][0], 0)
        return index if index < len(self._kept) else None

    def _trim(self, *, keep_unread: bool) -> None:
        while len(self._kept) > 1 and (self._kept_bytes > KEPT_BYTES or len(self._kept) > KEPT_MESSAGES):
            number, _, size = self._kept[0]
            if number >= self._next:
                if keep_unread:
                    return
                self.dropped += 1
                self._unread -= size
                self._next = number + 1
            self._kept.popleft()
            self._kept_bytes -= size

    def wake(self) -> None:
        """Wake whoever waits, to look again."""
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            waiter()
