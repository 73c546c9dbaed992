"""The ASGI application: what is checked on every request, and which endpoint a path belongs to."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from muxsim.observe.events import Events, HTTPLimit
from muxsim.serve.auth.authenticator import Authenticator
from muxsim.serve.http.interfaces import Answer
from muxsim.serve.http.json_refusals import JSONRefusals
from muxsim.serve.routes.api import API
from muxsim.serve.routes.guard import Guard
from muxsim.serve.routes.json_endpoint import answer_in_json
from muxsim.serve.routes.log_view import LogView
from muxsim.serve.routes.mcp_endpoints import MCPEndpoints
from muxsim.serve.routes.metrics import Metrics
from muxsim.serve.routes.public_url import PublicURL
from muxsim.serve.routes.sse_endpoints import SSEEndpoints
from muxsim.serve.routes.watch_endpoints import WatchEndpoints
from muxsim.serve.routes.wires import LateWire, Site, Wires
from muxsim.serve.watch.page import PATH, Page
from transports.asgi import Call, ClientGone, refusal_of, refuse
from transports.http_rules import HostRules, HTTPRefusal, header

_MCP_METHODS = ["GET", "POST", "DELETE"]


class Gateway:
    """Host and Origin first, then CORS, then the caller's token, then the routes."""

    def __init__(
        self,
        mcp: MCPEndpoints,
        sse: SSEEndpoints,
        api: API,
        metrics: Metrics,
        logs: LogView,
        watch: WatchEndpoints,
        rules: HostRules,
        auth: Authenticator | None,
        events: Events,
        public: PublicURL,
        wires: Wires,
        site: Site,
    ) -> None:
        self._public = public
        self._page = Page(prefix=public.prefix, tokens=auth is not None)
        self.mcp = mcp
        self.rules = rules
        self.auth = auth
        self._events = events
        router = _router(mcp, sse, api, metrics, logs, watch, auth, _wire_routes(wires, site))
        self._router = Guard(router, auth, site.bodies.unfinished)
        self._app = JSONRefusals(self._router)
        self._cross_origin = JSONRefusals(_with_cors(self._router, rules))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "http":
            await self.go_on(Call(scope, receive, send), self._serve)

    async def go_on(self, call: Call, answer: Answer) -> None:
        """Answer a request that has been taken; refuse what is to be refused, and tell if it passed a bound."""
        try:
            await answer(call)
        except HTTPRefusal as refusal:
            await refuse(call, refusal)
        except ClientGone:
            return
        except ConnectionAbortedError:
            self._events.emit(HTTPLimit("stall_timeout"))
            raise
        refused = refusal_of(call.scope)
        if refused is not None and refused.limit:
            self._events.emit(HTTPLimit(refused.limit))

    async def _serve(self, call: Call) -> None:
        path = call.scope["path"] = self._public.route(call.scope["path"])
        if (path == "/" or path.startswith(PATH)) and self._page.takes(call):
            self.rules.check(call.headers, linked=True)
            await self._page.answer(call)
            return
        self.rules.check(call.headers)
        app = self._app if header(call.headers, b"origin") is None else self._cross_origin
        await app(call.scope, call.receive, call.send)


