"""Landlock (landlock(7)): what this process, and whatever it starts, may still reach of files, ports and processes.

Each access that the kernel knows is refused but where a rule allows it. What Landlock does not know of yet, such as
other sockets than TCP's, is refused by a filter of system calls (filters.py).
"""

from __future__ import annotations

import errno
import os
import stat
import struct
from collections.abc import Iterable
from typing import NamedTuple

from muxsim.inside import libc

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
"""System calls, of these numbers on every architecture."""

LEAST_ABI = 4
"""Of Linux 6.7, the first with rules for TCP."""

SIGNALS_ABI = 6
"""Of Linux 6.12, the first that keeps signals and abstract sockets within."""

_VERSION = 1
_BENEATH, _PORT = 1, 2  # kinds of rules

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_REMOVE_DIR, _REMOVE_FILE = 1 << 4, 1 << 5
_MAKE_CHAR, _MAKE_DIR, _MAKE_REG, _MAKE_SOCK, _MAKE_FIFO, _MAKE_BLOCK, _MAKE_SYM = (1 << bit for bit in range(6, 13))
_REFER, _TRUNCATE, _IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15

_READING = _EXECUTE | _READ_FILE | _READ_DIR
# Devices are no files that anybody needs to make.
_WRITING = (_READING | _WRITE_FILE | _REMOVE_DIR | _REMOVE_FILE | _MAKE_DIR | _MAKE_REG) | (
    _MAKE_SOCK | _MAKE_FIFO | _MAKE_SYM | _REFER | _TRUNCATE
)
_OF_FILES = _EXECUTE | _READ_FILE | _WRITE_FILE | _TRUNCATE | _IOCTL_DEV

_BIND, _CONNECT = 1 << 0, 1 << 1
_ABSTRACT_SOCKETS, _SIGNALS = 1 << 0, 1 << 1

_OF_OUR_OWN = "/proc/self"


class Walls(NamedTuple):
    """What is left to a process."""

    read: list[str]
    """Files and folders, with all that is in these, to read and to execute. Those that are not there are left out."""

    listed: list[str]
    """Folders whose names may be read, and those of all folders in them."""

    write: list[str]
    """Files and folders, with all that is in these, for everything."""

    devices: list[str]
    """Devices to read and to write."""

    network: bool | list[int]
    """Whether there is one, or the TCP ports that may be connected to."""

    calls: str
    """The filter of system calls, in hexadecimal: filters.py's for that network, which takes a while to make."""


def abi() -> int:
    """The version of what the kernel offers; 0 where it offers none."""
    try:
        return libc.syscall(CREATE_RULESET, None, 0, _VERSION)
    except OSError:
        return 0


def enter(walls: Walls) -> None:
    """Have no more than that, from now on and for good; nothing that is open is closed. Raises OSError."""
    version = abi()
    if version < LEAST_ABI:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
    ruleset = _create(version, walls.network)
    try:
        handled = _handled(version)
        _allow(ruleset, walls.read, _READING & handled)
        _allow(ruleset, walls.listed, _READ_DIR & handled)
        _allow(ruleset, walls.devices, (_READ_FILE | _WRITE_FILE) & handled)
        _allow(ruleset, [_OF_OUR_OWN], _READING & handled)
        _allow(ruleset, walls.write, (_WRITING | _IOCTL_DEV) & handled)
        if not isinstance(walls.network, bool):
            for port in walls.network:
                libc.syscall(ADD_RULE, ruleset, _PORT, struct.pack("=QQ", _CONNECT, port), 0)
        if not libc.prctl(libc.PR_SET_NO_NEW_PRIVS, 1):
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))
        libc.syscall(RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)
    libc.set_filter(bytes.fromhex(walls.calls))


def _handled(version: int) -> int:
    """What is refused where no rule allows it: of files, all that this kernel knows."""
    return (1 << (15 if version < 5 else 16)) - 1


def _create(version: int, network: bool | list[int]) -> int:
    ports = 0 if network is True else _BIND | _CONNECT
    scopes = _ABSTRACT_SOCKETS | _SIGNALS if version >= SIGNALS_ABI else 0
    words = (_handled(version), ports, scopes) if version >= SIGNALS_ABI else (_handled(version), ports)
    attributes = struct.pack(f"={len(words)}Q", *words)
    ruleset = libc.syscall(CREATE_RULESET, attributes, len(attributes), 0)
    os.set_inheritable(ruleset, False)
    return ruleset


def _allow(ruleset: int, paths: Iterable[str], access: int) -> None:
    for path in paths:
        try:
            fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.ELOOP):
                continue  # nobody can reach what is not there, or not for us
            raise
        try:
            of_this = access if stat.S_ISDIR(os.fstat(fd).st_mode) else access & _OF_FILES
            if of_this:
                libc.syscall(ADD_RULE, ruleset, _BENEATH, struct.pack("=Qi", of_this, fd), 0)
        finally:
            os.close(fd)
