"""muxsim's own cache: what is in it was made by one while others waited, and what is damaged is made anew."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import os
import re
import shutil
from collections.abc import AsyncGenerator, Iterator, Mapping
from pathlib import Path
from typing import Final, Protocol

import msgspec
import trio

from muxsim.errors import PackageError

_LOCK_POLL: Final = 0.1  # s; a blocking flock could not be cancelled

_RECORD: Final = "muxsim-contents.json"
# What a package consists of. Other files may be data, which a server that keeps them in its package changes or removes.
_CODE: Final = (".js", ".mjs", ".cjs", ".node", ".wasm", ".py", ".so", "package.json", "pyvenv.cfg")

_recorded: Final = msgspec.json.Decoder(dict[str, int])


def cache_folder(environ: Mapping[str, str]) -> Path:
    """Where muxsim keeps what can be made again: ``$MUXSIM_CACHE``, else ``muxsim`` in the user's cache."""
    if named := environ.get("MUXSIM_CACHE"):
        return Path(named).absolute()
    if base := environ.get("XDG_CACHE_HOME"):
        return Path(base).absolute() / "muxsim"
    return Path(environ.get("HOME") or Path.home()) / ".cache" / "muxsim"


def key(name: str, *parts: str) -> str:
    """A file name that shows what it is for and is its own for the parts."""
    readable = re.sub(r"[^A-Za-z0-9.-]+", "-", name).strip("-.")[:60]
    digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()
    return f"{readable}-{digest[:12]}"


# ---- damage


def record(home: Path) -> None:
    """Note what an installed folder consists of, for `damage`."""
    (home / _RECORD).write_bytes(msgspec.json.encode(dict(_code_of(home))))


def was_recorded(home: Path) -> bool:
    """Whether an install was once finished here."""
    return (home / _RECORD).exists()


def damage(home: Path) -> str | None:
    """What is wrong with a folder since it was recorded, as far as names and sizes of its code tell; None if nothing.

    A cut-off copy, a full disk and a cleaner of old files all leave traces there.
    """
    try:
        expected = _recorded.decode((home / _RECORD).read_bytes())
    except (OSError, msgspec.MsgspecError):
        return f"{_RECORD} is missing or cannot be read"
    found = dict(_code_of(home))
    for file, size in expected.items():
        if file not in found:
            return f"{file} is missing"
        if found[file] != size:
            return f"{file} has {found[file]} bytes instead of {size}"
    return None


def _code_of(home: Path) -> Iterator[tuple[str, int]]:
    for folder, _, files in os.walk(home):
        for file in files:
            if file.endswith(_CODE):
                path = os.path.join(folder, file)
                with contextlib.suppress(FileNotFoundError):  # a link to nothing
                    yield os.path.relpath(path, home), os.stat(path).st_size


# ---- making


class Build(Protocol):
    """Fills the folder ``home``; ``before`` is what was there, which may tell how, and the lock is to be lent on."""

    async def __call__(self, home: Path, before: Path, lock: int, /) -> None: ...


async def made_whole(home: Path, build: Build) -> None:
    """Have ``home`` as it was recorded, else made anew: by one, while others wait, in this process and in others."""
    if await trio.to_thread.run_sync(damage, home) is None:
        return
    async with locked(home) as lock:
        if (fault := await trio.to_thread.run_sync(damage, home)) is not None:
            await _make_anew(home, build, lock, fault)


async def _make_anew(home: Path, build: Build, lock: int, fault: str) -> None:
    """Builds where it stays, since not every folder can be moved: it is whole once it is recorded."""
    before = home.with_name(f"{home.name}.before")
    was_whole = await trio.to_thread.run_sync(_make_room, home, before)
    try:
        await build(home, before, lock)
        await trio.to_thread.run_sync(record, home)
    except BaseException as error:
        await remove(home)
        if before.exists():  # perhaps it can be mended, and it is no worse than nothing
            os.rename(before, home)
        if was_whole and isinstance(error, PackageError):
            message = f"{home} is damaged ({fault}), and cannot be made anew: {error.message}"
            raise PackageError(message, output=error.output) from error
        raise
    await remove(before)


def _make_room(home: Path, before: Path) -> bool:
    """An empty folder, with what was in it aside, unless that was cut off while a whole one lay there already.

    Returns whether what is aside was whole once.
    """
    if home.exists() and (was_recorded(home) or not was_recorded(before)):
        shutil.rmtree(before, ignore_errors=True)
        os.rename(home, before)
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    return was_recorded(before)


@contextlib.asynccontextmanager
async def locked(name: Path) -> AsyncGenerator[int]:
    """Holds ``name.lock`` against every task and process; gives its file descriptor."""
    name.parent.mkdir(parents=True, exist_ok=True)
    lock = os.open(name.with_name(name.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        while not _try_lock(lock):  # noqa: ASYNC110 - other processes set no event
            await trio.sleep(_LOCK_POLL)
        yield lock
    finally:
        # Only closing would leave it to who inherited the descriptor, such as an install script's daemon.
        fcntl.flock(lock, fcntl.LOCK_UN)
        os.close(lock)


def _try_lock(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


async def remove(folder: Path) -> None:
    """Removes a folder tree, in a thread because it may hold thousands of files, and to the end."""
    with trio.CancelScope(shield=True):
        await trio.to_thread.run_sync(functools.partial(shutil.rmtree, folder, ignore_errors=True))
