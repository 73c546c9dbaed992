"""What the first lines of a file make of a command line, as the kernel, `env` and the shell take them. Pure."""

from __future__ import annotations

import re
import shlex
from typing import Final

READ: Final = 4096
"""So many bytes of a file are enough."""

# The kernel looks at no more of a first line (BINPRM_BUF_SIZE).
_FIRST_LINE: Final = 256
_SHELLS: Final = frozenset({"/bin/sh", "/usr/bin/sh", "/bin/bash", "/usr/bin/bash", "/bin/dash", "/usr/bin/dash"})
# What pip, uv and conda write where a path is too long for a first line, or has a space in it, or where the folder may
# be moved: to the shell an exec, to Python a string.
_EXEC_LINE: Final = re.compile(r"""'''exec' (?P<program>.+) "\$0" "\$@"\s*""")
_BESIDE: Final = '"$(dirname -- "$(realpath -- "$0")")"/'
_EXPANDED_BY_A_SHELL: Final = re.compile(r"[$`*?~;&|<>()\\]")


def interpreted(first: bytes, path: str, folder: str) -> tuple[str, ...] | None:
    """The command line that a file stands for, its own path included; None if it begins like no script.

    ``path`` is what it is executed by, ``folder`` where it really lies.
    """
    line, newline, rest = first.partition(b"\n")
    if not line.startswith(b"#!") or (not newline and len(first) >= READ) or len(line) >= _FIRST_LINE:
        return None
    words = line[2:].decode("utf-8", "surrogateescape").strip(" \t").split(None, 1)
    if not words:
        return None
    program, *option = (word.rstrip(" \t") for word in words)
    if program in _SHELLS and not option:
        second = rest.partition(b"\n")[0].decode("utf-8", "surrogateescape")
        if (by_shell := _exec_line(second, folder)) is not None:
            return (*by_shell, path)
    return (program, *option, path)


def _exec_line(line: str, folder: str) -> tuple[str, ...] | None:
    found = _EXEC_LINE.fullmatch(line)
    if found is None:
        return None
    text = found["program"]
    is_beside = text.startswith(_BESIDE)
    text = text.removeprefix(_BESIDE)
    if _EXPANDED_BY_A_SHELL.search(text):
        return None
    try:
        program, *options = shlex.split(text)
    except ValueError:
        return None
    return (f"{folder}/{program}" if is_beside else program, *options)


def without_env(args: tuple[str, ...]) -> tuple[tuple[str, ...], int] | None:
    """What `env` makes of the first so many of its arguments: the program, with the rest after it.

    None where it does more than look for a program.
    """
    if args[:1] == ("-S",) and len(args) > 1:
        return _split(args[1], 2)
    if args and args[0].startswith("-S"):
        return _split(args[0][2:], 1)
    return None if not args or args[0].startswith("-") or "=" in args[0] else ((), 0)


def _split(text: str, taken: int) -> tuple[tuple[str, ...], int] | None:
    if _EXPANDED_BY_A_SHELL.search(text):
        return None
    try:
        words = tuple(shlex.split(text))
    except ValueError:
        return None
    return (words, taken) if words and not words[0].startswith("-") and "=" not in words[0] else None
