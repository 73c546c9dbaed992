"""What a command line of uvx means."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from muxsim.provision.as_it_stands import AsItStands

_IGNORED: Final = frozenset({"-q", "--quiet", "-v", "--verbose", "--no-progress", "--isolated"})
_PASSED: Final = frozenset({"--offline", "--no-cache", "--no-build", "--no-config", "--native-tls"})
_MORE: Final = frozenset({"--with", "-w"})
_PYTHON: Final = frozenset({"--python", "-p"})
_WITH_VALUE: Final = frozenset({"--index", "--index-url", "--extra-index-url"})
# What `uv pip install` knows too; another option may be of uvx alone, and change what runs.
_ALSO_OF_INSTALL: Final = frozenset(
    {
        *("--default-index", "--find-links", "--index-strategy", "--keyring-provider", "--resolution", "--prerelease"),
        *("--constraints", "--overrides", "--exclude-newer", "--cache-dir", "--allow-insecure-host", "--color"),
        *("--refresh-package", "--upgrade-package", "--fork-strategy", "--config-setting", "--build-constraints"),
    }
)
_USAGE: Final = "uvx [--from PACKAGE] [--with PACKAGE] [--python VERSION] [--OPTION=VALUE] COMMAND[@VERSION] ARGS…"
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True, slots=True)
class UvxCall:
    """What a uvx command line asks for."""

    package: str
    """A requirement as uv takes it: ``name``, ``name==1.2``, ``name[extra]``, ``git+https://…``."""

    command: str
    """The executable to run, one of the package's own."""

    args: tuple[str, ...]
    """The server's arguments."""

    options: tuple[str, ...] = ()
    """Options for ``uv pip install``."""

    more: tuple[str, ...] = ()
    """Requirements beside the package's: those of ``--with``."""

    python: str = ""
    """The interpreter that it names, by version or path."""


def is_uvx(command: str) -> bool:
    """Whether the command is uvx, by name or by path."""
    return os.path.basename(command) == "uvx"


def parse_uvx(args: Iterable[str]) -> UvxCall:
    """Reads the arguments of uvx.

    Raises ValueError, saying what to do, where there is nothing to run, and AsItStands for what only uvx understands.
    """
    rest = list(args)
    read = _Options()
    while rest and rest[0].startswith("-"):
        if (flag := rest.pop(0)) == "--":
            break
        read.take(flag, rest)
    if not rest:
        raise ValueError(f"uvx needs a command to run: use {_USAGE}")
    if read.source.startswith((".", "/", "~")):
        raise AsItStands("uvx --from names a folder")
    if any(one.startswith((".", "/", "~")) for one in read.more):
        raise AsItStands("uvx --with names a folder")
    return _call(read, rest[0], tuple(rest[1:]))


def _call(read: _Options, word: str, args: tuple[str, ...]) -> UvxCall:
    options, more = tuple(read.options), tuple(read.more)
    if read.source:
        return UvxCall(read.source, word, args, options, more, read.python)
    command, at, version = word.partition("@")
    name = command.partition("[")[0]
    if not _NAME.fullmatch(name):
        raise AsItStands(f"only uvx can tell the command of {word}")
    package = f"{command}=={version}" if at and version != "latest" else command
    return UvxCall(package, name, args, options, more, read.python)


@dataclass(slots=True)
class _Options:
    """What stands before the command."""

    source: str = ""
    python: str = ""
    more: list[str] = field(default_factory=list)
    options: list[str] = field(default_factory=list)

    def take(self, flag: str, rest: list[str]) -> None:
        """Reads an option, with its value off ``rest`` if it has one there. Raises AsItStands."""
        name, equals, value = flag.partition("=")
        if not equals and name in {"--from", *_MORE, *_PYTHON, *_WITH_VALUE} and rest:
            value, equals = rest.pop(0), "="
        if name == "--from" and value:
            self.source = value
        elif name in _MORE and value:
            self.more += value.split(",")
        elif name in _PYTHON and value:
            self.python = value
        elif flag in _PASSED:
            self.options.append(flag)
        elif equals and name in _WITH_VALUE:
            self.options += [name, value]
        elif equals and name in _ALSO_OF_INSTALL:
            self.options.append(flag)
        elif flag not in _IGNORED and name != "--link-mode":
            raise AsItStands(f"uvx has the option {name}")
