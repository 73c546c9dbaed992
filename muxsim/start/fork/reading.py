"""Reads how a command comes to a Python interpreter: by its name, by a link, or by the first lines of a script."""

from __future__ import annotations

import os
from collections.abc import Mapping
from stat import S_ISREG
from typing import Final, NamedTuple

from muxsim.inside.spawn import places
from muxsim.spec import EnvSpec, fixed, has_placeholder, literal
from muxsim.start.fork.forkable import Forkable, Words, as_typed, forkable, is_python
from muxsim.start.fork.shebang import READ, interpreted, without_env

# Scripts whose interpreter is a script: the kernel follows so many.
_DEEPEST: Final = 5


def read_program(spec: EnvSpec, environ: Mapping[str, str]) -> Forkable | str:
    """What a zygote for ``spec`` has to have, as files are now, or why there can be none."""
    return forkable(spec, environ, read_words(spec, environ))


def read_words(spec: EnvSpec, environ: Mapping[str, str]) -> Words:
    """The command line of the interpreter that the spec's own comes to; its own, where that is none or not known."""
    typed = words = (spec.command, *spec.args)
    env = spec.launch(seed=0, session_id="", workspace="", environ=environ).env
    folder = "" if has_placeholder(spec.cwd) else fixed(spec.cwd)
    untouched = len(words)
    for _ in range(_DEEPEST):
        program = fixed(words[0])
        found = None if has_placeholder(words[0]) else _found(program, env, folder)
        if is_python(program) or (found is not None and is_python(found.file)):
            return Words(words, typed[: len(typed) - untouched], is_python=True)
        if found is None:
            break
        if os.path.basename(program) == "env":
            if (run := without_env(words[1:])) is None:
                break
            made, taken = run
            words = (*made, *words[1 + taken :])
        elif stands := interpreted(first_bytes(found.file, READ), found.place, os.path.dirname(found.file)):
            made = tuple(map(literal, stands))
            words = (*made, *words[1:])
        else:
            break
        untouched = min(untouched, len(words) - len(made))
    return as_typed(spec)


class _Found(NamedTuple):
    place: str
    """The path that an exec takes."""
    file: str
    """Where that leads."""


def _found(program: str, env: Mapping[str, str], folder: str) -> _Found | None:
    """What an exec in this folder takes; None if there is none, or only a session's own folder tells."""
    for place in places(program, env):
        if not folder and not os.path.isabs(place):
            return None
        path = os.path.join(folder, place)
        if os.path.isfile(path) and os.access(path, os.X_OK):
            return _Found(place, os.path.realpath(path))
    return None


def first_bytes(path: str, count: int) -> bytes:
    """What a file begins with; nothing of what is no file, or cannot be read."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            return os.read(fd, count) if S_ISREG(os.fstat(fd).st_mode) else b""
        finally:
            os.close(fd)
    except OSError:
        return b""
