"""The JSON endpoints: sessions, environments and health. They run on asyncio."""

from __future__ import annotations

from typing import Any, Final

import msgspec
import trio

from muxsim import __version__
from muxsim.admission.pool import Pool
from muxsim.errors import Busy, SessionExists, StartError, UnknownEnvironment
from muxsim.limits import Reached
from muxsim.runtime.guest import Guest
from muxsim.serve.auth.callers import Scope, forbidden
from muxsim.serve.routes.guard import caller_of
from muxsim.serve.routes.mcp_endpoints import MCPEndpoints, too_busy
from muxsim.serve.routes.public_url import NO_PROXY, PublicURL
from muxsim.session.agent_view import AgentAttachment
from muxsim.session.control.control import PARTS, ControlUnreadable
from muxsim.session.registry import SEED_LIMIT, Sessions
from muxsim.session.session import BACKEND_GONE, SESSION_ENDED, Session, State
from muxsim.spec import EnvSpec
from transports.asgi import Call, read_body, respond
from transports.http_rules import HTTPRefusal, check_json_content

# A wish for a session is a few names and numbers.
_MAX_BODY: Final = 64 * 1024
_BODY_TIMEOUT: Final = 10.0
_CONTROL_TIMEOUT: Final = 10.0


class OpenRequest(msgspec.Struct, forbid_unknown_fields=True):
    """The body of ``POST /sessions``: ``ttl`` in seconds, the rest as in the design."""

    env: str | None = None
    seed: int | None = None
    id: str | None = None
    ttl: float | None = None


_decoder: Final = msgspec.json.Decoder(OpenRequest)


