"""How much memory this process and all that it has started take."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Final

from muxsim.inside.proc import families

# Processes of which one sample reads the memory; the others keep what they had, since each costs the kernel a walk.
_READ_AT_ONCE: Final = 200


class Footprint:
    """The memory of this process and everything below it, pages that several share counted once (PSS)."""

    def __init__(self) -> None:
        # By pid: when it started, its bytes, and in which sample these were read.
        self._known: dict[int, tuple[int, int, int]] = {}
        self._sample = 0

    def read(self) -> int:
        """Bytes. Of processes that could not be read yet, as many as the others have on average."""
        self._sample += 1
        alive = families([os.getpid()])
        self._known = {pid: one for pid, one in self._known.items() if pid in alive and alive[pid].started == one[0]}
        due = sorted(alive, key=lambda pid: self._known[pid][2] if pid in self._known else 0)
        for pid in due[:_READ_AT_ONCE]:
            with contextlib.suppress(OSError):  # gone meanwhile, or somebody else's
                self._known[pid] = (alive[pid].started, _proportional_size(pid), self._sample)
        known = [size for _, size, _ in self._known.values()]
        return sum(known) + (len(alive) - len(known)) * (sum(known) // max(1, len(known)))


def _proportional_size(pid: int) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0  # a zombie has none
