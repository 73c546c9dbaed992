"""What trees of processes use: memory and CPU, read from /proc so few at a time that it costs next to nothing."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

from muxsim.inside.proc import children_of, stat_fields

PERIOD: Final = 10.0
"""Seconds between two looks at the same tree, where not too many are to be looked at."""

# Processes that one step looks at, and of how many of them it reads the memory, for which the kernel walks its pages:
# 35 and 200 µs each, so a step a second is under 1 % of a core however many there are. With more, looks are rarer.
_SEEN_AT_ONCE: Final = 80
_WEIGHED_AT_ONCE: Final = 15
_TICKS: Final = os.sysconf("SC_CLK_TCK")


class Usage(NamedTuple):
    """What a tree of processes uses, of which there are so many.

    ``memory``: bytes, pages that several share counted once (PSS); None until its turn has come to be read. ``cpu``:
    seconds since its first process began, of all that were seen in it.
    """

    memory: int | None
    cpu: float
    processes: int


class ProcessUsage(NamedTuple):
    """One process of a tree: ``memory`` in bytes as above, None if it is not ours to read; ``cpu`` in seconds."""

    pid: int
    parent: int
    name: str
    memory: int | None
    cpu: float


class _Seen(NamedTuple):
    pid: int
    parent: int
    started: int
    cpu: float


@dataclass(slots=True)
class _Tree:
    """What is known of one: of each process when it started and its bytes, and how much CPU they have had in all."""

    started: int
    looked: float
    weights: dict[int, tuple[int, int]] = field(default_factory=dict)
    processes: int = 0
    cpu: float = 0.0
    last: float = 0.0

    def usage(self) -> Usage:
        known = [size for _, size in self.weights.values()]
        # Those that were not read yet are taken for average.
        memory = sum(known) * self.processes // len(known) if known else None
        return Usage(memory, round(self.cpu, 2), self.processes)


class Usages:
    """Looks at trees in turns; `step` is called once a second or so, in a thread if need be."""

    def __init__(self) -> None:
        self._trees: dict[int, _Tree] = {}
        self._unweighed: dict[tuple[int, int], int] = {}
        self._credit = 0

    def __repr__(self) -> str:
        return f"<Usages of {len(self._trees)} trees>"

    def step(self, roots: Iterable[int], now: float) -> dict[int, Usage]:
        """Look at those of the trees below ``roots`` whose turn it is at ``now`` (seconds); what each uses, by root."""
        wanted = dict.fromkeys(roots)
        for root in [root for root in self._trees if root not in wanted]:
            del self._trees[root]
        self._credit = min(self._credit + _SEEN_AT_ONCE, _SEEN_AT_ONCE)
        looked: dict[int, Usage] = {}
        for root in self._due(wanted, now):
            if self._credit <= 0:
                break
            if (tree := self._look(root, now)) is not None:
                looked[root] = tree.usage()
        for root in self._weigh():
            looked[root] = self._trees[root].usage()
        return looked

    def _due(self, roots: Iterable[int], now: float) -> list[int]:
        last = {root: tree.looked for root, tree in self._trees.items()}
        due = [root for root in roots if now - last.get(root, -PERIOD) >= PERIOD]
        return sorted(due, key=lambda root: last.get(root, -1.0))

    def _look(self, root: int, now: float) -> _Tree | None:
        seen = list(_below(root))
        self._credit -= max(1, len(seen))
        if not seen:
            self._trees.pop(root, None)
            return None
        tree = self._trees.get(root)
        if tree is None or tree.started != seen[0].started:
            tree = self._trees[root] = _Tree(seen[0].started, now)
        tree.looked, tree.processes = now, len(seen)
        total = sum(one.cpu for one in seen)
        # Less than before: one has gone, and what it used is counted already.
        tree.cpu += max(0.0, total - tree.last)
        tree.last = total
        weights, tree.weights = tree.weights, {}
        for one in seen:
            if (known := weights.get(one.pid)) is not None and known[0] == one.started:
                tree.weights[one.pid] = known
            # First in the dict is longest in it: whoever has waited longest for its turn.
            self._unweighed.setdefault((one.pid, one.started), root)
        return tree

    def _weigh(self) -> set[int]:
        weighed = set[int]()
        for pid, started in list(self._unweighed)[:_WEIGHED_AT_ONCE]:
            root = self._unweighed.pop((pid, started))
            tree = self._trees.get(root)
            if tree is not None and (size := _proportional_size(pid)) is not None:
                tree.weights[pid] = (started, size)
                weighed.add(root)
        return weighed


def tree_of(root: int) -> list[ProcessUsage]:
    """Each process of the tree below ``root``, that first; none if it has gone. About 0.3 ms for each."""
    return [
        ProcessUsage(one.pid, one.parent, _name_of(one.pid), _proportional_size(one.pid), round(one.cpu, 2))
        for one in _below(root)
    ]


def _below(root: int) -> Iterator[_Seen]:
    to_see, seen = [root], set[int]()
    while to_see:
        pid = to_see.pop()
        if pid not in seen and (fields := stat_fields(pid)):
            seen.add(pid)
            # With the time of children that it has waited for, or what short-lived ones use would be nobody's.
            yield _Seen(pid, int(fields[1]), int(fields[19]), sum(map(int, fields[11:15])) / _TICKS)
            to_see += children_of(pid)


def _name_of(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_bytes().decode("utf-8", "replace").rstrip("\n")
    return ""


def _proportional_size(pid: int) -> int | None:
    with contextlib.suppress(OSError):  # gone meanwhile, or somebody else's
        for line in Path(f"/proc/{pid}/smaps_rollup").read_bytes().splitlines():
            if line.startswith(b"Pss:"):
                return int(line.split()[1]) * 1024
    return None
