"""The environments that are installed, or are to be: what is known of each, and what can be done with it."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal

import trio

from muxsim.errors import PackageError
from muxsim.observe.events import InstallRemoved, Listener, unheard
from muxsim.provision import packages
from muxsim.provision.cache import cache_folder, release, remove, take_nowait
from muxsim.provision.store import Home, homes, removed, store_folder, sweep, sweep_home
from muxsim.spec import EnvSpec, Pins

State = Literal["ready", "missing", "damaged", "building", "failed", "nothing"]
"""Whether an environment is there: ``nothing`` is for one that needs nothing installed, ``failed`` for one of which it
cannot even be said what it needs."""

# What muxsims before the store kept in the cache.
_OF_BEFORE: Final = ("npm", "uv")


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """What is known of one environment; times are seconds of the epoch, sizes bytes."""

    name: str
    """Its name in the config; of one that no config names here that of its place."""

    place: str = ""
    """Its folder in the cache; ``""`` where it needs none."""

    kind: tuple[str, ...] = ()
    """The kinds of packages: conda, uv, npm."""

    state: State = "missing"
    problem: str = ""
    """What is wrong with it."""

    asked: tuple[str, ...] = ()
    """What was asked for, as people write it."""

    interpreter: str = ""
    packages: Mapping[str, Mapping[str, str]] | None = None
    """By kind, names and versions."""

    bytes: int = 0
    built: float | None = None
    seconds: float = 0.0
    """How long it took to make."""

    last_used: float | None = None
    users: tuple[int, ...] = ()
    """The processes that use it now."""

    log: str = ""
    """What installers said when it was last made, if they were asked."""


def of_store(environ: Mapping[str, str] = os.environ) -> list[Environment]:
    """Every environment that is in the cache, by the name of its place."""
    return [described(home, home.name) for home in homes(store_folder(environ))]


async def of_specs(specs: Iterable[EnvSpec], environ: Mapping[str, str] = os.environ) -> list[Environment]:
    """What each of these needs, and whether it is there; nothing is installed."""
    return [await of_spec(spec, environ) for spec in specs]


async def of_spec(spec: EnvSpec, environ: Mapping[str, str] = os.environ) -> Environment:
    """The same for one."""
    try:
        wanted = await packages.wanted_of(spec, environ, only_look=True)
    except PackageError as error:
        return Environment(name=spec.name, state="failed", problem=str(error))
    if not wanted.parts:
        return Environment(name=spec.name, state="nothing")
    asked = tuple(line for part, _ in wanted.parts for line in part.asked)
    kind = tuple(part.kind for part, _ in wanted.parts)
    found = await trio.to_thread.run_sync(described, wanted.home, spec.name)
    return replace(found, kind=kind, asked=asked)


def described(home: Home, name: str) -> Environment:
    """What the folder of an environment tells."""
    manifest = home.manifest()
    about = Environment(name=name, place=str(home.folder), log=str(home.log) if home.log.exists() else "")
    if home.is_being_made():
        about = replace(about, state="building")
    if manifest is None:
        return about
    state, problem = about.state, home.damage() or ""
    if state != "building":
        state = "damaged" if problem else "ready"
    return replace(
        about,
        state=state,
        problem=problem,
        kind=tuple(manifest.asked),
        asked=tuple(line for lines in manifest.asked.values() for line in lines),
        interpreter=manifest.interpreter,
        packages=manifest.packages,
        bytes=manifest.bytes,
        built=home.built(),
        seconds=manifest.seconds,
        last_used=home.last_used(),
        users=home.users() if home.is_used() else (),
    )


async def verified(spec: EnvSpec, environ: Mapping[str, str] = os.environ) -> Environment:
    """What is known of it, with all that can be found out looked at: files, versions, interpreter, entry."""
    about = await of_spec(spec, environ)
    if about.state == "missing":
        return replace(about, problem=f"it is not installed: muxsim envs build {spec.name}")
    if about.state != "ready":
        return about
    wanted = await packages.wanted_of(spec, environ, only_look=True)
    if (manifest := wanted.home.manifest()) is None:
        return replace(about, state="missing")
    null = os.open(os.devnull, os.O_RDONLY)  # nothing is made, so nothing has to outlive this
    try:
        with wanted.tools.bounded():
            await wanted.found(wanted.home.prefix(manifest), null, thorough=True)
    except PackageError as error:
        return replace(about, state="damaged", problem=str(error))
    finally:
        os.close(null)
    return about


async def pins_of(spec: EnvSpec, *, upgrade: bool, tell: Listener = unheard) -> tuple[Pins, ...]:
    """What its environment has, for a lock: it is made if it is not there. Raises PackageError.

    With ``upgrade`` neither the lock nor what is there has a say in it.
    """
    wanted_before = spec.dependencies
    spec = replace(spec, dependencies=replace(wanted_before, locked=False, pins=() if upgrade else wanted_before.pins))
    wanted = await packages.wanted_of(spec, tell=tell)
    _, held = await packages.taken(spec, tell=tell, upgrade=upgrade)
    if held is None:
        return ()
    try:
        return await packages.lock_of(wanted, held)
    finally:
        held.close()


def unused(environments: Iterable[Environment], kept: Iterable[str], *, older_than: float) -> list[Environment]:
    """Those in no place that is to be kept, which nobody uses, and has used or made for so many seconds."""
    kept, now = set(kept), time.time()
    return [
        one
        for one in environments
        if one.place not in kept
        and not one.users
        and one.state != "building"
        and now - max(one.last_used or 0.0, one.built or 0.0, _touched(Path(one.place))) >= older_than
    ]


def _touched(place: Path) -> float:
    """When something came into the folder or went, for one that was never made whole."""
    try:
        return place.stat().st_mtime
    except OSError:
        return 0.0


async def remove_all(environments: Sequence[Environment], tell: Listener = unheard) -> list[Environment]:
    """Removes them to the end; returns those that stay, since somebody has begun to use them meanwhile."""
    left = []
    for one in environments:
        if await removed(Home(Path(one.place))):
            tell(InstallRemoved(one.name, Path(one.place).name, one.bytes))
        else:
            left.append(one)
    return left


async def sweep_remains(environ: Mapping[str, str] = os.environ) -> None:
    """Removes what a killed muxsim was making or removing, and what muxsims before the store have left."""
    store = store_folder(environ)
    await sweep(store)
    for home in homes(store):
        if (lock := take_nowait(home.folder / "lock", fcntl.LOCK_EX)) is not None:
            try:
                await trio.to_thread.run_sync(sweep_home, home)
            finally:
                release(lock)
    for name in _OF_BEFORE:
        await _sweep_old(cache_folder(environ) / name)


def _entries_of(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


async def _sweep_old(folder: Path) -> None:
    """Removes installs of before, but for one that such a muxsim, should there be one yet, is making now."""
    for path in await trio.to_thread.run_sync(_entries_of, folder):
        lock = take_nowait(path.with_name(f"{path.name}.lock"), fcntl.LOCK_EX) if path.is_dir() else None
        if lock is not None:
            await remove(path)
            release(lock)
