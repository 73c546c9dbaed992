"""How a slot of an environment is made before its session is known, and what has to be the same when it is used."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from itertools import takewhile
from typing import Final

from muxsim import inside
from muxsim.spec import EnvSpec, Launch, has_placeholder
from muxsim.start.fork.forkable import Forkable
from muxsim.start.fork.reading import read_program

# Options with which node would run something else than one script, or modules of its own choice before it, which
# nobody would watch.
_NOT_FOR_NODE: Final = (
    *("-e", "--eval", "-p", "--print", "-i", "--interactive", "-c", "--check", "-h", "--help", "-v", "--version"),
    *("-r", "--require", "--import", "--loader", "--experimental-loader", "--test", "--watch", "--run"),
    *("--preserve-symlinks", "--input-type", "--experimental-default-type", "--env-file", "--build-sea"),
)
# Variables that node or its libraries read before any script, or out of our sight.
_READ_EARLY: Final = frozenset({"TZ", "LANG", "LANGUAGE", "HOME", "TMPDIR", "TMP", "TEMP", "PATH"})
_READ_EARLY_PREFIXES: Final = ("NODE_", "UV_", "LD_", "LC_", "SSL_", "OPENSSL_", "ICU_")


class Kind(Enum):
    """How far a slot has come."""

    WHOLE = "whole"
    """The server itself, started: the spec takes nothing of the session but its folder."""

    NODE = "node"
    """A node that has loaded what the server imports, and waits for its order."""

    FORK = "fork"
    """A fork of the environment's zygote, which waits for its order."""


@dataclass(frozen=True)
class WarmStart:
    """How to make a slot: what to execute, for NODE with its plan (warm_node.cjs), for FORK only how it is confined."""

    kind: Kind
    launch: Launch
    entry: int = 0
    """Where the entry script stands in the session's own command line."""
    late: tuple[str, ...] = ()
    """The variables that only the order brings."""
    late_cwd: bool = False

    def command_line(self, *, skip: tuple[str, ...], compile_cache: str) -> Launch:
        """What to execute so that these modules are left out."""
        if self.kind is not Kind.NODE:
            return self.launch
        *options, script = self.launch.argv[: self.entry + 1]
        plan = {
            "entry": script,
            "at": self.entry,
            "late": self.late,
            "lateCwd": self.late_cwd,
            "skip": skip,
            "compileCache": compile_cache,
        }
        return replace(self.launch, argv=(*options, inside.WARM_NODE, json.dumps(plan)))


class NotWarm(Exception):
    """No slot can be made of this spec; says why, and what to do."""


def warm_start(spec: EnvSpec, *, workspace: str, environ: Mapping[str, str]) -> WarmStart:
    """How to make a slot of a prepared spec, for a session in ``workspace``. Raises `NotWarm`.

    Of one that does not say how many it wants nothing is run before there is a session.
    """
    if spec.shared:
        raise NotWarm("a shared environment has one process for all: take warm out")
    # What differs between two sessions is what is not known before there is one.
    one = spec.launch(seed=1, session_id="one", workspace=workspace, environ=environ)
    other = spec.launch(seed=2, session_id="other", workspace=workspace, environ=environ)
    if (one.readable, one.writable) != (other.readable, other.writable):
        raise NotWarm("readable or writable is not known before there is a session: take {seed} and {session_id} out")
    if spec.warm is not None and not spec.seeded:
        if one != other or has_placeholder(spec.workspace_from):
            raise NotWarm("{session_id} is not known before there is a session: take it out")
        return WarmStart(Kind.WHOLE, one)
    if one.private != other.private:
        raise NotWarm("its private folders are not known before there is a session: take {seed} and {session_id} out")
    if os.path.basename(spec.command) == "node":
        late = tuple(sorted(name for name, value in one.env.items() if other.env[name] != value))
        # A folder in the workspace may be there only once that has begun.
        in_workspace = has_placeholder(spec.workspace_from) and one.cwd.startswith(f"{workspace}/")
        late_cwd = one.cwd != other.cwd or in_workspace
        if early := [name for name in late if name in _READ_EARLY or name.startswith(_READ_EARLY_PREFIXES)]:
            raise NotWarm(f"{early[0]} is read while modules load: take {{seed}} and {{session_id}} out of it")
        env, cwd = {**one.env, **dict.fromkeys(late, "")}, workspace if late_cwd else one.cwd
        waiting = replace(one, env=env, cwd=cwd)
        return WarmStart(Kind.NODE, waiting, _entry(spec, one, other), late, late_cwd)
    program = _program(spec, environ)
    if isinstance(program, str):
        text = f"only node, and Python with a zygote, can wait for a seed, but {program}; see also seeded = false"
        raise NotWarm(text)
    return WarmStart(Kind.FORK, replace(one, cwd=workspace))


def waits_unasked(spec: EnvSpec, environ: Mapping[str, str]) -> bool:
    """Whether there are slots of a spec that does not say how many: of what costs little while it waits."""
    return not spec.shared and not isinstance(_program(spec, environ), str)


def _program(spec: EnvSpec, environ: Mapping[str, str]) -> Forkable | str:
    """What a zygote forks for this spec, or why none does."""
    if not spec.zygote:
        return "it has zygote = false"
    if any(map(has_placeholder, spec.private or ())):
        return "its private folders depend on the session"
    if spec.confinement.sandbox == "bubblewrap":
        return "bubblewrap has no zygote"
    return read_program(spec, environ)


def _entry(spec: EnvSpec, one: Launch, other: Launch) -> int:
    """Where the script stands in the command line: the first word that is no option."""
    options = [*takewhile(lambda arg: arg.startswith("-"), one.argv[1:])]
    # Our own, of the packages that the table names, only answers where they are.
    foreign = [option for option in options if option != f"--import={inside.NODE_PACKAGES}"]
    for option in (*foreign, *spec.env.get("NODE_OPTIONS", "").split()):
        if option.partition("=")[0] in _NOT_FOR_NODE:
            raise NotWarm(f"{option} lets node do more than run one script: take it out, or take warm out")
    at = len(options) + 1
    is_known = one.argv[: at + 1] == other.argv[: at + 1]
    if len(one.argv) <= at or not is_known or not os.path.isfile(os.path.join(one.cwd, one.argv[at])):
        raise NotWarm("the first word after node and its options must be a script: write options as --name=value")
    return at


def watched_files(argv: Iterable[str]) -> tuple[str, ...]:
    """The files in a command line: a slot that was started from others than are there now is outdated."""
    return tuple(word for word in argv if os.path.isabs(word) and os.path.isfile(word))


def fingerprint(files: Iterable[str]) -> tuple[tuple[int, int], ...]:
    """What changes with a file: when it was written, and its size; -1 for one that is gone."""
    return tuple(map(_stamp, files))


def _stamp(file: str) -> tuple[int, int]:
    try:
        stat = os.stat(file)
    except OSError:
        return (-1, -1)
    return (stat.st_mtime_ns, stat.st_size)
