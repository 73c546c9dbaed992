"""uvicorn on asyncio, with trio as its guest in the same thread. Nothing else in muxsim knows of this arrangement.

uvicorn cannot run on trio, and the supervisor's nurseries are what owns processes. As a guest trio costs no lock and no
second thread of ours; calls go across either way as plain calls.
"""

from __future__ import annotations

import asyncio
import functools
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import structlog
import trio
import uvicorn
from outcome import Outcome

from muxsim.config import Config, ServerSettings
from muxsim.errors import ListenError
from muxsim.events import Events
from muxsim.serve.api import API
from muxsim.serve.bridge import Bridge
from muxsim.serve.fast_lane import fast_lane
from muxsim.serve.gateway import Gateway
from muxsim.serve.log import log_event
from muxsim.serve.mcp_endpoints import HTTPSettings, MCPEndpoints
from muxsim.session.sessions import Sessions, open_sessions
from muxsim.supervise.pool import Pool, open_pool
from transports.http_rules import HostRules
from transports.streamable_http import StreamTimes

# For connections that are still open when every session has ended.
_LAST_CONNECTIONS: Final = 1
_BACKLOG: Final = 2048


@dataclass(frozen=True)
class Serving:
    """A gateway that accepts connections at ``url``."""

    url: str
    config: Config


def serve(config: Config, announce: Callable[[Serving], None]) -> None:
    """Serve until SIGINT or SIGTERM; a second one ends it at once.

    Raises `ListenError` before anything has been started if the address cannot be had.
    """
    with _listening(config.server) as listener:
        asyncio.run(_Host(config, listener, announce).run())


class _Host:
    """One run of both loops."""

    def __init__(self, config: Config, listener: socket.socket, announce: Callable[[Serving], None]) -> None:
        self._config = config
        self._listener = listener
        self._announce = announce
        self._events = Events()
        self._events.subscribe(log_event)
        self._signals = 0

    async def run(self) -> None:
        """Start trio, serve, and stop both in that order's reverse."""
        loop = self._loop = asyncio.get_running_loop()
        self._started: asyncio.Future[tuple[Sessions, Pool, Bridge]] = loop.create_future()
        self._stop = trio.Event()
        trio_done: asyncio.Future[None] = loop.create_future()

        def done(result: Outcome[None]) -> None:
            for future in (self._started, trio_done):
                if not future.done():
                    _settle(future, result)

        trio.lowlevel.start_guest_run(
            self._supervise,
            run_sync_soon_threadsafe=loop.call_soon_threadsafe,
            run_sync_soon_not_threadsafe=loop.call_soon,
            done_callback=done,
            host_uses_signal_set_wakeup_fd=True,
        )
        try:
            await self._serve(*await self._started)
        finally:
            self._stop.set()
            await trio_done

    async def _supervise(self) -> None:
        """trio's main task."""
        settings = self._config.server
        async with (
            open_pool(
                limit=settings.max_sessions,
                max_waiting=settings.max_pending,
                queue_timeout=settings.queue_timeout,
                watch=self._watch,
            ) as pool,
            open_sessions(pool, self._config.environments, self._events) as sessions,
            trio.open_nursery() as nursery,
        ):
            self._started.set_result((sessions, pool, Bridge(nursery)))
            await self._stop.wait()
            nursery.cancel_scope.cancel()

    def _watch(self, fd: int, callback: Callable[[], None]) -> Callable[[], None]:
        """Have asyncio's selector read a busy pipe: trio's, as a guest, sits in a thread of its own."""
        self._loop.add_reader(fd, callback)
        return functools.partial(self._unwatch, fd)

    def _unwatch(self, fd: int) -> None:
        self._loop.remove_reader(fd)

    async def _serve(self, sessions: Sessions, pool: Pool, bridge: Bridge) -> None:
        settings = self._config.server
        endpoints = MCPEndpoints(sessions, bridge, _http_settings(self._config))
        api = API(sessions, pool, bridge, endpoints, self._config.default)
        gateway = Gateway(endpoints, api, HostRules(settings.allowed_hosts, settings.allowed_origins))
        self._events.subscribe(endpoints.on_event)
        server = _Server(_uvicorn_config(gateway))
        stopping = asyncio.ensure_future(self._stop_on_signal(server, api, sessions, bridge))
        self._announce(Serving(_url(self._listener, settings), self._config))
        try:
            await server.serve(sockets=[self._listener])
        finally:
            stopping.cancel()

    async def _stop_on_signal(self, server: _Server, api: API, sessions: Sessions, bridge: Bridge) -> None:
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


def _settle(future: asyncio.Future[Any], result: Outcome[None]) -> None:
    try:
        future.set_result(result.unwrap())
    except BaseException as error:  # trio's main task failed: whoever waits for it gets to know
        future.set_exception(error)


def _http_settings(config: Config) -> HTTPSettings:
    settings = config.server
    times = StreamTimes(silence=settings.stream_silence, ping=settings.ping_interval, stall=settings.stall_timeout)
    return HTTPSettings(settings.max_body, settings.body_timeout, times, config.default)


def _uvicorn_config(gateway: Gateway) -> uvicorn.Config:
    return uvicorn.Config(
        gateway,
        http=fast_lane(gateway),
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
    )


@contextmanager
def _listening(settings: ServerSettings) -> Iterator[socket.socket]:
    try:
        family = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.create_server((settings.host, settings.port), family=family, backlog=_BACKLOG)
    except OSError as error:
        raise ListenError(
            f"cannot listen on {settings.host}:{settings.port}: {error.strerror or error}; "
            "choose another --port, or 0 for a free one"
        ) from None
    with listener:
        yield listener


def _url(listener: socket.socket, settings: ServerSettings) -> str:
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return f"http://{host}:{listener.getsockname()[1]}"
