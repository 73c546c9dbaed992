"""Environments in this process: a pool of sessions without HTTP, for programs on trio or asyncio."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import sniffio

from muxsim.admission.pool import capacity_of
from muxsim.admission.pool import open_pool as open_backends
from muxsim.config import Config, load
from muxsim.errors import raised_as_itself
from muxsim.observe.events import Events, Listener
from muxsim.observe.log import LibraryLog
from muxsim.placement.backend import GUARDIAN_DIED
from muxsim.provenance import parts_of
from muxsim.rollouts.data.kept_files import Collect
from muxsim.rollouts.environments.environment import EnvironmentGone, MachineryFailed
from muxsim.rollouts.environments.mcp_environment import MCPEnvironment, closed_on_failure, shake_hands
from muxsim.runtime.guest import trio_guest, watch_on_this_loop
from muxsim.session.control.own_client import OwnClient
from muxsim.session.registry import Sessions, open_sessions
from muxsim.session.session import Session
from muxsim.spec import EnvSpec
from transports.interfaces import Watch
from transports.messages import Message

T = TypeVar("T")
# Runs a function where the sessions live, on trio, and waits for it here.
Runner = Callable[..., Awaitable[Any]]


class LocalPool:
    """Opens sessions of one config's environments. Open it with `open_pool`."""

    def __init__(self, config: Config, sessions: Sessions, run: Runner) -> None:
        self.config = config
        self._sessions = sessions
        self._run = run

    def __repr__(self) -> str:
        return f"<LocalPool of {', '.join(self.environments)}: {self._sessions!r}>"

    @property
    def environments(self) -> tuple[str, ...]:
        """The names that can be opened."""
        return tuple(self.config.environments)

    async def open(self, env: str, seed: int, *, start_timeout: float | None = None) -> MCPEnvironment:
        """Start a session and shake hands. ``start_timeout`` is in seconds, over both.

        Raises `UnknownEnvironment`, `Busy` or `StartError`.
        """
        began = time.perf_counter()
        limit = self._sessions.spec(env).limits.start_timeout if start_timeout is None else start_timeout
        channel: _LocalChannel = await self._run(self._start, env, seed)
        session = channel.session
        # The one for all has the seed that it was started with, whatever is asked for now.
        seed = session.seed
        started = time.perf_counter() - began
        async with closed_on_failure(channel, env):
            opened = await shake_hands(channel, limit)
        here = replace(
            opened,
            start_seconds=started,
            workspace=session.folder.path,
            collect=_collected(session.spec),
            shared=session.shared,
        )
        return MCPEnvironment(session.id, env, seed, channel, here)

    async def parts(self, env: str) -> dict[str, str]:
        """What an environment consists of (`muxsim.provenance`)."""
        return parts_of(self._sessions.spec(env))

    async def _start(self, env: str, seed: int) -> _LocalChannel:
        shared = self._sessions.spec(env).shared
        session = await (self._sessions.shared(env) if shared else self._sessions.open(env, seed=seed))
        return _LocalChannel(session, self._run)


class _LocalChannel:
    """A session of this process, without a transport in between."""

    def __init__(self, session: Session, run: Runner) -> None:
        self.session = session
        self._run = run
        self._let_go = session.folder.hold()
        self._client = OwnClient(session)

    def ask(self, method: str, params: Any, timeout: float | None) -> Coroutine[Any, Any, Message]:
        if not self.session.live:
            raise _gone(self.session)
        if method == "initialize":  # for which the session waits as long as for its start
            return self._client.ask(method, params, timeout)
        self._client.be_patient(timeout)
        return self._client.ask_patiently(method, params)

    async def notify(self, method: str) -> None:
        self._client.notify(method)

    async def finish(self) -> None:
        if self.session.shared:  # the one for all is nobody's to end
            self._client.leave()
            return
        self.session.end("client_gone", "the rollout has closed the session")
        await self._run(self.session.wait_ended)

    async def close(self) -> None:
        self._let_go()
        await self.finish()
        if not self.session.shared:
            await self._run(self.session.folder.wait_removed)

    def last_words(self) -> tuple[str, ...]:
        return self.session.last_words


def _collected(spec: EnvSpec) -> Collect | None:
    return Collect(spec.collect, spec.max_collected, spec.max_collected_files) if spec.collect else None


def _gone(session: Session) -> EnvironmentGone | MachineryFailed:
    ending = session.ending
    if ending is None or ending.exit is None or ending.cause == GUARDIAN_DIED:  # that is not the environment's fault
        return MachineryFailed("the session has ended" if ending is None else ending.text)
    return EnvironmentGone(ending.text, stderr=ending.exit.stderr)


@asynccontextmanager
async def open_pool(
    config: str | Path | Config,
    *,
    max_sessions: int | None = None,
    on_event: Listener | None = None,
    hidden: Iterable[str | Path] = (),
) -> AsyncIterator[LocalPool]:
    """A pool for the length of a block; on the way out every session is ended, and every process gone.

    ``config`` is the path of a `muxsim.toml` or an `mcpServers` JSON, or one that is loaded. What is ``hidden`` no
    session under Landlock reads. Works on trio and asyncio.
    """
    loaded = config if isinstance(config, Config) else load(config)
    settings = loaded.server
    events = Events(LibraryLog(), *([] if on_event is None else [on_event]))

    @asynccontextmanager
    async def supervisor(watch: Watch | None = None) -> AsyncIterator[Sessions]:
        async with (
            open_backends(
                capacity_of(settings, max_sessions=max_sessions),
                memory_limit=settings.memory_limit,
                watch=watch,
                specs=loaded.environments.values(),
                cgroup=settings.cgroup,
                events=events,
                hidden=(*loaded.secrets, *map(str, hidden)),
            ) as pool,
            open_sessions(pool, loaded.environments, events) as sessions,
        ):
            pool.keep_warm(loaded.environments.values())
            yield sessions

    if sniffio.current_async_library() == "trio":
        with raised_as_itself():
            async with supervisor() as sessions:
                yield LocalPool(loaded, sessions, _directly)
    else:
        watch = watch_on_this_loop()
        with raised_as_itself():
            async with trio_guest(lambda: supervisor(watch)) as guest:
                yield LocalPool(loaded, guest.value, guest.call)


async def _directly(function: Callable[..., Awaitable[T]], *args: object) -> T:
    return await function(*args)
