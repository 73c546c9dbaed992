"""Requirements that name a file or a folder of this machine: which lines do, where that is, and what is in it."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import re
import stat
import tomllib
from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from muxsim.spec import LOCK_NAME
from muxsim.values import EXTRAS, MARKER, NAMED, is_path

_EDITABLE: Final = re.compile(r"(?:-e|--editable)[ =]*(.+)")
# What is made in a project's folder as it is built, used and kept, and is no part of what it is.
_MADE: Final = frozenset({"build", "dist", "__pycache__", "node_modules", "venv"})
_MADE_ENDINGS: Final = (".egg-info", ".pyc", ".pyo")
# What is made of rollouts in the folder of a project that is played from there, with the config that says how.
_PLAYED: Final = frozenset({"runs", "logs", "target", "mlruns", "mlflow.db", "wandb", "muxsim.toml", LOCK_NAME})
_RUN: Final = frozenset({"config.json", "rollouts.jsonl"})
_PROJECT: Final = ("pyproject.toml", "setup.py", "setup.cfg")
_BLOCK: Final = 1024 * 1024
# Bytes of a folder that are looked into: beside its code a project may have its data, of which sizes and times tell.
_MOST_READ: Final = 256 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class LocalPath:
    """What one line of requirements names on this machine."""

    line: str
    """As it is written."""

    path: Path
    editable: bool

    @property
    def term(self) -> str:
        """For a lock: a file's name and contents. Folders are worked on, and stay what they are."""
        return f"{self.line} sha256:{self.digest()}" if self.path.is_file() else ""

    def digest(self) -> str:
        """Of all that decides what is installed; "" for what cannot be read, of which the installer will tell.

        A file in a folder that cannot be read is in it by its name, size and time.
        """
        try:
            if self.path.is_file():
                return _digest_of_file(self.path)
            os.listdir(self.path)
        except OSError:
            return ""
        # What is installed editable is only linked to.
        files = [self.path / name for name in _PROJECT] if self.editable else sorted(_files(self.path))
        return _digest_of(self.path, files)

    def fault(self) -> str:
        """Why nothing can be installed from there; "" where nothing is amiss."""
        if self.path.is_file() and not self.editable:
            return ""
        if not self.path.is_dir():
            return f"names nothing, for there is no {self.path}"
        if any((self.path / name).is_file() for name in _PROJECT):
            return ""
        return f"names no project, for {self.path} has no pyproject.toml and no setup.py"

    def refreshing(self) -> tuple[str, ...]:
        """Options for uv, which has what it built of a folder before for as good, whatever is there now."""
        if self.editable or self.path.is_file():
            return ()
        # Not --refresh, which uv refuses where it is offline, be it by the user's own UV_OFFLINE. This does as much.
        return ("--reinstall-package", name) if (name := self._project_name()) else ("--reinstall",)

    def _project_name(self) -> str:
        try:
            found = tomllib.loads((self.path / "pyproject.toml").read_text(encoding="utf-8"))
            name = found["project"]["name"]
        except (OSError, ValueError, KeyError, TypeError):
            return ""
        return name if isinstance(name, str) else ""


def local_path(line: str, folder: Path) -> LocalPath | None:
    """What a line of requirements in a folder names on this machine; None if it names nothing there."""
    editable = _EDITABLE.fullmatch(line)
    text = MARKER.sub("", editable[1] if editable is not None else line).strip()
    if (named := NAMED.match(text)) is not None:
        text = text[named.end() :]
    elif not is_path(text) and not text.startswith("file://") and editable is None:
        return None
    if text.startswith("file://"):
        text = unquote(urlsplit(text).path)
    elif "://" in text:
        return None
    path = Path(os.path.normpath(folder / os.path.expanduser(EXTRAS.sub("", text))))
    return LocalPath(line, path, editable is not None)


def local_paths(lines: Iterable[str], folder: Path) -> Iterator[LocalPath]:
    """The same of many."""
    return (found for line in lines if (found := local_path(line, folder)) is not None)


def _digest_of(folder: Path, files: Iterable[Path]) -> str:
    digest, left = hashlib.sha256(), _MOST_READ
    for file in files:
        with contextlib.suppress(OSError):  # of one that is not there, or is a link to nothing
            found = file.stat()
            if stat.S_ISREG(found.st_mode):
                left -= found.st_size
                seen = _seen(file, found, read=left >= 0)
                digest.update(f"{os.path.relpath(file, folder)}\0{seen}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


def _seen(file: Path, found: os.stat_result, *, read: bool) -> str:
    """What is in a file, or else its size and time."""
    if read:
        with contextlib.suppress(OSError):
            return _digest_of_file(file)
    return f"{found.st_size} {found.st_mtime_ns}"


def _digest_of_file(path: Path) -> str:
    found = path.stat()
    return _digest(str(path), found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino)


@functools.lru_cache(maxsize=4096)
def _digest(path: str, *_: int) -> str:
    """Looked at once: a wheel may have a GiB, and is asked for at each start and reload."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(_BLOCK), b""):
            digest.update(block)
    return digest.hexdigest()


def _files(folder: Path) -> Iterator[Path]:
    for inner, folders, files in os.walk(folder):
        if Path(inner) != folder and _RUN.issubset(files):
            folders.clear()
            continue
        made = _MADE | {name for name in _PLAYED if not _is_package(folder, name)} if Path(inner) == folder else _MADE
        folders[:] = [name for name in folders if _is_own(name, made)]
        yield from (Path(inner, name) for name in files if _is_own(name, made))


def _is_package(folder: Path, name: str) -> bool:
    return (folder / name / "__init__.py").is_file()


def _is_own(name: str, made: Set[str]) -> bool:
    return not name.startswith(".") and name not in made and not name.endswith(_MADE_ENDINGS)
