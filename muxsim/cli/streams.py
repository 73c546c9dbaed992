"""Our own standard streams, which may be closed, break off later, or take only some characters: a command goes on."""

from __future__ import annotations

import errno
import io
import os
import select
import sys
from collections.abc import Callable
from typing import TextIO

# Whoever read has gone: a pipe, a terminal, a socket.
_READER_GONE = frozenset({errno.EPIPE, errno.EIO, errno.ECONNRESET})
_lost: list[int] = []


def settle_standard_streams() -> None:
    """Make stdin, stdout and stderr such that reading and printing are safe. Call it before anything is opened."""
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            # The lowest number that is free: else a socket would get it, and what is printed would go to a client.
            os.open(os.devnull, os.O_RDWR)
            os.set_inheritable(fd, True)
    if sys.stdin is None:
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - for as long as we run
    if sys.stdout is sys.__stdout__:
        sys.stdout = _lasting(1, sys.stdout, "replace", _lose)
    if sys.stderr is sys.__stderr__:
        # There is nowhere to say that nothing can be said.
        sys.stderr = _lasting(2, sys.stderr, "backslashreplace", lambda _: True)


def lost_output() -> str:
    """Why not all that was printed is written; "" if it is, or if nobody reads it any more."""
    sys.stdout.flush()
    return os.strerror(_lost[0]) if _lost else ""


def _lose(number: int) -> bool:
    """A command goes on where its output goes nowhere, and is told at its end what is not the reader's doing."""
    if number not in _READER_GONE:
        _lost.append(number)
    return True


def _lasting(fd: int, stream: TextIO | None, errors: str, forgives: Callable[[int], bool]) -> TextIO:
    encoding = getattr(stream, "encoding", None) or "utf-8"
    raw = _Lasting(fd, forgives)
    return io.TextIOWrapper(io.BufferedWriter(raw), encoding, errors, line_buffering=fd == 2 or raw.isatty())


class _Lasting(io.FileIO):
    """A descriptor that takes everything, also where it goes nowhere any more."""

    def __init__(self, fd: int, forgives: Callable[[int], bool]) -> None:
        super().__init__(fd, "wb", closefd=False)
        self._forgives = forgives

    def write(self, data: object) -> int:
        """Write some of it, as soon as that can be."""
        buffer = memoryview(data)  # type: ignore[arg-type]  # whatever has bytes
        try:
            while (written := super().write(buffer)) is None:
                # It shares a mode with others, who want it not to wait.
                select.select([], [self], [])
        except OSError as error:
            if not self._forgives(error.errno or 0):
                raise
            return buffer.nbytes
        return written
