"""What an installed environment consists of, as it was when it was whole; and what has become of it since."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

_FORMAT: Final = 1
_WRITE_BITS: Final = stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH
# Made by interpreters as they go; nothing is amiss without them, or with more of them.
_PASSING: Final = (".pyc", ".pyo")


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """The file that says that an environment is whole, and of what; without it there is none."""

    folder: str
    """The name of the folder that it is in, beside the manifest."""

    asked: dict[str, tuple[str, ...]]
    """What was asked for, by kind of package."""

    packages: dict[str, dict[str, str]]
    """What came of it, by kind: names and versions."""

    pins: dict[str, str]
    """By kind, what makes the same again."""

    interpreter: str = ""
    """The Python or node that runs it, and its version."""

    bytes: int = 0
    """What it takes on the disk."""

    seconds: float = 0.0
    """How long it took to make."""

    files: dict[str, int] = {}
    """Its files, and the size of each."""

    format: int = _FORMAT


def read(file: Path) -> Manifest | None:
    """What the file says; None if there is none, or nothing that can be made use of."""
    try:
        found = msgspec.json.decode(file.read_bytes(), type=Manifest)
    except (OSError, msgspec.MsgspecError):
        return None
    is_plain = found.folder == os.path.basename(found.folder) and found.folder not in ("", ".", "..")
    return found if found.format == _FORMAT and is_plain else None


def write(file: Path, manifest: Manifest) -> None:
    """Puts the whole of it in the place of what was there before, if it was to be the last thing before a crash."""
    beside = file.with_name(f"{file.name}.{manifest.folder}")
    try:
        with beside.open("wb") as out:
            out.write(msgspec.json.encode(manifest))
            out.flush()
            os.fsync(out.fileno())
        os.replace(beside, file)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def damage(manifest: Manifest, folder: Path) -> str | None:
    """What is wrong with a folder since it was whole, as far as names and sizes tell; None if nothing.

    A cut-off copy, a full disk and a cleaner of old files all leave traces there. What has come to it is no damage.
    """
    for name, size in manifest.files.items():
        try:
            there = os.lstat(folder / name).st_size
        except OSError:
            return f"{name} is missing"
        if there != size:
            return f"{name} has {there} bytes instead of {size}"
    return None


def contents(folder: Path) -> dict[str, int]:
    """The files and links of a folder that are to stay, with their sizes."""
    return {
        os.path.relpath(path, folder): os.lstat(path).st_size for path in _files(folder) if not path.endswith(_PASSING)
    }


def bytes_of(folder: Path) -> int:
    """What a folder takes on the disk."""
    return sum(os.lstat(path).st_blocks * 512 for path in _files(folder))


def make_read_only(folder: Path) -> None:
    """Takes every right to write away, so that no server keeps its state beside its code unnoticed."""
    for inner, _, files in os.walk(folder):
        for path in (*(os.path.join(inner, file) for file in files), inner):
            mode = os.lstat(path).st_mode
            if not stat.S_ISLNK(mode):
                os.chmod(path, stat.S_IMODE(mode) & ~_WRITE_BITS)


def _files(folder: Path) -> Iterator[str]:
    for inner, folders, files in os.walk(folder):
        yield from (os.path.join(inner, file) for file in files)
        for name in folders:
            with contextlib.suppress(OSError):
                if os.path.islink(path := os.path.join(inner, name)):
                    yield path
