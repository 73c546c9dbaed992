"""The folder that a workspace begins as: copied as it is, or not at all.

Where the filesystem shares the blocks of copies (FICLONE on btrfs, XFS and bcachefs) nothing is copied but names;
elsewhere the kernel copies (copy_file_range), or else this does. An overlay would be hidden in the mount namespace of
the session's processes, and muxsim could not see what they have made of the folder.

Kept are permissions, times, links, empty folders and holes; owners, hard links and the bits that lend a program
somebody's rights are not.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from muxsim.inside.descriptors import close
from muxsim.inside.removal import remove_tree

LookUp = Callable[[], object]
"""Is called every now and then; what it raises ends the work."""

_FICLONE: Final = 0x40049409
# Between two looks up: an instant for a disk.
_PIECE: Final = 16 * 2**20
# How often a folder is copied anew that somebody changes meanwhile.
_TRIES: Final = 3
_KEPT_BITS: Final = 0o1777
_READING: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW
_WRITING: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
_KINDS: Final = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFBLK: "a device",
    stat.S_IFCHR: "a device",
}


class TemplateFault(Exception):
    """No workspace can begin as this folder; says why, and what to do."""


@dataclass(frozen=True, slots=True)
class Contents:
    """What a workspace began as: a folder, and what tells that this has not changed since. By default it was empty."""

    source: str = ""
    stamp: bytes = b""


def begin_as(source: str, into: str, held: Contents, look_up: LookUp) -> Contents:
    """Have ``into``, which began as ``held``, begin as the folder ``source`` (as nothing for ""); nothing if it does.

    Raises `TemplateFault`, or OSError where there is no more room for it. What is in ``into`` then is undefined.
    """
    if held.source == source and (not source or _stamp(source, look_up) == held.stamp):
        return held
    for _ in range(_TRIES):
        if held.source:
            _empty(into)
        if not source:
            return Contents()
        _refuse_itself(source, into)
        held = Contents(source, _copy(source, into, look_up))
        if _stamp(source, look_up) == held.stamp:
            return held
    raise TemplateFault(f"{source} was changed while it was copied, {_TRIES} times: leave it alone, and try again")


def _refuse_itself(source: str, into: str) -> None:
    top = os.path.realpath(source)
    if os.path.commonpath([top, os.path.realpath(into)]) == top:
        raise TemplateFault(f"{source} holds the folder of muxsim's sessions: choose another, or another TMPDIR")


def _empty(folder: str) -> None:
    with os.scandir(folder) as entries:
        for entry in list(entries):
            remove_tree(entry.path) if entry.is_dir(follow_symlinks=False) else os.unlink(entry.path)


# ---- reading


def _stamp(source: str, look_up: LookUp) -> bytes:
    """A hash of everything that tells of a change, without looking into files."""
    digest = _Stamp()
    for path, status in _entries(source, look_up):
        digest.add(path, status)
    return digest.value()


class _Stamp:
    def __init__(self) -> None:
        self._digest = hashlib.sha256()

    def add(self, path: str, status: os.stat_result) -> None:
        one = (path, status.st_mode, status.st_dev, status.st_ino, status.st_size)
        self._digest.update(repr((*one, status.st_mtime_ns, status.st_ctime_ns)).encode(errors="surrogateescape"))

    def value(self) -> bytes:
        return self._digest.digest()


def _entries(source: str, look_up: LookUp) -> Iterator[tuple[str, os.stat_result]]:
    """What is in a folder, by path from there; a folder before what is in it."""
    left = [""]
    while left:
        folder = left.pop()
        look_up()
        for name, status in _listed(os.path.join(source, folder), top=not folder):
            path = os.path.join(folder, name)
            yield path, status
            if stat.S_ISDIR(status.st_mode):
                left.append(path)


def _listed(folder: str, *, top: bool) -> list[tuple[str, os.stat_result]]:
    """The names in one folder in their order. Only the ``top`` may be a link."""
    fd = -1
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | (0 if top else os.O_NOFOLLOW))
        with os.scandir(fd) as entries:
            return sorted(
                ((entry.name, entry.stat(follow_symlinks=False)) for entry in entries), key=lambda one: one[0]
            )
    except OSError as error:
        raise _unreadable(folder, error) from error
    finally:
        if fd >= 0:
            close(fd)


def _unreadable(path: str, error: OSError) -> Exception:
    """What to raise for something that cannot be read; what is lacking for a while stays an OSError."""
    if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
        return error
    return TemplateFault(f"{path.rstrip('/')} cannot be read: {error.strerror}")


# ---- copying


def _copy(source: str, into: str, look_up: LookUp) -> bytes:
    """Copy what is in a folder into an empty one; the stamp of what was seen."""
    stamp, folders = _Stamp(), []
    for path, status in _entries(source, look_up):
        stamp.add(path, status)
        here, there = os.path.join(source, path), os.path.join(into, path)
        if stat.S_ISDIR(status.st_mode):
            os.mkdir(there, 0o700)
            folders.append((there, status))
        elif stat.S_ISREG(status.st_mode):
            _copy_file(here, there, status, look_up)
        elif stat.S_ISLNK(status.st_mode):
            _copy_link(here, there, status)
        else:
            kind = _KINDS.get(stat.S_IFMT(status.st_mode), "neither file, folder nor link")
            raise TemplateFault(f"{here} is {kind}, of which there is no copy: take it out")
    for there, status in reversed(folders):  # what is put into a folder changes its time, and may need its bits
        os.chmod(there, stat.S_IMODE(status.st_mode) & _KEPT_BITS)
        os.utime(there, ns=(status.st_atime_ns, status.st_mtime_ns))
    return stamp.value()


def _copy_link(here: str, there: str, status: os.stat_result) -> None:
    try:
        target = os.readlink(here)
    except OSError as error:
        raise _unreadable(here, error) from error
    os.symlink(target, there)
    os.utime(there, ns=(status.st_atime_ns, status.st_mtime_ns), follow_symlinks=False)


def _copy_file(here: str, there: str, status: os.stat_result, look_up: LookUp) -> None:
    try:
        reading = os.open(here, _READING)
    except OSError as error:
        raise _unreadable(here, error) from error
    try:
        writing = os.open(there, _WRITING, 0o600)
        try:
            _copy_content(reading, writing, look_up)
            os.fchmod(writing, stat.S_IMODE(status.st_mode) & _KEPT_BITS)
            os.utime(writing, ns=(status.st_atime_ns, status.st_mtime_ns))
        finally:
            close(writing)
    finally:
        close(reading)


def _copy_content(reading: int, writing: int, look_up: LookUp) -> None:
    with suppress(OSError):
        fcntl.ioctl(writing, _FICLONE, reading)
        return
    size = os.fstat(reading).st_size
    os.ftruncate(writing, size)
    for start, end in _written_parts(reading, size):
        at = start
        while at < end:
            look_up()
            copied = _copy_piece(reading, writing, at, min(end - at, _PIECE))
            if not copied:
                return  # it has become shorter: the stamp will tell
            at += copied


def _written_parts(fd: int, size: int) -> Iterator[tuple[int, int]]:
    """Where a file has something else than holes."""
    end = 0
    while end < size:
        try:
            start = os.lseek(fd, end, os.SEEK_DATA)
            end = os.lseek(fd, start, os.SEEK_HOLE)
        except OSError as error:
            if error.errno != errno.ENXIO:  # which says that there are only holes from here on
                yield end, size
            return
        yield start, min(end, size)


def _copy_piece(reading: int, writing: int, at: int, most: int) -> int:
    with suppress(OSError):  # not on this kernel, or from this filesystem to that
        if copied := os.copy_file_range(reading, writing, most, at, at):
            return copied
    data = os.pread(reading, min(most, 2**20), at)
    return os.pwrite(writing, data, at) if data else 0
