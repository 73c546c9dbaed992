"""What stands between connections and sessions, made of the config, and changed by another one while it serves."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import fields
from functools import partial
from typing import Any

from muxsim.admission.pool import Pool
from muxsim.config import Config, ServerSettings
from muxsim.observe.counters import Counters
from muxsim.observe.events import Events
from muxsim.observe.news import News
from muxsim.runtime.boundary import Boundary
from muxsim.runtime.guest import Guest
from muxsim.serve.auth.authenticator import Authenticator
from muxsim.serve.auth.callers import ANYONE
from muxsim.serve.auth.proxies import TrustedProxies
from muxsim.serve.http.access_log import LoggedConnection
from muxsim.serve.http.connection import Connection
from muxsim.serve.http.connections import Bounds, Connections
from muxsim.serve.http.ordinary import ToldWhenServed
from muxsim.serve.http.unfinished import Unfinished
from muxsim.serve.http.unread import Unread
from muxsim.serve.routes.api import API
from muxsim.serve.routes.bodies import Bodies
from muxsim.serve.routes.clients import Clients
from muxsim.serve.routes.control_reads import ControlReads
from muxsim.serve.routes.environment_list import EnvironmentList
from muxsim.serve.routes.fast_lane import FastLane
from muxsim.serve.routes.gateway import Gateway
from muxsim.serve.routes.handles import Handles
from muxsim.serve.routes.log_view import LogView
from muxsim.serve.routes.lookup import Lookup
from muxsim.serve.routes.mcp_endpoints import MCPEndpoints
from muxsim.serve.routes.metrics import Metrics
from muxsim.serve.routes.openings import Openings
from muxsim.serve.routes.operating import Answering
from muxsim.serve.routes.public_url import PublicURL
from muxsim.serve.routes.sse_endpoints import SSEEndpoints
from muxsim.serve.routes.watch_endpoints import WatchEndpoints
from muxsim.serve.routes.wires import Site, Wires
from muxsim.serve.watch.dashboard import Dashboard
from muxsim.session.registry import Sessions
from muxsim.session.sampler import Sampler
from transports.http_rules import HostRules
from transports.streamable_http import StreamTimes


class Front:
    """Makes ``connection``, the protocol that uvicorn is to give each connection, and ``application`` for its own."""

    def __init__(
        self,
        config: Config,
        sessions: Sessions,
        pool: Pool,
        sampler: Sampler,
        bridge: Guest[Any],
        auth: Authenticator | None,
        counters: Counters,
        metrics: Metrics,
        events: Events,
        logs: LogView,
        boundary: Boundary,
        wires: Wires,
    ) -> None:
        settings, public = config.server, PublicURL(config.server.public_url)
        self._unread = unread = Unread(settings.stall_timeout, settings.max_buffered, settings.max_unread, events)
        unread.use(settings.max_unread, _most_unread(config))
        self.sampler = sampler
        self._auth = auth
        self._logs = logs
        self._clients = clients = Clients(_stream_times(settings), unread)
        self._openings = openings = Openings(sessions, bridge, config.default)
        self._unfinished = Unfinished(settings.max_unfinished, events)
        self._bodies = bodies = Bodies(settings.max_body, settings.body_timeout, self._unfinished)
        self._connections = Connections(_bounds(settings), events, unread, TrustedProxies(settings.trusted_proxies))
        lookup = Lookup(sessions, clients, settings.max_failures)
        handles = Handles(sessions, openings, lookup)
        mcp = MCPEndpoints(clients, lookup, openings, handles, bodies)
        sse = SSEEndpoints(clients, lookup, openings, handles, bodies, public)
        events.subscribe(recent := News(time.time))
        self._environments = environments = EnvironmentList(sessions, pool, recent, time.time, wires)
        reads = ControlReads(sessions, clients, lookup)
        self._api = api = API(sessions, pool, bridge, lookup, openings, counters, public, environments, reads)
        rules = HostRules((*settings.allowed_hosts, *public.hosts), (*settings.allowed_origins, *public.origins))
        self.dashboard = dashboard = Dashboard(
            sessions,
            pool,
            sampler,
            counters,
            events,
            recent,
            boundary,
            lambda: openings.default_env,
            history=settings.history,
        )
        watch = WatchEndpoints(dashboard, lookup, public, _stream_times(settings))
        site = Site(sessions, pool, bridge, openings, bodies, events, auth, settings.ping_interval)
        gateway = Gateway(mcp, sse, api, metrics, logs, watch, rules, auth, events, public, wires, site)
        self.application = ToldWhenServed(gateway)
        kind = LoggedConnection if settings.access_log else Connection
        self.connection = partial(kind, FastLane(gateway), self._connections)
        events.subscribe(clients.on_event)

    def environments(self, asked: Mapping[str, Any], by: str) -> dict[str, Any]:
        """How each environment fares, for whoever runs muxsim."""
        return {"environments": self._environments.rows(ANYONE, None)}

    def operate(self, answer: Answering) -> None:
        """Have whoever runs muxsim get these answers from now on."""
        self._api.operating.answer = answer

    def use(self, config: Config) -> tuple[str, ...]:
        """Serve new requests and connections by this config, and by the tokens that were staged; whose have changed."""
        self._openings.default_env = config.default
        self._bodies.use(config.server.max_body, config.server.body_timeout)
        self._unfinished.use(config.server.max_unfinished)
        self._connections.use(_bounds(config.server))
        self._unread.use(config.server.max_unread, _most_unread(config))
        self.dashboard.keep(config.server.history)
        changes = () if self._auth is None else self._auth.use_staged()
        if changes:
            self._clients.doubt()
            self.dashboard.doubt()
            self._logs.readers.doubt()
        return changes


def _stream_times(settings: ServerSettings) -> StreamTimes:
    return StreamTimes(
        silence=settings.stream_silence,
        ping=settings.ping_interval,
        stall=settings.stall_timeout,
        buffered=settings.max_buffered,
    )


def _most_unread(config: Config) -> dict[str, int]:
    """The bytes that may be unread for single clients, for whom that is said."""
    return {name: one.max_unread for name, one in config.clients.items() if one.max_unread is not None}


def _bounds(settings: ServerSettings) -> Bounds:
    return Bounds(**{field.name: getattr(settings, field.name) for field in fields(Bounds)})
