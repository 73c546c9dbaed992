"""What has to be as on the day the zygote was made. Standard library only."""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Collection


class Freshness:
    """Tells when what was imported is no longer what an import would give.

    A package that is installed or removed changes its folder of packages. The files of the interpreter itself are
    trusted; those of modules elsewhere, as of a package under development, are looked at one by one.
    """

    def __init__(self, folder: str | None, startup: Collection[str]) -> None:
        paths = sysconfig.get_paths()
        packages = {paths["purelib"], paths["platlib"]}
        standard = (paths["stdlib"], paths["platstdlib"])
        self._folder = folder
        self._marks = {path: self._mark(path) for path in packages}
        for name, module in list(sys.modules.items()):
            file = getattr(module, "__file__", None)
            if isinstance(file, str) and not file.startswith((*packages, *standard)) and name != "__main__":
                self._marks[file] = self._mark(file)
        self._names = {name.partition(".")[0] for name in sys.modules if name not in startup}
        self._folder_mark: tuple[int, int] | None = None

    def fault(self) -> str | None:
        """What has changed, or cannot have been right from the beginning."""
        for path, mark in self._marks.items():
            if self._mark(path) != mark:
                return f"{path} has changed"
        if self._folder is not None and self._mark(self._folder) != self._folder_mark:
            self._folder_mark = self._mark(self._folder)
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

    @staticmethod
    def _mark(path: str) -> tuple[int, int] | None:
        try:
            found = os.stat(path)
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size
