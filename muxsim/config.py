"""The config file, `muxsim.toml` or a Claude-desktop `mcpServers` JSON, read strictly into `EnvSpec`s.

Every fault is a `ConfigError`: one line with file, table, key, value and what to do. What a ``${VAR}`` held is
never part of it.
"""

import difflib
import json
import math
import os
import re
import sys
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec

from muxsim.access import ALGORITHMS, AuthSettings, OAuthSettings
from muxsim.errors import ConfigError, UnknownEnvironment
from muxsim.npm import is_npx, is_package_folder, parse_npx
from muxsim.spec import PLACEHOLDERS, Confinement, EnvSpec, Limits, misspelt_placeholder
from muxsim.uv import is_uvx, parse_uvx

T = TypeVar("T")

CONFIG_NAME = "muxsim.toml"
COMMAND_LINE = "the command line"
_SHOWN_CHARACTERS = 80
_SLIP_LIKENESS = 0.8  # between mcp_servers and mcpServers it is more, between context_servers and mcpServers less

_MODULE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_VARIABLE = re.compile(r"\$(\$\{)|\$\{([^{}]*)\}|(\$\{)")
_VARIABLE_NAME = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?::-(.*))?", re.DOTALL)
_SIZE = re.compile(r"(\d+) ?(KiB|MiB|GiB)")
_SHARE = re.compile(r"(\d+(?:\.\d+)?)%")
_SIZE_UNITS = {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(:\d+)?")
_URL = re.compile(r"https?://[^\s/?#@]+[^\s#]*")
_HOST = re.compile(r"([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(:\d+)?")

_PYTHON_NAME = re.compile(r"python(3(\.\d+)?)?")
_PYTHON_MODULE = re.compile(r"-[bBdEhiIOPqRsSuvVx?]*[cm]")  # -m, -c, and clusters such as -um
_PYTHON_OPTIONS_WITH_VALUE = frozenset({"-X", "-W", "--check-hash-based-pycs"})

# Programs whose first argument names the server better than their own name does.
_RUNNERS = frozenset({"node", "npx", "uvx"})
_SCRIPT_SUFFIXES = frozenset({".py", ".js", ".mjs", ".cjs", ".ts", ".sh"})

# What other programs write beside a server's command; it means nothing here.
_FOREIGN_KEYS = ("alwaysAllow", "autoApprove", "autoStart", "description", "disabled", "timeout", "type")
_DISABLE = 'take it out, or add "disabled": true'


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """How muxsim itself serves: the `[server]` table. Times are in seconds, sizes in bytes."""

    host: str = "127.0.0.1"
    """The address to listen on."""

    port: int = 8000
    """The port to listen on; 0 takes a free one."""

    allowed_hosts: tuple[str, ...] = ()
    """Values of the Host header to accept beside the loopback names: ``name`` (any port) or ``name:port``."""

    allowed_origins: tuple[str, ...] = ()
    """Origins of browser pages to accept beside muxsim's own: ``https://name`` or ``http://name:port``."""

    tls_cert: str = ""
    """A file with the certificate and its chain (PEM): with it, everything is served over TLS."""

    tls_key: str = ""
    """The file with the certificate's private key (PEM, without a password); the certificate's own if left out."""

    max_failures: int = 1000
    """How many requests with a wrong token, and how many for unknown sessions, an address may send in a minute."""

    max_sessions: int = 256
    """How many sessions may be open at once."""

    max_pending: int = 64
    """How many more may wait for a place; past these a session is refused at once."""

    queue_timeout: float = 60.0
    """How long one may wait for a place, and for its turn to start, before it is refused."""

    max_starting: int = 0
    """How many backends may be starting at once, until their first answer; 0 means four for each processor."""

    max_sessions_per_client: int = 0
    """How many sessions one client (a token's name, else an address) may have open or asked for; 0 sets no bound."""

    opens_per_second: float = 200.0
    """How many sessions one client may ask for per second in the long run; 0 sets no bound."""

    opens_burst: int = 1000
    """How many of those may come at once."""

    memory_limit: int | str | None = "90%"
    """How much memory may be in use before no more sessions start: a share of the machine, or of the cgroup that limits
    muxsim, or a size for muxsim and its environments. `"never"` looks at none."""

    spare_idle: float | None = 300.0
    """Past `memory_limit`, after how long without a call or a message a session is ended, the longest idle first;
    `"never"` ends none."""

    max_body: int = 64 * 2**20
    """The largest request body."""

    body_timeout: float = 30.0
    """How long a request's body may take to arrive."""

    header_timeout: float = 10.0
    """How long a request's headers may take to arrive, from the connection or the first byte on."""

    max_header_bytes: int = 32 * 2**10
    """The largest total size of a request's headers."""

    max_headers: int = 100
    """How many headers a request may have."""

    max_url: int = 8 * 2**10
    """The longest request target: path and query."""

    max_connections: int = 8192
    """How many connections may be open at once."""

    max_connections_per_peer: int = 4096
    """How many of them may come from one address."""

    stream_silence: float = 3.0
    """After how much silence a call's answer becomes an event stream, on which pings can keep it alive."""

    ping_interval: float = 15.0
    """Between two pings on an event stream that has nothing else to carry."""

    stall_timeout: float = 60.0
    """How long a client may leave something on its event stream unread before the stream is cut."""

    max_buffered: int = 2**20
    """How many bytes may wait for one client before its session's backend has to wait too."""

    log_buffer: int = 2**20
    """How many bytes of log may wait for a reader of stderr that does not keep up."""

    drain_timeout: float = 0.3
    """How long calls may still take to finish at shutdown, before their sessions are ended."""

    cgroup: Literal["auto", "required", "off"] = "auto"
    """Groups of cgroup v2: ``auto`` for environments bounded by what needs one, ``required`` for all or no start."""

    log_format: Literal["auto", "console", "json"] = "auto"
    """``console``, ``json``, or ``auto``: console on a terminal, JSON elsewhere."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """The least level that is logged: ``debug``, ``info``, ``warning`` or ``error``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """What is served, how, and to whom."""

    environments: Mapping[str, EnvSpec]
    """By name, in the file's order; at least one."""

    server: ServerSettings = field(default_factory=ServerSettings)

    auth: AuthSettings | None = None
    """Who may call; None for everybody on this machine."""

    default: str | None = None
    """The environment for those who name none; None when there are several and the config chooses none."""

    file: Path | None = None
    """Where it was read; None for a command line."""

    def environment(self, name: str | None = None) -> EnvSpec:
        """The environment of that name, or the default one. Raises UnknownEnvironment, which lists the names."""
        known = ", ".join(self.environments)
        if name is None:
            name = self.default
        if name is None:
            raise UnknownEnvironment(f"name an environment: there is no default, and these are served: {known}")
        if name not in self.environments:
            raise UnknownEnvironment(f"no environment is called {_shown(name)}: these are served: {known}")
        return self.environments[name]


def find_config(folder: Path) -> Path:
    """The `muxsim.toml` of a folder. Raises ConfigError when there is none."""
    path = folder / CONFIG_NAME
    if not path.is_file():
        raise ConfigError(
            f"there is no {CONFIG_NAME} in {folder}: name a config file, or a server's command after --, "
            "as in muxsim serve -- python server.py"
        )
    return path


def load(path: str | Path, environ: Mapping[str, str] = os.environ) -> Config:
    """Reads a config file, TOML or JSON by its name's ending; ``${VAR}`` comes from ``environ``."""
    path = Path(path)
    root = _Table(str(path), "", _parsed(path), path.absolute().parent, environ)
    return _from_json(root, path) if path.suffix == ".json" else _from_toml(root, path)


def load_command(argv: Sequence[str], folder: Path) -> Config:
    """The config of `muxsim serve -- COMMAND ARGS…`; relative paths are relative to ``folder``.

    The environment is named after the command. There is no ``${VAR}`` here, for the shell has its own.
    """
    if not argv:
        raise ConfigError("a command is missing after --: muxsim serve -- python server.py", file=COMMAND_LINE)
    table = _Table(COMMAND_LINE, "", {"command": argv[0], "args": list(argv[1:])}, folder.absolute(), None)
    name = _name_of(argv, table.folder)
    spec = _environment(name, table, table.read(_DESKTOP_KEYS), _Defaults())
    return Config(environments={name: spec}, default=name)


# ---- the two forms of the file ----


def _parsed(path: Path) -> dict[str, Any]:
    if path.suffix not in (".toml", ".json"):
        raise ConfigError("must be a .toml or a .json file", file=str(path))
    try:
        text = path.read_text(encoding="utf-8-sig")
        parsed = msgspec.json.decode(text) if path.suffix == ".json" else tomllib.loads(text)
    except FileNotFoundError:
        raise ConfigError("does not exist: name another file, or make this one", file=str(path)) from None
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", file=str(path)) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"is not UTF-8, see byte {error.start}: save it as UTF-8", file=str(path)) from error
    except (ValueError, msgspec.DecodeError) as error:  # tomllib lets those of int() through
        raise ConfigError(f"is not valid {path.suffix[1:].upper()}: {error}", file=str(path)) from error
    if not isinstance(parsed, dict):
        raise ConfigError('must hold an object: {"mcpServers": {"NAME": {"command": "server.py"}}}', file=str(path))
    return parsed


def _from_toml(root: "_Table", path: Path) -> Config:
    root.know(("server", "environments"))
    server = root.table("server")
    settings, defaults, default = _server(server)
    specs = {}
    for name, table in root.table("environments").tables():
        specs[name] = _environment(name, table, table.read(_ENVIRONMENT_KEYS), defaults)
    if not specs:
        raise root.error("environments", 'has no environment: add [environments.NAME] with command = "server.py"')
    return Config(
        environments=specs, server=settings, auth=_auth(server), default=_default(server, default, specs), file=path
    )


def _from_json(root: "_Table", path: Path) -> Config:
    # A desktop's file holds settings of its own beside these; only what is nearly one of ours is a slip.
    root.know(("mcpServers", "muxsim"), others=True)
    server = root.table("muxsim")
    settings, defaults, default = _server(server)
    specs = {}
    for name, entry in root.table("mcpServers").tables():
        if entry.values.get("disabled") is True:
            continue
        if "url" in entry.values:
            raise entry.error("url", f"is a remote server's, and muxsim starts its own: {_DISABLE}")
        if entry.values.get("type", "stdio") != "stdio":
            raise entry.error("type", f"must be stdio, the only kind of server that muxsim starts: {_DISABLE}")
        entry.know((*_DESKTOP_KEYS, "muxsim", *_FOREIGN_KEYS))
        values = {**entry.read(_DESKTOP_KEYS, others=True), **entry.table("muxsim").read(_ENVIRONMENT_KEYS)}
        specs[name] = _environment(name, entry, values, defaults)
    if not specs:
        raise root.error("mcpServers", 'has no server to start: add {"NAME": {"command": "server.py"}}')
    return Config(
        environments=specs, server=settings, auth=_auth(server), default=_default(server, default, specs), file=path
    )


@dataclass(frozen=True, slots=True)
class _Defaults:
    """What environments start from."""

    limits: Limits = field(default_factory=Limits)
    confinement: Confinement = field(default_factory=Confinement)

    def changed(self, values: Mapping[str, Any]) -> "_Defaults":
        return _Defaults(
            replace(self.limits, **{key: value for key, value in values.items() if key in _LIMIT_KEYS}),
            replace(self.confinement, **{key: value for key, value in values.items() if key in _CONFINEMENT_KEYS}),
        )


def _server(table: "_Table") -> tuple[ServerSettings, _Defaults, str | None]:
    """The server's settings, the limits that environments start from, and the default's name."""
    known: dict[str, _AnyKind] = {**_SERVER_KEYS, **_LIMIT_KEYS, **_CONFINEMENT_KEYS, "default": _TEXT}
    table.know((*known, "auth"))
    values = _with_paths(table.read(known, others=True), table.folder, "tls_cert", "tls_key")
    settings = ServerSettings(**{key: value for key, value in values.items() if key in _SERVER_KEYS})
    return settings, _Defaults().changed(values), values.get("default")


def _auth(server: "_Table") -> AuthSettings | None:
    if server.values.get("auth") is None:
        return None
    table = server.table("auth")
    # Without values: who writes a token into this file, where none belongs, does not want it told in a message.
    replace(table, values=dict.fromkeys(table.values)).know((*_AUTH_KEYS, "oauth"))
    values = _with_paths(table.read(_AUTH_KEYS, others=True), table.folder, "tokens_file")
    settings = AuthSettings(**values, oauth=_oauth(table))
    if settings == AuthSettings():
        raise server.error("auth", "names no tokens: add tokens_file, tokens_env or oauth, or take the table out")
    return settings


def _oauth(auth: "_Table") -> OAuthSettings | None:
    if auth.values.get("oauth") is None:
        return None
    table = auth.table("oauth")
    replace(table, values=dict.fromkeys(table.values)).know(_OAUTH_KEYS)
    values = table.read(_OAUTH_KEYS)
    for key in ("issuer", "audience", "jwks"):
        if key not in values:
            raise table.error(key, "is missing: name the issuer, the audience and the jwks (a URL or a file)")
    if not _URL.match(values["jwks"]):
        values = _with_paths(values, table.folder, "jwks")
    return OAuthSettings(**values)


def _with_paths(values: dict[str, Any], folder: Path, *keys: str) -> dict[str, Any]:
    """The values with the paths under these keys absolute."""
    return {key: _absolute(value, folder) if key in keys else value for key, value in values.items()}


def _default(server: "_Table", name: str | None, specs: Mapping[str, EnvSpec]) -> str | None:
    if name is None:
        return next(iter(specs)) if len(specs) == 1 else None
    if name not in specs:
        raise server.error("default", f"is no environment of this file: {_advice(name, specs)}")
    return name


def _environment(name: str, table: "_Table", values: Mapping[str, Any], defaults: _Defaults) -> EnvSpec:
    if "command" not in values:
        raise table.error("command", "is missing: name a script, a program, npx or an npm package's folder")
    command, args = _command(table, values)
    own = defaults.changed(values)
    return EnvSpec(
        name=name,
        command=command,
        args=args,
        env=values.get("env", {}),
        cwd=_absolute(values.get("cwd", "."), table.folder),
        shared=values.get("shared", False),
        zygote=values.get("zygote", True),
        preload=values.get("preload", ()),
        control=values.get("control", False),
        seeded=_seeded(table, values),
        warm=values.get("warm"),
        limits=own.limits,
        confinement=own.confinement,
    )


def _seeded(table: "_Table", values: Mapping[str, Any]) -> bool:
    seeded: bool = values.get("seeded", True)
    texts = (values["command"], *values.get("args", ()), *values.get("env", {}).values(), values.get("cwd", ""))
    if not seeded and any("{seed}" in text.replace("{{seed}}", "") for text in texts):
        raise table.error("seeded", "contradicts {seed}, which gives the server a seed: take one of them out")
    return seeded


# ---- commands ----


def _command(table: "_Table", values: Mapping[str, Any]) -> tuple[str, tuple[str, ...]]:
    """Command and arguments with their paths absolute and Python's interpreter in place."""
    command, args, folder = values["command"], values.get("args", ()), table.folder
    interpreter = _program(values["python"], folder) if "python" in values else sys.executable
    if command.endswith(".py"):
        return interpreter, (_absolute(command, folder), *args)
    if command in ("python", "python3"):
        return interpreter, _with_python_script(args, folder)
    if "python" in values:
        raise table.error("python", f"is for Python commands only, and {_shown(command)} is none: take it out")
    if is_npx(command):
        return _npx(table, command, args)
    if is_uvx(command):
        return _uvx(table, command, args)
    if _PYTHON_NAME.fullmatch(os.path.basename(command)):
        args = _with_python_script(args, folder)
    elif os.path.basename(command) == "node":
        args = _with_node_script(args, folder)
    return _program(command, folder), args


def _program(command: str, folder: Path) -> str:
    """An absolute path for a path or a package's folder; a name to be found on PATH as it is."""
    is_path = "/" in command or command.startswith("~") or is_package_folder(folder / command)
    return _absolute(command, folder) if is_path else command


def _absolute(path: str, folder: Path) -> str:
    # A workspace is absolute once it is filled in.
    return path if path.startswith("{workspace}") else os.path.normpath(folder / os.path.expanduser(path))


def _with_python_script(args: tuple[str, ...], folder: Path) -> tuple[str, ...]:
    at = 0
    while at < len(args) and args[at].startswith("-"):
        if args[at] == "-" or _PYTHON_MODULE.match(args[at]):
            return args
        at += 2 if args[at] in _PYTHON_OPTIONS_WITH_VALUE else 1
    return (*args[:at], *(_absolute(arg, folder) for arg in args[at : at + 1]), *args[at + 1 :])


def _with_node_script(args: tuple[str, ...], folder: Path) -> tuple[str, ...]:
    # Node has too many options with values to know them all, so a script is what is there as a file.
    at = next((at for at, arg in enumerate(args) if not arg.startswith("-")), len(args))
    if at == len(args) or not os.path.isfile(folder / args[at]):
        return args
    return (*args[:at], _absolute(args[at], folder), *args[at + 1 :])


def _npx(table: "_Table", command: str, args: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
    try:
        call = parse_npx(args)
    except ValueError as error:
        raise table.error("args", str(error)) from None
    package = call.packages[0].removeprefix("file:")
    if not package.startswith((".", "/", "~")):
        return command, args
    if call.command:
        raise table.error("args", "npx -p takes no folder: name the folder as the command, without npx")
    return _absolute(package, table.folder), call.args


def _uvx(table: "_Table", command: str, args: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
    try:
        parse_uvx(args)
    except ValueError as error:
        raise table.error("args", str(error)) from None
    return command, args


def _name_of(argv: Sequence[str], folder: Path) -> str:
    """An environment's name for a command: of the script, module or package where one is run, else the program."""
    program = os.path.basename(argv[0])
    words = [arg for arg in argv[1:] if not arg.startswith("-")]
    by_runner = words and (program in _RUNNERS or _PYTHON_NAME.fullmatch(program))
    named = os.path.basename(os.path.normpath(folder / (words[0] if by_runner else argv[0])))
    stem, suffix = os.path.splitext(named.partition("@")[0])
    name = stem if suffix in _SCRIPT_SUFFIXES else stem + suffix
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", name).strip(".-") or "environment"


# ---- what a key may hold ----


@dataclass(frozen=True, slots=True)
class _Kind:
    """What a key may hold: ``wants`` goes on from "must be", ``read`` raises ValueError for anything else."""

    wants: str
    read: Callable[[Any], Any]
    filled: bool = False  # whether placeholders are filled in


@dataclass(frozen=True, slots=True)
class _ListOf:
    wants: str
    item: _Kind


@dataclass(frozen=True, slots=True)
class _PairsOf:
    wants: str
    item: _Kind


_AnyKind = _Kind | _ListOf | _PairsOf


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value or "\0" in value:
        raise ValueError
    return value


def _argument(value: Any) -> str:
    return "" if value == "" else _text(value)


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError
    return value


def _seconds(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise ValueError
    return float(value)


def _seconds_or_never(value: Any) -> float | None:
    return None if value in ("never", math.inf) else _seconds(value)


def _or_unlimited(read: Callable[[Any], T]) -> Callable[[Any], T | None]:
    return lambda value: None if value == "unlimited" else read(value)


def _whole(least: int, most: float = math.inf) -> Callable[[Any], int]:
    def read(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise ValueError
        return value

    return read


def _size(value: Any) -> int:
    if isinstance(value, str) and (match := _SIZE.fullmatch(value)):
        value = int(match[1]) * _SIZE_UNITS[match[2]]
    return _whole(1)(value)


def _rate(value: Any) -> float:
    return 0.0 if value == 0 and not isinstance(value, bool) else _seconds(value)


def _memory(value: Any) -> int | str | None:
    if isinstance(value, str) and (match := _SHARE.fullmatch(value)) and 0 < float(match[1]) <= 100:
        return value
    return None if value == "never" else _size(value)


def _one_of(*choices: str) -> _Kind:
    return _Kind("one of " + ", ".join(choices), lambda value: choices[choices.index(value)])


def _matching(pattern: re.Pattern[str]) -> Callable[[Any], str]:
    def read(value: Any) -> str:
        if not pattern.fullmatch(_text(value)):
            raise ValueError
        return str(value)

    return read


_TEXT = _Kind("a string that is not empty", _text)
_TEMPLATE = _Kind("a string that is not empty", _text, filled=True)
_ARGUMENT = _Kind("a string, in quotes", _argument, filled=True)
_FLAG = _Kind("true or false", _flag)
_SECONDS = _Kind("a number of seconds above 0, such as 60", _seconds)
_SECONDS_OR_NEVER = _Kind('a number of seconds above 0, such as 600, or "never"', _seconds_or_never)
_SIZE_KIND = _Kind('a number of bytes above 0, or a size such as "64 MiB"', _size)

_COUNT_OR_UNLIMITED = _Kind('a whole number from 1, or "unlimited"', _or_unlimited(_whole(1)))
_SIZE_OR_UNLIMITED = _Kind('a number of bytes above 0, a size such as "64 MiB", or "unlimited"', _or_unlimited(_size))

_SERVER_KEYS: dict[str, _AnyKind] = {
    "host": _TEXT,
    "port": _Kind("a port from 0 to 65535, where 0 takes a free one", _whole(0, 65535)),
    "allowed_hosts": _ListOf(
        'a list of hosts, such as ["lab.example.org"]',
        _Kind("a host without scheme or path, such as lab.example.org or lab.example.org:8000", _matching(_HOST)),
    ),
    "allowed_origins": _ListOf(
        'a list of origins, such as ["https://lab.example.org"]',
        _Kind("one origin without path or wildcard, such as https://lab.example.org", _matching(_ORIGIN)),
    ),
    "tls_cert": _TEXT,
    "tls_key": _TEXT,
    "max_failures": _Kind("a whole number from 1", _whole(1)),
    "max_sessions": _Kind("a whole number from 1", _whole(1)),
    "max_pending": _Kind("a whole number from 0", _whole(0)),
    "queue_timeout": _SECONDS,
    "max_starting": _Kind("a whole number from 0", _whole(0)),
    "max_sessions_per_client": _Kind("a whole number from 0", _whole(0)),
    "opens_per_second": _Kind("a number from 0", _rate),
    "opens_burst": _Kind("a whole number from 1", _whole(1)),
    "memory_limit": _Kind('a share such as "80%", a size such as "20 GiB", or "never"', _memory),
    "spare_idle": _SECONDS_OR_NEVER,
    "max_body": _SIZE_KIND,
    "body_timeout": _SECONDS,
    "header_timeout": _SECONDS,
    "max_header_bytes": _SIZE_KIND,
    "max_headers": _Kind("a whole number from 1", _whole(1)),
    "max_url": _SIZE_KIND,
    "max_connections": _Kind("a whole number from 1", _whole(1)),
    "max_connections_per_peer": _Kind("a whole number from 1", _whole(1)),
    "stream_silence": _SECONDS,
    "ping_interval": _SECONDS,
    "stall_timeout": _SECONDS,
    "max_buffered": _SIZE_KIND,
    "log_buffer": _SIZE_KIND,
    "drain_timeout": _SECONDS,
    "cgroup": _one_of("auto", "required", "off"),
    "log_format": _one_of("auto", "console", "json"),
    "log_level": _one_of("debug", "info", "warning", "error"),
}
_AUTH_KEYS: dict[str, _AnyKind] = {
    "tokens_file": _TEXT,
    "tokens_env": _Kind("the name of a variable", _matching(re.compile(r"[A-Za-z_][A-Za-z0-9_]*"))),
}
_OAUTH_KEYS: dict[str, _AnyKind] = {
    "issuer": _Kind("the URL that tokens have in iss", _matching(_URL)),
    "audience": _TEXT,
    "jwks": _TEXT,
    "resource": _Kind("the URL of this server, as its clients know it", _matching(_URL)),
    "algorithms": _ListOf('a list of algorithms, such as ["RS256"]', _one_of(*ALGORITHMS)),
    "principal_claim": _TEXT,
    "scope_prefix": _TEXT,
}
_LIMIT_KEYS: dict[str, _AnyKind] = {
    "install_timeout": _SECONDS,
    "start_timeout": _SECONDS,
    "handshake_timeout": _SECONDS_OR_NEVER,
    "call_timeout": _SECONDS_OR_NEVER,
    "idle_timeout": _SECONDS_OR_NEVER,
    "ttl": _SECONDS_OR_NEVER,
    "eof_timeout": _SECONDS,
    "term_timeout": _SECONDS,
    "max_line": _SIZE_KIND,
    "max_in_flight": _Kind("a whole number from 1", _whole(1)),
    "max_waiting": _Kind("a whole number from 1", _whole(1)),
    "stderr_lines": _Kind("a whole number from 0", _whole(0)),
    "max_failed_starts": _Kind("a whole number from 0", _whole(0)),
    "failed_start_window": _SECONDS,
}
_CONFINEMENT_KEYS: dict[str, _AnyKind] = {
    "max_memory": _SIZE_OR_UNLIMITED,
    "max_cpus": _Kind('a number of CPUs above 0, such as 0.5, or "unlimited"', _or_unlimited(_seconds)),
    "max_processes": _COUNT_OR_UNLIMITED,
    "max_cpu_seconds": _COUNT_OR_UNLIMITED,
    "max_address_space": _SIZE_OR_UNLIMITED,
    "max_open_files": _COUNT_OR_UNLIMITED,
    "max_file_size": _SIZE_OR_UNLIMITED,
    "nice": _Kind("a whole number from 0 to 19", _whole(0, 19)),
    "no_new_privs": _FLAG,
    "sandbox": _one_of("none", "bubblewrap"),
}
_DESKTOP_KEYS: dict[str, _AnyKind] = {
    "command": _TEMPLATE,
    "args": _ListOf('a list of strings, such as ["--seed", "{seed}"]', _ARGUMENT),
    "env": _PairsOf('a table of strings, such as { LEVEL = "easy" }', _ARGUMENT),
}
_ENVIRONMENT_KEYS: dict[str, _AnyKind] = {
    **_DESKTOP_KEYS,
    "cwd": _TEMPLATE,
    "python": _TEMPLATE,
    "shared": _FLAG,
    "zygote": _FLAG,
    "preload": _ListOf(
        'a list of modules, such as ["numpy"]', _Kind("a module's name, such as numpy.linalg", _matching(_MODULE))
    ),
    "control": _FLAG,
    "seeded": _FLAG,
    "warm": _Kind("a whole number from 0", _whole(0)),
    **_LIMIT_KEYS,
    **_CONFINEMENT_KEYS,
}


# ---- tables and their errors ----


@dataclass(frozen=True, slots=True)
class _Table:
    """A table of the file, with its place for the error messages."""

    file: str
    name: str
    values: Mapping[str, Any]
    folder: Path
    environ: Mapping[str, str] | None
    """Where ``${VAR}`` comes from; None leaves it as it is."""

    def error(self, key: str, advice: str, value: Any = None) -> ConfigError:
        """The fault of a key; its value is the one in the table unless another is given."""
        value = self.values.get(key) if value is None else value
        shown = "" if value is None or isinstance(value, dict) else _shown(value)
        return ConfigError(advice, file=self.file, table=self.name, key=key, value=shown)

    def table(self, key: str) -> "_Table":
        """The table under a key, empty where there is none."""
        value = self.values.get(key)
        if value is not None and not isinstance(value, dict):
            raise self.error(key, "must be a table of keys and values")
        return replace(self, name=f"{self.name}.{key}" if self.name else key, values=value or {})

    def tables(self) -> Iterator[tuple[str, "_Table"]]:
        """The tables in this one, which holds nothing else, under names that fit into a URL."""
        for name in self.values:
            if not _NAME.fullmatch(name):
                raise self.error(
                    _shown(name),
                    "cannot be an environment's name, which is part of URLs: use letters, digits, _, - and ., "
                    "beginning with a letter, a digit or _",
                )
            yield name, self.table(name)

    def know(self, keys: Iterable[str], *, others: bool = False) -> None:
        """Refuses keys that are not among these; with ``others`` only what looks like one of them misspelt."""
        known = list(keys)
        for key in self.values:
            if key not in known and not (others and not _close(key, known, _SLIP_LIKENESS)):
                raise self.error(key, f"is not a known key: {_advice(key, known)}")

    def read(self, keys: Mapping[str, _AnyKind], *, others: bool = False) -> dict[str, Any]:
        """The values of these keys, checked and with ``${VAR}`` replaced; null counts as absent."""
        if not others:
            self.know(keys)
        return {
            key: self._read(key, value, keys[key])
            for key, value in self.values.items()
            if key in keys and value is not None
        }

    def _read(self, key: str, value: Any, kind: _AnyKind) -> Any:
        if isinstance(kind, _ListOf):
            if not isinstance(value, list):
                raise self.error(key, f"must be {kind.wants}", value)
            return tuple(self._read(f"{key}[{at}]", item, kind.item) for at, item in enumerate(value))
        if isinstance(kind, _PairsOf):
            if not isinstance(value, dict):
                raise self.error(key, f"must be {kind.wants}", value)
            return {name: self._read(self._variable_key(key, name), item, kind.item) for name, item in value.items()}
        if kind.filled and isinstance(value, str) and (slip := misspelt_placeholder(value)):
            word, meant = slip
            raise self.error(
                key, f"{{{word}}} is not known: write {{{meant}}}, or {{{{{word}}}}} for a literal {{{word}}}", value
            )
        try:
            return kind.read(self._expanded(key, value) if isinstance(value, str) else value)
        except (ValueError, OverflowError):
            raise self.error(key, f"must be {kind.wants}", value) from None

    def _variable_key(self, key: str, name: str) -> str:
        if not name or "=" in name or "\0" in name:
            raise self.error(f"{key}.{_shown(name)}", "is not the name of a variable: it needs letters, and no =")
        return f"{key}.{name}"

    def _expanded(self, key: str, text: str) -> str:
        """``text`` with ``${VAR}`` and ``${VAR:-default}`` replaced, and ``$${`` as a literal ``${``."""
        environ = self.environ
        if environ is None:
            return text

        def replacement(match: re.Match[str]) -> str:
            if match[1]:
                return "${"
            variable = _VARIABLE_NAME.fullmatch(match[2] or "")
            if variable is None:
                raise self.error(key, "${ needs a variable's name and a }: write $${ for a literal ${", text)
            name, fallback = variable.groups()
            if fallback is not None:
                return environ.get(name) or fallback
            if name not in environ:
                raise self.error(key, f"the variable {name} is not set: {_instead(name)}", text)
            return environ[name]

        return _VARIABLE.sub(replacement, text)


def _instead(name: str) -> str:
    """What to write for a variable that is not set."""
    if name in PLACEHOLDERS:
        return f"write {{{name}}}, without the $, for the session's own"
    return f"set it, or write ${{{name}:-default}}"


def _close(word: str, known: Iterable[str], likeness: float = 0.6) -> list[str]:
    by_lower = {name.lower(): name for name in known}
    return [by_lower[close] for close in difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=likeness)]


def _advice(word: str, known: Iterable[str]) -> str:
    known = list(known)
    close = _close(word, known)
    return f"did you mean {close[0]}?" if close else f"use one of {', '.join(known)}"


def _shown(value: Any) -> str:
    """A value as JSON writes it, cut to what fits into a line of a message."""
    text = json.dumps(value, ensure_ascii=False, default=str)  # unlike msgspec, it takes any number that TOML has
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 1] + "…"
