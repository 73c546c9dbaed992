"""Messages between two processes: JSON objects with a `kind`, and descriptors, over a SOCK_SEQPACKET socket."""

from __future__ import annotations

import array
import json
import os
import socket
from collections.abc import Sequence
from stat import S_ISREG
from typing import Any, NamedTuple

from muxsim.inside.descriptors import close

PACKET_LIMIT = 32 * 1024
"""Bytes of a message sent as a packet; a longer one travels in a memfd (a socket buffer holds about 200 KiB)."""

DESCRIPTORS = 4
"""Most descriptors in one packet: three streams, and a memfd."""

SHOWN = 200
"""Bytes of one that cannot be read which an error shows."""

LARGEST = 64 * 1024 * 1024
"""Bytes of a message that travels in a memfd."""

Message = dict[str, Any]


class Packet(NamedTuple):
    """A message ready to be sent. It owns its descriptors: `close` it once it is sent or given up."""

    data: bytes
    fds: tuple[int, ...]

    def close(self) -> None:
        for fd in self.fds:
            close(fd)


class Received(NamedTuple):
    """`message` is None at the end of the channel. `complete` is False if descriptors were lost for want of room."""

    message: Message | None
    fds: list[int]
    complete: bool


def pack(message: Message, fds: Sequence[int] = ()) -> Packet:
    """Encode `message`; takes over `fds`, and closes them if a memfd was needed and there is none to be had."""
    data = json.dumps(message, separators=(",", ":")).encode()
    packet = Packet(data, tuple(fds))
    if len(data) <= PACKET_LIMIT:
        return packet
    try:
        memory = os.memfd_create("muxsim-message", os.MFD_CLOEXEC)
    except OSError:
        packet.close()
        raise
    packet = Packet(json.dumps({"kind": "memfd", "ref": message.get("ref")}).encode(), (*fds, memory))
    try:
        with open(memory, "wb", closefd=False) as file:
            file.write(data)
    except OSError:
        packet.close()
        raise
    return packet


def send(channel: socket.socket, packet: Packet) -> None:
    """Send and leave `packet` open: a non-blocking channel may ask for another try."""
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", packet.fds))] if packet.fds else []
    channel.sendmsg([packet.data], ancillary)


class Unreadable(Exception):
    """What came is no message. The channel still works."""


def receive(channel: socket.socket) -> Received:
    """The next message; BlockingIOError if there is none. The descriptors are the caller's, close-on-exec.

    Raises `Unreadable`, and has closed the descriptors then.
    """
    room = socket.CMSG_LEN(DESCRIPTORS * array.array("i").itemsize)
    flags = socket.MSG_CMSG_CLOEXEC | socket.MSG_DONTWAIT
    try:
        data, ancillary, seen, _ = channel.recvmsg(2 * PACKET_LIMIT, room, flags)
    except (ConnectionResetError, BrokenPipeError):
        return Received(None, [], complete=True)
    fds = array.array("i")
    for level, kind, content in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds.frombytes(content[: len(content) - len(content) % fds.itemsize])
    complete = not seen & socket.MSG_CTRUNC
    if not data:
        return Received(None, list(fds), complete)
    try:
        if seen & socket.MSG_TRUNC:
            raise ValueError("it is longer than a packet may be")
        message = decode(data)
        if message["kind"] == "memfd" and complete:
            message = decode(contents(fds.pop()))
    except (ValueError, TypeError, LookupError, RecursionError, OSError) as error:
        for fd in fds:
            close(fd)
        raise Unreadable(f"{error!r}: {data[:SHOWN]!r}") from error
    return Received(message, list(fds), complete)


def decode(data: bytes) -> Message:
    message = json.loads(data)
    if not isinstance(message, dict) or not isinstance(message.get("kind"), str):
        raise TypeError("a message is an object with a kind")
    return message


def contents(memory: int) -> bytes:
    """What is in a memfd, which is closed; nothing that reading could wait for, or that has no end."""
    try:
        found = os.fstat(memory)
        if not S_ISREG(found.st_mode) or found.st_size > LARGEST:
            raise ValueError("no file, or too large a one")
        return os.pread(memory, found.st_size, 0)
    finally:
        close(memory)
