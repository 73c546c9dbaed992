"""`muxsim new`: a folder with a whole environment in it, to be made one's own."""

from __future__ import annotations

import re
from contextlib import suppress
from importlib.resources import files
from pathlib import Path
from typing import Final, Literal

from muxsim.errors import MuxsimError

Language = Literal["python", "javascript"]

# What names an environment in URLs, a package of Python's and one of npm's.
_NAME: Final = re.compile(r"[a-z][a-z0-9_-]{0,63}")
_ENDING: Final = ".txt"  # so that no tool takes a template for the code that it is not yet
_PLACE: Final = "@NAME@"


def write_environment(folder: Path, language: Language) -> list[Path]:
    """The files that were written into a new folder, whose name is the environment's. Raises `MuxsimError`."""
    name = folder.name
    if not _NAME.fullmatch(name):
        raise MuxsimError(f"{name!r} cannot name an environment: use a-z, 0-9, '_' and '-', and begin with a letter")
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise MuxsimError(f"{folder} is there already, and is not written over: name another, or remove it")
        made = not folder.exists()
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MuxsimError(f"{error.filename or folder} cannot be written: {error.strerror}") from None
    written: list[Path] = []
    try:
        for template in sorted(files("muxsim.cli").joinpath("templates", language).iterdir(), key=lambda one: one.name):
            path = folder / template.name.removesuffix(_ENDING)
            text = template.read_text(encoding="utf-8").replace(_PLACE, name)
            written.append(path)
            path.write_text(text, encoding="utf-8")
    except BaseException as error:
        with suppress(OSError):  # half an environment is none, and would be in the way of the next try
            for path in written:
                path.unlink(missing_ok=True)
            if made:
                folder.rmdir()
        if not isinstance(error, OSError):
            raise
        raise MuxsimError(f"{error.filename or folder} cannot be written: {error.strerror}") from None
    return written
