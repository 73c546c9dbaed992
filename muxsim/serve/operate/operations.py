"""What whoever runs a muxsim may ask of it while it serves: by `muxsim ctl` and `muxsim ps`, or by a signal."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Final, TypeAlias

from muxsim import __version__
from muxsim.access import AuthSettings
from muxsim.config import Config, ServerSettings
from muxsim.errors import ConfigError, NotDone, NotThere
from muxsim.observe.counters import Counters
from muxsim.observe.events import (
    ConfigReloaded,
    Draining,
    Events,
    ReloadFailed,
    RestartNeeded,
    Resumed,
)
from muxsim.runtime.guest import Guest, GuestEnded
from muxsim.serve.routes.listing import inside, look_for, page_of, told
from muxsim.session.endings import Past
from muxsim.session.registry import Sessions
from muxsim.session.sampler import Sampler
from muxsim.session.session import Session

# So many ids are named to whoever has given the beginning of several.
_MOST_NAMED: Final = 5

# What may come beside a command; `look_for` knows what may beside ``sessions``.
_TAKES: Final[Mapping[str, tuple[str, ...]]] = {
    "inspect": ("session",),
    "end": ("session",),
    "logs": ("session", "after", "wait"),
    "loglevel": ("level", "env"),
}

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
        *("drain_timeout", "log_level", "history"),
        *("max_body", "body_timeout", "header_timeout", "max_header_bytes", "max_headers", "max_url"),
        *("max_connections", "max_connections_per_peer", "max_unread", "max_unfinished"),
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
        sampler: Sampler,
        bridge: Guest[Any],
        *,
        reread: Callable[[], Awaitable[Config]] | None,
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
        self._sampler = sampler
        self._bridge = bridge
        self._reread = reread
        self._apply = apply
        self._stop = stop
        self._stopping = stopping
        self._counters = counters
        self._events = events
        self._begun = asyncio.get_running_loop().time()
        self._reloading = asyncio.Lock()
        self._commands: dict[str, Command] = {
            "status": lambda _, by: self._status(),
            "sessions": lambda asked, by: self._list(asked),
            "inspect": lambda asked, by: self._inspect(asked),
            "end": self._end,
            "reload": lambda _, by: self.reload(by),
            "drain": lambda _, by: self._drain(True, by),
            "resume": lambda _, by: self._drain(False, by),
            "stop": lambda _, by: self._stop_now(by),
            **more,
        }

    async def answer(self, command: str, arguments: Mapping[str, Any], by: str) -> dict[str, Any]:
        """What whoever asks gets, ``by`` whom, in words. Raises `NotDone`."""
        do = self._commands.get(command)
        if do is None:
            raise NotThere(f"there is no command {command!r}: use one of {', '.join(self._commands)}")
        known = _TAKES.get(command, ())
        for name in arguments:
            if name not in known and command != "sessions":
                # Else what is misspelt would do more than was wished.
                raise NotDone(f"{command} takes {' and '.join(known) or 'nothing'}, not {name!r}")
        try:
            answer = do(arguments, by)
            return await answer if isinstance(answer, Awaitable) else answer
        except GuestEnded as error:
            raise NotDone(str(error)) from None

    # ---- sessions

    def _list(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        self._sampler.look()
        try:
            return page_of(self._sessions, look_for(asked), self._told)
        except ValueError as error:
            raise NotDone(str(error)) from None

    def _told(self, one: Session | Past) -> dict[str, Any]:
        usage = None if isinstance(one, Past) else self._sampler.of(one.pid)
        return {**told(one), "memory": None if usage is None else usage.memory}

    def _inspect(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        self._sampler.look()
        one = self._find(asked)
        if isinstance(one, Past):
            return {**self._told(one), **one.ending.data()}
        return {**self._told(one), **inside(one)}

    async def _end(self, asked: Mapping[str, Any], by: str) -> dict[str, Any]:
        session = self._find(asked)
        if isinstance(session, Past):
            raise NotDone(f"session {session.id} has ended already: {session.ending.said}")
        name, came_by_http, _ = by.rpartition(" from ")  # a client hears the name, and not from where
        session.end("deleted", "the session was ended", by=name if came_by_http else "the operator")
        await self._bridge.call(session.folder.wait_removed)
        past = self._sessions.past(session.id)
        return {"id": session.id} if past is None else told(past)

    def _find(self, asked: Mapping[str, Any]) -> Session | Past:
        """The one session whose id this is, or begins with this; of those that have ended if none lives.

        A whole id is no other's beginning: whoever ends a session again does not end the next one.
        """
        wanted = str(asked.get("session") or "")
        if not wanted:
            raise NotDone("name a session: its id, or what no other's begins with")
        groups: list[Sequence[Session | Past]] = [self._sessions.all(), self._sessions.ended()]
        whole = [[one for one in group if one.id == wanted][-1:] for group in groups]
        begun = [[one for one in group if one.id.startswith(wanted)] for group in groups]
        for found in [*whole, *begun]:
            if len(found) > 1:
                ids = ", ".join(one.id for one in found[:_MOST_NAMED])
                raise NotDone(f"the ids of {len(found)} sessions begin with {wanted!r}: {ids}")
            if found:
                return found[0]
        raise NotThere(f"no session has an id that is {wanted!r}, or begins with it")

    # ---- muxsim

    def _stop_now(self, by: str) -> dict[str, Any]:
        self._stop(by)
        return self._status()

    def _drain(self, wanted: bool, by: str) -> dict[str, Any]:
        """Take no new sessions, or take them again, unless muxsim is stopping."""
        if self._stopping() and not wanted:
            raise NotDone("muxsim is stopping, which cannot be undone")
        self._sessions.draining = wanted
        self._events.emit((Draining if wanted else Resumed)(len(self._sessions), by))
        return self._status()

    async def reload(self, by: str) -> dict[str, Any]:
        """Read the config again, one after the other who asks. New sessions get what it says; those that run go on.

        Raises `NotDone` for a bad one, which changes nothing.
        """
        async with self._reloading:
            return await self._reload(by)

    async def _reload(self, by: str) -> dict[str, Any]:
        if self._reread is None:
            raise self._refused("muxsim was started with a command, not with a config: there is nothing to read", by)
        try:
            new = await self._reread()
        except ConfigError as error:
            raise self._refused(f"{error}; the config of before stays in use", by) from None
        changes = compare(self._begun_with, self.config, new)
        changes = replace(changes, tokens=self._apply(new))
        self.config = new
        named = {field.name: getattr(changes, field.name) for field in fields(changes)}
        self._events.emit(ConfigReloaded(**{name: names or None for name, names in named.items()}, by=by))
        if changes.restart:
            self._events.emit(RestartNeeded(changes.restart))
        return named

    def _refused(self, problem: str, by: str) -> NotDone:
        self._events.emit(ReloadFailed(problem, by))
        return NotDone(problem)

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
