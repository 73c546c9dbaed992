"""The C library, where Python does not offer what it has."""

from __future__ import annotations

import errno
import os

try:
    import ctypes
except ImportError:  # a Python built without libffi: no prctl, so neither subreaper nor PDEATHSIG
    ctypes = None  # type: ignore[assignment]

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38

CAPABILITY_VERSION = 0x20080522
CAPABILITY_SETS = 3 * 2  # effective, permitted and inheritable, in two halves

LIBC = ctypes.CDLL(None, use_errno=True) if ctypes else None


def prctl(option: int, value: int) -> bool:
    if LIBC is None:
        return False
    arguments = [ctypes.c_ulong(argument) for argument in (value, 0, 0, 0)]
    return bool(LIBC.prctl(ctypes.c_int(option), *arguments) == 0)


def call(name: str, *arguments: object) -> None:
    """Call a function that returns 0, or -1 with an errno, which is raised."""
    function = getattr(LIBC, name, None)
    if function is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    if function(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def mount(source: str | None, target: str, kind: str | None, flags: int, options: str | None) -> None:
    words = [None if word is None else os.fsencode(word) for word in (source, target, kind, options)]
    call("mount", *words[:3], flags if ctypes is None else ctypes.c_ulong(flags), words[3])


def forgo_capabilities() -> None:
    """Have no capability any more, in the namespaces that we are in."""
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION, 0)
    call("capset", header, (ctypes.c_uint32 * CAPABILITY_SETS)())