def _router(
    mcp: MCPEndpoints,
    sse: SSEEndpoints,
    api: API,
    metrics: Metrics,
    logs: LogView,
    watch: WatchEndpoints,
    auth: Authenticator | None,
    more: list[Route],
) -> ASGIApp:
    return Router(
        [
            *([] if auth is None else auth.routes),
            _route("/mcp", partial(mcp.implicit, env=None), _MCP_METHODS),
            _route("/envs/{env}/mcp", mcp.implicit, _MCP_METHODS),
            _route("/s/{id}/mcp", mcp.of_session, _MCP_METHODS),
            _route("/s/{id}/agent/mcp", mcp.agent_of_session, _MCP_METHODS),
            _stream_route("/sse", partial(sse.implicit, env=None)),
            _stream_route("/envs/{env}/sse", sse.implicit),
            _stream_route("/s/{id}/sse", sse.of_session),
            _json_route("/s/{id}/control", GET=api.control),
            _json_route("/s/{id}/control/{part}", GET=api.part_of_session),
            _route("/messages", sse.messages, ["POST"]),
            _route("/envs/{env}/messages", sse.messages, ["POST"]),
            _route("/s/{id}/messages", sse.messages, ["POST"]),
            _stream_route("/watch", watch.server),
            _stream_route("/watch/sessions/{id}", watch.session),
            _route("/watch/sessions/{id}/images/{number}", watch.image, ["GET"]),
            _json_route("/sessions", GET=api.sessions, POST=api.open),
            _json_route("/sessions/{id}", GET=api.session, DELETE=api.delete),
            _json_route("/sessions/{id}/control", GET=api.control),
            _route("/sessions/{id}/logs", logs.of_session, ["GET"]),
            _json_route("/leases", POST=api.renew),
            _json_route("/loglevel", GET=logs.level, PUT=logs.level),
            _json_route("/control/reset_session", POST=api.reads.reset),
            _json_route("/control/{part}", GET=api.reads.part),
            _json_route("/envs/{env}/control/reset_session", POST=api.reads.reset),
            _json_route("/envs/{env}/control/{part}", GET=api.reads.part),
            _json_route("/envs", GET=api.envs),
            _json_route("/envs/{env}", GET=api.env),
            *more,
            _json_route("/operate/{command}", POST=api.operating.do),
            _json_route("/health", GET=api.health),
            _json_route("/ready", GET=api.readiness),
            _route("/metrics", metrics.answer, ["GET"]),
            _json_route("/", GET=api.index),
        ],
        redirect_slashes=False,  # a client that posts follows none
        default=_not_found,
    )


def _wire_routes(wires: Wires, site: Site) -> list[Route]:
    return [
        _route(f"/envs/{{env}}/{name}/{{path}}", LateWire(load, site).answer, ["GET", "POST"])
        for name, load in wires.items()
    ]


class _Endpoint:
    """An ASGI application of one function, which may refuse."""

    def __init__(self, answer: Callable[..., Awaitable[None]]) -> None:
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        call = Call(scope, receive, send)
        try:
            await self._answer(call, **scope["path_params"])
        except HTTPRefusal as refusal:
            await refuse(call, refusal)
        except ClientGone:
            pass


def _route(path: str, answer: Callable[..., Awaitable[None]], methods: list[str]) -> Route:
    return Route(path, _Endpoint(answer), methods=methods)


def _stream_route(path: str, answer: Callable[..., Awaitable[None]]) -> Route:
    route = _route(path, answer, ["GET"])
    # Starlette adds it to every GET; here it would start a session for nobody.
    route.methods = {"GET"}
    return route


def _json_route(path: str, **answers: Callable[..., Awaitable[Any]]) -> Route:
    """A URL whose methods are each answered in JSON, with what a function returns."""

    async def answer(call: Call, **named: str) -> None:
        # Starlette serves HEAD as a GET.
        method = call.scope["method"]
        await answer_in_json(call, answers["GET" if method == "HEAD" else method](call, **named))

    return _route(path, answer, list(answers))


async def _not_found(scope: Scope, receive: Receive, send: Send) -> None:
    refusal = HTTPRefusal(404, f"there is nothing at {scope['path']}; GET / says what is")
    await refuse(Call(scope, receive, send), refusal)


def _with_cors(app: ASGIApp, rules: HostRules) -> ASGIApp:
    patterns = [re.escape(origin).replace(r"\*", r"\d+") for origin in rules.origins if origin.endswith(":*")]
    return CORSMiddleware(
        app,
        allow_origins=[origin for origin in rules.origins if not origin.endswith(":*")],
        allow_origin_regex="|".join(patterns) or None,
        allow_methods=[*_MCP_METHODS, "OPTIONS"],
        allow_headers=["*"],  # a page that may call may say what its own client libraries say
        allow_private_network=True,  # it is asked of pages from elsewhere that call one on this machine
        expose_headers=["Mcp-Session-Id", "Mcp-Protocol-Version", "Location", "WWW-Authenticate", "Retry-After"],
        max_age=3600,
    )
