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
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_RAISE = 2
PR_SET_SECCOMP, MODE_FILTER = 22, 2

CAPABILITY_VERSION = 0x20080522
CAPABILITY_SETS = 3 * 2  # effective, permitted and inheritable, the lower half of each first
DAC_OVERRIDE = 1
"""The capability to read and write files whatever their modes say."""

LIBC = ctypes.CDLL(None, use_errno=True) if ctypes else None


def prctl(option: int, value: int, more: int = 0) -> bool:
    if LIBC is None:
        return False
    arguments = [ctypes.c_ulong(argument) for argument in (value, more, 0, 0)]
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


def be_left_with(*kept: int) -> None:
    """Have no capability any more but these, which programs that we run have too, in the namespaces that we are in."""
    bits = sum(1 << number for number in kept)
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION, 0)
    call("capset", header, (ctypes.c_uint32 * CAPABILITY_SETS)(bits, bits, bits))
    for number in kept:
        arguments = [ctypes.c_ulong(argument) for argument in (PR_CAP_AMBIENT_RAISE, number, 0, 0)]
        call("prctl", ctypes.c_int(PR_CAP_AMBIENT), *arguments)


def syscall(number: int, *arguments: int | bytes | None) -> int:
    """What the kernel answers to a call for which the C library has no name. Raises OSError."""
    if LIBC is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    words = [ctypes.c_long(argument) if isinstance(argument, int) else argument for argument in arguments]
    answer = int(LIBC.syscall(ctypes.c_long(number), *words))
    if answer < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return answer


def set_filter(instructions: bytes) -> None:
    """Filter the system calls of this process, and of whatever it starts, with a program of classic BPF."""
    if LIBC is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    code = ctypes.create_string_buffer(instructions, len(instructions))
    program = (ctypes.c_void_p * 2)(len(instructions) // 8, ctypes.addressof(code))
    if not prctl(PR_SET_SECCOMP, MODE_FILTER, ctypes.addressof(program)):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def keep_capabilities(kept: int) -> None:
    """Give up all capabilities but those in this set of bits. Without new privileges no program gets them back."""
    if LIBC is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION, 0)
    sets = (ctypes.c_uint32 * CAPABILITY_SETS)()  # the lower halves, then the upper ones
    call("capget", header, sets)
    for at in range(CAPABILITY_SETS):
        sets[at] &= kept >> (32 if at >= CAPABILITY_SETS // 2 else 0) & 0xFFFFFFFF
    call("capset", header, sets)
