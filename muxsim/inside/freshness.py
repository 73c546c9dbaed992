"""What has to be as on the day the zygote was made. Standard library only."""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Collection
from typing import Optional

Mark = Optional[tuple[int, int, int]]

INSTALLED = ("site-packages", "dist-packages")
"""How folders are called into which installers put packages."""

CACHE = "__pycache__"
"""Comes to a folder with the first import of what is in it, and tells nothing."""


class Freshness:
    """Tells when what was imported is no longer what an import would give.

    A package that is installed, removed or exchanged changes its folder of packages, and so does an environment that is
    made anew at its place. The files of the interpreter itself are trusted as long as it is the same one; those of
    modules elsewhere, as of a package under development, are looked at one by one.
    """

    def __init__(self, folder: str | None, startup: Collection[str]) -> None:
        paths = sysconfig.get_paths()
        packages = {paths["purelib"], paths["platlib"]}
        packages.update(path for path in sys.path if os.path.basename(path) in INSTALLED)
        trusted = tuple(os.path.join(path, "") for path in (*packages, paths["stdlib"], paths["platstdlib"]))
        self._folder = folder
        self._packages = {path: (mark_of(path), entries_of(path)) for path in packages}
        files = [os.path.realpath(sys.executable), os.path.join(sys.prefix, "pyvenv.cfg"), os.__file__]
        for name, module in list(sys.modules.items()):
            file = getattr(module, "__file__", None)
            if isinstance(file, str) and not file.startswith(trusted) and name != "__main__":
                files.append(file)
        self._marks = {file: mark_of(file) for file in files}
        self._names = {name.partition(".")[0] for name in sys.modules if name not in startup}
        self._folder_mark: Mark = None

    def fault(self) -> str | None:
        """What has changed, or cannot have been right from the beginning."""
        for path, mark in self._marks.items():
            if mark_of(path) != mark:
                return f"{path} has changed"
        for path, (mark, entries) in self._packages.items():
            if (now := mark_of(path)) != mark:
                if entries_of(path) != entries:
                    return f"{path} has changed"
                self._packages[path] = now, entries
        if self._folder is not None and mark_of(self._folder) != self._folder_mark:
            self._folder_mark = mark_of(self._folder)
            return self._shadow()
        return None

    def _shadow(self) -> str | None:
        """A file beside the script that an import would find in the place of a module that is here."""
        try:
            beside = os.listdir(self._folder)
        except OSError:
            return None
        for entry in beside:
            name, dot, suffix = entry.partition(".")
            package = not dot and os.path.exists(os.path.join(self._folder or "", entry, "__init__.py"))
            if name in self._names and (package or suffix == "py" or suffix.endswith(".so")):
                return f"{entry} beside the script stands before the module {name}"
        return None


def mark_of(path: str) -> Mark:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def entries_of(folder: str) -> set[tuple[str, int]]:
    try:
        with os.scandir(folder) as entries:
            return {(entry.name, entry.inode()) for entry in entries if entry.name != CACHE}
    except OSError:
        return set()
