"""`muxsim serve`: uvicorn on asyncio, the sessions on trio as its guest, and the signals that end both."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, fields
from typing import Any, Final

import structlog
import uvicorn
import uvloop

from muxsim.config import Config, ServerSettings
from muxsim.events import Events
from muxsim.guest import Guest, trio_guest, watch_on_this_loop
from muxsim.limits import Reached
from muxsim.serve.api import API
from muxsim.serve.auth import Authenticator, open_auth
from muxsim.serve.connections import Bounds, Connections, bounded
from muxsim.serve.fast_lane import fast_lane
from muxsim.serve.gateway import Gateway
from muxsim.serve.listening import listening, server_url, tls_context
from muxsim.serve.log import log_event
from muxsim.serve.mcp_endpoints import HTTPSettings, MCPEndpoints
from muxsim.session.relief import relieving
from muxsim.session.sessions import Sessions, open_sessions
from muxsim.supervise.descriptors import raise_limit
from muxsim.supervise.pool import Pool, capacity_of, open_pool
from transports.http_rules import HostRules
from transports.streamable_http import StreamTimes

# For connections that are still open when every session has ended.
_LAST_CONNECTIONS: Final = 1
# Seconds. A step of a policy may take a while, and a new connection costs more than one that waits.
_KEEP_ALIVE: Final = 75


@dataclass(frozen=True)
class Serving:
    """A gateway that accepts connections at ``url``."""

    url: str
    config: Config


def serve(config: Config, announce: Callable[[Serving], None]) -> None:
    """Serve until SIGINT or SIGTERM; a second one ends it at once.

    Raises `ListenError` or `ConfigError` before anything has been started if the address cannot be had, or a file of
    tokens or certificates is wrong.
    """
    auth = open_auth(config.auth, config.server.max_failures, os.environ)
    tls = tls_context(config.server)
    with listening(config.server, authenticated=auth is not None) as listener:
        _run_in_batches()
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_Host(config, listener, announce, auth, tls).run())


def _run_in_batches() -> None:
    """Ask the scheduler not to interrupt this thread for each child that it wakes.

    On a busy machine this carries an eighth more calls, since a loop that is left alone finds several things to do each
    time it looks; a single session's calls take as long as before. Children do not inherit it.
    """
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_BATCH | os.SCHED_RESET_ON_FORK, os.sched_param(0))


class _Host:
    """One run of both loops."""

    def __init__(
        self,
        config: Config,
        listener: socket.socket,
        announce: Callable[[Serving], None],
        auth: Authenticator | None,
        tls: ssl.SSLContext | None,
    ) -> None:
        self._config = config
        self._auth = auth
        self._tls = tls
        self._listener = listener
        self._announce = announce
        self._events = Events()
        self._events.subscribe(log_event)
        self._reached = Reached()
        self._events.subscribe(self._reached.on_event)
        self._signals = 0

    async def run(self) -> None:
        """Serve until a signal; the sessions and their processes are ended before this returns."""
        self._loop = asyncio.get_running_loop()
        self._watch = watch_on_this_loop()
        async with trio_guest(self._supervisor) as guest:
            sessions, pool = guest.value
            await self._serve(sessions, pool, guest)

    @asynccontextmanager
    async def _supervisor(self) -> AsyncIterator[tuple[Sessions, Pool]]:
        """What runs on trio."""
        settings = self._config.server
        async with (
            open_pool(
                capacity_of(settings),
                memory_limit=settings.memory_limit,
                watch=self._watch,
                specs=self._config.environments.values(),
                cgroup=settings.cgroup,
            ) as pool,
            open_sessions(pool, self._config.environments, self._events) as sessions,
            relieving(sessions, pool, settings.spare_idle),
        ):
            raise_limit()
            pool.keep_warm(self._config.environments.values())
            yield sessions, pool

    async def _serve(self, sessions: Sessions, pool: Pool, bridge: Guest[Any]) -> None:
        settings = self._config.server
        endpoints = MCPEndpoints(sessions, bridge, _http_settings(self._config))
        api = API(sessions, pool, bridge, endpoints, self._config.default, self._reached)
        rules = HostRules(settings.allowed_hosts, settings.allowed_origins)
        gateway = Gateway(endpoints, api, rules, self._auth, self._reached)
        self._events.subscribe(endpoints.on_event)
        connections = Connections(_bounds(settings), self._reached)
        server = _Server(_uvicorn_config(gateway, connections, self._tls))
        bridge.finished.add_done_callback(lambda _: setattr(server, "should_exit", True))
        stopping = asyncio.ensure_future(self._stop_on_signal(server, api, sessions, bridge))
        self._announce(Serving(server_url(self._listener, settings), self._config))
        try:
            await server.serve(sockets=[self._listener])
        finally:
            stopping.cancel()

    async def _stop_on_signal(self, server: _Server, api: API, sessions: Sessions, bridge: Guest[Any]) -> None:
        signalled = asyncio.Event()

        def on_signal() -> None:
            self._signals += 1
            api.ready = False
            server.should_exit = True
            server.force_exit = self._signals > 1
            signalled.set()

        for number in (signal.SIGINT, signal.SIGTERM):
            self._loop.add_signal_handler(number, on_signal)
        await signalled.wait()
        structlog.get_logger().info("muxsim.stopping", sessions=len(sessions))
        await self._drain(sessions)
        await bridge.call(sessions.end_all, "shutdown", "muxsim is shutting down")

    async def _drain(self, sessions: Sessions) -> None:
        """Let calls finish that are about to."""
        deadline = self._loop.time() + self._config.server.drain_timeout
        while self._signals < 2 and self._loop.time() < deadline and any(one.busy for one in sessions.all()):  # noqa: ASYNC110 - short, once
            await asyncio.sleep(0.02)


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: ours end the sessions too."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals alone."""
        yield


def _http_settings(config: Config) -> HTTPSettings:
    settings = config.server
    times = StreamTimes(silence=settings.stream_silence, ping=settings.ping_interval, stall=settings.stall_timeout)
    return HTTPSettings(settings.max_body, settings.body_timeout, times, config.default, settings.max_failures)


def _bounds(settings: ServerSettings) -> Bounds:
    return Bounds(**{field.name: getattr(settings, field.name) for field in fields(Bounds)})


def _uvicorn_config(gateway: Gateway, connections: Connections, tls: ssl.SSLContext | None) -> uvicorn.Config:
    return uvicorn.Config(
        gateway,
        http=bounded(fast_lane(gateway), connections),
        ws="none",
        lifespan="off",
        interface="asgi3",
        access_log=False,
        log_config=None,
        log_level="warning",
        proxy_headers=False,
        server_header=False,
        date_header=False,
        timeout_graceful_shutdown=_LAST_CONNECTIONS,
        timeout_keep_alive=_KEEP_ALIVE,
        ssl_context_factory=None if tls is None else lambda *_: tls,
    )
