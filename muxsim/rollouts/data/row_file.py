"""Files with a `Trajectory` on each line: appended to whole or not at all, read one at a time, mended in place."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from muxsim.errors import MuxsimError
from muxsim.rollouts.data.trajectory import Trajectory

_decode_trajectory = msgspec.json.Decoder(Trajectory).decode


class RunError(MuxsimError):
    """A run's folder cannot be used. The message names it and says what to do."""


class RowFile:
    """A file that rows are appended to, each of them whole or not at all."""

    def __init__(self, path: Path, *, fsync: bool) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        self._fsync = fsync

    def append(self, row: bytes) -> None:
        """Write a row; when that fails, nothing of it is left. Raises OSError."""
        end = os.fstat(self._fd).st_size
        rest = memoryview(row)
        try:
            while rest:
                rest = rest[os.write(self._fd, rest) :]
            if self._fsync:
                os.fsync(self._fd)
        except OSError:
            os.ftruncate(self._fd, end)
            raise

    def close(self) -> None:
        """Let go of it."""
        os.close(self._fd)


def read_rows(path: Path) -> Iterator[tuple[bytes, Trajectory]]:
    """The rows of a file, one at a time, each as it stands there and as what it says.

    A last line without its end is left out: it was being written when the run was killed.
    """
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error}") from None
    with file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                return
            try:
                yield line, _decode_trajectory(line)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                raise RunError(f"{path}, line {number}: {error}") from None


def repair(path: Path, keep: Callable[[Trajectory], bool]) -> None:
    """Leave only the whole rows that ``keep`` says yes to. Each is asked about once."""
    if not path.exists():
        return
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with unfinished.open("wb") as repaired:
            kept = 0
            for line, trajectory in read_rows(path):
                if keep(trajectory):
                    kept += repaired.write(line)
            repaired.flush()
            os.fsync(repaired.fileno())
        if kept != path.stat().st_size:
            unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
