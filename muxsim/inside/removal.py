"""Removes folders whole, whatever may not be looked into: the kernel makes such a one for each view (views.py)."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import stat


def remove_tree(folder: str | os.PathLike[str]) -> None:
    """Remove a folder with all that is in it, also what is read-only or nested past all bounds. Never raises."""
    with contextlib.suppress(RecursionError):
        shutil.rmtree(folder, ignore_errors=True)
    left = [os.fspath(folder)] if os.path.lexists(folder) else []
    for number in itertools.count():
        if not left:
            return
        left += remove_flat(left.pop(), f"{os.fspath(folder)}.{number}")


def remove_flat(folder: str, beside: str) -> list[str]:
    """Remove one folder; those in it are put beside it, so that no path gets longer. Returns where they are."""
    moved: list[str] = []
    with contextlib.suppress(OSError):
        os.chmod(folder, stat.S_IRWXU)
        with os.scandir(folder) as entries:
            found = list(entries)
        for entry in found:
            with contextlib.suppress(OSError):
                if not entry.is_dir(follow_symlinks=False):
                    os.unlink(entry.path)
                    continue
                os.chmod(entry.path, stat.S_IRWXU)
                os.rename(entry.path, f"{beside}.{len(moved)}")
                moved.append(f"{beside}.{len(moved)}")
        os.rmdir(folder)
    return moved
