"""Removes folders whole, whatever may not be looked into: the kernel makes such a one for each view (views.py)."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import stat
from collections.abc import Iterator


def remove_tree(folder: str | os.PathLike[str]) -> None:
    """Remove a folder with all that is in it, also what is read-only or nested past all bounds. Never raises.

    Whoever could write there may have put something else in its place: a link goes, and where it leads stays.
    """
    with contextlib.suppress(RecursionError):
        shutil.rmtree(folder, ignore_errors=True)
    with contextlib.suppress(OSError):
        os.unlink(folder)
    left = [os.fspath(folder)] if os.path.lexists(folder) else []
    for number in itertools.count():
        if not left:
            return
        left += remove_flat(left.pop(), f"{os.fspath(folder)}.{number}")


def remove_flat(folder: str, beside: str) -> list[str]:
    """Remove one folder; those in it are put beside it, so that no path gets longer. Returns where they are."""
    moved: list[str] = []
    with contextlib.suppress(OSError), unlocked(folder) as place:
        with os.scandir(place) as entries:
            found = list(entries)
        for entry in found:
            with contextlib.suppress(OSError):
                if not entry.is_dir(follow_symlinks=False):
                    os.unlink(entry.path)
                    continue
                with unlocked(entry.path):
                    os.rename(entry.path, f"{beside}.{len(moved)}")
                moved.append(f"{beside}.{len(moved)}")
        os.rmdir(folder)
    return moved


@contextlib.contextmanager
def unlocked(folder: str) -> Iterator[str]:
    """A path to a folder that one may do everything in, for as long as this lasts. Raises OSError for all but one."""
    fd = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.chmod(f"/proc/self/fd/{fd}", stat.S_IRWXU)
        yield f"/proc/self/fd/{fd}"
    finally:
        os.close(fd)
