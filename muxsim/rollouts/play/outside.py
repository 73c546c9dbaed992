"""What sessions write outside of their workspaces, as far as it can be seen without tracing them.

Two ways of looking. *Before and after* a session the files of some folders are compared by time, size and inode: those
where its server's code is and where it runs, and the top of the home and temporary folders. A file counts as a
session's if each of several has changed it (others do something now and then, and not in each), nobody has it open when
they are over, and it stays as it is while none is there. And *while* it plays, the files that its processes hold open
for writing are its own for certain, wherever they are; those in a view of its own are not, for they are other files
than the ones of that name outside.

What is written and closed again elsewhere is not seen, nor what is written once and never again.
"""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

# Entries of one folder: past them it is no longer a server's.
_MOST_ENTRIES: Final = 20_000
# Written by interpreters and version control, not by what a server does.
_PASSED_OVER: Final = frozenset({"__pycache__", ".git", ".hg", ".mypy_cache", ".pytest_cache"})
_SHOWN: Final = 5

Stamps = dict[str, tuple[int, int, int]]


@dataclass(frozen=True)
class Place:
    """A folder to look into, so many folders deep; None is as deep as it goes."""

    path: str
    depth: int | None = None


def places_of(words: Iterable[str], cwd: str, home: str, temporary: str) -> list[Place]:
    """Where a session is likely to write that runs these words of a command line in ``cwd``."""
    files = [word for word in words if os.path.isabs(word) and os.path.isfile(word)]
    folders = {cwd, *map(os.path.dirname, files[1:] or files)} - {home, temporary, "/", "/usr/bin", "/bin"}
    return [*map(Place, sorted(folders)), Place(home, 2), Place(temporary, 1)]


def stamps_of(places: Iterable[Place], passed_over: Iterable[str] = ()) -> Stamps:
    """The files there, and what changes with each."""
    found: Stamps = {}
    skipped = {os.path.realpath(folder) for folder in passed_over}
    for place in places:
        for count, entry in enumerate(_files(os.path.realpath(place.path), place.depth, skipped)):
            if count == _MOST_ENTRIES:
                break
            with suppress(OSError):
                status = entry.stat(follow_symlinks=False)
                if stat.S_ISREG(status.st_mode):
                    found[entry.path] = (status.st_mtime_ns, status.st_size, status.st_ino)
    return found


def _files(folder: str, depth: int | None, skipped: set[str]) -> Iterator[os.DirEntry[str]]:
    """All that is no folder, those near the top first."""
    level = [folder]
    while level and (depth is None or depth >= 0):
        below: list[str] = []
        for one in level:
            with suppress(OSError), os.scandir(one) as entries:
                for entry in entries:
                    if not entry.is_dir(follow_symlinks=False):
                        yield entry
                    elif entry.name not in _PASSED_OVER and entry.path not in skipped:
                        below.append(entry.path)
        level, depth = below, None if depth is None else depth - 1


def changed(before: Stamps, after: Stamps) -> set[str]:
    """The files that are new, or others than they were."""
    return {path for path, stamp in after.items() if before.get(path) != stamp}


def every_process() -> list[int]:
    """All that run on this machine, as far as they can be seen."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def open_for_writing(pids: Iterable[int]) -> set[str]:
    """The files that processes hold open to write to them, and which are the same for everybody."""
    found: set[str] = set()
    for pid in pids:
        with suppress(OSError):
            for fd in os.listdir(f"/proc/{pid}/fd"):
                with suppress(OSError, ValueError):
                    found.update(_written(f"/proc/{pid}/fd/{fd}", Path(f"/proc/{pid}/fdinfo/{fd}").read_text()))
    return found


def _written(handle: str, info: str) -> Iterator[str]:
    flags = next(int(line.split()[1], 8) for line in info.splitlines() if line.startswith("flags:"))
    path = os.readlink(handle)
    if flags & os.O_ACCMODE == os.O_RDONLY or not path.startswith("/"):
        return
    theirs, ours = os.stat(handle), os.stat(path)
    if stat.S_ISREG(ours.st_mode) and os.path.samestat(theirs, ours):
        yield path


@dataclass
class Outside:
    """Gathers what sessions have written, one session after the other."""

    passed_over: tuple[str, ...]
    """Folders that are not outside, or in which muxsim writes itself."""
    _sessions: Counter[str] = field(default_factory=Counter)
    _held: set[str] = field(default_factory=set)
    _now: set[str] = field(default_factory=set)
    _watched: int = 0

    def saw(self, paths: Iterable[str], *, for_certain: bool = False) -> None:
        """The session that plays now has written these, or is likely to."""
        mine = {path for path in paths if not self._is_inside(path)}
        self._now |= mine
        if for_certain:
            self._held |= mine

    def session_over(self, *, watched: bool = True) -> None:
        """The next thing that is seen is another session's; whether changes were looked for in the one before."""
        self._sessions.update(self._now)
        self._watched += watched
        self._now = set()

    def suspects(self) -> set[str]:
        """The files that somebody else may have written, for all that is known."""
        return {path for path, sessions in self._sessions.items() if sessions >= max(2, self._watched)} - self._held

    def clear(self, paths: Iterable[str]) -> None:
        """These were changed while no session was there: by somebody else."""
        for path in set(paths) - self._held:
            self._sessions.pop(path, None)

    def written(self) -> dict[str, int]:
        """By how many sessions each file was written, outside of their workspaces."""
        sure = self.suspects() | self._held
        return {path: self._sessions[path] for path in sorted(sure)}

    def _is_inside(self, path: str) -> bool:
        return any(path.startswith(f"{os.path.realpath(folder)}/") for folder in self.passed_over)


def told(written: dict[str, int], home: str, temporary: str, store: str) -> str:
    """The files, and which setting gives each session its own; in ``store`` is what muxsim has installed."""
    files = [f"{path} ({count} session{'s' * (count > 1)} wrote it)" for path, count in written.items()]
    more = f", and {len(files) - _SHOWN} more" if len(files) > _SHOWN else ""
    return f"wrote {', '.join(files[:_SHOWN])}{more}: {_advice(written, home, temporary, store)}"


def _advice(written: Iterable[str], home: str, temporary: str, store: str) -> str:
    variables, folders, installed = set(), set(), False
    for path in written:
        folder = os.path.dirname(path)
        if folder.startswith(f"{os.path.realpath(store)}/"):
            installed = True
        elif folder == os.path.realpath(temporary):
            variables.add("TMPDIR")
        elif folder == os.path.realpath(home):
            variables.add("HOME")
        else:
            folders.add(folder)
    tops = sorted(one for one in folders if not any(one.startswith(f"{other}/") for other in folders))
    ways = []
    if installed:  # its path changes with each build
        ways.append("what muxsim has installed is private to each session by itself: take private = [] out")
    if tops:
        ways.append(f"private = [{', '.join(_quoted(one) for one in tops)}] gives each session its own view")
    if variables:
        table = ", ".join(f'{name} = "{{workspace}}"' for name in sorted(variables))
        ways.append(f"env = {{ {table} }} has it write into its workspace")
    return "; ".join(ways)


def _quoted(path: str) -> str:
    return '"' + path.replace("\\", "\\\\").replace('"', '\\"') + '"'
