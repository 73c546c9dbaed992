"""`muxsim.lock`, beside a config: what came of each environment's dependencies when they were locked, and for what.

The file is JSON. By environment and kind of packages it has the ``terms`` (what was asked for, for which interpreter or
platform) and the ``pins`` that the kind's provider gave: lines where that was text, else its JSON.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import msgspec

from muxsim.errors import ConfigError
from muxsim.spec import HOW_TO_LOCK, LOCK_NAME, EnvSpec, Pins

_VERSION: Final = 1


class _Kind(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One kind of packages of one environment."""

    terms: tuple[str, ...]
    pins: Any


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file."""

    version: int
    environments: dict[str, dict[str, _Kind]]


def lock_file(config: Path) -> Path:
    """Where the lock of a config is."""
    return config.with_name(LOCK_NAME)


def read_lock(file: Path) -> dict[str, tuple[Pins, ...]]:
    """What is locked, by environment; nothing where there is no file. Raises ConfigError."""
    try:
        data = file.read_bytes()
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", file=str(file)) from error
    try:
        version = msgspec.json.decode(data, type=dict[str, Any]).get("version")
        if version != _VERSION:
            text = f"is {json.dumps(version)}, and this muxsim reads {_VERSION}: lock again with {HOW_TO_LOCK}"
            raise ConfigError(text, file=str(file), key="version")
        found = msgspec.json.decode(data, type=_File)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        text = f"cannot be understood ({error}): have it back from where it is kept, or lock again with {HOW_TO_LOCK}"
        raise ConfigError(text, file=str(file)) from error
    return {name: _pins_of(file, name, kinds) for name, kinds in found.environments.items()}


def _pins_of(file: Path, name: str, kinds: Mapping[str, _Kind]) -> tuple[Pins, ...]:
    found = []
    for kind, one in kinds.items():
        if not isinstance(one.pins, dict | list) or not one.pins:
            text = f"must be what {HOW_TO_LOCK} has written: lock again"
            raise ConfigError(text, file=str(file), table=f"environments.{name}.{kind}", key="pins")
        found.append(Pins(kind, one.terms, _as_text(one.pins)))
    return tuple(found)


def write_lock(file: Path, locked: Mapping[str, Iterable[Pins]]) -> None:
    """Puts the whole lock in the place of what was there, in an order that does not change. Raises ConfigError."""
    environments = {
        name: {one.kind: _Kind(one.terms, _as_json(one.pins)) for one in sorted(pins, key=lambda one: one.kind)}
        for name, pins in sorted(locked.items())
    }
    data = msgspec.json.format(msgspec.json.encode(_File(_VERSION, environments)), indent=2) + b"\n"
    beside = file.with_name(f".{file.name}.{secrets.token_hex(6)}")
    try:
        with beside.open("wb") as out:
            out.write(data)
            out.flush()
            os.fsync(out.fileno())
        beside.replace(file)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise ConfigError(f"cannot be written: {error.strerror}", file=str(file)) from error


def with_lock(
    environments: Mapping[str, EnvSpec], locked: Mapping[str, tuple[Pins, ...]], *, only: bool
) -> dict[str, EnvSpec]:
    """The environments, each with what the lock says of it; with ``only`` it has nothing else installed."""
    return {
        name: replace(spec, dependencies=replace(spec.dependencies, pins=locked.get(name, ()), locked=only))
        for name, spec in environments.items()
    }


def _as_json(pins: str) -> Any:
    """For a file that people read: what is JSON as that, other text as its lines."""
    try:
        found = msgspec.json.decode(pins)
    except msgspec.MsgspecError:
        return pins.splitlines()
    return found if isinstance(found, dict | list) else pins.splitlines()


def _as_text(pins: dict[str, Any] | list[Any]) -> str:
    if isinstance(pins, list) and all(isinstance(line, str) for line in pins):
        return "".join(f"{line}\n" for line in pins)
    return msgspec.json.encode(pins).decode()
