"""Lines of text over a pipe without a worker thread."""

import contextlib
import os
import stat
from collections import deque

import anyio

# What a pipe holds unless told otherwise.
_MOST_AT_ONCE = 2**16

# Seconds in which calls that came before the end of stdin may still be answered: long for what only computes, and
# short for who waits for this process to end.
_ANSWERING = 2.0


class LineCutter:
    """Cuts bytes into lines of text: without their newlines, what is not UTF-8 replaced. Pure.

    A long line is kept as the pieces that came and joined once, so its cost is linear.
    """

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def feed(self, data: bytes) -> list[str]:
        """The lines that `data` completes."""
        *ends, rest = data.split(b"\n")
        if ends:
            ends[0] = b"".join([*self._pieces, ends[0]])
            self._pieces.clear()
        if rest:
            self._pieces.append(rest)
        return [_text(line) for line in ends]

    def last(self) -> list[str]:
        """At the end: the line that has no newline, if there is one."""
        rest = b"".join(self._pieces)
        self._pieces.clear()
        return [_text(rest)] if rest else []


class PipeReader:
    """The lines that come out of a pipe. `descriptor` is a non-blocking one."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._cutter = LineCutter()
        self._lines: deque[str] = deque()
        self._ended = False

    def __aiter__(self) -> "PipeReader":
        return self

    async def __anext__(self) -> str:
        while not self._lines:
            if self._ended:
                await _let_others_finish()
                raise StopAsyncIteration
            data = await self._read()
            self._ended = not data
            self._lines.extend(self._cutter.feed(data) if data else self._cutter.last())
        return self._lines.popleft()

    async def _read(self) -> bytes:
        while True:
            try:
                return os.read(self._descriptor, _MOST_AT_ONCE)
            except BlockingIOError:
                await anyio.wait_readable(self._descriptor)


class PipeWriter:
    """Writes text into a pipe, for any number of tasks. `descriptor` is a non-blocking one.

    A text whose writer was cancelled when some of it was out is not left in pieces: the rest is before the next text,
    or goes with `drain`.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._rest = memoryview(b"")
        self._turn = anyio.Lock()

    async def write(self, text: str) -> None:
        """Returns when all of it is in the pipe. Raises: BrokenPipeError: nobody reads it any more."""
        while self._rest:
            await self.drain()
        self._rest = memoryview(text.encode())
        self._write_some()
        if self._rest:
            await self.drain()

    async def drain(self) -> None:
        """Returns when nothing is left to be written. Raises as `write` does."""
        async with self._turn:
            while self._rest:
                await anyio.wait_writable(self._descriptor)
                self._write_some()

    def _write_some(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._rest = self._rest[os.write(self._descriptor, self._rest) :]


def without_blocking(descriptor: int, flags: int) -> int | None:
    """Another descriptor of the same pipe, non-blocking; None if it is no pipe, or there is no way to get one.

    The pipe is opened once more, since O_NONBLOCK is a property of the open file, which whoever gave it to this
    process may share: a shell and what it starts next, for example.
    """
    if not stat.S_ISFIFO(os.fstat(descriptor).st_mode):
        return None  # poll knows no regular files, and a terminal or a socket is not for a thousand sessions
    try:
        return os.open(f"/proc/self/fd/{descriptor}", flags | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:  # no /proc, or a pipe of another user
        return None


async def _let_others_finish() -> None:
    """Lets the calls that came before be answered: the SDK cancels what has no answer yet when the lines end."""
    with anyio.move_on_after(_ANSWERING):
        await anyio.wait_all_tasks_blocked()


def _text(line: bytes) -> str:
    return line.decode("utf-8", "replace")
