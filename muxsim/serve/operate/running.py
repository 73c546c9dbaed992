"""Where a running muxsim can be found by whoever started it, and how to talk to it: a unix socket named by its pid.

One question and one answer per connection, each a line of JSON: ``{"command": "status"}``, with what else a command
needs beside it. An answer with ``"error"`` is a refusal. Only the same user, and root, get one.
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

from muxsim.errors import Gone, NotRunning
from muxsim.runtime.peers import peer_user

FOLDER_VARIABLE: Final = "MUXSIM_RUNTIME_DIR"
"""Names the one folder for the sockets, for a muxsim and for whoever asks it."""

LINE_LIMIT: Final = 4096
"""Bytes of a question."""
ANSWER_TIMEOUT: Final = 10.0


@dataclass(frozen=True)
class Running:
    """A muxsim that serves, as this user."""

    pid: int
    folder: Path

    @property
    def name(self) -> int:
        """What to call it."""
        return self.pid

    def ask(self, command: str, *, timeout: float = ANSWER_TIMEOUT, **arguments: Any) -> dict[str, Any]:
        """Its answer to a command. Raises `NotRunning` if it does not answer within ``timeout`` s, `Gone` if it has."""
        try:
            with _connected(self.folder, self.pid) as connection, connection.makefile("rb") as answers:
                connection.settimeout(timeout)
                connection.sendall(json.dumps({"command": command, **arguments}).encode() + b"\n")
                line = answers.readline()
            if not line.endswith(b"\n"):
                raise ConnectionError
            answer: dict[str, Any] = json.loads(line)
        except (FileNotFoundError, ConnectionError):
            raise Gone(f"muxsim {self.pid} has gone") from None
        except TimeoutError:
            raise NotRunning(f"muxsim {self.pid} does not answer within {timeout:g} s") from None
        except (OSError, ValueError) as error:
            raise NotRunning(f"muxsim {self.pid} does not answer: {error}") from None
        return answer


# ---- where they are


def places() -> list[Path]:
    """The folders in which a muxsim of this user may have its socket, the first choice first.

    Those that no variable names come first, so that a muxsim is found wherever it and whoever asks were started: at a
    login, by cron, in a batch job.
    """
    if chosen := os.environ.get(FOLDER_VARIABLE):
        return [Path(chosen)]
    user = os.getuid()
    found = [Path(f"/run/user/{user}/muxsim"), Path(f"/tmp/.muxsim-{user}")]
    if runtime := os.environ.get("XDG_RUNTIME_DIR"):
        found.append(Path(runtime, "muxsim"))
    found.append(Path(tempfile.gettempdir(), f".muxsim-{user}"))
    return list(dict.fromkeys(found))


def make_folder(folder: Path) -> None:
    """Have a folder there that only this user gets into. Raises OSError if that cannot be had."""
    folder.mkdir(mode=0o700, exist_ok=True)
    _refuse_others(folder)
    if folder.lstat().st_mode & 0o700 != 0o700:
        folder.chmod(0o700)  # made under a umask that shut out its owner too


def _refuse_others(folder: Path) -> None:
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise PermissionError(f"{folder} must be a folder of this user's own, closed to others (chmod 700)")


def find_running() -> list[Running]:
    """Every muxsim of this user that serves, by pid. Sockets that nobody listens on any more are removed."""
    found: dict[int, Running] = {}
    for folder in places():
        with contextlib.suppress(OSError):
            for one in _serving_in(folder):
                found.setdefault(one.pid, one)
    return sorted(found.values(), key=lambda one: one.pid)


def _serving_in(folder: Path) -> Iterator[Running]:
    _refuse_others(folder)
    for path in folder.iterdir():
        if path.suffix != ".sock" or not path.stem.isdigit():
            continue
        try:
            with _connected(folder, int(path.stem)):
                yield Running(int(path.stem), folder)
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
        except OSError:  # it has gone meanwhile, or is not ours
            continue


def none_serves() -> str:
    """That no muxsim is to be found: where it was looked for, and why it could not be elsewhere."""
    looked, problems = [], []
    for folder in places():
        try:
            _refuse_others(folder)
            os.listdir(folder)
        except FileNotFoundError:
            looked.append(str(folder))
        except OSError as error:
            problems.append(str(error) if error.strerror is None else f"{folder} cannot be read: {error.strerror}")
        else:
            looked.append(str(folder))
    found = f"no muxsim is serving as this user (none in {', '.join(looked)})" if looked else ""
    return "; ".join(filter(None, (found or "no muxsim of this user can be looked for", *problems)))


def choose_running(pid: int | None) -> Running:
    """The muxsim with this pid, or the only one. Raises `NotRunning`, which says which there are."""
    all_running = find_running()
    chosen = [one for one in all_running if pid in (None, one.pid)]
    if len(chosen) == 1:
        return chosen[0]
    pids = ", ".join(str(one.pid) for one in all_running)
    if not all_running:
        raise NotRunning(none_serves())
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
        connection.settimeout(ANSWER_TIMEOUT)
        connection.connect(address)
        if peer_user(connection) not in (0, os.getuid()):
            raise PermissionError("somebody else listens there")
        yield connection


# ---- being there


@dataclass(frozen=True)
class Reachable:
    """This process's own socket, as long as nobody removes it."""

    listener: socket.socket
    path: Path
    file: tuple[int, int]
    """Device and inode."""
    ours: bool
    """Whether the folder goes with it: one that somebody else has chosen and made is theirs."""

    @property
    def found(self) -> bool:
        """Whether who looks for this process finds it still."""
        try:
            there = self.path.lstat()
        except OSError:
            return False
        return (there.st_dev, there.st_ino) == self.file

    def close(self) -> None:
        """Be found no more."""
        self.listener.close()
        if self.found:
            self.path.unlink(missing_ok=True)
        if self.ours:
            with contextlib.suppress(OSError):  # others are in there
                self.path.parent.rmdir()


def be_reachable() -> Reachable:
    """Listen in the first place where that can be. Raises OSError, which has the problem of each."""
    problems = []
    for folder in places():
        try:
            ours = FOLDER_VARIABLE not in os.environ or not folder.exists()
            make_folder(folder)
            return _listen(folder, ours=ours)
        except OSError as error:
            problems.append(str(error))
    raise OSError("; ".join(problems))


def _listen(folder: Path, *, ours: bool) -> Reachable:
    """Listen on this process's own socket. A socket of that name is of a process that has gone."""
    listener = socket.socket(socket.AF_UNIX)
    try:
        with at(folder, os.getpid()) as address:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(address)
            listener.bind(address)
            os.chmod(address, 0o600)
            made = os.stat(address)
        listener.listen()
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return Reachable(listener, folder / f"{os.getpid()}.sock", (made.st_dev, made.st_ino), ours)
