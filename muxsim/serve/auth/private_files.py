"""Files with secrets in them: read only where nobody else may."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

from muxsim.errors import ConfigError

_OTHERS_MAY: Final = stat.S_IRWXO | stat.S_IWGRP


@contextmanager
def open_private(path: Path) -> Iterator[BinaryIO]:
    """A file to be read. Raises `ConfigError` if it cannot be, if others may use it, or its group may write it."""
    try:
        with path.open("rb") as file:
            _check(file.fileno(), path)
            yield file
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", file=str(path)) from None


def _check(fd: int, path: Path) -> None:
    status = os.fstat(fd)
    if stat.S_ISREG(status.st_mode) and status.st_mode & _OTHERS_MAY:
        mode = stat.S_IMODE(status.st_mode)
        raise ConfigError(f"has mode {mode:04o}, so others may use what is in it: chmod 600 {path}", file=str(path))
