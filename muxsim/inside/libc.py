"""The C library, where Python does not offer what it has."""

from __future__ import annotations

try:
    import ctypes
except ImportError:  # a Python built without libffi: no prctl, so neither subreaper nor PDEATHSIG
    ctypes = None  # type: ignore[assignment]

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38

LIBC = ctypes.CDLL(None) if ctypes else None


def prctl(option: int, value: int) -> bool:
    if LIBC is None:
        return False
    arguments = [ctypes.c_ulong(argument) for argument in (value, 0, 0, 0)]
    return bool(LIBC.prctl(ctypes.c_int(option), *arguments) == 0)
