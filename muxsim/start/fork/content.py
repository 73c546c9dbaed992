"""What a program is made of that a zygote holds: its interpreter, its script, and what is installed for it."""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path
from typing import Final

from muxsim.inside.spawn import places
from muxsim.start.fork.forkable import Forkable

# Where a virtual environment, conda, a system and a user have packages, from the folder that has bin in it.
_PACKAGES: Final = "lib/python3*/*-packages"
# It comes with the first import of what is installed, and tells nothing.
_CACHE: Final = "__pycache__"

_Mark = tuple[int, int, int] | None


class Content:
    """The files of one program, looked at again and again: `stamp` changes with any of them."""

    def __init__(self, program: Forkable) -> None:
        self.program = program
        self.python = _path_of(program)
        # Beside the path that is used: a virtual environment's own, not that of what it links to.
        prefix = Path(self.python).parent.parent
        self._files = (self.python, str(prefix / "pyvenv.cfg"), *_script_of(program))
        self._folders = tuple(sorted(map(str, prefix.glob(_PACKAGES))))
        self._listed: dict[str, tuple[_Mark, str]] = {}

    def stamp(self) -> tuple[object, ...]:
        """What changes when a file is written anew, or a package is installed, removed or exchanged."""
        return (*map(_mark, self._files), *map(self._packages, self._folders))

    def summary(self) -> list[object]:
        """What there is, as far as it is the same after a copy of everything: times of files, names of packages."""
        marks = [mark and mark[:2] for mark in map(_mark, self._files)]
        return [*marks, *([sorted(name for name, _ in _entries(folder))] for folder in self._folders)]

    def _packages(self, folder: str) -> str:
        mark = _mark(folder)
        if (known := self._listed.get(folder)) is not None and known[0] == mark:
            return known[1]
        digest = hashlib.sha256(repr(sorted(_entries(folder))).encode("utf-8", "surrogateescape")).hexdigest()
        self._listed[folder] = mark, digest
        return digest


def _path_of(program: Forkable) -> str:
    found = (place for place in places(program.python, dict(program.env)) if os.path.isfile(place))
    return next(found, program.python)


def _script_of(program: Forkable) -> tuple[str, ...]:
    if program.script is None:
        return ()
    script = os.path.join(program.cwd, program.script)
    return (os.path.join(script, "__main__.py") if os.path.isdir(script) else script,)


def _mark(path: str) -> _Mark:
    try:
        stat = os.stat(path)
    except OSError:
        return None
    return (stat.st_mtime_ns, stat.st_size, stat.st_ino)


def _entries(folder: str) -> list[tuple[str, int]]:
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        return [(entry.name, entry.inode()) for entry in entries if entry.name != _CACHE]
    return []
