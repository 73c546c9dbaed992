"""Installed environments, one folder for each that was asked for: made once, whole or not at all, and used by many.

In ``CACHE/environments/NAME-DIGEST`` there are

    manifest.json   says that it is whole, and which folder it is in; put in place last, and at once (`manifest`)
    1f0c…/          that folder. It is made where it stays, since what is installed knows its own path, under a name
                    that nothing else has, and so nobody can mistake it for a whole one before the manifest says so
    lock            held by who makes or removes it
    1f0c….used      held by everybody who uses that folder; its time is that of the last use
    build.log       what installers said, the last time
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

import msgspec
import trio

from muxsim.errors import PackageError
from muxsim.provision import manifest as manifests
from muxsim.provision.cache import cache_folder, release, remove, remove_now, take, take_nowait
from muxsim.provision.manifest import Manifest

_GOING: Final = ".going-"
_USED: Final = ".used"
_KEPT: Final = frozenset({"manifest.json", "lock", "build.log"})

Build: TypeAlias = Callable[[Path, int, Manifest | None], Awaitable[Manifest]]
"""Fills a folder, and says what came of it. It is given the lock, and what there was before, which may tell how."""

Check: TypeAlias = Callable[[Path, int], Awaitable[str | None]]
"""What is wrong with a whole environment's folder that names and sizes of its files do not tell; None if nothing."""


@dataclass(frozen=True, slots=True)
class Home:
    """The place of one environment, whether it is there or not."""

    folder: Path

    @property
    def name(self) -> str:
        """Its folder's name."""
        return self.folder.name

    @property
    def log(self) -> Path:
        """What installers said when it was last made."""
        return self.folder / "build.log"

    def manifest(self) -> Manifest | None:
        """What it consists of; None if it is not there."""
        return manifests.read(self.folder / "manifest.json")

    def prefix(self, manifest: Manifest) -> Path:
        """The folder of the environment itself."""
        return self.folder / manifest.folder

    def damage(self) -> str | None:
        """What is wrong with it; None if nothing."""
        if (manifest := self.manifest()) is None:
            return "its manifest is missing or cannot be read"
        return manifests.damage(manifest, self.prefix(manifest))

    def built(self) -> float | None:
        """When it was made, in seconds of the epoch."""
        return _time_of(self.folder / "manifest.json")

    def used(self, manifest: Manifest) -> Path:
        """What everybody holds who uses it."""
        return self.folder / f"{manifest.folder}{_USED}"

    def last_used(self) -> float | None:
        """When it was last taken into use."""
        return max(filter(None, map(_time_of, self._all_used())), default=None)

    def is_being_made(self) -> bool:
        """Whether somebody is making or removing it now."""
        return _is_held(self.folder / "lock")

    def is_used(self) -> bool:
        """Whether a running muxsim uses it, this one or another."""
        return any(map(_is_held, self._all_used()))

    def users(self) -> tuple[int, ...]:
        """The processes that use it, as far as this one may know them."""
        return tuple(sorted({pid for file in self._all_used() for pid in _holders(file)}))

    def _all_used(self) -> list[Path]:
        # A folder that is no longer the environment's may be in use too.
        return [*self.folder.glob(f"*{_USED}")]


@dataclass(slots=True)
class Held:
    """An environment that is whole, and that nobody removes before it is given back."""

    home: Home
    manifest: Manifest
    lock: int
    made_anew: bool
    """Whether it was not there, or not whole, before."""

    @property
    def prefix(self) -> Path:
        """The folder of the environment itself."""
        return self.home.prefix(self.manifest)

    def close(self) -> None:
        """Give it back."""
        if self.lock >= 0:
            release(self.lock)
            self.lock = -1


def store_folder(environ: Mapping[str, str]) -> Path:
    """Where environments are."""
    return cache_folder(environ) / "environments"


def homes(store: Path) -> list[Home]:
    """The places of all environments, also of those that could not be made."""
    with contextlib.suppress(FileNotFoundError):
        return [Home(path) for path in sorted(store.iterdir()) if path.is_dir() and _GOING not in path.name]
    return []


async def whole(home: Home, build: Build, check: Check, *, force: bool = False) -> Held:
    """The environment, made by one while others wait, in this process and in others, if it is not there or damaged.

    With ``force`` it is made anew in any case. Whoever uses the one before may go on: its folder stays until then.
    """
    if not force and isinstance(held := await _as_it_is(home, check), Held):
        return held
    lock = await take(home.folder / "lock", fcntl.LOCK_EX)
    try:
        held = "it was to be made anew" if force else await _as_it_is(home, check)
        if isinstance(held, Held):
            return held
        return await _made(home, build, lock, held)
    finally:
        release(lock)


