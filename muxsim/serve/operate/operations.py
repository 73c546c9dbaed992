"""What whoever runs a muxsim may ask of it while it serves: by `muxsim ctl` and `muxsim ps`, or by a signal."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Final, TypeAlias

from muxsim import __version__
from muxsim.access import AuthSettings
from muxsim.config import Config, ServerSettings
from muxsim.errors import ConfigError
from muxsim.observe.counters import Counters
from muxsim.observe.events import (
    ConfigReloaded,
    Draining,
    Events,
    ReloadFailed,
    RestartNeeded,
    Resumed,
)
from muxsim.serve.routes.api import outline
from muxsim.session.registry import Sessions
from muxsim.session.session import Session

Command: TypeAlias = Callable[[Mapping[str, Any], str], dict[str, Any] | Awaitable[dict[str, Any]]]
"""Does something with what came beside a command, for whom it is told, and returns the answer."""


@dataclass(frozen=True)
class Changes:
    """What another config changes: environments by name, and settings of ``[server]``.

    ``restart`` are the settings that only a restart changes; ``tokens`` says whose are added, replaced and removed.
    """

    added: tuple[str, ...]
    changed: tuple[str, ...]
    removed: tuple[str, ...]
    applied: tuple[str, ...]
    restart: tuple[str, ...]
    tokens: tuple[str, ...] = ()


# What is looked up each time it is needed; everything else is built into what serves.
LIVE_SETTINGS: Final = frozenset(
    {
        "drain_timeout",
        *("max_body", "body_timeout", "header_timeout", "max_header_bytes", "max_headers", "max_url"),
        *("max_connections", "max_connections_per_peer", "max_unread"),
        *("max_sessions", "max_pending", "queue_timeout", "max_starting"),
        *("max_sessions_per_client", "opens_per_second", "opens_burst"),
    }
)


def compare(begun_with: Config, old: Config, new: Config) -> Changes:
    """What becomes different when ``new`` takes the place of ``old``, in a muxsim that began with yet another."""
    before, after = old.environments, new.environments
    default = () if old.default == new.default else ("default",)
    clients = () if old.clients == new.clients else ("clients",)
    auth = () if same_sources(begun_with.auth, new.auth) else ("auth",)
    return Changes(
        added=tuple(name for name in after if name not in before),
        changed=tuple(name for name in after if name in before and after[name] != before[name]),
        removed=tuple(name for name in before if name not in after),
        applied=(*default, *clients, *(name for name in _different(old, new) if name in LIVE_SETTINGS)),
        restart=(*auth, *(name for name in _different(begun_with, new) if name not in LIVE_SETTINGS)),
    )


def same_sources(one: AuthSettings | None, other: AuthSettings | None) -> bool:
    """Whether tokens come from the same places, but that a file may have another path: it is read again anyway."""
    if one is None or other is None or bool(one.tokens_file) != bool(other.tokens_file):
        return one == other
    return replace(one, tokens_file=other.tokens_file) == other


def _different(one: Config, other: Config) -> list[str]:
    """The settings of ``[server]`` that have another meaning in two configs."""
    names = [field.name for field in fields(one.server)]
    return [name for name in names if _meaning(one.server, name) != _meaning(other.server, name)]


def _meaning(settings: ServerSettings, name: str) -> object:
    value = getattr(settings, name)
    if isinstance(value, tuple):  # the order of names to accept means nothing
        return frozenset(value)
    return (value or settings.tls_cert) if name == "tls_key" else value


class Operations:
    """A serving muxsim as its operator sees it. Runs on asyncio.

    ``reread`` gives the config as it stands in its file now; None if muxsim was started without a file. ``apply`` puts
    one to use for everything new, and returns whose tokens have changed; ``stop`` begins the shutdown for whom it is
    told, and ``stopping`` tells whether it has begun. ``more`` are commands that others answer.
    """

    def __init__(
        self,
        config: Config,
        url: str,
        sessions: Sessions,
        *,
        reread: Callable[[], Config] | None,
        apply: Callable[[Config], tuple[str, ...]],
        stop: Callable[[str], None],
        stopping: Callable[[], bool],
        counters: Counters,
        events: Events,
        more: Mapping[str, Command],
    ) -> None:
        self.config = self._begun_with = config
        self._url = url
        self._sessions = sessions
        self._reread = reread
        self._apply = apply
        self._stop = stop
        self._stopping = stopping
        self._counters = counters
        self._events = events
        self._begun = asyncio.get_running_loop().time()
        self._commands: dict[str, Command] = {
            "status": lambda _, by: self._status(),
            "sessions": lambda _, by: {"sessions": [_describe(session) for session in self._sessions.all()]},
            "reload": lambda _, by: self.reload(by),
            "drain": lambda _, by: self._drain(True, by),
            "resume": lambda _, by: self._drain(False, by),
            "stop": lambda _, by: self._stop_now(by),
            **more,
        }

    async def answer(self, command: str, arguments: Mapping[str, Any], by: str) -> dict[str, Any]:
        """What whoever asks gets, ``by`` whom; with an ``"error"`` if it cannot be done."""
        do = self._commands.get(command)
        if do is None:
            return {"error": f"there is no command {command!r}: use one of {', '.join(self._commands)}"}
        answer = do(arguments, by)
        return await answer if isinstance(answer, Awaitable) else answer

    def _stop_now(self, by: str) -> dict[str, Any]:
        self._stop(by)
        return self._status()

    def _drain(self, wanted: bool, by: str) -> dict[str, Any]:
        """Take no new sessions, or take them again, unless muxsim is stopping."""
        if self._stopping() and not wanted:
            return {"error": "muxsim is stopping, which cannot be undone"}
        self._sessions.draining = wanted
        self._events.emit((Draining if wanted else Resumed)(len(self._sessions), by))
        return self._status()

    def reload(self, by: str) -> dict[str, Any]:
        """Read the config again. New sessions get what it says; those that run go on; a bad one changes nothing."""
        if self._reread is None:
            return self._refused(
                "muxsim was started with a command, not with a config: there is nothing to read again", by
            )
        try:
            new = self._reread()
        except ConfigError as error:
            return self._refused(f"{error}; the config of before stays in use", by)
        changes = compare(self._begun_with, self.config, new)
        changes = replace(changes, tokens=self._apply(new))
        self.config = new
        told = {field.name: getattr(changes, field.name) for field in fields(changes)}
        self._events.emit(ConfigReloaded(**{name: names or None for name, names in told.items()}, by=by))
        if changes.restart:
            self._events.emit(RestartNeeded(changes.restart))
        return told

    def _refused(self, problem: str, by: str) -> dict[str, Any]:
        self._events.emit(ReloadFailed(problem, by))
        return {"error": problem}

    def summary(self) -> str:
        """How it stands, in words."""
        busy = sum(session.statistics().in_flight for session in self._sessions.all())
        state = "draining" if self._sessions.draining else "serving"
        return f"{state} on {self._url}: {len(self._sessions)} sessions, {busy} requests in flight"

    def _status(self) -> dict[str, Any]:
        return {
            "pid": os.getpid(),
            "version": __version__,
            "url": self._url,
            "config": None if self.config.file is None else str(self.config.file.absolute()),
            "uptime": round(asyncio.get_running_loop().time() - self._begun, 1),
            "state": "draining" if self._sessions.draining else "serving",
            "sessions": len(self._sessions),
            "left": sum(not session.shared for session in self._sessions.all()),
            "in_flight": sum(session.statistics().in_flight for session in self._sessions.all()),
            "environments": list(self.config.environments),
            "limits": {name: count for name, count in self._counters.limits().items() if count},
        }


def _describe(session: Session) -> dict[str, Any]:
    # The rest of the id would open the session's URLs, and this is printed where others may look.
    return {"id": session.id[:8], **outline(session)}
