"""What a muxsim may have left behind that was killed together with its guardian, and how it is known.

The evidence is never a name. A process belongs to a launcher if its environment has the launcher's token, which says
which process that is: pid, start time and pid namespace, so one process ever. It is a stray if that process is gone. A
folder belongs to one if its name has the same token and nobody holds its lock any more.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
import shutil
import signal
import stat
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from muxsim.inside.descriptors import close
from muxsim.inside.proc import MARK, Stat, all_pids, environment, families, read_stat, rounds, signal_exactly

GUARDIAN_MARK: Final = "MUXSIM_GUARDIAN"
"""Environment variable of every guardian: its launcher's token."""

POLITE: Final = 1.0
"""Seconds between SIGTERM and SIGKILL."""

_KILL_LIMIT: Final = 5.0
_TOKEN: Final = re.compile(r"(\d+)-(\d+)-(\d+)-[0-9a-f]{8}")
_MARKED: Final = re.compile(rb"\0(?:%b|%b)=([0-9a-f-]+)[.\0]" % (MARK.encode(), GUARDIAN_MARK.encode()))
_FOLDER: Final = re.compile(rf"muxsim-({_TOKEN.pattern})")


@dataclass(frozen=True)
class Owner:
    """A launcher's process: its pid, its start in clock ticks since boot, and the namespace that the pid is of."""

    pid: int
    started: int
    namespace: int

    def is_gone(self) -> bool:
        """Whether it has ended. Of a process of another namespace that cannot be known, so it has not."""
        if self.namespace != _namespace():
            return False
        found = read_stat(self.pid)
        return found is None or found.started != self.started or found.state in (b"Z", b"X")


@dataclass(frozen=True)
class Stray:
    """A process without its launcher; ``command`` is what it runs, ``age`` in seconds."""

    pid: int
    stat: Stat
    owner: Owner
    command: str
    age: float


def new_token() -> str:
    """A token for a launcher in this process, for `MUXSIM_PROCESS` of all it starts and for its folder's name."""
    pid = os.getpid()
    found = read_stat(pid)
    return f"{pid}-{found.started if found else 0}-{_namespace()}-{secrets.token_hex(4)}"


def owner_of(token: str) -> Owner | None:
    """The process that made a token; None for anything else."""
    found = _TOKEN.fullmatch(token)
    return None if found is None else Owner(int(found[1]), int(found[2]), int(found[3]))


def owner_by_mark(pid: int) -> Owner | None:
    """Whose launcher started a process, or what it comes from; None if no muxsim did."""
    found = _MARKED.search(environment(pid))
    return None if found is None else owner_of(found[1].decode())


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


@contextmanager
def own_folder() -> Iterator[Path]:
    """A new temporary folder, held until the end of the block: its name and its lock tell that its owner lives.

    To remove it is the caller's.
    """
    path = Path(tempfile.gettempdir(), f"muxsim-{new_token()}")
    path.mkdir(mode=0o700)
    lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield path
    finally:
        close(lock)


def find_folders(of: int | None = None) -> list[Path]:
    """The folders in the temporary one whose owner (the one with the pid ``of``) is gone, and which nobody holds."""
    found = []
    for path in Path(tempfile.gettempdir()).glob("muxsim-*"):
        match = _FOLDER.fullmatch(path.name)
        owner = None if match is None else owner_of(match[1])
        if owner is not None and of in (None, owner.pid) and owner.is_gone() and _is_free(path):
            found.append(path)
    return sorted(found)


def remove_folders(folders: Iterable[Path]) -> list[Path]:
    """Remove them; returns those that could not be removed whole."""
    left = []
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
        if folder.exists():
            left.append(folder)
    return left


def _is_free(path: Path) -> bool:
    with contextlib.suppress(OSError):
        found = path.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
            return False
        lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        finally:
            close(lock)
        return True
    return False


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


def _namespace() -> int:
    try:
        return os.stat("/proc/self/ns/pid").st_ino
    except OSError:
        return 0
