"""`muxsim init`: a muxsim.toml of the servers that another program's file has."""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from muxsim.config import Config, load
from muxsim.config.files import CONFIG_NAME
from muxsim.errors import ConfigError, MuxsimError
from muxsim.spec import EnvSpec

# Of a project first, then of the user: Claude Code and desktop, Cursor, VS Code.
_OF_PROJECTS: Final = (".mcp.json", ".cursor/mcp.json", ".vscode/mcp.json")
_OF_USERS: Final = (".cursor/mcp.json", ".config/Claude/claude_desktop_config.json", ".config/Code/User/mcp.json")
_OF_USERS_AFTER: Final = (".claude.json",)

_OPENED: Final = re.compile(r"\$\{(?![A-Za-z_][A-Za-z0-9_]*:-\})")
_BARE: Final = re.compile(r"[A-Za-z0-9_-]+")


def find_files(folder: Path, home: Path) -> list[Path]:
    """The files of other programs that may have servers, the nearest first."""
    named = [*(folder / name for name in _OF_PROJECTS), *(home / name for name in (*_OF_USERS, *_OF_USERS_AFTER))]
    return [path for path in dict.fromkeys(named) if path.is_file()]


def adopted(path: Path) -> Config:
    """What a file has, with the names of variables for their values. Raises `ConfigError`."""
    return load(path, _Names())


def adopt(folder: Path, home: Path, file: Path | None) -> tuple[Path, Config]:
    """Write the config of a folder from this file, or the first that has servers. Raises `MuxsimError`."""
    target = folder / CONFIG_NAME
    if os.path.lexists(target):
        raise MuxsimError(f"{target} is there already, and is not written over: move it away, or use it")
    problems = []
    for path in [file] if file is not None else find_files(folder, home):
        try:
            found = adopted(path)
        except ConfigError as error:
            problems.append(str(error))
            continue
        _write(target, found, path)
        return target, replace(found, notes=(*found.notes, *_folders_left_out(found)))
    if problems:
        raise MuxsimError("; ".join(problems))
    looked = ", ".join((*_OF_PROJECTS, *(f"~/{name}" for name in (*_OF_USERS, *_OF_USERS_AFTER))))
    raise MuxsimError(f"no file with servers was found ({looked}): name one, or begin with muxsim new NAME")


def _write(target: Path, found: Config, source: Path) -> None:
    """Write the config, whole or not at all, if it means what was found. Raises `MuxsimError`."""
    unfinished = target.with_name(f".{os.getpid()}.{target.name}")
    try:
        # Secrets that stand in the file itself are copied: whoever may not read them there may not here.
        unfinished.touch(mode=(source.stat().st_mode & 0o666) | 0o600)
        unfinished.write_text(as_toml(found, source), encoding="utf-8")
        if not _is_same(load(unfinished, _Names()), found):
            advice = f"it is a config as it is: muxsim serve {shlex.quote(str(source))}"
            raise MuxsimError(f"{source} has settings of muxsim's own, which would be lost in {target}; {advice}")
        unfinished.replace(target)
    except OSError as error:
        raise MuxsimError(f"{target} cannot be written: {error.strerror}") from None
    except UnicodeEncodeError:
        raise MuxsimError(f"{os.fsencode(target)!r} is no UTF-8, which TOML is: rename the folder") from None
    finally:
        unfinished.unlink(missing_ok=True)


def _is_same(made: Config, found: Config) -> bool:
    """Whether nothing is lost but folders that are not there."""
    specs = {name: replace(spec, cwd=found.environments[name].cwd) for name, spec in made.environments.items()}
    return (specs, made.server, made.default) == (found.environments, found.server, found.default)


def _folders_left_out(found: Config) -> Iterator[str]:
    for spec in found.environments.values():
        if not os.path.isdir(spec.cwd):
            yield f"{found.file}: [{spec.name}] cwd = {_quoted(spec.cwd)} is no folder here, and is left out"


class _Names(Mapping[str, str]):
    """Variables whose values are references to them, which are nothing where they are not set: as editors have it."""

    def __getitem__(self, name: str) -> str:
        return f"${{{name}:-}}"

    def __contains__(self, name: object) -> bool:
        return True

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


def as_toml(config: Config, source: Path) -> str:
    """The text of a muxsim.toml with these environments."""
    place = str(source.absolute())
    place = place if place.isprintable() else _quoted(place)
    head = f"# Made by muxsim init from {place}. docs/configuration.md has all that may stand here.\n"
    return "\n".join([head, *(_table(spec) for spec in config.environments.values())])


def _table(spec: EnvSpec) -> str:
    name = spec.name if _BARE.fullmatch(spec.name) else _quoted(spec.name)
    command = "python" if spec.command == sys.executable else spec.command
    lines = [f"[environments.{name}]", f"command = {_text(command)}"]
    if spec.args:
        lines.append(f"args = [{', '.join(map(_text, spec.args))}]")
    if os.path.isdir(spec.cwd):
        lines.append(f"cwd = {_text(spec.cwd)}")
    if spec.env:
        pairs = ", ".join(f"{_quoted(key)} = {_text(value)}" for key, value in spec.env.items())
        lines.append(f"env = {{ {pairs} }}")
    return "\n".join([*lines, ""])


def _text(value: str) -> str:
    return _quoted(_OPENED.sub("$${", value))


def _quoted(value: str) -> str:
    # JSON's strings are TOML's too, but for one character.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
