"""How much memory is in use, and how much may be: read from cgroup v2, /proc/meminfo, or process by process."""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import trio

from muxsim.admission.admission import MemoryReading
from muxsim.runtime.soon import may_wait

# Seconds for which a reading is good. What has started since is not in it, and is at most what may start at once.
_FRESH: Final = 0.25
# A reading may take this share of the time, so that one of a thousand processes is made less often.
_MOST_EFFORT: Final = 0.05


class MemoryMeter:
    """Measures against `memory_limit`: bytes, or a share of the machine (or the cgroup) such as ``"80%"``.

    Bytes are compared with the cgroup's memory where muxsim is in one with a limit, else with what ``own`` gives, in a
    thread: what this process and all its children have. A share is that of the cgroup with a limit, or the machine,
    whichever has less left.
    """

    def __init__(self, limit: int | str, own: Callable[[], int], root: Path = Path("/")) -> None:
        self._limit = limit
        self._meminfo = str(root / "proc/meminfo")
        self._cgroups = list(_limited_cgroups(root))
        self._own = own
        self._reading: MemoryReading | None = None
        self._good_until = 0.0

    def __repr__(self) -> str:
        return f"<MemoryMeter {self._limit}: {self._reading}>"

    @property
    def _waits(self) -> bool:
        """Whether a reading takes so long that it is made in a thread."""
        return not (isinstance(self._limit, str) or self._cgroups)

    async def read(self, *, anew: bool = False) -> MemoryReading | None:
        """A reading that is at most a moment old; None if none can be had, which is not for want of trying.

        ``anew`` is for one who has just made room.
        """
        if anew or trio.current_time() >= self._good_until:
            with self._reading_anew():
                self._reading = await self._measure_all() if self._waits else self._measure()
        return self._reading

    @contextlib.contextmanager
    def _reading_anew(self) -> Iterator[None]:
        now, began = trio.current_time(), time.perf_counter()
        self._good_until = math.inf  # others who ask meanwhile take the last one
        try:
            yield
        except (OSError, ValueError, RuntimeError):
            # There are no descriptors to read with, or no thread: the last reading is the best there is.
            pass
        finally:
            self._good_until = now + max(_FRESH, (time.perf_counter() - began) / _MOST_EFFORT)

    async def _measure_all(self) -> MemoryReading:
        await may_wait()
        used = await trio.to_thread.run_sync(self._own, abandon_on_cancel=False)
        return MemoryReading(used, int(self._limit), "by muxsim and its environments")

    def _measure(self) -> MemoryReading:
        if isinstance(self._limit, str):
            share = float(self._limit.removesuffix("%")) / 100
            readings = [_share_of(*group.read(), share, "in this cgroup") for group in self._cgroups]
            readings.append(_share_of(*_machine(self._meminfo), share, "on this machine"))
            return max(readings, key=lambda reading: reading.used / reading.limit)
        return MemoryReading(self._cgroups[0].read()[0], self._limit, "in this cgroup")


def _share_of(used: int, whole: int, share: float, what: str) -> MemoryReading:
    return MemoryReading(used, max(1, int(whole * share)), what)


def _machine(meminfo: str) -> tuple[int, int]:
    """Bytes in use that cannot be had back, and all."""
    # Every opening of a session may come here, after a pause that left the caches cold: each object costs.
    fd = os.open(meminfo, os.O_RDONLY)
    try:
        text = os.read(fd, 4096)
    finally:
        os.close(fd)
    return _size(text, b"MemTotal:") - _size(text, b"MemAvailable:"), _size(text, b"MemTotal:")


def _size(text: bytes, name: bytes) -> int:
    start = text.index(name) + len(name)
    return int(text[start : text.index(b"kB", start)]) * 1024


@dataclass(frozen=True)
class _Cgroup:
    """A cgroup v2 with a limit of ``limit`` bytes."""

    folder: Path
    limit: int

    def read(self) -> tuple[int, int]:
        """Bytes in use without the file cache that the kernel gives back at need, and the limit."""
        used = int((self.folder / "memory.current").read_text())
        for line in (self.folder / "memory.stat").read_text().splitlines():
            name, _, value = line.partition(" ")
            if name == "inactive_file":
                used -= int(value)
                break
        return max(0, used), self.limit


def _limited_cgroups(root: Path) -> Iterator[_Cgroup]:
    """The cgroups around this process that have a limit, innermost first."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    path = next((line[len("0::/") :] for line in lines if line.startswith("0::/")), None)
    if path is None:
        return
    mount = root / "sys/fs/cgroup"
    folder = mount / path
    for one in (folder, *folder.parents):
        if limit := _limit_of(one):
            yield _Cgroup(one, limit)
        if one == mount:
            return


def _limit_of(folder: Path) -> int | None:
    """The lower of memory.max and memory.high, past which the kernel swaps."""
    limits = []
    for name in ("memory.max", "memory.high"):
        with contextlib.suppress(OSError, ValueError):  # "max" is no limit
            limits.append(int((folder / name).read_text()))
    return min(limits, default=None)
