"""What each setting may hold, and how it is read: of a config, and of settings that a program makes. Pure."""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from ipaddress import ip_network
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

from muxsim.errors import ConfigError

T = TypeVar("T")

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""Signatures that an issuer's public key can check; with a shared secret, whoever checks a token could make one."""

UNIX_PEERS = "unix"
"""What `trusted_proxies` calls whoever calls over a unix socket."""

# Of a line of requirements: extras behind a path, a marker, and a name before what it is found at.
EXTRAS: Final = re.compile(r"\[[^\]]*\]$")
# A `;` without any space may be of a path's name.
MARKER: Final = re.compile(r"(\s+;|;\s).*$")
NAMED: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(\s*\[[^\]]*\])?\s*@\s*")
_OF_A_FILE: Final = (".whl", ".zip", ".tar.gz", ".tar.bz2", ".tar.xz")

_MODULE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
_SIZE = re.compile(r"(\d+) ?(KiB|MiB|GiB|TiB)")
_SHARE = re.compile(r"(\d+(?:\.\d+)?)%")
_SIZE_UNITS = {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(:\d+)?")
URL = re.compile(r"https?://[^\s/?#@]+[^\s#]*")
_BASE_URL = re.compile(r"https?://([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(:\d+)?(/[A-Za-z0-9._~-]+)*/*")
_HOST = re.compile(r"([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(:\d+)?")

# What can be meant: less than the least is a slip of a unit, and does as much harm as one of a hundred years, which
# overflows what counts in milliseconds or waits for it. What is not meant to bound anything has a word of its own.
_DAY, YEAR = 86_400.0, 31_536_000.0
_MANY, _MOST = 10**6, 10**9
_LONGEST_SHOWN = 60
_KIB, _MIB, _TIB = 2**10, 2**20, 2**40


@dataclass(frozen=True, slots=True)
class Kind:
    """What a key may hold: ``wants`` goes on from "must be", ``read`` raises ValueError for anything else."""

    wants: str
    read: Callable[[Any], Any]
    filled: bool = False  # whether placeholders are filled in
    span: str = ""
    """Of a number: from where to where, and the word for none, as docs/configuration.md shows it."""


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


def _between(least: float, most: float) -> Callable[[Any], float]:
    def read(value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
            raise ValueError
        return float(value)

    return read


def _or(words: tuple[Any, ...], meaning: T, read: Callable[[Any], T]) -> Callable[[Any], T]:
    return lambda value: meaning if not isinstance(value, bool) and value in words else read(value)


def _whole(least: int, most: int) -> Callable[[Any], int]:
    def read(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise ValueError
        return value

    return read


def _size(least: int, most: int) -> Callable[[Any], int]:
    def read(value: Any) -> int:
        if isinstance(value, str) and (match := _SIZE.fullmatch(value)):
            value = int(match[1]) * _SIZE_UNITS[match[2]]
        return _whole(least, most)(value)

    return read


def _memory(least: int, most: int) -> Callable[[Any], int | str | None]:
    def read(value: Any) -> int | str | None:
        if isinstance(value, str) and (match := _SHARE.fullmatch(value)) and 1 <= float(match[1]) <= 100:
            return value
        return None if value == "never" else _size(least, most)(value)

    return read


def _shown_size(size: int) -> str:
    fitting = [f'"{size // unit} {name}"' for name, unit in _SIZE_UNITS.items() if size % unit == 0]
    return fitting[-1] if fitting else str(size)


def _seconds_kind(least: float, most: float = YEAR, *, never: bool = False) -> Kind:
    """A duration; "never", or infinity, is None where it may be left out."""
    span = f"{least:.9g} to {most:.9g}"
    wants = f"a number of seconds from {span}, such as 60"
    if not never:
        return Kind(wants, _between(least, most), span=span)
    read = _or(("never", math.inf), None, _between(least, most))
    return Kind(f'{wants}, or "never"', read, span=f'{span}, `"never"`')


def _count_kind(least: int, most: int, *, unlimited: bool = False) -> Kind:
    """A whole number; "unlimited" is None where it may be left out."""
    span, read = f"{least} to {most}", _whole(least, most)
    if not unlimited:
        return Kind(f"a whole number from {span}", read, span=span)
    return Kind(
        f'a whole number from {span}, or "unlimited"',
        _or(("unlimited",), None, read),
        span=f'{span}, `"unlimited"`',
    )


def _size_kind(least: int, most: int, *, unlimited: bool = False) -> Kind:
    """A number of bytes; "unlimited" is None where it may be left out."""
    span, read = f"{_shown_size(least)} to {_shown_size(most)}", _size(least, most)
    wants = f'a number of bytes, or a size such as "64 MiB", from {span}'
    if not unlimited:
        return Kind(wants, read, span=span)
    span = f'{span}, `"unlimited"`'
    return Kind(f'{wants}, or "unlimited"', _or(("unlimited",), None, read), span=span)


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
    if _text(value).startswith(_TAKEN) or is_path(value):
        return _line(value)
    from packaging.requirements import Requirement  # noqa: PLC0415 - only for configs that name packages

    wanted = Requirement(value)  # InvalidRequirement is a ValueError
    # Older versions of packaging write "name@ address": a requirement is told, and locked, in one way.
    name, _, address = str(wanted).partition("@")
    return str(wanted) if wanted.url is None else f"{name.rstrip()} @{address}"


def is_path(text: str) -> bool:
    """Whether what stands where a requirement may is the path of a file or a folder."""
    bare = EXTRAS.sub("", MARKER.sub("", text))
    if "://" in bare or NAMED.match(bare):
        return False
    return bare.startswith((".", "/", "~")) or "/" in bare or bare.endswith(_OF_A_FILE)


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

_TIMEOUT = _seconds_kind(0.001)
_TIMEOUT_OR_NEVER = _seconds_kind(0.001, never=True)

# Lines of a requirements.txt that name something; what else it may say, belongs into one.
_TAKEN: Final = ("-r ", "--requirement ", "-c ", "--constraint ", "-e ", "--editable ")
_REQUIREMENT = Kind(
    "a requirement as PEP 508 writes it, such as mcp>=2,<3, a path such as ./package, or -e, -r or -c with one",
    _requirement,
)

SERVER_KEYS: dict[str, AnyKind] = {
    "host": TEXT,
    "port": Kind("a port from 0 to 65535, where 0 takes a free one", _whole(0, 65535), span="0 to 65535"),
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
    "max_failures": _count_kind(1, _MOST),
    "max_sessions": _count_kind(1, _MANY),
    "max_pending": _count_kind(0, _MANY),
    "queue_timeout": _TIMEOUT,
    "max_starting": _count_kind(0, _MANY),
    "max_sessions_per_client": _count_kind(0, _MANY),
    "opens_per_second": Kind(
        f"0, or a number from 0.001 to {_MANY}", _or((0,), 0.0, _between(0.001, _MANY)), span=f"0, 0.001 to {_MANY}"
    ),
    "opens_burst": _count_kind(1, _MOST),
    "memory_limit": Kind(
        'a share from "1%" to "100%", a size from "1 MiB" to "1024 TiB" such as "20 GiB", or "never"',
        _memory(_MIB, 1024 * _TIB),
        span='"1%" to "100%", "1 MiB" to "1024 TiB", `"never"`',
    ),
    "spare_idle": _TIMEOUT_OR_NEVER,
    "max_body": _size_kind(16, _TIB),
    "body_timeout": _seconds_kind(0.01, _DAY),
    "header_timeout": _seconds_kind(0.01, _DAY),
    "max_header_bytes": _size_kind(256, 64 * _MIB),
    "max_headers": _count_kind(8, _MANY),
    "max_url": _size_kind(64, 64 * _MIB),
    "max_connections": _count_kind(1, _MANY),
    "max_connections_per_peer": _count_kind(1, _MANY),
    "stream_silence": _seconds_kind(0.01, _DAY),
    "ping_interval": _seconds_kind(0.1, _DAY),
    "stall_timeout": _seconds_kind(0.1, _DAY),
    "max_buffered": _size_kind(1, _TIB),
    "max_unread": _size_kind(1, _TIB),
    "max_unfinished": _size_kind(1, _TIB),
    "log_buffer": _size_kind(_KIB, _TIB),
    "access_log": _FLAG,
    "tracing": _FLAG,
    "log_kept": _size_kind(1, _TIB),
    "history": _count_kind(0, _MANY),
    "drain_timeout": _seconds_kind(0.001, _DAY),
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
    "install_timeout": _TIMEOUT,
    "start_timeout": _TIMEOUT,
    "handshake_timeout": _TIMEOUT_OR_NEVER,
    "call_timeout": _TIMEOUT_OR_NEVER,
    "idle_timeout": _TIMEOUT_OR_NEVER,
    "quiet_timeout": _TIMEOUT_OR_NEVER,
    "ttl": _TIMEOUT_OR_NEVER,
    "eof_timeout": _seconds_kind(0.001, _DAY),
    "term_timeout": _seconds_kind(0.001, _DAY),
    "max_line": _size_kind(256, _TIB),
    "max_in_flight": _count_kind(1, _MANY),
    "max_attachments": _count_kind(1, _MANY),
    "max_waiting": _count_kind(1, _MANY),
    "stderr_lines": _count_kind(0, _MANY),
    "max_failed_starts": _count_kind(0, _MANY),
    "failed_start_window": _TIMEOUT,
}
CONFINEMENT_KEYS: dict[str, AnyKind] = {
    "max_memory": _size_kind(_KIB, 1024 * _TIB, unlimited=True),
    "max_cpus": Kind(
        'a number of CPUs from 0.01 to 10000, such as 0.5, or "unlimited"',
        _or(("unlimited",), None, _between(0.01, 10_000)),
        span='0.01 to 10000, `"unlimited"`',
    ),
    "max_processes": _count_kind(1, 2**22, unlimited=True),
    "max_cpu_seconds": _count_kind(1, _MOST, unlimited=True),
    "max_address_space": _size_kind(_MIB, 1024 * _TIB, unlimited=True),
    "max_open_files": _count_kind(1, _MOST, unlimited=True),
    "max_file_size": _size_kind(1, 1024 * _TIB, unlimited=True),
    "nice": _count_kind(0, 19),
    "no_new_privs": _FLAG,
    "sandbox": _one_of("none", "bubblewrap", "landlock"),
    "network": Kind("true, false, or a list of TCP ports to connect to, such as [443]", _network),
    "readable": ListOf('a list of files and folders, such as ["data"]', _TEMPLATE),
    "writable": ListOf('a list of files and folders, such as ["data"]', _TEMPLATE),
}
ROLLOUT_KEYS: dict[str, AnyKind] = {
    "max_steps": _count_kind(1, 10 * _MANY),
    "max_concurrent": _count_kind(1, 10_000),
    "call_timeout": _TIMEOUT,
    "episode_timeout": _TIMEOUT,
    "start_timeout": _TIMEOUT,
    "start_tries": _count_kind(1, _MANY),
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
    "max_collected": _size_kind(1, _TIB),
    "max_collected_files": _count_kind(1, _MANY),
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
    "warm": _count_kind(0, 10_000),
    **LIMIT_KEYS,
    **CONFINEMENT_KEYS,
}


def check_numbers(settings: Any, keys: Mapping[str, AnyKind]) -> None:
    """Hold the numbers of a frozen dataclass to what a config may say of them, also in the words of a config.

    Raises `ConfigError` for one that nobody can mean. None is left where the dataclass has it.
    """
    for field in fields(settings):
        kind, value = keys.get(field.name), getattr(settings, field.name)
        if not isinstance(kind, Kind) or not kind.span or (value is None and "None" in str(field.type)):
            continue
        try:
            read = kind.read(value)
        except (ValueError, TypeError):
            advice = f"must be {kind.wants}"
            raise ConfigError(advice, key=field.name, value=repr(value)[:_LONGEST_SHOWN]) from None
        if read is not value:
            object.__setattr__(settings, field.name, read)
