"""A unix socket to listen on: who may connect, what stood in its place before, and its end."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager

from muxsim.errors import InUse, ListenError

_CONNECT_TIMEOUT = 1.0


@contextmanager
def listening_at(path: str, mode: int, backlog: int) -> Iterator[socket.socket]:
    """Listen at a path for the length of a block; ``mode`` is the file's.

    A socket there that nobody listens on any more is replaced. Raises `InUse` for one that somebody does, and
    `ListenError` for what is no socket, or cannot be made.
    """
    with socket.socket(socket.AF_UNIX) as listener:
        try:
            with _alone_in(os.path.dirname(path)):
                _remove_stale(path)
                listener.bind(path)
                # Nobody can connect before it listens, so nobody could before these are its permissions.
                os.chmod(path, mode)
                listener.listen(backlog)
            made = os.stat(path)
        except OSError as error:
            raise ListenError(f"cannot listen on unix:{path}: {error.strerror or error}") from None
        try:
            yield listener
        finally:
            with contextlib.suppress(OSError):
                if os.path.samestat(made, os.lstat(path)):  # or it is another muxsim's by now
                    os.unlink(path)


@contextmanager
def _alone_in(folder: str) -> Iterator[None]:
    """Of several who begin at once, one after the other: none takes the socket of another for a stale one."""
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(opened, fcntl.LOCK_EX)
        yield
    finally:
        os.close(opened)


def _remove_stale(path: str) -> None:
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise ListenError(f"cannot listen on unix:{path}: it is no socket, and is not replaced: name another path")
    if _is_listened_on(path):
        raise InUse(f"cannot listen on unix:{path}: somebody listens there already; name another path")
    os.unlink(path)


def _is_listened_on(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(_CONNECT_TIMEOUT)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return False
        except TimeoutError:
            return True  # its backlog is full
    return True
