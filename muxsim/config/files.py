"""Finds a config file and reads it, whichever of its forms it has."""

import codecs
import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from muxsim.config import jsonc
from muxsim.config.commands import name_of
from muxsim.config.environments import Defaults, read_environment
from muxsim.config.lock import lock_file, read_lock, with_lock
from muxsim.config.mcp_servers import from_json
from muxsim.config.model import Config
from muxsim.config.table import Table
from muxsim.config.toml import from_toml
from muxsim.config.variables import OwnVariables
from muxsim.errors import ConfigError
from muxsim.values import DESKTOP_KEYS

CONFIG_NAME = "muxsim.toml"
COMMAND_LINE = "the command line"
_JSON = (".json", ".jsonc")
_OTHERWISE = "name a config file, or a server's command after --, as in muxsim serve -- python server.py"


def find_config(folder: Path, otherwise: str = _OTHERWISE) -> Path:
    """The `muxsim.toml` of a folder. Raises ConfigError when there is none, with what to do ``otherwise``."""
    path = folder / CONFIG_NAME
    if not path.is_file():
        raise ConfigError(f"there is no {CONFIG_NAME} in {folder}: {otherwise}")
    return path


def load(path: str | Path, environ: Mapping[str, str] = os.environ, *, locked: bool = False) -> Config:
    """Reads a config file, TOML or JSON by its name's ending, and the lock beside it.

    ``${VAR}`` comes from ``environ``. With ``locked`` nothing is installed but what that lock says. Raises ConfigError.
    """
    path = Path(path)
    if path.suffix not in (".toml", *_JSON):
        raise ConfigError("must be a .toml or a .json file", file=str(path))
    root = Table(str(path), "", _parsed(path), path.absolute().parent, OwnVariables(environ))
    config = from_json(root, path) if path.suffix in _JSON else from_toml(root, path)
    return replace(config, environments=with_lock(config.environments, read_lock(lock_file(path)), only=locked))


def load_command(argv: Sequence[str], folder: Path) -> Config:
    """The config of `muxsim serve -- COMMAND ARGS…`; relative paths are relative to ``folder``.

    The environment is named after the command. There is no ``${VAR}`` here, for the shell has its own.
    """
    if not argv:
        raise ConfigError("a command is missing after --: muxsim serve -- python server.py", file=COMMAND_LINE)
    table = Table(COMMAND_LINE, "", {"command": argv[0], "args": list(argv[1:])}, folder.absolute(), None)
    name = name_of(argv, table.folder)
    spec = read_environment(name, table, table.read(DESKTOP_KEYS), Defaults())
    return Config(environments={name: spec}, default=name)


def _parsed(path: Path) -> dict[str, Any]:
    text = _text_of(path)
    try:
        parsed = jsonc.decode(text) if path.suffix in _JSON else tomllib.loads(text)
    except ValueError as error:  # tomllib lets those of int() through
        raise ConfigError(f"is not valid {path.suffix[1:].upper()}: {error}", file=str(path)) from error
    if not isinstance(parsed, dict):
        raise ConfigError('must hold an object: {"mcpServers": {"NAME": {"command": "server.py"}}}', file=str(path))
    return parsed


def _text_of(path: Path) -> str:
    """The file's text: UTF-8, or what its byte-order mark says, as some editors and shells of Windows write it."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise ConfigError("does not exist: name another file, or make this one", file=str(path)) from None
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", file=str(path)) from error
    encoding = "utf-16" if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        raise ConfigError(f"is not UTF-8, see byte {error.start}: save it as UTF-8", file=str(path)) from error
    if "\0" in text:
        raise ConfigError("is not UTF-8, for it has zero bytes: save it as UTF-8", file=str(path))
    # As when a file is read as text: TOML has no carriage return that stands alone.
    return text.replace("\r\n", "\n").replace("\r", "\n")
