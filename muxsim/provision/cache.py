"""muxsim's own cache: where it is, what its folders are called, and who holds one of them."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path
from typing import Final

import trio

_LOCK_POLL: Final = 0.1  # s; a blocking flock could not be cancelled


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
    digest = hashlib.sha256("\0".join(parts).encode(errors="surrogateescape")).hexdigest()
    return f"{readable}-{digest[:12]}"


@contextlib.asynccontextmanager
async def locked(name: Path) -> AsyncGenerator[int]:
    """Holds ``name.lock`` against every task and process; gives its file descriptor."""
    lock = await take(name.with_name(name.name + ".lock"), fcntl.LOCK_EX)
    try:
        yield lock
    finally:
        release(lock)


async def take(file: Path, how: int) -> int:
    """Waits for a lock on a file, which is made if need be; gives its descriptor."""
    while (lock := take_nowait(file, how)) is None:  # noqa: ASYNC110 - other processes set no event
        await trio.sleep(_LOCK_POLL)
    return lock


def take_nowait(file: Path, how: int) -> int | None:
    """The same, or None while others hold it."""
    while True:
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:  # its folder has gone in between
            continue
        try:
            fcntl.flock(lock, how | fcntl.LOCK_NB)
            if _is_at(lock, file):
                return lock
        except BlockingIOError:
            os.close(lock)
            return None
        except BaseException:
            os.close(lock)
            raise
        os.close(lock)  # who held it has removed it: a lock on that keeps nobody out


def release(lock: int) -> None:
    """Gives a lock back."""
    # Only closing would leave it to who inherited the descriptor, such as an install script's daemon.
    fcntl.flock(lock, fcntl.LOCK_UN)
    os.close(lock)


def _is_at(lock: int, file: Path) -> bool:
    try:
        there = os.stat(file)
    except FileNotFoundError:
        return False
    return os.path.samestat(os.fstat(lock), there)


async def remove(folder: Path) -> None:
    """Removes a folder tree, in a thread because it may hold thousands of files, and to the end."""
    with trio.CancelScope(shield=True):
        await trio.to_thread.run_sync(remove_now, folder)


def remove_now(folder: Path) -> None:
    """Removes a folder tree, also one that is read-only."""
    for inner, _, _ in os.walk(folder):
        with contextlib.suppress(OSError):
            os.chmod(inner, 0o700)
    shutil.rmtree(folder, ignore_errors=True)
