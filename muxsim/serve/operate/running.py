"""Where a running muxsim can be found by whoever started it, and how to talk to it: a unix socket named by its pid.

One question and one answer per connection, each a line of JSON: ``{"command": "status"}``. An answer with ``"error"``
is a refusal. Only the same user, and root, get one.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from muxsim.errors import NotRunning
from muxsim.runtime.peers import peer_user

COMMANDS: Final = ("status", "sessions", "reload", "drain", "resume", "stop")
LINE_LIMIT: Final = 4096
"""Bytes of a question."""
_ANSWER_TIMEOUT: Final = 10.0


@dataclass(frozen=True)
class Running:
    """A muxsim that serves, as this user."""

    pid: int
    folder: Path

    def ask(self, command: str) -> dict[str, Any]:
        """Its answer to one of `COMMANDS`. Raises `NotRunning` if it has gone or does not answer."""
        try:
            with _connected(self.folder, self.pid) as connection, connection.makefile("rb") as answers:
                connection.sendall(json.dumps({"command": command}).encode() + b"\n")
                line = answers.readline()
            answer: dict[str, Any] = json.loads(line)
        except (OSError, ValueError) as error:
            raise NotRunning(f"muxsim {self.pid} does not answer: {error or 'it has gone'}") from None
        return answer


def sockets_folder() -> Path:
    """Where the sockets are, made on demand: only this user gets in. Raises OSError if that cannot be had."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    folder = Path(runtime, "muxsim") if runtime else Path(tempfile.gettempdir(), f".muxsim-{os.getuid()}")
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise PermissionError(f"{folder} must be a folder of this user's own, closed to others (chmod 700)")
    return folder


def find_running() -> list[Running]:
    """Every muxsim of this user that serves, by pid. Sockets that nobody listens on any more are removed."""
    found = []
    folder = sockets_folder()
    for path in sorted(folder.glob("*.sock")):
        if not path.stem.isdigit():
            continue
        try:
            with _connected(folder, int(path.stem)):
                found.append(Running(int(path.stem), folder))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
        except OSError:  # it has gone meanwhile, or is not ours
            continue
    return found


def choose_running(pid: int | None) -> Running:
    """The muxsim with this pid, or the only one. Raises `NotRunning`, which says which there are."""
    try:
        all_running = find_running()
    except OSError as error:
        raise NotRunning(f"cannot look for running muxsims: {error}") from None
    chosen = [one for one in all_running if pid in (None, one.pid)]
    if len(chosen) == 1:
        return chosen[0]
    pids = ", ".join(str(one.pid) for one in all_running)
    if not all_running:
        raise NotRunning(f"no muxsim is serving as this user (none in {sockets_folder()})")
    if pid is None:
        raise NotRunning(f"several muxsims are serving; choose one with --pid: {pids}")
    raise NotRunning(f"no muxsim with pid {pid} is serving as this user; there is {pids}")


@contextmanager
def at(folder: Path, pid: int) -> Iterator[str]:
    """The address of a socket: short enough for the kernel however long the folder's path is."""
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{opened}/{pid}.sock"
    finally:
        os.close(opened)


@contextmanager
def _connected(folder: Path, pid: int) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as connection, at(folder, pid) as address:
        connection.settimeout(_ANSWER_TIMEOUT)
        connection.connect(address)
        if peer_user(connection) not in (0, os.getuid()):
            raise PermissionError("somebody else listens there")
        yield connection


def listen(folder: Path) -> socket.socket:
    """Listen on this process's own socket. A socket of that name is of a process that has gone."""
    listener = socket.socket(socket.AF_UNIX)
    try:
        with at(folder, os.getpid()) as address, contextlib.suppress(FileNotFoundError):
            os.unlink(address)
        with at(folder, os.getpid()) as address:
            listener.bind(address)
            os.chmod(address, 0o600)
        listener.listen()
    except BaseException:
        listener.close()
        raise
    return listener
