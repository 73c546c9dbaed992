"""Files of a workspace that are kept in the run folder when an episode ends.

Whoever has written the workspace may be hostile. Only regular files are read, each through the folder that it was found
in; no link is followed, and what waits or has no end is not opened. All of it is bounded, and what is not kept is told.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec

from muxsim.rollouts.data.globs import Globs

# Past these a workspace is no longer looked into; a file this deep is nobody's result.
_MOST_ENTRIES: Final = 100_000
_DEEPEST: Final = 64
_MOST_TOLD: Final = 5
_PIECE: Final = 2**20
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


class KeptFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file that was kept: where it was in the workspace, and where it is in the run folder."""

    path: str
    file: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Collect:
    """Which files of a workspace are kept, and how much of them: bytes, and number."""

    patterns: tuple[str, ...]
    max_bytes: int
    max_files: int


def keep_files(workspace: Path, target: Path, collect: Collect) -> tuple[list[KeptFile], str | None]:
    """Copy what is to be kept into a folder, which is made if there is any; what was kept, and why not everything was.

    ``file`` of each is relative to the parent of ``target``'s. Never raises for anything that is in the workspace.
    """
    collector = _Collector(target, collect)
    try:
        with _opened(str(workspace), None) as folder:
            collector.look_into(folder, "", Globs(collect.patterns).start, 0)
    except OSError as error:
        collector.tell(f"the workspace cannot be read: {error.strerror}")
    except _Enough as enough:
        collector.tell(str(enough))
    return collector.kept, collector.problem()


class _Enough(Exception):
    """There is no point in looking on; says why."""


@contextmanager
def _opened(name: str, parent: int | None) -> Iterator[int]:
    fd = os.open(name, _FOLDER, dir_fd=parent)
    try:
        yield fd
    finally:
        os.close(fd)


@dataclass
class _Collector:
    target: Path
    collect: Collect
    kept: list[KeptFile] = field(default_factory=list)
    _globs: Globs = field(init=False)
    _problems: list[str] = field(default_factory=list)
    _told: int = 0
    _left_out: int = 0
    _bytes: int = 0
    _entries: int = 0

    def __post_init__(self) -> None:
        self._globs = Globs(self.collect.patterns)

    def tell(self, problem: str) -> None:
        """Something was not kept as it should be."""
        self._told += 1
        if self._told <= _MOST_TOLD:
            self._problems.append(problem)

    def problem(self) -> str | None:
        """All of it, in a line; None if all is well."""
        problems = list(self._problems)
        if self._told > _MOST_TOLD:
            problems.append(f"{self._told - _MOST_TOLD} more of that kind")
        if self._left_out:
            problems.append(f"{self._left_out} files are past max_collected_files = {self.collect.max_files}")
        return "; ".join(problems) or None

    def look_into(self, folder: int, path: str, state: Globs.State, depth: int) -> None:
        """Keep what is meant in one folder and below, its own files first."""
        folders = []
        for name, mode in self._listed(folder, path):
            here = self._globs.below(state, name)
            if stat.S_ISDIR(mode):
                if self._globs.leads_on(here):
                    folders.append((name, here))
            elif self._globs.matches(here):
                self._meet(folder, name, f"{path}{quoted(name)}", mode)
        for name, here in folders:
            below = f"{path}{quoted(name)}"
            if depth == _DEEPEST:
                self.tell(f"{_short(below)} is too deep to be looked into")
                continue
            try:
                with _opened(name, folder) as inner:
                    self.look_into(inner, f"{below}/", here, depth + 1)
            except OSError as error:
                self.tell(f"{_short(below)} cannot be read: {error.strerror}")

    def _listed(self, folder: int, path: str) -> list[tuple[str, int]]:
        found = []
        with os.scandir(folder) as entries:
            for entry in entries:
                self._entries += 1
                if self._entries > _MOST_ENTRIES:
                    raise _Enough(
                        f"there are more than {_MOST_ENTRIES} files and folders, of which the rest was not seen"
                    )
                try:
                    found.append((entry.name, entry.stat(follow_symlinks=False).st_mode))
                except OSError as error:
                    self.tell(f"{_short(path + quoted(entry.name))} cannot be read: {error.strerror}")
        return sorted(found)

    def _meet(self, folder: int, name: str, path: str, mode: int) -> None:
        if stat.S_ISLNK(mode):
            self.tell(f"{_short(path)} is a link, which is not followed")
        elif not stat.S_ISREG(mode):
            self.tell(f"{_short(path)} is no regular file")
        elif len(self.kept) >= self.collect.max_files:
            self._left_out += 1
        else:
            self._keep(folder, name, path)

    def _keep(self, folder: int, name: str, path: str) -> None:
        try:
            reading = os.open(name, _FILE, dir_fd=folder)
        except OSError as error:
            self.tell(f"{_short(path)} cannot be read: {error.strerror}")
            return
        try:
            before = os.fstat(reading)
            if not stat.S_ISREG(before.st_mode):
                self.tell(f"{_short(path)} is no regular file")
            elif self._bytes + before.st_size > self.collect.max_bytes:
                self.tell(f"{_short(path)} ({before.st_size} bytes) is past max_collected = {self.collect.max_bytes}")
            else:
                self._copy(reading, path, before)
        finally:
            os.close(reading)

    def _copy(self, reading: int, path: str, before: os.stat_result) -> None:
        target = self.target / path
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("xb") as writing:
                digest, size = hashlib.sha256(), 0
                while size < before.st_size and (piece := os.read(reading, min(_PIECE, before.st_size - size))):
                    writing.write(piece)
                    digest.update(piece)
                    size += len(piece)
        except OSError as error:
            target.unlink(missing_ok=True)
            self.tell(f"{_short(path)} could not be kept: {error.strerror}")
            return
        after = os.fstat(reading)
        if (after.st_size, after.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
            self.tell(f"{_short(path)} was changed while it was kept")
        self._bytes += size
        file = "/".join((*self.target.parts[-2:], path))
        self.kept.append(KeptFile(path=path, file=file, size=size, sha256=digest.hexdigest()))


def quoted(name: str) -> str:
    """A file's name as text that can be printed and written down: other bytes, and ``%``, as ``%XX``."""
    return "".join(
        one if one.isprintable() and one not in "%\\" else "".join(f"%{byte:02X}" for byte in os.fsencode(one))
        for one in name
    )


def _short(path: str) -> str:
    return path if len(path) <= 120 else f"{path[:60]}…{path[-59:]}"
