"""Which pages of its zygote a session uses, so that a fork that waits can have them at hand already.

A fork shares each page with its zygote until one of them writes to it, if only a reference count. Then the kernel
copies it, which takes 2 to 3 µs on a virtual machine: with 2,900 of them that is the greater half of the 17 ms in which
a FrozenLake session starts. What is read from a file, such as the code of a library, is shared for good, but the kernel
has each fork ask for it again, a few pages at a time: that is 50 times more. Nearly all of both are the same in every
session. Standard library only.
"""

from __future__ import annotations

import array
import ctypes
import os
from collections.abc import Iterator
from typing import Any, NamedTuple

from muxsim.inside.libc import LIBC

MADV_POPULATE_READ, MADV_POPULATE_WRITE = 22, 23
"""Linux 5.14: has each page at hand, as a read or a write would, and leaves what it holds. Before, they are refused."""

PRESENT, ALONE = 1 << 63, 1 << 56
"""Bits of an entry of /proc/<pid>/pagemap: the page is at hand, and no other process has it."""


class Ranges(NamedTuple):
    """Where (start and size) forks have written to their own memory, and have used what is mapped from files."""

    written: list[tuple[int, int]]
    read: list[tuple[int, int]]


class Pages:
    """What forks have used, as far as they were studied."""

    def __init__(self) -> None:
        self.used = Ranges([], [])
        self._page = os.sysconf("SC_PAGESIZE")
        self._madvise: Any = getattr(LIBC, "madvise", None)
        if self._madvise is not None:
            self._madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)

    def study(self, pid: int) -> None:
        """Remember which pages this fork uses, unless another used more, or it may not be looked at."""
        found = Ranges([], [])
        try:
            with open(f"/proc/{pid}/pagemap", "rb", buffering=0) as pagemap:
                for start, end, is_file in _mappings():
                    ranges, bits = (found.read, PRESENT) if is_file else (found.written, PRESENT | ALONE)
                    ranges.extend(self._having(bits, pagemap, start, end))
        except (OSError, ValueError):
            return
        self.used = Ranges(*(max(pair, key=_size) for pair in zip(self.used, found)))

    def fetch(self) -> None:
        """In a fork: have these pages at hand, and those that it will write to for itself."""
        if self._madvise is not None:
            for ranges, advice in zip(self.used, (MADV_POPULATE_WRITE, MADV_POPULATE_READ)):
                for start, size in ranges:
                    self._madvise(start, size, advice)

    def _having(self, bits: int, pagemap: Any, start: int, end: int) -> Iterator[tuple[int, int]]:
        """The ranges of a mapping whose pages all have these bits."""
        pagemap.seek(start // self._page * 8)
        entries = array.array("Q", pagemap.read((end - start) // self._page * 8))
        first: int | None = None
        for at, entry in enumerate((*entries, 0)):
            if entry & bits == bits:
                first = at if first is None else first
            elif first is not None:
                yield start + first * self._page, (at - first) * self._page
                first = None


def _mappings() -> Iterator[tuple[int, int, bool]]:
    """Where this process has memory of its own to write to, but for its stack, and files that it only reads."""
    with open("/proc/self/maps", encoding="ascii", errors="replace") as maps:
        for line in maps:
            addresses, access, _, _, inode, *name = line.split(None, 5)
            start, _, end = addresses.partition("-")
            if access == "rw-p" and not (name and name[0].startswith("[stack")):
                yield int(start, 16), int(end, 16), False
            elif access in ("r-xp", "r--p") and inode != "0":
                yield int(start, 16), int(end, 16), True


def _size(ranges: list[tuple[int, int]]) -> int:
    return sum(size for _, size in ranges)
