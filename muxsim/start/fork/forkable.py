"""Which environments a zygote can serve, and what it has to have of each. Pure."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from muxsim.spec import EnvSpec, fixed, has_placeholder

_PYTHON = re.compile(r"python(3(\.\d+)?)?")
_OPTION = re.compile(r"-[bBdEIOPqRsSuv]+|-[XW].+")
_OPTIONS_WITH_VALUE = frozenset({"-X", "-W", "--check-hash-based-pycs"})

# Whatever the interpreter, the loader and the C library read when a process begins cannot differ from fork to fork.
_READ_AT_START = re.compile(r"PYTHON.*|LD_.*|MALLOC_.*|GLIBC_TUNABLES|LC_.*|LANG(UAGE)?|DYLD_.*")

# `EnvSpec.launch` gives these to each session.
_PER_SESSION = ("MUXSIM_SEED", "MUXSIM_WORKSPACE")


@dataclass(frozen=True, slots=True)
class Forkable:
    """What a zygote is made for; two that are equal may share one."""

    python: str
    """The interpreter."""

    options: tuple[str, ...]
    """Its options."""

    words: tuple[str, ...]
    """The path of a script, or -m and a module's name."""

    env: tuple[tuple[str, str], ...]
    """The variables that are the same for every session."""

    variables: tuple[str, ...]
    """The names of the others."""

    cwd: str
    """The folder, if it is the same for every session, else ``/``."""

    preload: tuple[str, ...]
    """Modules that the spec names."""

    @property
    def script(self) -> str | None:
        """The script's path; None for a module."""
        return None if self.words[0] == "-m" else self.words[0]

    @property
    def head(self) -> tuple[str, ...]:
        """The part of the command line that is the same for every session."""
        return (self.python, *self.options, *self.words)


def forkable(spec: EnvSpec, environ: Mapping[str, str]) -> Forkable | str:
    """What a zygote for ``spec`` has to have, or why there can be none; ``environ`` is muxsim's own environment."""
    if not _PYTHON.fullmatch(os.path.basename(spec.command)):
        return "its command is not python"
    parsed = _parse(spec.args)
    if isinstance(parsed, str):
        return parsed
    options, words = parsed
    if any(map(has_placeholder, (spec.command, *options, *words))):
        return "its script depends on the session"
    variables = (*_PER_SESSION, *(name for name, value in spec.env.items() if has_placeholder(value)))
    if early := [name for name in variables if _READ_AT_START.fullmatch(name)]:
        return f"{early[0]}, which is read when a process begins, depends on the session"
    launch = spec.launch(seed=0, session_id="", workspace="", environ=environ)
    return Forkable(
        python=launch.argv[0],
        options=tuple(map(fixed, options)),
        words=tuple(map(fixed, words)),
        env=tuple((name, value) for name, value in launch.env.items() if name not in variables),
        variables=variables,
        cwd="/" if has_placeholder(spec.cwd) else launch.cwd,
        preload=spec.preload,
    )


def _parse(args: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]] | str:
    """The interpreter's options, and what it is to run, or why that is nothing for a zygote."""
    at = 0
    while at < len(args):
        word = args[at]
        if word == "-m":
            return (args[:at], args[at : at + 2]) if len(args) > at + 1 else "its -m names no module"
        if not word.startswith("-"):
            return (args[:at], (word,)) if word.endswith(".py") else f"{word} is not a .py file"
        if not _OPTION.fullmatch(word) and word not in _OPTIONS_WITH_VALUE:
            return f"python {word} runs neither a script nor a module"
        at += 2 if word in _OPTIONS_WITH_VALUE else 1
    return "its command names no script"
