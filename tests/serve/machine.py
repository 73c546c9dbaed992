"""What a test may look at from outside muxsim: its processes, files and log."""

from __future__ import annotations

import inspect
import json
import os
from pathlib import Path

import trio
from harness import alive

GRACE = 60.0
"""Seconds that a test waits for what goes on outside. muxsim needs less than two; a machine may be busy with others."""

ZYGOTE_DESCRIPTORS = 4
"""What a supervisor has open for a zygote: its channel, its two outputs, its pidfd."""

_LOOK_AGAIN = 0.01


def processes_with(text):
    """The pids of all processes that have ``text`` in their environment, such as a session's workspace."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if text.encode() in (folder / "environ").read_bytes() and alive(int(folder.name)):
                found.append(int(folder.name))
        except OSError:  # ended meanwhile, or not ours
            continue
    return found


async def eventually(condition, within=GRACE):
    """Wait until ``condition()``, which may be async, is true: what goes on outside is announced to nobody here."""
    with trio.fail_after(within):
        while not (await found if inspect.isawaitable(found := condition()) else found):  # noqa: ASYNC110 - see above
            await trio.sleep(_LOOK_AGAIN)


async def gone(*pids, within=GRACE):
    """Wait until none of these processes is alive."""
    try:
        await eventually(lambda: not any(map(alive, pids)), within)
    except trio.TooSlowError:
        raise AssertionError(f"still alive after {within} s: {[*filter(alive, pids)]}") from None


def descriptors(pid):
    """What a process has open, by descriptor."""
    found = {}
    for fd in os.listdir(f"/proc/{pid}/fd"):
        try:
            found[int(fd)] = os.readlink(f"/proc/{pid}/fd/{fd}")
        except OSError:  # closed meanwhile
            continue
    return found


def unread(sock):
    """How many bytes the other end of a connection has not read yet, which is on this machine too; 0 of a lost one."""
    try:
        ours, theirs = sock.getsockname()[1], sock.getpeername()[1]
    except OSError:  # closed by the other end
        return 0
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, remote, _, queues, *_ = line.split()
        if (int(local.partition(":")[2], 16), int(remote.partition(":")[2], 16)) == (theirs, ours):
            return int(queues.partition(":")[2], 16)
    return 0


async def read_all(fd):
    """All that comes out of a pipe, until its end."""
    data = b""
    with trio.fail_after(60):
        while True:
            await trio.lowlevel.wait_readable(fd)
            more = os.read(fd, 65536)
            if not more:
                return data
            data += more


def own_descriptors(pid):
    """How many descriptors a supervisor has open, those for its zygotes left out."""
    return len(descriptors(pid)) - len(zygotes(pid)) * ZYGOTE_DESCRIPTORS


def has_zygote(pid):
    """Whether a supervisor has one, and by now all that it holds for it."""
    held = zygotes(pid)
    return held and sum("pidfd" in what for what in descriptors(pid).values()) >= len(held)


def zygotes(pid):
    """The processes below this one that environments' sessions are forked from; they stay."""
    return [below for below in descendants(pid) if b"/begin.py\0zygote" in command_line(below) and _has_socket(below)]


def _has_socket(pid):
    """A zygote takes its orders by one; what it has forked has the same command line, and three pipes."""
    try:
        return any(what.startswith("socket:") for what in descriptors(pid).values())
    except OSError:  # ended meanwhile
        return False


def command_line(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def descendants(pid):
    """The pids of everything below a process, as far as it is not orphaned."""
    below = []
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
    except OSError:  # ended meanwhile
        return []
    for task in tasks:
        try:
            children = [int(child) for child in (task / "children").read_text().split()]
        except OSError:
            continue
        for child in children:
            below += [child, *descendants(child)]
    return below


def memory(pid):
    """The resident memory of a process in bytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"process {pid} has no memory")


def peak_memory(pid):
    """The most that it has ever had, or since `forget_peak`, in bytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"process {pid} has no memory")


def forget_peak(pid):
    """Have `peak_memory` begin at what it has now."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def log_lines(running, **wanted):
    """The lines of its log that have these values. Every line has to be JSON."""
    lines = [json.loads(line) for line in running.log.read_text().splitlines()]
    return [line for line in lines if wanted.items() <= line.items()]


async def logged(running, *, within=GRACE, **wanted):
    """Wait for such a line; the first."""
    await eventually(lambda: log_lines(running, **wanted), within)
    return log_lines(running, **wanted)[0]