async def _as_it_is(home: Home, check: Check) -> Held | str:
    """The environment that is there, or what is wrong with it."""
    if (held := await _taken(home)) is None:
        return "its manifest is missing or cannot be read"
    try:
        fault = await trio.to_thread.run_sync(manifests.damage, held.manifest, held.prefix)
        fault = fault or await check(held.prefix, held.lock)
    except BaseException:
        held.close()
        raise
    if fault is None:
        os.utime(held.lock)
        return held
    held.close()
    return fault


async def _taken(home: Home) -> Held | None:
    """The environment, whole or damaged, so that nobody removes it."""
    while (manifest := home.manifest()) is not None:
        held = Held(home, manifest, await take(home.used(manifest), fcntl.LOCK_SH), made_anew=False)
        if home.manifest() == manifest:
            return held
        held.close()  # another has come in its place
    return None


async def _made(home: Home, build: Build, lock: int, fault: str) -> Held:
    before = home.manifest()
    await sweep(home.folder.parent)
    await trio.to_thread.run_sync(sweep_home, home)
    folder = home.folder / secrets.token_hex(6)
    folder.mkdir()
    began = trio.current_time()
    try:
        manifest = await build(folder, lock, before)
        seconds = round(trio.current_time() - began, 3)
        manifest = await trio.to_thread.run_sync(_sealed, home, folder, manifest, seconds)
    except BaseException as error:
        await remove(folder)
        if before is not None and isinstance(error, PackageError):
            message = f"{home.folder} is damaged ({fault}), and cannot be made anew: {error.message}"
            raise PackageError(message, output=error.output) from error
        raise
    held = Held(home, manifest, await take(home.used(manifest), fcntl.LOCK_SH), made_anew=True)
    await trio.to_thread.run_sync(sweep_home, home)
    return held


def _sealed(home: Home, folder: Path, manifest: Manifest, seconds: float) -> Manifest:
    """Makes it the environment, and the one before no more than a folder that may be in use."""
    manifests.make_read_only(folder)
    sealed = msgspec.structs.replace(
        manifest,
        folder=folder.name,
        seconds=seconds,
        bytes=manifests.bytes_of(folder),
        files=manifests.contents(folder),
    )
    manifests.write(home.folder / "manifest.json", sealed)
    return sealed


def sweep_home(home: Home) -> None:
    """Removes what was left by who was killed, and what another has come in the place of, unless it is in use.

    For who holds its lock.
    """
    manifest = home.manifest()
    kept = {*_KEPT, *([manifest.folder, f"{manifest.folder}{_USED}"] if manifest is not None else [])}
    for path in home.folder.iterdir():
        used = path.with_name(path.name + _USED)
        if path.name not in kept and path.is_dir() and (lock := take_nowait(used, fcntl.LOCK_EX)) is not None:
            remove_now(path)
            release(lock)
    for path in home.folder.iterdir():
        folder = path.name.removesuffix(_USED)
        if path.name not in kept and not path.is_dir() and not (home.folder / folder).is_dir():
            path.unlink()


async def removed(home: Home) -> bool:
    """Removes an environment to the end; False, and nothing is done, while somebody makes or uses it."""
    locks = []
    try:
        for file in (home.folder / "lock", *home.folder.glob(f"*{_USED}")):
            if (lock := take_nowait(file, fcntl.LOCK_EX)) is None:
                return False
            locks.append(lock)
        # From here on it has gone for everybody, even if this process is killed before the last file has.
        going = home.folder.with_name(f"{home.name}{_GOING}{secrets.token_hex(6)}")
        os.rename(home.folder, going)
    finally:
        for lock in locks:
            release(lock)
    await remove(going)
    return not going.exists()


async def sweep(store: Path) -> None:
    """Removes what was left by who was killed while removing."""
    for path in await trio.to_thread.run_sync(lambda: [*store.glob(f"*{_GOING}*")]):
        await remove(path)


# ---- who holds what


def _time_of(file: Path) -> float | None:
    try:
        return file.stat().st_mtime
    except OSError:
        return None


def _is_held(file: Path) -> bool:
    if not file.exists():
        return False
    if (lock := take_nowait(file, fcntl.LOCK_EX)) is None:
        return True
    release(lock)
    return False


def _holders(file: Path) -> tuple[int, ...]:
    try:
        number = file.stat().st_ino
        lines = Path("/proc/locks").read_text(encoding="ascii").splitlines()
    except OSError:
        return ()
    return tuple(_pids(lines, number))


def _pids(lines: list[str], inode: int) -> Iterator[int]:
    """Who holds a lock on the file of this number: ``1: FLOCK ADVISORY READ 4711 fd:01:1234 0 EOF``."""
    for line in lines:
        words = line.split()
        if len(words) > 5 and words[1] == "FLOCK" and words[5].rpartition(":")[2] == str(inode):
            yield int(words[4])
