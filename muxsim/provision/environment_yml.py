"""What an `environment.yml` of conda says.

Only what meets one imports this, since its parser comes with the extra `conda`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from muxsim.provision.conda_records import channel_urls

# Bytes; one that lists every package of a large environment has some ten thousand.
_LARGEST: Final = 1024 * 1024
# Where somebody's own environment was and what he called it; muxsim keeps its environments elsewhere, by content.
_IGNORED: Final = frozenset({"name", "prefix"})
_KNOWN: Final = frozenset({"channels", "dependencies", "variables", "platforms"}) | _IGNORED


@dataclass(frozen=True, slots=True)
class EnvironmentFile:
    """What it asks for, in its order."""

    channels: tuple[str, ...] = ()
    """Names and URLs; those that were paths are `file://`."""

    specs: tuple[str, ...] = ()
    """Match specs, as written."""

    pip: tuple[str, ...] = ()
    """Lines of a requirements file that belongs into the file's folder."""

    variables: tuple[tuple[str, str], ...] = ()
    """What its programs find in their environment."""

    platforms: tuple[str, ...] = ()
    """For which it is meant; () for any."""


def read_environment_file(path: Path) -> EnvironmentFile:
    """What is in the file; raises OSError, and ValueError with one line that says what is wrong with it."""
    with path.open("rb") as file:
        content = file.read(_LARGEST + 1)
    if len(content) > _LARGEST:
        raise ValueError(f"it has more than {_LARGEST} bytes")
    return parse_environment_file(content, path.parent)


def parse_environment_file(content: bytes, folder: Path) -> EnvironmentFile:
    """What the bytes say; paths among the channels are of ``folder``."""
    asked = _mapping(_load(content), "the file")
    for key in asked:
        if key not in _KNOWN:
            raise ValueError(f"{key!r} is nothing that muxsim knows of: use {', '.join(sorted(_KNOWN))}")
    specs, pip = _dependencies(asked.get("dependencies", ""))
    return EnvironmentFile(
        channels=tuple(channel_urls(_strings(asked.get("channels", ""), "channels"), folder)),
        specs=specs,
        pip=pip,
        variables=tuple(_variables(asked.get("variables", ""))),
        platforms=tuple(_strings(asked.get("platforms", ""), "platforms")),
    )


class _Loader(yaml.BaseLoader):
    """Every scalar as it is written: ``3.10`` is no number, and nothing is ever made of a tag."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names = [key.value for key, _ in node.value]
        if twice := [name for name in names if names.count(name) > 1]:
            raise yaml.MarkedYAMLError(problem=f"{twice[0]!r} stands there twice", problem_mark=node.start_mark)
        return super().construct_mapping(node, deep)


def _load(content: bytes) -> object:
    try:
        return yaml.load(content, _Loader)  # it makes nothing but texts, lists and mappings
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise ValueError(f"{line}{error.problem or error.context}") from error
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _dependencies(listed: object) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The match specs, and the lines for pip."""
    specs: list[str] = []
    pip: list[str] = []
    for entry in _list(listed, "dependencies"):
        if not isinstance(entry, dict):
            specs.append(_string(entry, "dependencies"))
            continue
        for kind, more in entry.items():
            if kind != "pip":
                raise ValueError(f"dependencies has {_short(kind)} with something of its own, as only `pip:` may be")
            pip += _strings(more, "pip")
    return tuple(specs), tuple(pip)


def _variables(listed: object) -> Iterator[tuple[str, str]]:
    for name, value in _mapping(listed or {}, "variables").items():
        if not isinstance(name, str) or not name or "=" in name or "\0" in name:
            raise ValueError(f"variables has {_short(name)}, which is no name of a variable")
        if not isinstance(value, str) or "\0" in value:
            raise ValueError(f"variables has a {name} that is no text")
        yield name, value


def _mapping(value: object, what: str) -> Mapping[Any, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{what} has to be a mapping of names, not {_short(value)}")
    return value


def _strings(value: object, what: str) -> tuple[str, ...]:
    return tuple(_string(entry, what) for entry in _list(value, what))


def _list(value: object, what: str) -> list[Any]:
    """A list, also one that is not there or has nothing in it."""
    if value == "":
        return []
    if not isinstance(value, list):
        raise ValueError(f"{what} has to be a list, not {_short(value)}")
    return value


def _string(value: object, what: str) -> str:
    if not isinstance(value, str) or not value.strip() or not value.isprintable():
        raise ValueError(f"{what} has {_short(value)}, which is no text of one line")
    return value.strip()


def _short(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else f"{shown[:59]}…"
