"""Which environments a zygote can serve, and what it has to have of each. Pure: `reading` looks at files."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from muxsim.spec import EnvSpec, fixed, has_placeholder

_PYTHON = re.compile(r"python(3(\.\d+t?)?)?")
_OPTION = re.compile(r"-[bBdEIOPqRsSuv]+|-[XW].+")
# Options with -m at their end: what follows is a module's name.
_MODULE = re.compile(r"-([bBdEIOPqRsSuv]*)m")
# A script among the arguments, as `mcp run` takes it.
_SCRIPT = re.compile(r".+\.py(:\w+)?")
_OPTIONS_WITH_VALUE = frozenset({"-X", "-W", "--check-hash-based-pycs"})

# Whatever the interpreter, the loader and the C library read when a process begins cannot differ from fork to fork.
_READ_AT_START = re.compile(r"PYTHON.*|LD_.*|MALLOC_.*|GLIBC_TUNABLES|LC_.*|LANG(UAGE)?|DYLD_.*")

# `EnvSpec.launch` gives these to each session.
_PER_SESSION = ("MUXSIM_SEED", "MUXSIM_WORKSPACE")
_OF_A_WORKSPACE = ("HOME", "TMPDIR")


@dataclass(frozen=True, slots=True)
class Words:
    """The command line of what a spec's own comes to in the end (reading.py), in which placeholders may stand."""

    words: tuple[str, ...]
    """The program, and what it is given."""

    typed: tuple[str, ...]
    """The spec's own words that are not its last words too."""

    is_python: bool
    """Whether the program is an interpreter."""


@dataclass(frozen=True, slots=True)
class Forkable:
    """What a zygote is made for; two that are equal may share one."""

    python: str
    """The interpreter."""

    given: tuple[str, ...]
    """Its options, as they stand before `words`."""

    options: tuple[str, ...]
    """The same for whatever it is to run: without the -m that may be one's end."""

    words: tuple[str, ...]
    """The path of a script, or -m (or options that end so) and a module's name."""

    is_runner: bool
    """Whether it is given a script of Python in its turn: then that is the environment's own, and no package."""

    typed: tuple[str, ...]
    """The first words of the spec's command line, which stand for `lead`."""

    lead: tuple[str, ...]
    """What comes of them: the first words of the interpreter's command line."""

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
        return None if self.words[0].startswith("-") else self.words[0]

    @property
    def head(self) -> tuple[str, ...]:
        """The part of the interpreter's command line that is the same for every session."""
        return (self.python, *self.given, *self.words)

    def command_line(self, argv: tuple[str, ...]) -> tuple[str, ...] | None:
        """A session's command line as its interpreter is given it; None if this program is not in it."""
        count = len(self.typed)
        told = (*self.lead, *argv[count:])
        return told if argv[:count] == self.typed and told[: len(self.head)] == self.head else None


def is_python(program: str) -> bool:
    """Whether a program is an interpreter by its name."""
    return _PYTHON.fullmatch(os.path.basename(program)) is not None


def as_typed(spec: EnvSpec) -> Words:
    """A command line that is the interpreter's own, if its first word says so."""
    return Words((spec.command, *spec.args), (), is_python(spec.command))


def forkable(spec: EnvSpec, environ: Mapping[str, str], read: Words | None = None) -> Forkable | str:
    """What a zygote for ``spec`` has to have, or why there can be none; ``environ`` is muxsim's own environment.

    ``read`` is what its command line comes to, where that is known.
    """
    read = read or as_typed(spec)
    if not read.is_python:
        return "its command is not python"
    program, *args = read.words
    parsed = _parse(tuple(args))
    if isinstance(parsed, str):
        return parsed
    given, options, words = parsed
    if any(map(has_placeholder, (program, *read.typed, *given, *words))):
        return "its script depends on the session"
    if "/" not in program and has_placeholder(spec.env.get("PATH", "")):
        return "PATH, by which its interpreter is found, depends on the session"
    own = _OF_A_WORKSPACE if spec.confinement.sandbox == "landlock" else ()
    variables = (
        *_PER_SESSION,
        *(name for name in own if name not in spec.env),
        *(name for name, value in spec.env.items() if has_placeholder(value)),
    )
    if early := [name for name in variables if _READ_AT_START.fullmatch(name)]:
        return f"{early[0]}, which is read when a process begins, depends on the session"
    launch = spec.launch(seed=0, session_id="", workspace="", environ=environ)
    lead = read.words[: len(read.words) - (1 + len(spec.args) - len(read.typed))]
    return Forkable(
        python=fixed(program),
        given=tuple(map(fixed, given)),
        options=tuple(map(fixed, options)),
        words=tuple(map(fixed, words)),
        is_runner=any(map(_SCRIPT.fullmatch, args[len(given) + len(words) :])),
        typed=tuple(map(fixed, read.typed)),
        lead=tuple(map(fixed, lead)),
        env=tuple((name, value) for name, value in launch.env.items() if name not in variables),
        variables=variables,
        cwd="/" if has_placeholder(spec.cwd) else launch.cwd,
        preload=spec.preload,
    )


_Parsed = tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]


def _parse(args: tuple[str, ...]) -> _Parsed | str:
    """The interpreter's options, the same without -m, and what it is to run, or why that is nothing for a zygote."""
    at = 0
    while at < len(args):
        word, before = args[at], args[:at]
        if module := _MODULE.fullmatch(word):
            options = (*before, f"-{module[1]}") if module[1] else before
            return (before, options, args[at : at + 2]) if len(args) > at + 1 else f"its {word} names no module"
        if not word.startswith("-"):
            return f"{word} is compiled already" if word.endswith(".pyc") else (before, before, (word,))
        if not _OPTION.fullmatch(word) and word not in _OPTIONS_WITH_VALUE:
            return f"python {word} runs neither a script nor a module"
        at += 2 if word in _OPTIONS_WITH_VALUE else 1
    return "its command names no script"
