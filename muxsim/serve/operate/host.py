"""`muxsim serve`: uvicorn on asyncio, the sessions on trio as its guest, and the signals that end both."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import math
import os
import signal
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import trio
import uvicorn
import uvloop

from muxsim.admission.pool import Pool, capacity_of, open_pool
from muxsim.config import Config
from muxsim.errors import NotDone
from muxsim.observe.counters import Counters
from muxsim.observe.distribution import Distribution
from muxsim.observe.durations import Durations
from muxsim.observe.events import (
    DrainTimeout,
    Events,
    SignalFailed,
    StoodStill,
    Stopping,
    TokensInTheClear,
)
from muxsim.observe.log import EventLog
from muxsim.observe.tracing import tracing
from muxsim.observe.traffic import Traffics
from muxsim.runtime.boundary import Boundary, open_boundary
from muxsim.runtime.clock import SteadyClock
from muxsim.runtime.descriptors import raise_limit
from muxsim.runtime.guest import Guest, GuestEnded, trio_guest, watch_on_this_loop
from muxsim.serve.auth.authenticator import Authenticator
from muxsim.serve.auth.tokens import open_auth
from muxsim.serve.metrics.families import LAG_SECONDS, Sources
from muxsim.serve.operate.front import Front
from muxsim.serve.operate.listening import is_of_this_machine, listening, server_url, tls_context
from muxsim.serve.operate.operations import Operations
from muxsim.serve.operate.operator_socket import operator_socket, refuse_unreachable
from muxsim.serve.operate.rereading import Rereading, tell_strangers
from muxsim.serve.operate.service_manager import ServiceManager
from muxsim.serve.routes.log_view import LogView
from muxsim.serve.routes.metrics import Metrics
from muxsim.serve.routes.wires import Wires
from muxsim.session.registry import Sessions, open_sessions
from muxsim.session.relief import relieving
from muxsim.session.sampler import Sampler, open_sampler

# For connections that are still open when every session has ended.
_LAST_CONNECTIONS: Final = 1
# Seconds after which uvicorn looks around again.
_TICK: Final = 0.1
# Seconds between two looks at whether the last calls are over, at shutdown.
_LOOK_AGAIN: Final = 0.02
# Seconds. A step of a policy may take a while, and a new connection costs more than one that waits.
_KEEP_ALIVE: Final = 75


@dataclass(frozen=True)
class Serving:
    """A gateway that accepts connections at ``url``."""

    url: str
    config: Config


def serve(
    config: Config,
    announce: Callable[[Serving], None],
    reread: Callable[[], Config] | None = None,
    events: Events | None = None,
    log: EventLog | None = None,
    wires: Wires | None = None,
) -> None:
    """Serve until SIGINT or SIGTERM; a second one ends it at once. SIGHUP puts to use what ``reread`` returns then.

    ``wires`` are what trainers find beside muxsim's own endpoints.

    Raises `ListenError` or `ConfigError` before anything has been started if the address cannot be had, or a file of
    tokens or certificates is wrong.
    """
    events = Events() if events is None else events
    auth = open_auth(config.auth, config.server.max_failures, os.environ, config.server.public_url, events.emit)
    tell_strangers(config, auth, events)
    tls = tls_context(config.server)
    if config.server.operator_socket == "required":
        refuse_unreachable()
    with listening(config.server, authenticated=auth is not None, environ=os.environ) as listener:
        if tls is None and not is_of_this_machine(listener):
            events.emit(TokensInTheClear())
        _run_in_batches()
        manager = ServiceManager.of(os.environ)
        with (
            tracing(config.server.tracing, events),
            asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
        ):
            runner.run(_Host(config, listener, announce, reread, events, auth, tls, manager, log, wires or {}).run())


def _run_in_batches() -> None:
    """Ask the scheduler not to interrupt whoever runs for each of us that wakes up: this thread, or a child.

    On a busy machine this carries an eighth more calls, since a loop that is left alone finds several things to do each
    time it looks; a single session's calls take as long as before. It is the children's too, which inherit it: it is
    they who would interrupt this thread.
    """
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


class _Host:
    """One run of both loops."""

    def __init__(
        self,
        config: Config,
        listener: socket.socket,
        announce: Callable[[Serving], None],
        reread: Callable[[], Config] | None,
        events: Events,
        auth: Authenticator | None,
        tls: ssl.SSLContext | None,
        manager: ServiceManager,
        log: EventLog | None,
        wires: Wires,
    ) -> None:
        self._log = log
        self._wires = wires
        self._manager = manager
        self._rereading = None if reread is None else Rereading(reread, config, auth, events)
        self._config = config
        self._auth = auth
        self._tls = tls
        self._listener = listener
        self._announce = announce
        self._events = events
        self._counters = Counters()
        events.subscribe(self._counters)
        self._durations = Durations()
        self._lag = Distribution(LAG_SECONDS)
        if config.server.metrics:
            events.subscribe(self._durations)
            events.traffics = Traffics()
        self._stop_signals = 0
        self._stopped_by: str | None = None
        self._clock = SteadyClock(lambda seconds: events.emit(StoodStill(round(seconds, 1))))

    async def run(self) -> None:
        """Serve until a signal; the sessions and their processes are ended before this returns."""
        self._loop = asyncio.get_running_loop()
        self._stop_wanted = asyncio.Event()
        self._haste_wanted = asyncio.Event()
        self._watch = watch_on_this_loop()
        async with trio_guest(self._supervisor, self._clock) as guest:
            sessions, pool, sampler, boundary = guest.value
            await self._serve(sessions, pool, sampler, guest, boundary)

    @asynccontextmanager
    async def _supervisor(self) -> AsyncIterator[tuple[Sessions, Pool, Sampler, Boundary]]:
        """What runs on trio."""
        settings = self._config.server
        async with (
            open_pool(
                capacity_of(settings, self._config.clients),
                memory_limit=settings.memory_limit,
                watch=self._watch,
                specs=self._config.environments.values(),
                cgroup=settings.cgroup,
                events=self._events,
                hidden=self._config.secrets,
            ) as pool,
            open_sessions(pool, self._config.environments, self._events) as sessions,
            relieving(sessions, pool, settings.spare_idle, self._events),
            open_sampler(sessions, pool, self._events) as sampler,
            open_boundary(self._events.part_failed) as boundary,
        ):
            raise_limit()
            pool.keep_warm(self._config.environments.values())
            yield sessions, pool, sampler, boundary

    async def _serve(
        self, sessions: Sessions, pool: Pool, sampler: Sampler, bridge: Guest[Any], boundary: Boundary
    ) -> None:
        metrics = Metrics(self._sources(sessions, pool, sampler))
        logs = LogView(self._log, sessions)
        front = Front(
            self._config,
            sessions,
            pool,
            sampler,
            bridge,
            self._auth,
            self._counters,
            metrics,
            self._events,
            logs,
            boundary,
            self._wires,
        )
        server = _Server(_uvicorn_config(front, self._tls), self._clock, self._lag)
        bridge.finished.add_done_callback(lambda _: setattr(server, "should_exit", True))
        url = server_url(self._listener, self._config.server)
        operations = self._operations(url, sessions, pool, sampler, bridge, front, logs)
        front.operate(operations.answer)
        self._watch_signals(operations)
        stopping = asyncio.ensure_future(self._stop_when_told(server, sessions, pool, bridge))
        # Both loops: one that stands still would leave every session as it is.
        turn = partial(bridge.call, trio.lowlevel.checkpoint)
        telling = asyncio.ensure_future(self._manager.keep_telling(partial(self._status_of, operations), turn))
        keeping = asyncio.ensure_future(front.dashboard.keep_history())
        try:
            wanted = self._config.server.operator_socket != "off"
            async with operator_socket(operations.answer, self._events, wanted=wanted):
                self._announce(Serving(url, self._config))
                # What is here by now stays: to go through all of it takes 50 ms, in which every session would wait.
                gc.freeze()
                self._manager.ready()
                await server.serve(sockets=[self._listener])
        finally:
            self._clock.rest()
            stopping.cancel()
            keeping.cancel()
            telling.cancel()

    def _operations(
        self,
        url: str,
        sessions: Sessions,
        pool: Pool,
        sampler: Sampler,
        bridge: Guest[Any],
        front: Front,
        logs: LogView,
    ) -> Operations:
        """What whoever runs this can ask of it."""

        async def read_again() -> Config:
            assert self._rereading is not None
            with self._manager.reloading():
                return await bridge.call(self._rereading.read, self._config)

        def apply(config: Config) -> tuple[str, ...]:
            level = config.server.log_level
            if self._log is not None and level != self._config.server.log_level:
                self._log.set_level(level, None, "the config")
            self._config = config
            sessions.use(config.environments)
            pool.use(capacity_of(config.server, config.clients))
            pool.keep_warm(config.environments.values())
            return front.use(config)

        return Operations(
            self._config,
            url,
            sessions,
            sampler,
            bridge,
            reread=None if self._rereading is None else read_again,
            apply=apply,
            stop=self._stop_for,
            stopping=self._stop_wanted.is_set,
            counters=self._counters,
            events=self._events,
            more={"logs": logs.logs, "loglevel": logs.loglevel, "environments": front.environments},
        )

    def _status_of(self, operations: Operations) -> str:
        """For a service manager's eyes; "" if it fails, which is no reason to be taken for dead."""
        with self._going_on("telling the service manager"):
            return operations.summary()
        return ""

    def _sources(self, sessions: Sessions, pool: Pool, sampler: Sampler) -> Sources | None:
        traffics = self._events.traffics
        if traffics is None:
            return None
        return Sources(sessions, pool, sampler, self._counters, self._durations, traffics, self._lag)

    def _watch_signals(self, operations: Operations) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._loop.add_signal_handler(number, self._stop_for, signal.Signals(number).name)
        if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
            return  # nohup means it
        had_terminal = _has_terminal()
        reloads = set[asyncio.Future[None]]()

        async def reload() -> None:
            with self._going_on("reload"), contextlib.suppress(NotDone, GuestEnded):  # which has been told
                await operations.reload("SIGHUP")

        def on_hangup() -> None:
            # From a terminal that is closed it means the end; from a service manager or a person, the config.
            if had_terminal and not _has_terminal():
                self._stop_for("SIGHUP")
            else:
                reloads.add(reloading := asyncio.ensure_future(reload()))
                reloading.add_done_callback(reloads.discard)

        self._loop.add_signal_handler(signal.SIGHUP, on_hangup)

    def _stop_for(self, by: str) -> None:
        self._stopped_by = self._stopped_by or by
        self._stop_signals += 1
        self._stop_wanted.set()
        if self._stop_signals > 1:
            self._haste_wanted.set()

    async def _stop_when_told(self, server: _Server, sessions: Sessions, pool: Pool, bridge: Guest[Any]) -> None:
        """Stop in order; whatever fails on the way, it goes on to the end of the server, which ends all the rest."""
        await self._stop_wanted.wait()
        hastening = asyncio.ensure_future(self._hasten_when_told(server, pool, bridge))
        try:
            self._manager.stopping(self._config.server.drain_timeout)
            with self._going_on("turning away"):
                self._events.emit(Stopping(len(sessions), self._stopped_by))
                sessions.draining = True
                pool.turn_away("this muxsim is shutting down")
            with self._going_on("closing the listener"):
                server.stop_accepting()
            with self._going_on("draining"):
                await self._drain(sessions)
            with self._going_on("ending the sessions"):
                await bridge.call(sessions.end_all)
        finally:
            hastening.cancel()
            server.should_exit = True

    async def _hasten_when_told(self, server: _Server, pool: Pool, bridge: Guest[Any]) -> None:
        await self._haste_wanted.wait()
        server.force_exit = True
        with self._going_on("hastening"):
            await bridge.call(pool.hasten)

    async def _drain(self, sessions: Sessions) -> None:
        """Let calls finish that are about to."""
        begun = self._loop.time()
        while (busy := sum(one.busy for one in sessions.all())) and not self._haste_wanted.is_set():
            if self._loop.time() >= begun + self._config.server.drain_timeout:
                self._events.emit(DrainTimeout(busy))
                return
            await asyncio.sleep(_LOOK_AGAIN)

    @contextmanager
    def _going_on(self, step: str) -> Iterator[None]:
        """Have a bug in this step of what a signal asks for keep nothing of the rest from being done."""
        try:
            yield
        except Exception as error:  # whatever it is, it is ours, and is told of
            self._events.emit(SignalFailed(step, error))


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: ours end the sessions too. It looks around ten times a second anyway."""

    def __init__(self, config: uvicorn.Config, clock: SteadyClock, lag: Distribution) -> None:
        super().__init__(config)
        self._clock = clock
        self._lag = lag
        self._expected = math.inf

    async def on_tick(self, counter: int) -> bool:
        """Keep the clock from taking silence for a standstill, and find out about one at once."""
        self._clock.beat()
        now = asyncio.get_running_loop().time()
        if self._expected < math.inf:
            self._lag.add(max(0.0, now - self._expected))
        self._expected = now + _TICK
        return await super().on_tick(counter)

    def stop_accepting(self) -> None:
        """Take no new connections; those that are open go on, for the answers that are still to come."""
        for server in getattr(self, "servers", ()):
            server.close()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals alone."""
        yield


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True


def _uvicorn_config(front: Front, tls: ssl.SSLContext | None) -> uvicorn.Config:
    protocol: Any = front.connection
    return uvicorn.Config(
        front.application,
        http=protocol,
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
