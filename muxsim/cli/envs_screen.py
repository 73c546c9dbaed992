"""What `muxsim envs` does with many environments at once, and what it shows of them."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
import trio
from rich.table import Table
from rich.text import Text

from muxsim.cli.console import console_of
from muxsim.cli.installing import shown_bytes, shown_installs
from muxsim.cli.operator import duration
from muxsim.cli.sessions_shown import rows_of
from muxsim.config import Config
from muxsim.errors import MuxsimError, PackageError
from muxsim.observe.events import InstallFailed, InstallFinished, Listener
from muxsim.provision import inventory, packages
from muxsim.provision.inventory import Environment
from muxsim.serve.operate.running import find_running
from muxsim.spec import EnvSpec, Pins

S = TypeVar("S")
T = TypeVar("T")

_PIPED_WIDTH: Final = 160
_AT_ONCE: Final = 4
"""Installs that run at the same time; each is a program of its own, with a network and a disk between them."""


# ---- many at once


async def build_all(specs: Sequence[EnvSpec], *, anew: bool = False) -> list[Environment]:
    """Makes what is not there, or not whole, with ``anew`` all; a failure is only its own."""
    with shown_installs() as installing:

        async def build(spec: EnvSpec) -> Environment:
            try:
                await _built(spec, installing.listen, anew)
            except PackageError as error:
                installing.listen(InstallFailed(spec.name, str(error)))
                return replace(await inventory.of_spec(spec), problem=str(error))
            return await inventory.of_spec(spec)

        return await _each(specs, build)


async def _built(spec: EnvSpec, tell: Listener, anew: bool) -> None:
    began = trio.current_time()
    _, held = await packages.taken(spec, tell=tell, anew=anew)
    if held is None:
        return
    held.close()
    if held.made_anew:
        manifest, seconds = held.manifest, trio.current_time() - began
        count = sum(map(len, manifest.packages.values()))
        tell(InstallFinished(spec.name, held.home.name, seconds, manifest.bytes, count))


async def verify_all(specs: Sequence[EnvSpec], repair: bool) -> list[Environment]:
    """Looks at each; with ``repair`` what is damaged is made anew, and looked at again."""
    found = await _each(specs, inventory.verified)
    damaged = [spec for spec, one in zip(specs, found, strict=True) if one.state == "damaged"]
    if not repair or not damaged:
        return found
    mended = {one.name: one for one in await build_all(damaged, anew=True)}
    return [mended.get(one.name, one) for one in found]


async def lock_all(specs: Sequence[EnvSpec], upgrade: bool) -> dict[str, tuple[Pins, ...]]:
    """What each of them has, for a lock. Raises `MuxsimError`: without all of them there is no lock."""
    with shown_installs() as installing:

        async def pins(spec: EnvSpec) -> tuple[Pins, ...] | PackageError:
            try:
                return await inventory.pins_of(spec, upgrade=upgrade, tell=installing.listen)
            except PackageError as error:
                installing.listen(InstallFailed(spec.name, str(error)))
                return error

        found = await _each(specs, pins)
    failed = [str(one) for one in found if isinstance(one, PackageError)]
    if failed:
        raise MuxsimError("nothing is locked: " + "\n".join(failed))
    return {spec.name: one for spec, one in zip(specs, found, strict=True) if not isinstance(one, PackageError)}


async def clean_up(going: Sequence[Environment]) -> list[Environment]:
    """Removes these, and what killed muxsims and earlier ones have left; returns those that stay."""
    left = await inventory.remove_all(going)
    await inventory.sweep_remains()
    return left


async def _each(things: Sequence[S], do: Callable[[S], Awaitable[T]]) -> list[T]:
    results: dict[int, T] = {}
    turn = trio.CapacityLimiter(_AT_ONCE)

    async def one(at: int, thing: S) -> None:
        async with turn:
            results[at] = await do(thing)

    async with trio.open_nursery() as nursery:
        for at, thing in enumerate(things):
            nursery.start_soon(one, at, thing)
    return [results[at] for at in range(len(things))]


# ---- which sessions use what


def sessions_by_environment(config: Config | None) -> dict[str, list[str]]:
    """The sessions of running muxsims that serve this very config, by environment."""
    if config is None or config.file is None:
        return {}
    found: dict[str, list[str]] = {}
    for muxsim in find_running():
        try:
            if _same_file(muxsim.ask("status").get("config"), config.file):
                for session in rows_of(muxsim, {}):
                    found.setdefault(session["env"], []).append(session["id"])
        except (MuxsimError, KeyError):  # it has gone meanwhile, or is of another version
            continue
    return found


def _same_file(name: object, file: Path) -> bool:
    try:
        return isinstance(name, str) and os.path.samefile(name, file)
    except OSError:
        return False


# ---- what is shown


def show(environments: Sequence[Environment], sessions: Mapping[str, Sequence[str]], *, as_json: bool) -> None:
    """Print environments, and under the table what is wrong with any."""
    if as_json:
        _print_json([{**asdict(one), "sessions": list(sessions.get(one.name, ()))} for one in environments])
        return
    if not environments:
        print("nothing is installed, and there is no muxsim.toml here")
        return
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for column in ("environment", "kind", "state", "packages", "size", "built", "last used", "used by"):
        justify = "right" if column in ("packages", "size") else "left"
        table.add_column(column, justify=justify, no_wrap=column != "environment", overflow="fold")  # type: ignore[arg-type]
    for one in environments:
        table.add_row(*_cells(one, sessions.get(one.name, ())))
    console_of(piped=_PIPED_WIDTH).print(table)
    for one in environments:
        if one.problem:
            print(f"{one.name}: {one.problem}")


_STYLES: Final = {"ready": "green", "damaged": "red", "failed": "red", "building": "yellow"}


def _cells(one: Environment, sessions: Sequence[str]) -> tuple[Text | str, ...]:
    count = sum(map(len, (one.packages or {}).values()))
    built = "-" if one.built is None else f"{_ago(one.built)}, in {one.seconds:.1f} s"
    return (
        one.name,
        " + ".join(one.kind) or "-",
        Text(one.state, style=_STYLES.get(one.state, "")),
        str(count) if one.packages is not None else "-",
        shown_bytes(one.bytes) if one.bytes else "-",
        built,
        "-" if one.last_used is None else _ago(one.last_used),
        _used_by(one, sessions),
    )


def _used_by(one: Environment, sessions: Sequence[str]) -> str:
    if len(sessions) == 1:
        return f"session {sessions[0][:8]}"
    if sessions:
        return f"{len(sessions)} sessions"
    return ", ".join(f"muxsim {pid}" for pid in one.users) or "-"


def _ago(when: float) -> str:
    return f"{duration(max(0.0, time.time() - when))} ago"


def show_locked(
    file: Path,
    locked: Mapping[str, tuple[Pins, ...]],
    before: Mapping[str, tuple[Pins, ...]],
    *,
    as_json: bool,
) -> None:
    """Print what has become of a lock."""
    if as_json:
        _print_json(
            [
                {
                    "name": name,
                    "file": str(file),
                    "kind": [one.kind for one in pins],
                    "asked": [term for one in pins for term in one.terms],
                    "changed": pins != before.get(name, ()),
                }
                for name, pins in locked.items()
            ]
        )
        return
    for name, pins in locked.items():
        change = "the same as before" if pins == before.get(name, ()) else "locked"
        print(f"{name}: {change if pins else 'needs nothing installed'}")
    print(f"{file} has {sum(map(bool, locked.values()))} environments")


def show_removed(going: Sequence[Environment], left: Sequence[Environment], *, dry_run: bool, as_json: bool) -> None:
    """Print what has gone, and what stays."""
    if as_json:
        states = {one.place: "found" if dry_run else "in use" if one in left else "removed" for one in going}
        _print_json(
            [{"name": one.name, "place": one.place, "bytes": one.bytes, "state": states[one.place]} for one in going]
        )
        return
    gone = [one for one in going if one not in left]
    for one in gone:
        print(f"{'would remove' if dry_run else 'removed'} {one.name} ({shown_bytes(one.bytes)})")
    for one in left:
        pids = ", ".join(map(str, one.users))
        print(f"{one.name} is in use{f' by {pids}' if pids else ''}, and stays: end its sessions first")
    if not going:
        print("nothing to remove")
    elif gone:
        print(f"{shown_bytes(sum(one.bytes for one in gone))} {'would be' if dry_run else 'are'} free")


def _print_json(value: Any) -> None:
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(value)).decode() + "\n")
