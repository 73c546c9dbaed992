"""Who is at the other end of a unix socket, as the kernel knows it."""

from __future__ import annotations

import socket
import struct
from typing import Final, Protocol

_CREDENTIALS: Final = struct.Struct("3i")  # pid, user, group


class HasOptions(Protocol):
    """A socket, or what an event loop has in place of one."""

    def getsockopt(self, level: int, optname: int, buflen: int, /) -> bytes:
        """See socket(7)."""


def peer_of(connection: HasOptions) -> tuple[int, int]:
    """The process and the user id at the other end of a unix socket."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, user, _ = _CREDENTIALS.unpack(credentials)
    return pid, user


def peer_user(connection: HasOptions) -> int:
    """The user id at the other end of a unix socket."""
    return peer_of(connection)[1]
