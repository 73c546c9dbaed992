"""What whoever runs a muxsim may ask of it while it serves: by `muxsim ctl` and `muxsim ps`, or by a signal."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any, Final

from muxsim import __version__
from muxsim.config import Config
from muxsim.errors import ConfigError
from muxsim.observe.counters import Counters
from muxsim.observe.events import (
    CommandFailed,
    ConfigReloaded,
    Draining,
    Events,
    NoOperatorSocket,
    ReloadFailed,
    RestartNeeded,
)
from muxsim.serve.operate import running
from muxsim.serve.routes.api import outline
from muxsim.session.registry import Sessions
from muxsim.session.session import Session

_QUESTION_TIMEOUT: Final = 5.0
# Seconds until another connection is accepted where the last could not be.
_ACCEPT_PAUSE: Final = 0.5


@dataclass(frozen=True)
class Changes:
    """What another config changes: environments by name, and settings of ``[server]``.

    ``restart`` are the settings that only a restart changes.
    """

    added: tuple[str, ...]
    changed: tuple[str, ...]
    removed: tuple[str, ...]
    applied: tuple[str, ...]
    restart: tuple[str, ...]


# What is looked up each time it is needed; everything else is built into what serves.
LIVE_SETTINGS: Final = frozenset(
    {
        "drain_timeout",
        *("max_body", "body_timeout", "header_timeout", "max_header_bytes", "max_headers", "max_url"),
        *("max_connections", "max_connections_per_peer"),
        *("max_sessions", "max_pending", "queue_timeout", "max_starting"),
        *("max_sessions_per_client", "opens_per_second", "opens_burst"),
    }
)


def compare(begun_with: Config, old: Config, new: Config) -> Changes:
    """What becomes different when ``new`` takes the place of ``old``, in a muxsim that began with yet another."""
    before, after = old.environments, new.environments
    default = () if old.default == new.default else ("default",)
    auth = () if begun_with.auth == new.auth else ("auth",)
    return Changes(
        added=tuple(name for name in after if name not in before),
        changed=tuple(name for name in after if name in before and after[name] != before[name]),
        removed=tuple(name for name in before if name not in after),
        applied=(*default, *(name for name in _different(old, new) if name in LIVE_SETTINGS)),
        restart=(*auth, *(name for name in _different(begun_with, new) if name not in LIVE_SETTINGS)),
    )


def _different(one: Config, other: Config) -> list[str]:
    """The settings of ``[server]`` in which two configs differ."""
    names = [field.name for field in fields(one.server)]
    return [name for name in names if getattr(one.server, name) != getattr(other.server, name)]


class Operations:
    """A serving muxsim as its operator sees it. Runs on asyncio.

    ``reread`` gives the config as it stands in its file now; None if muxsim was started without a file. ``apply`` puts
    one to use for everything new; ``stop`` begins the shutdown.
    """

    def __init__(
        self,
        config: Config,
        url: str,
        sessions: Sessions,
        *,
        reread: Callable[[], Config] | None,
        apply: Callable[[Config], None],
        stop: Callable[[], None],
        counters: Counters,
        events: Events,
    ) -> None:
        self.config = self._begun_with = config
        self._url = url
        self._sessions = sessions
        self._reread = reread
        self._apply = apply
        self._stop = stop
        self._counters = counters
        self._events = events
        self._begun = asyncio.get_running_loop().time()

    def answer(self, command: str) -> dict[str, Any]:
        """What `muxsim ctl` and `muxsim ps` get."""
        if command == "status":
            return self._status()
        if command == "sessions":
            return {"sessions": [_describe(session) for session in self._sessions.all()]}
        if command == "reload":
            return self.reload()
        if command == "drain":
            self._sessions.draining = True
            self._events.emit(Draining(len(self._sessions)))
            return self._status()
        if command == "stop":
            self._stop()
            return self._status()
        return {"error": f"there is no command {command!r}: use one of {', '.join(running.COMMANDS)}"}

    def reload(self) -> dict[str, Any]:
        """Read the config again. New sessions get what it says; those that run go on; a bad one changes nothing."""
        if self._reread is None:
            return self._refused("muxsim was started with a command, not with a config: there is nothing to read again")
        try:
            new = self._reread()
        except ConfigError as error:
            return self._refused(f"{error}; the config of before stays in use")
        changes = compare(self._begun_with, self.config, new)
        self._apply(new)
        self.config = new
        told = {field.name: getattr(changes, field.name) for field in fields(changes)}
        self._events.emit(ConfigReloaded(**{name: names or None for name, names in told.items()}))
        if changes.restart:
            self._events.emit(RestartNeeded(changes.restart))
        return told

    def _refused(self, problem: str) -> dict[str, Any]:
        self._events.emit(ReloadFailed(problem))
        return {"error": problem}

    def _status(self) -> dict[str, Any]:
        return {
            "pid": os.getpid(),
            "version": __version__,
            "url": self._url,
            "config": None if self.config.file is None else str(self.config.file.absolute()),
            "uptime": round(asyncio.get_running_loop().time() - self._begun, 1),
            "state": "draining" if self._sessions.draining else "serving",
            "sessions": len(self._sessions),
            "in_flight": sum(session.statistics().in_flight for session in self._sessions.all()),
            "environments": list(self.config.environments),
            "limits": {name: count for name, count in self._counters.limits().items() if count},
        }


def _describe(session: Session) -> dict[str, Any]:
    # The rest of the id would open the session's URLs, and this is printed where others may look.
    return {"id": session.id[:8], **outline(session)}


@asynccontextmanager
async def operator_socket(answer: Callable[[str], dict[str, Any]], events: Events) -> AsyncIterator[Path | None]:
    """Answer this user's questions for the length of a block. Where that cannot be, muxsim serves without it."""
    try:
        folder = running.sockets_folder()
        listener = running.listen(folder)
    except OSError as error:
        events.emit(NoOperatorSocket(str(error)))
        yield None
        return

    path = folder / f"{os.getpid()}.sock"
    serving = asyncio.ensure_future(_serve(listener, partial(_encoded_answer, answer, events)))
    try:
        yield path
    finally:
        serving.cancel()
        listener.close()
        path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # others are in there
            folder.rmdir()


