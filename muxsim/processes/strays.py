"""Processes that a muxsim has left which was killed together with its guardian.

One belongs to a launcher if its environment has the launcher's token (owner.py). It is a stray if that is gone.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from muxsim.inside.proc import Stat, all_pids, families, read_stat, rounds, signal_exactly
from muxsim.processes.owner import Owner, owner_by_mark

POLITE: Final = 1.0
"""Seconds between SIGTERM and SIGKILL."""

_KILL_LIMIT: Final = 5.0


@dataclass(frozen=True)
class Stray:
    """A process without its launcher; ``command`` is what it runs, ``age`` in seconds."""

    pid: int
    stat: Stat
    owner: Owner
    command: str
    age: float


def find_strays(of: int | None = None) -> list[Stray]:
    """Every process of this user, and below those, whose launcher is gone. Never the caller or what it runs in.

    ``of`` is the pid that the launcher had, if only one's are wanted.
    """
    spared = set(_lineage(os.getpid()))
    found: dict[int, Stray] = {}
    uptime = time.clock_gettime(time.CLOCK_BOOTTIME)
    for pid in all_pids():
        owner = owner_by_mark(pid)
        if owner is None or of not in (None, owner.pid) or not owner.is_gone() or pid in spared:
            continue
        for member, stat_of in families([pid]).items():
            # Below it may be another muxsim's, which has a launcher of its own.
            nearer = owner_by_mark(member)
            if member not in spared and (nearer is None or nearer.is_gone()):
                age = max(0.0, uptime - stat_of.started / os.sysconf("SC_CLK_TCK"))  # it may be younger than this look
                found[member] = Stray(member, stat_of, nearer or owner, _command(member), age)
    return sorted(found.values(), key=lambda stray: stray.age, reverse=True)


def end_strays(strays: Iterable[Stray], *, polite: float = POLITE) -> list[Stray]:
    """SIGTERM and SIGCONT, then SIGKILL, by pidfd and start time; returns those that survive even that."""
    left = [stray for stray in strays if _is_there(stray)]
    _signal(left, signal.SIGTERM, signal.SIGCONT)
    for seconds, numbers in ((polite, ()), (_KILL_LIMIT, (signal.SIGKILL,))):
        for _ in rounds(seconds):
            left = [stray for stray in left if _is_there(stray)]
            if not left:
                return []
            _signal(left, *numbers)
    return left


def _signal(strays: Iterable[Stray], *numbers: int) -> None:
    for stray in strays:
        for number in numbers:
            signal_exactly(stray.pid, stray.stat.started, number)


def _is_there(stray: Stray) -> bool:
    found = read_stat(stray.pid)
    return found is not None and found.started == stray.stat.started and found.state not in (b"Z", b"X")


def _lineage(pid: int) -> Iterator[int]:
    while pid > 0:
        yield pid
        found = read_stat(pid)
        pid = found.parent if found else 0


def _command(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace").strip()
    return ""
