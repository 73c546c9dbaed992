"""Views of folders: a process sees them as they are, and what it and its children write there nobody else sees.

A view is an overlay in a mount namespace of the process's own, which goes with the last process in it. Whoever may not
mount does it in a user namespace that maps nobody but them. Standard library only.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from muxsim.inside import libc

CLONE_NEWNS = 0x00020000
CLONE_NEWUSER = 0x10000000
MS_RDONLY = 1
MS_REMOUNT = 32
MS_BIND = 4096
MS_REC = 16384
MS_SLAVE = 1 << 19

# What a mount keeps of the one that it covers: in a user namespace it has to, and nowhere is it to allow more.
KEPT = {os.ST_NOSUID: 2, os.ST_NODEV: 4, os.ST_NOEXEC: 8}
# In a bind mount these too.
TIMES = {os.ST_NOATIME: 1 << 10, os.ST_NODIRATIME: 1 << 11, os.ST_RELATIME: 1 << 21}

# A view is thrown away in the end, so that nobody needs it on the disk (from Linux 5.10 on). Two may have one upper
# folder, one after the other, without the kernel's minding that the first is not quite gone.
OPTIONS = ("index=off,volatile", "index=off")
# Where only the first user namespace may have others: what the kernel notes of deleted and moved folders.
AS_USER, AS_ROOT = "userxattr", "redirect_dir=on"

ALL_USERS = [b"0", b"0", b"4294967295"]
MAP_LIMIT = 4096


class View(NamedTuple):
    """A folder, by its real path, and where what is written there goes; nowhere, being refused, if that is ""."""

    folder: str
    upper: str
    work: str
    asked: bool
    """Whether somebody has asked for it; else it is what muxsim does by itself."""
    anyway: bool = False
    """Whether it is to be written to although its owner may not, as is so with what is installed once for all."""


class NoView(OSError):
    """A view cannot be had. ``folder`` is which, or "" if the process cannot have any."""

    def __init__(self, number: int, folder: str, *, asked: bool) -> None:
        super().__init__(number, os.strerror(number))
        self.folder = folder
        self.asked = asked


def enter(views: Sequence[View]) -> None:
    """Have these views, in this and all that it starts. Raises `NoView`.

    Folders below others come after them. The current folder may be one that is covered: it is to be entered anew.
    """
    try:
        as_user = separate()
    except OSError as error:
        raise NoView(error.errno or errno.EPERM, "", asked=any(view.asked for view in views)) from error
    with opened([view.folder for view in views]) as lowers:
        for view, lower in zip(views, lowers, strict=True):
            try:
                if view.upper:
                    cover(view, lower)
                else:
                    keep_from_writing(view.folder)
            except OSError as error:
                raise NoView(error.errno or errno.EINVAL, view.folder, asked=view.asked) from error
    if as_user:
        # Whoever is alone in a namespace has only what is their own to override the rights of, which they may change.
        libc.be_left_with(*[libc.DAC_OVERRIDE] * any(view.anyway for view in views))


@contextlib.contextmanager
def opened(folders: Sequence[str]) -> Iterator[list[int]]:
    """Descriptors of folders, -1 for one that is not there: once one is covered, those below would not be theirs."""
    fds: list[int] = []
    try:
        for folder in folders:
            try:
                fds.append(os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
            except OSError:
                fds.append(-1)
        yield fds
    finally:
        for fd in fds:
            if fd >= 0:
                os.close(fd)


def separate() -> bool:
    """Be in a mount namespace of our own; whether that needed a user namespace too.

    What is mounted outside later is seen here as well, and what is unmounted there is not held.
    """
    try:
        libc.call("unshare", CLONE_NEWNS)
        as_user = False
    except PermissionError:
        be_alone()
        as_user = True
    libc.mount(None, "/", None, MS_REC | MS_SLAVE, None)
    return as_user


def be_alone() -> None:
    """Be in a user namespace in which there is nobody but us."""
    user, group = os.geteuid(), os.getegid()
    libc.call("unshare", CLONE_NEWUSER | CLONE_NEWNS)
    for name, line in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
        with open(f"/proc/self/{name}", "wb", buffering=0) as file:
            file.write(line.encode())


def cover(view: View, lower: int) -> None:
    """Mount the view. By descriptors, for which no path is too long and no character special."""
    if lower < 0:
        os.close(os.open(view.folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))  # says what is wrong
    with opened([view.upper, view.work]) as own:
        layers = zip(("lowerdir", "upperdir", "workdir"), (lower, *own), strict=True)
        where = ",".join(f"{name}=/proc/self/fd/{fd}" for name, fd in layers)
        notes = AS_ROOT if is_first_namespace() else AS_USER
        for options in OPTIONS:
            try:
                libc.mount("overlay", view.folder, "overlay", kept(view.folder, KEPT), f"{where},{notes},{options}")
            except OSError as error:
                if error.errno != errno.EINVAL or options == OPTIONS[-1]:
                    raise
            else:
                return


def keep_from_writing(folder: str) -> None:
    libc.mount(folder, folder, None, MS_BIND | MS_REC, None)
    flags = kept(folder, {**KEPT, **TIMES})
    libc.mount(None, folder, None, MS_REMOUNT | MS_BIND | MS_RDONLY | flags, None)


def kept(folder: str, flags: dict[int, int]) -> int:
    found = os.statvfs(folder).f_flag
    return sum(flag for seen, flag in flags.items() if found & seen)


def is_first_namespace() -> bool:
    """Whether we are in the user namespace that the machine began with, the only one that has all users."""
    # Bytes: each fork would import the codec for itself, which takes as long as all the rest.
    with open("/proc/self/uid_map", "rb", buffering=0) as file:
        return file.read(MAP_LIMIT).split() == ALL_USERS