async def _serve(listener: socket.socket, answer: Callable[[str], bytes]) -> None:
    """One after the other: whoever asks is the operator. No question, and no bug in an answer, ends it."""
    listener.setblocking(False)
    loop = asyncio.get_running_loop()
    while True:
        try:
            connection, _ = await loop.sock_accept(listener)
        except OSError:  # there are no descriptors, perhaps; whoever asks goes on waiting
            await asyncio.sleep(_ACCEPT_PAUSE)
            continue
        try:
            with connection:
                async with asyncio.timeout(_QUESTION_TIMEOUT):
                    await _answer_one(connection, answer)
        except (OSError, ValueError, RecursionError, TimeoutError):
            continue  # it has gone, or asked nonsense


async def _answer_one(connection: socket.socket, answer: Callable[[str], bytes]) -> None:
    if running.peer_user(connection) not in (0, os.getuid()):
        return
    loop = asyncio.get_running_loop()
    connection.setblocking(False)
    line = b""
    while not line.endswith(b"\n"):
        data = await loop.sock_recv(connection, running.LINE_LIMIT)
        line += data
        if not data or len(line) > running.LINE_LIMIT:
            return
    question = json.loads(line)
    command = question.get("command") if isinstance(question, dict) else None
    await loop.sock_sendall(connection, answer(str(command)) + b"\n")


def _encoded_answer(answer: Callable[[str], dict[str, Any]], events: Events, command: str) -> bytes:
    try:
        return json.dumps(answer(command)).encode()
    except Exception as error:  # whatever it is, it is ours: the operator is told, and may ask something else
        events.emit(CommandFailed(command, error))
        return json.dumps({"error": f"muxsim failed at {command!r}, see its log: {error!r}"}).encode()
