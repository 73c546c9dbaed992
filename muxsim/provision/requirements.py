"""Python requirements, where they may stand, and whether what is installed is what they ask for."""

from __future__ import annotations

import os
import re
import shlex
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec
from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from muxsim.provision.inline import Metadata
from muxsim.provision.local_paths import LocalPath, local_path, local_paths
from muxsim.values import MARKER, is_path

_COMMENT: Final = re.compile(r"(^|\s+)#.*$")
_OPTION_IN_LINE: Final = re.compile(r"\s--?[a-z][a-z-]*[ =].*$")
_INCLUDES: Final = re.compile(r"(?:-r|--requirement|-c|--constraint)[ =]*(.+)")
_WITH_PATH: Final = frozenset({"-r", "--requirement", "-c", "--constraint", "-e", "--editable", "--find-links"})
_CONSTRAINS: Final = ("-c", "--constraint")
_LINKS: Final = ("-e", "--editable")


@dataclass(frozen=True, slots=True)
class Written:
    """A file of requirements, with those that it includes."""

    lines: tuple[str, ...]
    """What it asks for, a requirement each; options and constraints are not among them."""

    texts: tuple[str, ...]
    """All that was read, on which depends what comes of it."""

    paths: tuple[LocalPath, ...] = ()
    """What it names on this machine."""


def read_file(path: Path) -> Written:
    """Reads a requirements.txt and what it includes. Raises OSError and UnicodeDecodeError."""
    reading = _Reading(path.parent)
    reading.read(path, asks=True)
    return reading.written()


def read_lines(lines: Iterable[str], folder: Path) -> Written:
    """The same of lines that stand elsewhere; what they include goes from the folder. Raises what that raises."""
    reading = _Reading(folder)
    reading.take(lines, folder, asks=True)
    return reading.written()


def as_arguments(line: str, folder: Path) -> tuple[str, ...]:
    """A line as arguments of `uv pip install`, with its paths from the folder. Raises ValueError."""
    if not line.startswith("-"):
        if is_path(line):
            return (str(folder / os.path.expanduser(line)),)
        if (found := local_path(line, folder)) is not None and "://" not in line:
            named, _, path = line.partition("@")
            return (f"{named}@ {found.path.as_uri()}{_after(path)}",)
        return (line,)
    # What is behind a marker's `;` is quoted for uv, and not for a shell.
    behind = MARKER.search(line) if line.startswith(_LINKS) else None
    marker = "" if behind is None else behind[0]
    option, *values = shlex.split(line.removesuffix(marker))
    name, equals, value = option.partition("=")
    if name in _WITH_PATH and (value or values):
        path = value or " ".join(values)
        path = path if "://" in path else str(folder / os.path.expanduser(path))
        return (f"{name}={path}{marker}",) if equals else (name, f"{path}{marker}")
    return option, *values


def _after(path: str) -> str:
    """The marker behind a path, if there is one."""
    found = MARKER.search(path)
    return "" if found is None else f" ;{found[0].partition(';')[2]}"


@dataclass(slots=True)
class _Reading:
    base: Path
    """From where paths go, which is not where the file is that an include leads to: that is how uv takes them."""

    lines: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    paths: list[LocalPath] = field(default_factory=list)
    seen: set[Path] = field(default_factory=set)

    def written(self) -> Written:
        return Written(tuple(self.lines), tuple(self.texts), tuple(self.paths))

    def read(self, path: Path, *, asks: bool) -> None:
        path = Path(os.path.normpath(path))
        if path in self.seen:
            return
        self.seen.add(path)
        text = path.read_text(encoding="utf-8-sig")
        self.texts.append(text)
        self.take(_joined(text), path.parent, asks=asks)

    def take(self, written: Iterable[str], folder: Path, *, asks: bool) -> None:
        for line in written:
            include = _INCLUDES.fullmatch(line)
            if include is not None and "://" not in include[1]:
                constrains = line.startswith(_CONSTRAINS)
                self.read(folder / os.path.expanduser(include[1]), asks=asks and not constrains)
            elif asks and (not line.startswith("-") or line.startswith(_LINKS)):
                bare = line if line.startswith("-") else _OPTION_IN_LINE.sub("", line).strip()
                self.lines.append(bare)
                self.paths += local_paths([bare], self.base)


def _joined(text: str) -> Iterator[str]:
    for line in re.sub(r"\\\r?\n", " ", text).splitlines():
        if stripped := _COMMENT.sub("", line).strip():
            yield stripped


class _Project(msgspec.Struct, frozen=True, rename="kebab"):
    dependencies: tuple[str, ...] = ()
    requires_python: str = ""
    name: str = ""


class _Pyproject(msgspec.Struct, frozen=True, rename="kebab"):
    project: _Project | None = None
    build_system: dict[str, object] | None = None
    tool: dict[str, Any] = {}


@dataclass(frozen=True, slots=True)
class Project:
    """What a pyproject.toml asks for."""

    metadata: Metadata
    name: str
    """Its own; "" where it is no package to be installed itself."""


def parse_pyproject(text: str) -> Project:
    """What a pyproject.toml says. Raises ValueError, which says what is wrong with it."""
    found = msgspec.convert(tomllib.loads(text), _Pyproject)
    if found.project is None:
        raise ValueError("it has no [project] table")
    metadata = Metadata(found.project.dependencies, found.project.requires_python, found.tool)
    return Project(metadata, found.project.name if found.build_system is not None else "")


def admits(requires_python: str, version: str) -> bool:
    """Whether a Python of this version will do. Raises ValueError for what is no set of versions."""
    try:
        return SpecifierSet(requires_python).contains(version, prereleases=True)
    except InvalidSpecifier:
        raise ValueError(f"requires-python = {requires_python!r} is no set of versions, such as >=3.11") from None


def unmet(lines: Iterable[str], packages: Mapping[str, str], markers: Mapping[str, str]) -> str | None:
    """What is asked for and not installed, or at another version, in words; None if all is as it was asked for."""
    there = {canonicalize_name(name): version for name, version in packages.items()}
    for line in lines:
        if (wanted := _requirement(line)) is None or not _applies(wanted, markers):
            continue
        if (version := there.get(canonicalize_name(wanted.name))) is None:
            return f"{line} was asked for, and {wanted.name} is not installed"
        if not _fits(wanted, version):
            return f"{line} was asked for, and {wanted.name} {version} is installed"
    return None


def failing(lines: Iterable[str], output: str) -> str:
    """The requirement that an installer's words are about, as far as that can be told; "" if not."""
    named = [(line, wanted.name) for line in lines if (wanted := _requirement(line)) is not None]
    said = {match.start(): match[0] for match in re.finditer(r"[A-Za-z0-9][A-Za-z0-9._-]*", output)}
    for _, word in sorted(said.items()):
        bare = canonicalize_name(re.split(r"[=<>~!]", word)[0].rstrip("."))
        for line, name in named:
            if canonicalize_name(name) == bare:
                return line
    return ""


def _requirement(line: str) -> Requirement | None:
    try:
        return Requirement(line)
    except InvalidRequirement:  # a path or an address, which uv understands
        return None


def _applies(wanted: Requirement, markers: Mapping[str, str]) -> bool:
    return wanted.marker is None or wanted.marker.evaluate({**markers, "extra": ""})


def _fits(wanted: Requirement, version: str) -> bool:
    try:
        return wanted.specifier.contains(Version(version), prereleases=True)
    except InvalidVersion:
        return not wanted.specifier
