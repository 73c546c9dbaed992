"""Files that people name for what is made of a run: there whole or not at all, and none that a run consists of."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from muxsim.rollouts.data.run_folder import keep_runs

# Where files have names that only this process knows them by.
_OPEN_FILES: Final = (Path("/dev"), Path("/proc"))


def make_folder(folder: Path) -> None:
    """Make a folder that there may be already. Raises OSError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise NotADirectoryError(errno.ENOTDIR, f"{folder} is no folder") from None


@contextmanager
def whole(output: Path) -> Iterator[Path]:
    """A file beside the one that is meant, which it becomes at the end of the block, unless that raises.

    Its folder is made, and a link leads to the file. Raises OSError, and `RunError` for a part of a run.
    """
    if output.exists() and not output.is_file():  # a pipe, or a terminal
        yield output
        return
    real = Path(os.path.realpath(output))
    if output.exists() and any(root in Path(os.path.abspath(output)).parents for root in _OPEN_FILES):
        raise FileExistsError(f"it is {real}, which is open already: name that, or - for what is written to stdout")
    keep_runs(output)
    make_folder(real.parent)
    unfinished = real.with_name(f".{os.getpid()}.muxsim")
    try:
        yield unfinished
        unfinished.replace(real)
    finally:
        unfinished.unlink(missing_ok=True)
