"""Temporary folders, and those that a muxsim has left which was killed together with its guardian.

One belongs to a muxsim by its name (owner.py), and is left behind if that is gone and nobody holds the folder's lock.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from muxsim.inside.descriptors import close
from muxsim.inside.removal import remove_tree
from muxsim.processes.owner import new_name, owner_by_name


@contextmanager
def own_folder() -> Iterator[Path]:
    """A new temporary folder, held until the end of the block: its name and its lock tell that its owner lives.

    To remove it is the caller's.
    """
    path = Path(tempfile.gettempdir(), new_name())
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
        owner = owner_by_name(path.name)
        if owner is not None and of in (None, owner.pid) and owner.is_gone() and _is_free(path):
            found.append(path)
    return sorted(found)


def remove_folders(folders: Iterable[Path]) -> list[Path]:
    """Remove them; returns those that could not be removed whole."""
    left = []
    for folder in folders:
        remove_tree(folder)
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
