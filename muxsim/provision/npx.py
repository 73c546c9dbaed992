"""What a command line of npx means, and what of it the project has already, where npx itself would find it."""

from __future__ import annotations

import itertools
import json
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from muxsim.provision.as_it_stands import AsItStands

_IGNORED = frozenset({"-y", "--yes", "-q", "--quiet", "-s", "--silent"})
_PASSED = frozenset({"--prefer-offline", "--prefer-online", "--offline", "--ignore-scripts"})
# Options with a value after =, all of which go to npm but for those that change what runs.
_CHANGES_WHAT_RUNS = re.compile(
    r"--(call|workspaces?|include-workspace-root|prefix|dir|global|location|script-shell|node-options|node-arg|yes|no)=.*"
)
_USAGE = "npx [-y] [-p PACKAGE] [--OPTION=VALUE] PACKAGE[@VERSION] ARGS…"

_REGISTRY_SPEC = re.compile(r"((?:@[^/@]+/)?[A-Za-z0-9_.~-]+)(?:@(.*))?")
_VERSION = re.compile(r"[v=]?(\d+\.\d+\.\d+(?:-[0-9A-Za-z.-]+)?)(?:\+.*)?")
_PLAIN = re.compile(r"(\d+)\.(\d+)\.(\d+)")
_SIMPLE_RANGE = re.compile(r"([~^]?)v?(\d+|[xX*])(?:\.(\d+|[xX*]))?(?:\.(\d+|[xX*]))?")
# What npm takes for a range of versions, and not for a tag such as latest.
_RANGE = re.compile(r"[\^~<>=*xXvV0-9 |.-].*")


@dataclass(frozen=True, slots=True)
class NpxCall:
    """What an npx command line asks for."""

    packages: tuple[str, ...]
    """Package specs as npm takes them: ``name``, ``@scope/name@1.2``, ``github:user/repo``."""

    command: str
    """The bin to run, named after `-p`; ``""`` for the package's own."""

    args: tuple[str, ...]
    """The server's arguments."""

    options: tuple[str, ...] = ()
    """Options for npm, such as ``--registry=…``."""


def is_npx(command: str) -> bool:
    """Whether the command is npx, by name or by path."""
    return os.path.basename(command) == "npx"


def parse_npx(args: Iterable[str]) -> NpxCall:
    """Reads the arguments of npx.

    Raises ValueError, saying what to do, where there is nothing to run, and AsItStands for what only npx understands.
    """
    packages: list[str] = []
    options: list[str] = []
    rest = list(args)
    while rest and rest[0].startswith("-"):
        flag = rest.pop(0)
        if flag == "--":
            break
        if flag in ("-p", "--package") and rest:
            packages.append(rest.pop(0))
        elif flag.startswith("--package="):
            packages.append(flag.partition("=")[2])
        elif flag in _PASSED or (flag.startswith("--") and "=" in flag and not _CHANGES_WHAT_RUNS.fullmatch(flag)):
            options.append(flag)
        elif flag not in _IGNORED:
            raise AsItStands(f"npx has the option {flag.partition('=')[0]}")
    if not rest:
        missing = f"a command of {packages[0]}" if packages else "a package"
        raise ValueError(f"npx needs {missing} to run: use {_USAGE}")
    if any(package.removeprefix("file:").startswith((".", "/", "~")) for package in packages):
        raise AsItStands("npx -p names a folder")
    if packages:
        return NpxCall(tuple(packages), rest[0], tuple(rest[1:]), tuple(options))
    return NpxCall((rest[0],), "", tuple(rest[1:]), tuple(options))


# ---- what the project has


def is_package_folder(path: str | Path) -> bool:
    """Whether ``path`` is a folder with a package.json."""
    return os.path.isfile(os.path.join(path, "package.json"))


def own_bin(name: str, folder: Path) -> Path | None:
    """The file of a command of that name: of the project's own package, else of what is installed in it."""
    if "/" in name:
        return None
    root = _project_root(folder)
    if root is not None and isinstance(file := _bins_of(root).get(name), str) and (root / file).is_file():
        return root / file
    links = (parent / "node_modules" / ".bin" / name for parent in (folder, *folder.parents))
    return next((link.resolve() for link in links if link.is_file()), None)


def own_copies(packages: Iterable[str], folder: Path) -> list[Path]:
    """The folders of these packages in the project of ``folder``; [] if npx would not do with those that are there.

    The project's own package counts: npx asks nobody for it either.

    Raises AsItStands where the range of versions that is asked for is beyond what is understood here.
    """
    copies = [_own_copy(package, folder) for package in packages]
    return [copy for copy in copies if copy is not None] if all(copies) else []


def _own_copy(package: str, folder: Path) -> Path | None:
    spec = _REGISTRY_SPEC.fullmatch(package)
    if spec is None:
        return None
    name, wanted = spec.groups()
    root = _project_root(folder)
    itself = [root] if root is not None and _manifest_of(root).get("name") == name else []
    there = (*itself, *(parent / "node_modules" / name for parent in (folder, *folder.parents)))
    copy = next(filter(is_package_folder, there), None)
    if copy is None or not wanted:
        return copy
    if not _RANGE.fullmatch(wanted):
        return None  # a tag, which is for the registry to say
    if (fits := satisfies(str(_manifest_of(copy).get("version")), wanted)) is None:
        raise AsItStands(f"npx names a range of versions, {package}, and the project has one")
    return copy if fits else None


def satisfies(version: str, wanted: str) -> bool | None:
    """Whether a version is the one, or in the range, that is wanted; None for what is not understood here."""
    if exact := _VERSION.fullmatch(wanted):
        return version == exact[1]
    simple, has = _SIMPLE_RANGE.fullmatch(wanted), _PLAIN.fullmatch(version)
    if simple is None or has is None:
        return None
    there = tuple(map(int, has.groups()))
    least = tuple(map(int, itertools.takewhile(str.isdigit, filter(None, simple.groups()[1:]))))
    if simple[1] == "^":  # the first number that is not 0 stays as it is, and those before it
        same = next((at for at, number in enumerate(least, 1) if number), len(least))
    else:
        same = min(len(least), 2) if simple[1] == "~" else len(least)
    return there[:same] == least[:same] and there >= least


def _project_root(folder: Path) -> Path | None:
    """Where npm takes the project of a folder to begin."""
    return next(
        (one for one in (folder, *folder.parents) if is_package_folder(one) or (one / "node_modules").is_dir()), None
    )


def _bins_of(folder: Path) -> dict[str, Any]:
    manifest = _manifest_of(folder)
    bins, name = manifest.get("bin"), manifest.get("name")
    if isinstance(bins, str) and isinstance(name, str):
        return {name.rpartition("/")[2]: bins}
    return bins if isinstance(bins, dict) else {}


def _manifest_of(folder: Path) -> dict[str, Any]:
    try:
        manifest = json.loads((folder / "package.json").read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return manifest if isinstance(manifest, dict) else {}