class API:
    """The endpoints that are not MCP."""

    def __init__(
        self,
        sessions: Sessions,
        pool: Pool,
        bridge: Guest[Any],
        endpoints: MCPEndpoints,
        default_env: str | None,
        reached: Reached,
        public: PublicURL = NO_PROXY,
    ) -> None:
        self._public = public
        self._sessions = sessions
        self._pool = pool
        self._bridge = bridge
        self._endpoints = endpoints
        self._default_env = default_env
        self._reached = reached

    def use(self, default_env: str | None) -> None:
        """Name this environment to clients that name none."""
        self._default_env = default_env

    async def sessions(self, call: Call) -> None:
        """``POST /sessions`` and ``GET /sessions``."""
        if call.scope["method"] == "POST":
            session = await self._open(await self._wish(call), call)
            location = f"{self._public.url}/sessions/{session.id}".encode()
            await _answer(call, self._describe(session, call), 201, [(b"location", location)])
        else:
            caller = caller_of(call)
            seen = [one for one in self._sessions.all() if caller.sees(one.owner, shared=one.shared)]
            await _answer(call, {"sessions": [self._describe(session, call) for session in seen]})

    async def session(self, call: Call, id: str) -> None:
        """``GET`` and ``DELETE /sessions/<id>``."""
        if call.scope["method"] == "GET":
            self._check_past(call, id)
        session = self._endpoints.session(call, id)
        if call.scope["method"] == "DELETE":
            if not caller_of(call).may_end(session.owner):
                raise forbidden(Scope.ADMIN)
            session.end("deleted", "the session was deleted")
            await self._bridge.call(session.wait_ended)
            await respond(call, 204)
        else:
            await _answer(call, self._describe(session, call))

    def _check_past(self, call: Call, id: str) -> None:
        """Refuse a session that has failed as one that is not there, but with how it did: an answer comes too late."""
        past = self._sessions.past(id)
        if past is not None and caller_of(call).sees(past.owner, shared=past.shared):
            code = BACKEND_GONE if past.ending.exit else SESSION_ENDED
            raise HTTPRefusal(404, past.ending.text, code=code, data=past.ending.data())

    async def control(self, call: Call, id: str) -> None:
        """``GET /sessions/<id>/control``: every part of the control plane; null, and why, for one that is not there."""
        session = _ready(self._endpoints.session(call, id))
        values: dict[str, Any] = {}
        problems: dict[str, str] = {}
        for part in PARTS:
            try:
                values[part] = await session.control.read(part, {}, _CONTROL_TIMEOUT)
            except ControlUnreadable as error:
                values[part] = None
                problems[part] = str(error)
        await _answer(call, {**values, **({"problems": problems} if problems else {})})

    async def control_part(self, call: Call, part: str) -> None:
        """``GET /control/<part>`` with the session header: the form that reward-kit's clients know."""
        if part not in PARTS:
            raise HTTPRefusal(404, f"the control plane has {', '.join(PARTS)}, not {part!r}")
        client = self._endpoints.known_client(call, elsewhere=True)
        if isinstance(client.attachment, AgentAttachment):
            raise HTTPRefusal(404, "no session has this Mcp-Session-Id; initialize again")
        session = _ready(client.attachment.session)
        try:
            await _answer(call, await session.control.read(part, {}, _CONTROL_TIMEOUT))
        except ControlUnreadable as error:
            raise HTTPRefusal(502, str(error), code=BACKEND_GONE) from None

    async def envs(self, call: Call) -> None:
        """``GET /envs``."""
        await _answer(
            call,
            {
                "environments": [
                    {"name": spec.name, "shared": spec.shared, "mcp": f"{self._public.base(call)}/envs/{spec.name}/mcp"}
                    for spec in self._sessions.specs()
                ],
                "default": self._default_env,
            },
        )

    async def index(self, call: Call) -> None:
        """``GET /``: what is here."""
        base = self._public.base(call)
        urls = {name: base + path for name, path in {"mcp": "/mcp", "sse": "/sse", "sessions": "/sessions"}.items()}
        environments = [spec.name for spec in self._sessions.specs()]
        await _answer(call, {"name": "muxsim", "version": __version__, "environments": environments, "urls": urls})

    async def health(self, call: Call) -> None:
        """``GET /health``: the process answers; and what it holds, for who may know."""
        if caller_of(call).scope is not Scope.ADMIN:
            await _answer(call, {"status": "ok"})
            return
        statistics = self._pool.statistics()
        await _answer(
            call,
            {
                "status": "ok",
                "version": __version__,
                "sessions": len(self._sessions),
                "waiting": statistics.leases.waiting,
                "processes": statistics.processes.alive - statistics.zygotes.alive,
                "limits": {**self._reached.counts(), **self._pool.reached()},
                "warm": statistics.warm,
            },
        )

    async def readiness(self, call: Call) -> None:
        """``GET /ready``: whether a new session has a chance now."""
        ready = not self._sessions.draining
        await _answer(call, {"ready": ready}, 200 if ready else 503)

    async def _wish(self, call: Call) -> OpenRequest:
        check_json_content(call.headers)
        body = await read_body(call, _MAX_BODY, _BODY_TIMEOUT)
        try:
            wish = _decoder.decode(body or b"{}")
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise HTTPRefusal(400, f"the body must be {{env, seed?, id?, ttl?}}: {error}") from None
        if wish.seed is not None and not 0 <= wish.seed < SEED_LIMIT:
            raise HTTPRefusal(400, f"seed {wish.seed} must be a whole number from 0 to {SEED_LIMIT - 1}")
        if wish.ttl is not None and wish.ttl <= 0:
            raise HTTPRefusal(400, f"ttl {wish.ttl:g} must be more than 0 seconds")
        return wish

    async def _open(self, wish: OpenRequest, call: Call) -> Session:
        env = wish.env or self._default_env
        if env is None:
            raise HTTPRefusal(400, 'name an environment: {"env": …}; GET /envs lists them')
        try:
            spec = self._sessions.spec(env)
            _check_ttl(wish.ttl, spec)
            return await self._endpoints.open(call, spec, wish.seed, id=wish.id, ttl=wish.ttl)
        except UnknownEnvironment as error:
            raise HTTPRefusal(404, str(error)) from None
        except SessionExists as error:
            raise HTTPRefusal(409, str(error)) from None
        except ValueError as error:
            raise HTTPRefusal(400, str(error)) from None
        except Busy as busy:
            raise too_busy(busy, None) from None
        except StartError as error:
            raise HTTPRefusal(502, str(error), code=BACKEND_GONE) from None

    def _describe(self, session: Session, call: Call) -> dict[str, Any]:
        base, statistics = self._public.base(call), session.statistics()
        return {
            "id": session.id,
            "env": session.spec.name,
            "seed": session.seed,
            "state": session.state.value,
            "pid": session.pid,
            "age": round(trio.current_time() - session.created, 3),
            "attachments": statistics.attachments,
            "in_flight": statistics.in_flight,
            "urls": {
                "mcp": f"{base}/s/{session.id}/mcp",
                "sse": f"{base}/s/{session.id}/sse",
                "agent_mcp": f"{base}/s/{session.id}/agent/mcp",
                "control": f"{base}/sessions/{session.id}/control",
                "session": f"{base}/sessions/{session.id}",
            },
        }


def _check_ttl(ttl: float | None, spec: EnvSpec) -> None:
    if ttl is not None and spec.limits.ttl is not None and ttl > spec.limits.ttl:
        raise HTTPRefusal(400, f"ttl {ttl:g} must not be more than the {spec.limits.ttl:g} s of {spec.name!r} (ttl)")


def _ready(session: Session) -> Session:
    if session.state is State.STARTED:
        raise HTTPRefusal(409, "no client has shaken hands with this session yet")
    return session


async def _answer(call: Call, value: Any, status: int = 200, headers: list[tuple[bytes, bytes]] | None = None) -> None:
    await respond(call, status, msgspec.json.encode(value), headers or [])
