"""Which pages of its zygote a session writes to, so that a fork that waits can have its copies of them already.

A fork shares each page with its zygote until one of them writes to it, if only a reference count. Then the kernel
copies it, which takes 2 to 3 µs on a virtual machine: with 2,900 of them that is the greater half of the 17 ms in which
a FrozenLake session starts. Nearly all are the same in every session. Standard library only.
"""

from __future__ import annotations

import array
import ctypes
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from muxsim.supervise import guardian
else:
    import guardian

MADV_POPULATE_WRITE = 23
"""Linux 5.14: makes each page one's own, as a write would, and leaves what it holds. Earlier kernels refuse it."""

PRESENT_ALONE = 1 << 63 | 1 << 56
"""Bits of an entry of /proc/<pid>/pagemap: the page is in memory, and mapped by this process and no other."""


class Pages:
    """What forks have written to, as ranges of addresses."""

    def __init__(self) -> None:
        self.ranges: list[tuple[int, int]] = []
        self._page = os.sysconf("SC_PAGESIZE")
        self._madvise: Any = getattr(guardian.LIBC, "madvise", None)
        if self._madvise is not None:
            self._madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)

    def study(self, pid: int) -> None:
        """Remember which pages this fork has for itself, unless another had more, or it may not be looked at."""
        try:
            with open(f"/proc/{pid}/pagemap", "rb", buffering=0) as pagemap:
                found = [self._written(pagemap, start, end) for start, end in self._own_mappings()]
        except (OSError, ValueError):
            return
        ranges = [each for one in found for each in one]
        if sum(size for _, size in ranges) > sum(size for _, size in self.ranges):
            self.ranges = ranges

    def copy(self) -> None:
        """In a fork: have these pages for itself."""
        if self._madvise is not None:
            for start, size in self.ranges:
                self._madvise(start, size, MADV_POPULATE_WRITE)

    def _written(self, pagemap: Any, start: int, end: int) -> list[tuple[int, int]]:
        """The ranges (start and size) of a mapping that the fork has written to."""
        pagemap.seek(start // self._page * 8)
        entries = array.array("Q", pagemap.read((end - start) // self._page * 8))
        ranges: list[tuple[int, int]] = []
        first: int | None = None
        for at, entry in enumerate((*entries, 0)):
            if entry & PRESENT_ALONE == PRESENT_ALONE:
                first = at if first is None else first
            elif first is not None:
                ranges.append((start + first * self._page, (at - first) * self._page))
                first = None
        return ranges

    @staticmethod
    def _own_mappings() -> list[tuple[int, int]]:
        """Where this process has memory of its own to write to, but for its stack."""
        found = []
        with open("/proc/self/maps", encoding="ascii", errors="replace") as maps:
            for line in maps:
                addresses, access, *rest = line.split(None, 5)
                if access == "rw-p" and not (len(rest) == 4 and rest[3].startswith("[stack")):
                    start, _, end = addresses.partition("-")
                    found.append((int(start, 16), int(end, 16)))
        return found
