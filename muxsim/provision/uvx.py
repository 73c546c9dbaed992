"""What a command line of uvx means."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from muxsim.provision.as_it_stands import AsItStands

_IGNORED: Final = frozenset({"-q", "--quiet", "-v", "--verbose", "--no-progress", "--isolated"})
_PASSED: Final = frozenset({"--offline", "--no-cache", "--no-build", "--no-config", "--native-tls"})
_WITH_VALUE: Final = frozenset({"--with", "-w", "--python", "-p", "--index", "--index-url", "--extra-index-url"})
# What `uv tool install` knows too; another option may be of uvx alone, and change what runs.
_ALSO_OF_INSTALL: Final = frozenset(
    {
        *("--default-index", "--find-links", "--index-strategy", "--keyring-provider", "--resolution", "--prerelease"),
        *("--constraints", "--overrides", "--exclude-newer", "--link-mode", "--cache-dir", "--allow-insecure-host"),
        *("--refresh-package", "--upgrade-package", "--no-build-package", "--no-binary-package", "--fork-strategy"),
        *("--config-setting", "--build-constraints", "--python-preference", "--color"),
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
    """Options for ``uv tool install``."""


def is_uvx(command: str) -> bool:
    """Whether the command is uvx, by name or by path."""
    return os.path.basename(command) == "uvx"


def parse_uvx(args: Iterable[str]) -> UvxCall:
    """Reads the arguments of uvx.

    Raises ValueError, saying what to do, where there is nothing to run, and AsItStands for what only uvx understands.
    """
    source, options, rest = "", [], list(args)
    while rest and rest[0].startswith("-"):
        flag = rest.pop(0)
        name, equals, value = flag.partition("=")
        if flag == "--":
            break
        if not equals and name in {"--from", *_WITH_VALUE} and rest:
            value, equals = rest.pop(0), "="
        if name == "--from" and value:
            source = value
        elif flag in _PASSED:
            options.append(flag)
        elif equals and (name in _WITH_VALUE or name in _ALSO_OF_INSTALL):
            options += [name, value] if name in _WITH_VALUE else [flag]
        elif flag not in _IGNORED:
            raise AsItStands(f"uvx has the option {name}")
    if not rest:
        raise ValueError(f"uvx needs a command to run: use {_USAGE}")
    if source.startswith((".", "/", "~")):
        raise AsItStands("uvx --from names a folder")
    command, at, version = rest[0].partition("@")
    if source:
        return UvxCall(source, rest[0], tuple(rest[1:]), tuple(options))
    if not _NAME.fullmatch(command.partition("[")[0]):
        raise AsItStands(f"only uvx can tell the command of {rest[0]}")
    package = f"{command}=={version}" if at and version != "latest" else command
    return UvxCall(package, command.partition("[")[0], tuple(rest[1:]), tuple(options))
