"""Processes as /proc shows them: whose one is, what is below it, and a signal for the very one that was meant."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from muxsim.inside.descriptors import close

MARK = "MUXSIM_PROCESS"
"""Environment variable of every child, `<launcher token>.<number>`: tells whose tree an orphan belongs to."""

UNKILLABLE = 5.0
"""Seconds after which a process that survives SIGKILL (it hangs in the kernel, or is root's) is given up."""

ROUND = 0.01
"""Seconds between two looks at a tree that is being killed, if no SIGCHLD comes first."""


class Stat(NamedTuple):
    """What /proc/<pid>/stat says. A pid and its `started` (clock ticks since boot) together name one process ever."""

    state: bytes
    parent: int
    group: int
    session: int
    started: int


def stat_fields(pid: int) -> list[bytes]:
    """What /proc/<pid>/stat has after the name, the state first; nothing of a process that is not there."""
    # Every opening of a session with a process that waited comes here: a file object would double the time.
    try:
        fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
        try:
            line = os.read(fd, 4096)
        finally:
            os.close(fd)
    except OSError:
        return []
    # The name, in brackets before these, may hold spaces and brackets of its own.
    return line[line.rindex(b")") + 2 :].split()


def read_stat(pid: int) -> Stat | None:
    """What the kernel says of a process; None if it is not there."""
    fields = stat_fields(pid)
    return Stat(fields[0], int(fields[1]), int(fields[2]), int(fields[3]), int(fields[19])) if fields else None


def environment(pid: int) -> bytes:
    """What `pid` was started with, each entry between NULs.

    Empty, without a NUL, if there is nothing to be read; so it looks also while a process is in an exec, or exits.
    """
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            content = file.read()
    except OSError:
        return b""
    return b"\0" + content + b"\0" if content else b""


def all_pids() -> list[int]:
    try:
        return [int(name) for name in os.listdir("/proc") if name.isdigit()]
    except OSError:
        return []


def has_children_files() -> bool:
    """Whether the kernel was built with CONFIG_PROC_CHILDREN, as distributions do."""
    pid = os.getpid()
    return os.path.exists(f"/proc/{pid}/task/{pid}/children")


CHILDREN_FILES = has_children_files()


def children_of(pid: int) -> list[int]:
    """Direct children, zombies included.

    The kernel may leave one out when a sibling is reaped while we read. Our own children are reaped by nobody else, so
    for them the list is whole; what is missed deeper down becomes our own child when its parent dies.
    """
    if not CHILDREN_FILES:
        return [other for other in all_pids() if (stat := read_stat(other)) and stat.parent == pid]
    found: list[int] = []
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(OSError), open(f"/proc/{pid}/task/{thread}/children", "rb") as file:
                found += map(int, file.read().split())
    return found


def families(roots: Iterable[int]) -> dict[int, Stat]:
    """`roots` and everything below them."""
    found: dict[int, Stat] = {}
    to_see = list(roots)
    while to_see:
        pid = to_see.pop()
        if pid not in found and (stat := read_stat(pid)):
            found[pid] = stat
            to_see += children_of(pid)
    return found


def marked(token: str) -> dict[int, Stat]:
    """Every process on the machine that was started, directly or not, under this launcher's token."""
    entry = f"\0{MARK}={token}.".encode()
    return {pid: stat for pid in all_pids() if entry in environment(pid) and (stat := read_stat(pid))}


def signal_exactly(pid: int, started: int, number: int) -> bool:
    """Signal this very process, never another that got its pid since; False if it is gone or not ours to signal."""
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        stat = read_stat(pid)
        if stat is None or stat.started != started:
            return False
        signal.pidfd_send_signal(pidfd, number)
    except (ProcessLookupError, PermissionError):
        return False
    finally:
        close(pidfd)
    return True


def exit_status(pid: int, *, keep: bool) -> int | None:
    """The returncode of a child that has ended, else None; reaps it unless it is to be kept."""
    options = os.WEXITED | os.WNOHANG | (os.WNOWAIT if keep else 0)
    try:
        found = os.waitid(os.P_PID, pid, options)
    except ChildProcessError:
        return None
    if found is None:
        return None
    return found.si_status if found.si_code == os.CLD_EXITED else -found.si_status


def rounds(seconds: float) -> Iterator[None]:
    """One turn at once, then one every `ROUND` until the time is over."""
    until = time.monotonic() + seconds
    while True:
        yield
        if time.monotonic() >= until:
            return
        time.sleep(ROUND)
