"""Which processes came from which child, though they have left its session and lost their parents."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from muxsim.inside.proc import MARK, Stat, families, signal_exactly

HIDING_LIMIT = 0.1
"""Seconds that sweeps wait for an orphan without an environment, which may be in an exec, to show whose it is."""


class Orphan(NamedTuple):
    """A process that has come to us, and its environment as far as it can be read."""

    pid: int
    stat: Stat
    environment: bytes


class Tree:
    """One child and all that came from it.

    `status` is the returncode once it has ended (it stays unreaped). `seen` are the descendants met so far, by pid and
    start time, and `sessions` the session ids they had: these recognise a process that has left the child's own
    session, was orphaned, and cleared its environment.
    """

    def __init__(self, pid: int, mark: str) -> None:
        self.pid = pid
        self.status: int | None = None
        self.killed: set[tuple[int, int]] = set()
        self.sweep_until: float | None = None
        self.next_round = 0.0
        self.given_up = False
        self._entry = f"\0{MARK}={mark}\0".encode()
        self._seen: dict[int, int] = {}
        self._sessions: set[int] = {pid}

    def remember(self, family: Mapping[int, Stat]) -> None:
        for pid, stat in family.items():
            self._seen[pid] = stat.started
            self._sessions.add(stat.session)

    def disown(self, pid: int) -> None:
        """This process, perhaps seen among our descendants, has a tree of its own now."""
        self._seen.pop(pid, None)
        self._sessions.discard(pid)

    def owns(self, orphan: Orphan) -> bool:
        pid, stat, environment = orphan
        return (
            stat.group == self.pid
            or stat.session in self._sessions
            or self._seen.get(pid) == stat.started
            or self._entry in environment
        )

    def kill(self, roots: Iterable[int]) -> None:
        """SIGKILL to the group (at once, so that nobody in it can fork his way out) and to `roots` with their own."""
        family = families(roots)
        self.remember(family)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        for pid, stat in family.items():
            if pid != self.pid and stat.state != b"Z":
                self.killed.add((pid, stat.started))
                signal_exactly(pid, stat.started, signal.SIGKILL)


class Hiding:
    """The orphans whose environment cannot be read: any may be in the middle of an exec, and say whose it is soon."""

    def __init__(self) -> None:
        self._since: dict[tuple[int, int], float] = {}

    def see(self, orphans: Iterable[Orphan], now: float) -> None:
        """Take note of all orphans there are now."""
        hiding = [(orphan.pid, orphan.stat.started) for orphan in orphans if not orphan.environment]
        self._since = {key: self._since.get(key, now) for key in hiding}

    def is_settled(self, now: float) -> bool:
        return all(now - since >= HIDING_LIMIT for since in self._since.values())
