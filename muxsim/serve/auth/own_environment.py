"""Secrets in muxsim's own environment: read once, then out of everybody's reach."""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import MutableMapping
from pathlib import Path
from typing import Final

# Of /proc/self/stat, counted from the field after the name in brackets: where the environment begins in memory.
_ENV_START: Final = 47


def take_variable(name: str, environ: MutableMapping[str, str]) -> str | None:
    """The value of a variable, taken out of ``environ``; None if it is not set.

    From the process's own environment it is wiped too: whatever runs as the same user, a backend for one, could read it
    in /proc, where the environment stays as it was when the process began.
    """
    value = environ.pop(name, None)
    if value is not None and environ is os.environ:
        with contextlib.suppress(OSError, ValueError, IndexError):  # no /proc, or a strange one: no harm done
            _wipe(name.encode())
    return value


def _wipe(name: bytes) -> None:
    block = Path("/proc/self/environ").read_bytes()
    start = int(Path("/proc/self/stat").read_bytes().rpartition(b")")[2].split()[_ENV_START])
    at = 0
    for entry in block.split(b"\0"):
        if entry.startswith(name + b"=") and start:
            ctypes.memset(start + at + len(name) + 1, 0, len(entry) - len(name) - 1)
        at += len(entry) + 1
