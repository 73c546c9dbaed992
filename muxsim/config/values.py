"""What each key of a config may hold, and how it is read."""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_network
from typing import Any, TypeVar
from urllib.parse import urlsplit

from packaging.requirements import Requirement

from muxsim.access import ALGORITHMS, UNIX_PEERS

T = TypeVar("T")

_MODULE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
_SIZE = re.compile(r"(\d+) ?(KiB|MiB|GiB)")
_SHARE = re.compile(r"(\d+(?:\.\d+)?)%")
_SIZE_UNITS = {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(:\d+)?")
URL = re.compile(r"https?://[^\s/?#@]+[^\s#]*")
_BASE_URL = re.compile(r"https?://([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(:\d+)?(/[A-Za-z0-9._~-]+)*/*")
_HOST = re.compile(r"([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(:\d+)?")


@dataclass(frozen=True, slots=True)
class Kind:
    """What a key may hold: ``wants`` goes on from "must be", ``read`` raises ValueError for anything else."""

    wants: str
    read: Callable[[Any], Any]
    filled: bool = False  # whether placeholders are filled in


@dataclass(frozen=True, slots=True)
class ListOf:
    wants: str
    item: Kind


@dataclass(frozen=True, slots=True)
class PairsOf:
    wants: str
    item: Kind


@dataclass(frozen=True, slots=True)
class OneOrMany:
    """One thing, or a list of others."""

    wants: str
    one: Kind
    many: Kind


AnyKind = Kind | ListOf | PairsOf | OneOrMany


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value or "\0" in value:
        raise ValueError
    return value


def _argument(value: Any) -> str:
    return "" if value == "" else _text(value)


def _pattern(value: Any) -> str:
    names = _text(value).split("/")
    if names[0] == "" or ".." in names or not any(name.strip(".") for name in names):
        raise ValueError
    return str(value)


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


def _one_of(*choices: str) -> Kind:
    return Kind("one of " + ", ".join(choices), lambda value: choices[choices.index(value)])


def _base_url(value: Any) -> str:
    # Reading the port raises what is wrong with it.
    if not _BASE_URL.fullmatch(_text(value)) or urlsplit(str(value)).port == 0:
        raise ValueError
    return str(value).rstrip("/")


def _network(value: Any) -> bool | tuple[int, ...]:
    if isinstance(value, list):
        return tuple(map(_whole(1, 65535), value))
    return _flag(value)


def _proxy(value: Any) -> str:
    if value != UNIX_PEERS:
        ip_network(_text(value))  # its errors are ValueErrors
    return str(value)


def _matching(pattern: re.Pattern[str]) -> Callable[[Any], str]:
    def read(value: Any) -> str:
        if not pattern.fullmatch(_text(value)):
            raise ValueError
        return str(value)

    return read


def _requirement(value: Any) -> str:
    return str(Requirement(_text(value)))  # InvalidRequirement is a ValueError


def _line(value: Any) -> str:
    if not _text(value).isprintable() or value.strip() != value:
        raise ValueError
    return str(value)


def _npm_package(value: Any) -> str:
    # A path has no folder to go from in the cache, and an option is none.
    if _text(value).strip() != value or value.startswith(("-", ".", "/", "~", "file:")):
        raise ValueError
    return str(value)


TEXT = Kind("a string that is not empty", _text)
_TEMPLATE = Kind("a string that is not empty", _text, filled=True)
ARGUMENT = Kind("a string, in quotes", _argument, filled=True)
_FLAG = Kind("true or false", _flag)
_SECONDS = Kind("a number of seconds above 0, such as 60", _seconds)
_SECONDS_OR_NEVER = Kind('a number of seconds above 0, such as 600, or "never"', _seconds_or_never)
_SIZE_KIND = Kind('a number of bytes above 0, or a size such as "64 MiB"', _size)

_COUNT_OR_UNLIMITED = Kind('a whole number from 1, or "unlimited"', _or_unlimited(_whole(1)))
_SIZE_OR_UNLIMITED = Kind('a number of bytes above 0, a size such as "64 MiB", or "unlimited"', _or_unlimited(_size))

_REQUIREMENT = Kind("a requirement as PEP 508 writes it, such as mcp>=2,<3", _requirement)

SERVER_KEYS: dict[str, AnyKind] = {
    "host": TEXT,
    "port": Kind("a port from 0 to 65535, where 0 takes a free one", _whole(0, 65535)),
    "unix": TEXT,
    "unix_mode": Kind('a mode in quotes, such as "0660"', _matching(re.compile(r"0?[0-7]{3}"))),
    "trusted_proxies": ListOf(
        'a list of addresses, networks and "unix", such as ["127.0.0.1"]',
        Kind('an address or a network, such as 10.0.0.0/8, or "unix"', _proxy),
    ),
    "public_url": Kind("a URL without query, such as https://lab.example.org/muxsim", _base_url),
    "allowed_hosts": ListOf(
        'a list of hosts, such as ["lab.example.org"]',
        Kind("a host without scheme or path, such as lab.example.org or lab.example.org:8000", _matching(_HOST)),
    ),
    "allowed_origins": ListOf(
        'a list of origins, such as ["https://lab.example.org"]',
        Kind("one origin without path or wildcard, such as https://lab.example.org", _matching(_ORIGIN)),
    ),
    "tls_cert": TEXT,
    "tls_key": TEXT,
    "max_failures": Kind("a whole number from 1", _whole(1)),
    "max_sessions": Kind("a whole number from 1", _whole(1)),
    "max_pending": Kind("a whole number from 0", _whole(0)),
    "queue_timeout": _SECONDS,
    "max_starting": Kind("a whole number from 0", _whole(0)),
    "max_sessions_per_client": Kind("a whole number from 0", _whole(0)),
    "opens_per_second": Kind("a number from 0", _rate),
    "opens_burst": Kind("a whole number from 1", _whole(1)),
    "memory_limit": Kind('a share such as "80%", a size such as "20 GiB", or "never"', _memory),
    "spare_idle": _SECONDS_OR_NEVER,
    "max_body": _SIZE_KIND,
    "body_timeout": _SECONDS,
    "header_timeout": _SECONDS,
    "max_header_bytes": _SIZE_KIND,
    "max_headers": Kind("a whole number from 1", _whole(1)),
    "max_url": _SIZE_KIND,
    "max_connections": Kind("a whole number from 1", _whole(1)),
    "max_connections_per_peer": Kind("a whole number from 1", _whole(1)),
    "stream_silence": _SECONDS,
    "ping_interval": _SECONDS,
    "stall_timeout": _SECONDS,
    "max_buffered": _SIZE_KIND,
    "max_unread": _SIZE_KIND,
    "log_buffer": _SIZE_KIND,
    "access_log": _FLAG,
    "tracing": _FLAG,
    "log_kept": _SIZE_KIND,
    "history": Kind("a whole number from 0", _whole(0)),
    "drain_timeout": _SECONDS,
    "cgroup": _one_of("auto", "required", "off"),
    "operator_socket": _one_of("auto", "required", "off"),
    "metrics": _FLAG,
    "log_format": _one_of("auto", "console", "json"),
    "log_level": _one_of("debug", "info", "warning", "error"),
}
CLIENT_KEYS: dict[str, AnyKind] = {
    key: SERVER_KEYS[key] for key in ("max_sessions_per_client", "opens_per_second", "opens_burst", "max_unread")
}
AUTH_KEYS: dict[str, AnyKind] = {
    "tokens_file": TEXT,
    "tokens_env": Kind("the name of a variable", _matching(re.compile(r"[A-Za-z_][A-Za-z0-9_]*"))),
}
OAUTH_KEYS: dict[str, AnyKind] = {
    "issuer": Kind("the URL that tokens have in iss", _matching(URL)),
    "audience": TEXT,
    "jwks": TEXT,
    "resource": Kind("the URL of this server, as its clients know it", _matching(URL)),
    "algorithms": ListOf('a list of algorithms, such as ["RS256"]', _one_of(*ALGORITHMS)),
    "principal_claim": TEXT,
    "scope_prefix": TEXT,
}
LIMIT_KEYS: dict[str, AnyKind] = {
    "install_timeout": _SECONDS,
    "start_timeout": _SECONDS,
    "handshake_timeout": _SECONDS_OR_NEVER,
    "call_timeout": _SECONDS_OR_NEVER,
    "idle_timeout": _SECONDS_OR_NEVER,
    "quiet_timeout": _SECONDS_OR_NEVER,
    "ttl": _SECONDS_OR_NEVER,
    "eof_timeout": _SECONDS,
    "term_timeout": _SECONDS,
    "max_line": _SIZE_KIND,
    "max_in_flight": Kind("a whole number from 1", _whole(1)),
    "max_attachments": Kind("a whole number from 1", _whole(1)),
    "max_waiting": Kind("a whole number from 1", _whole(1)),
    "stderr_lines": Kind("a whole number from 0", _whole(0)),
    "max_failed_starts": Kind("a whole number from 0", _whole(0)),
    "failed_start_window": _SECONDS,
}
CONFINEMENT_KEYS: dict[str, AnyKind] = {
    "max_memory": _SIZE_OR_UNLIMITED,
    "max_cpus": Kind('a number of CPUs above 0, such as 0.5, or "unlimited"', _or_unlimited(_seconds)),
    "max_processes": _COUNT_OR_UNLIMITED,
    "max_cpu_seconds": _COUNT_OR_UNLIMITED,
    "max_address_space": _SIZE_OR_UNLIMITED,
    "max_open_files": _COUNT_OR_UNLIMITED,
    "max_file_size": _SIZE_OR_UNLIMITED,
    "nice": Kind("a whole number from 0 to 19", _whole(0, 19)),
    "no_new_privs": _FLAG,
    "sandbox": _one_of("none", "bubblewrap", "landlock"),
    "network": Kind("true, false, or a list of TCP ports to connect to, such as [443]", _network),
    "readable": ListOf('a list of files and folders, such as ["data"]', _TEMPLATE),
    "writable": ListOf('a list of files and folders, such as ["data"]', _TEMPLATE),
}
DESKTOP_KEYS: dict[str, AnyKind] = {
    "command": _TEMPLATE,
    "args": ListOf('a list of strings, such as ["--seed", "{seed}"]', ARGUMENT),
    "env": PairsOf('a table of strings, such as { LEVEL = "easy" }', ARGUMENT),
}
ENVIRONMENT_KEYS: dict[str, AnyKind] = {
    **DESKTOP_KEYS,
    "cwd": _TEMPLATE,
    "workspace_from": _TEMPLATE,
    "collect": ListOf(
        'a list of patterns, such as ["*.png", "out/**"]',
        Kind("a pattern for paths in the workspace, such as out/**/*.png: no / at its start, no ..", _pattern),
    ),
    "max_collected": _SIZE_KIND,
    "max_collected_files": Kind("a whole number from 1", _whole(1)),
    "python": Kind('a version in quotes, such as "3.12", or the path of an interpreter', _text, filled=True),
    "requirements": OneOrMany(
        'the path of a requirements.txt, or a list such as ["mcp>=2", "numpy"]', TEXT, _REQUIREMENT
    ),
    "conda": OneOrMany(
        'the path of an environment.yml, or a list of specs such as ["python=3.12", "numpy"]',
        TEXT,
        Kind("a spec of a conda package, such as numpy>=2", _line),
    ),
    "channels": ListOf(
        'a list of conda channels, such as ["conda-forge"]', Kind("the name, URL or folder of a channel", _line)
    ),
    "pyproject": Kind("a folder with a pyproject.toml", _text),
    "packages": ListOf(
        'a list of npm packages, such as ["zod@3"]', Kind("an npm package, such as zod@3", _npm_package)
    ),
    "shared": _FLAG,
    "zygote": _FLAG,
    "preload": ListOf(
        'a list of modules, such as ["numpy"]', Kind("a module's name, such as numpy.linalg", _matching(_MODULE))
    ),
    "control": _FLAG,
    "seeded": _FLAG,
    "private": ListOf('a list of folders, such as ["data"]', _TEMPLATE),
    "warm": Kind("a whole number from 0", _whole(0)),
    **LIMIT_KEYS,
    **CONFINEMENT_KEYS,
}
