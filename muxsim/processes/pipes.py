"""The pipes of a new process: its ends, and ours, which do not block."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import trio

from muxsim.inside.descriptors import close
from muxsim.processes.command import ProcessStartError
from muxsim.processes.explain import advise

Pipes = tuple[int, int, int, int]
"""Our ends of stdin, stdout, stderr and the channel, which is -1 if there is none."""


def open_pipes(*, channel: bool = False, lent: int | None = None) -> tuple[tuple[int, ...], Pipes]:
    """Pipes for stdin, stdout and stderr, and a channel, or -1: the child's ends and ours, which do not block.

    All or none.
    """
    fds: list[int] = []
    with _all_or_none(fds):
        for _ in range(3):
            fds += os.pipe2(os.O_CLOEXEC)
        fds += _open_channel() if channel else ()
        theirs, ours = (fds[0], fds[3], fds[5], *fds[6:7]), (fds[1], fds[2], fds[4], *fds[7:])
        for fd in ours:
            os.set_blocking(fd, False)
        if lent is not None:
            theirs = (*theirs, os.dup(lent))
    return theirs, (ours[0], ours[1], ours[2], ours[3] if channel else -1)


@contextmanager
def _all_or_none(fds: Iterable[int]) -> Iterator[None]:
    """Close these descriptors if there are none for the rest of a process's, which then cannot be started."""
    try:
        yield
    except OSError as error:
        for fd in fds:
            close(fd)
        number = error.errno or errno.EMFILE
        raise ProcessStartError(number, "descriptors", f"no pipes for a new process: {advise(number)}") from error


def _open_channel() -> tuple[int, int]:
    theirs, ours = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    return theirs.detach(), ours.detach()


def close_end(fd: int) -> int:
    """Close one of our ends, unless it is -1, which it is afterwards. Who waits on it gets trio.ClosedResourceError."""
    if fd >= 0:
        trio.lowlevel.notify_closing(fd)
        close(fd)
    return -1
