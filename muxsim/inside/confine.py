"""The bounds of a backend, which the process that is about to become one puts itself under.

A confinement has each of these keys that is wanted:

    cgroup        the folder of a cgroup v2, which is there already, to enter
    nice          what is added to the niceness
    private       [[folder, upper, work, asked, anyway], ...]: its own views of folders (views.py), outer ones first
    no_new_privs  true: nothing it runs gains privileges (setuid, file capabilities)
    landlock      what is left of files, the network and other processes: the fields of `landlock.Walls`
    rlimits       {number of RLIMIT_*: [soft, hard]}
    capabilities  the bits of those that it keeps
"""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from muxsim.inside import landlock, views
from muxsim.inside.libc import PR_SET_NO_NEW_PRIVS, keep_capabilities, prctl
from muxsim.inside.wire import Message


class Unconfined(Exception):
    """A key of a confinement cannot be applied to this process, which must not go on.

    Of views, the key is "installed" where nobody has asked for the one that cannot be had.
    """

    def __init__(self, key: str, number: int) -> None:
        super().__init__(f"{key}: {os.strerror(number)}")
        self.key = key
        self.number = number


def confine(confinement: Message) -> None:
    """In the process that is about to become a backend: put it under its bounds. Raises `Unconfined`."""
    for key, apply in CONFINING.items():
        if key in confinement:
            try:
                apply(confinement[key])
            except (OSError, MemoryError) as error:
                raise Unconfined(key, getattr(error, "errno", None) or errno.ENOMEM) from error


def enter_cgroup(folder: str) -> None:
    with open(os.path.join(folder, "cgroup.procs"), "wb", buffering=0) as file:
        file.write(b"0")


def see_alone(wanted: Sequence[Sequence[Any]]) -> None:
    try:
        views.enter([views.View(*view) for view in wanted])
    except views.NoView as error:
        raise Unconfined("private" if error.asked else "installed", error.errno or errno.EPERM) from error


def set_rlimits(rlimits: Mapping[str, Sequence[int]]) -> None:
    for number, (soft, hard) in rlimits.items():
        try:
            resource.setrlimit(int(number), (soft, hard))
        except ValueError as error:  # so it calls EINVAL and EPERM both
            raise OSError(errno.EINVAL if soft > hard else errno.EPERM, str(error)) from error


def forgo_privileges(wanted: bool) -> None:
    if wanted and not prctl(PR_SET_NO_NEW_PRIVS, 1):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))


def enter_walls(walls: Mapping[str, Any]) -> None:
    landlock.enter(landlock.Walls(**walls))


# In this order: whatever comes after is charged to the cgroup, whose files are out of reach behind the walls; what is
# mounted is so before rights to that are given up; limits on memory and files come late, and after them only the
# capabilities that may be needed to raise them.
CONFINING: dict[str, Callable[[Any], object]] = {
    "cgroup": enter_cgroup,
    "nice": os.nice,
    "private": see_alone,
    "no_new_privs": forgo_privileges,
    "landlock": enter_walls,
    "rlimits": set_rlimits,
    "capabilities": keep_capabilities,
}
