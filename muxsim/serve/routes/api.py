"""The JSON endpoints: sessions, environments and health. They run on asyncio."""

from __future__ import annotations

import asyncio
import math
from dataclasses import asdict
from functools import partial
from typing import Any, Final, TypeVar

import msgspec

from muxsim import __version__
from muxsim.admission.admission import Refusal
from muxsim.admission.pool import Pool
from muxsim.observe.counters import Counters
from muxsim.provenance import parts_of
from muxsim.runtime.guest import Guest
from muxsim.serve.auth.callers import Caller, Scope, forbidden
from muxsim.serve.routes.control_reads import ControlReads, read_part, when_ready
from muxsim.serve.routes.environment_list import EnvironmentList
from muxsim.serve.routes.guard import caller_of
from muxsim.serve.routes.json_endpoint import NOTHING, Answered
from muxsim.serve.routes.listing import look_for, page_of, told
from muxsim.serve.routes.lookup import Lookup
from muxsim.serve.routes.openings import Openings, check_times, query_of
from muxsim.serve.routes.operating import Operating
from muxsim.serve.routes.public_url import PublicURL
from muxsim.serve.routes.refusals import refusing
from muxsim.session.control.control import PARTS, ControlUnreadable
from muxsim.session.endings import Past
from muxsim.session.registry import DRAINING, SEED_LIMIT, Sessions, Wanted
from muxsim.session.session import Session
from transports.asgi import Call, read_body
from transports.http_rules import HTTPRefusal, check_json_content
from transports.origin import origin_of

T = TypeVar("T")

# A wish for a session is a few names and numbers.
_MAX_BODY: Final = 64 * 1024
_BODY_TIMEOUT: Final = 10.0
_CONTROL_TIMEOUT: Final = 10.0
# Characters of a session's id that a monitor is shown at most, and no more than half of one that was chosen.
_SHOWN: Final = 8
# What `/health` tells of the slots of an environment since the start, and what counts it: the sessions that got one and
# those that found none, and the slots that ended by themselves and those that were replaced.
_SLOTS: Final = {"hits": "slots_used", "misses": "slots_missed", "dead": "slots_died", "stale": "slots_replaced"}


class OpenRequest(msgspec.Struct, forbid_unknown_fields=True):
    """The body of ``POST /sessions``: ``ttl`` and ``lease`` in seconds, the rest as in the design."""

    env: str | None = None
    seed: int | None = None
    id: str | None = None
    ttl: float | None = None
    lease: float | None = None


class Renewal(msgspec.Struct, forbid_unknown_fields=True):
    """The body of ``POST /leases``: the ids of sessions that go on."""

    sessions: list[str]


_URLS: Final = {
    "mcp": "/mcp",
    "sse": "/sse",
    "sessions": "/sessions",
    "episode": "/s/{id}/mcp?env={env}&seed={seed}",
    "leases": "/leases",
}
_decoder: Final = msgspec.json.Decoder(OpenRequest)
_renewals: Final = msgspec.json.Decoder(Renewal)


class API:
    """The endpoints that are not MCP: what each returns is its answer."""

    def __init__(
        self,
        sessions: Sessions,
        pool: Pool,
        bridge: Guest[Any],
        lookup: Lookup,
        openings: Openings,
        counters: Counters,
        public: PublicURL,
        environments: EnvironmentList,
        reads: ControlReads,
    ) -> None:
        self.reads = reads
        self._environments = environments
        self.operating = Operating()
        self._public = public
        self._sessions = sessions
        self._pool = pool
        self._bridge = bridge
        self._lookup = lookup
        self._openings = openings
        self._counters = counters
        self._surveying = asyncio.Semaphore(1)  # it reads files, and many of them

    async def open(self, call: Call) -> Answered:
        """``POST /sessions``."""
        session = await self._open(call, await _wish(call))
        location = f"{self._public.url}/sessions/{session.id}".encode()
        return Answered(self._describe(call, session), 201, [(b"location", location)])

    async def sessions(self, call: Call) -> Any:
        """``GET /sessions``: all that live, or with parameters a page of those that are looked for."""
        tell = partial(self._row, call, caller_of(call))
        asked = query_of(call.scope["query_string"], None)
        if not asked:
            return {"sessions": [row for session in self._sessions.all() if (row := tell(session)) is not None]}
        try:
            return page_of(self._sessions, look_for(asked), tell)
        except ValueError as error:
            raise HTTPRefusal(400, str(error)) from None

    def _row(self, call: Call, caller: Caller, one: Session | Past) -> dict[str, Any] | None:
        """What a list has of a session for this caller: all, or for a monitor nothing that opens it; None without."""
        if Scope.TRAINER in caller.scope and caller.sees(one.owner, shared=one.shared):
            return told(one) if isinstance(one, Past) else self._describe(call, one)
        if Scope.MONITOR not in caller.scope:
            return None
        # Nor what an environment said last, which stands in why it ended.
        row = {name: value for name, value in told(one).items() if name != "why"}
        return {**row, "id": one.id[: min(_SHOWN, len(one.id) // 2)]}

    async def session(self, call: Call, id: str) -> Any:
        """``GET /sessions/<id>``."""
        return self._describe(call, self._lookup.session(call, id))

    async def delete(self, call: Call, id: str) -> Answered:
        """``DELETE /sessions/<id>``."""
        session, caller = self._lookup.session(call, id), caller_of(call)
        if not caller.may_end(session.owner):
            raise forbidden(Scope.ADMIN)
        by, origin = caller.known_as(call.peer), origin_of(call.headers)
        session.end("deleted", "the session was deleted", by=by, origin=origin)
        await self._bridge.call(session.folder.wait_removed)
        return NOTHING

    async def renew(self, call: Call) -> Any:
        """``POST /leases``: let the leases of sessions count from now; which of them are over, or never were."""
        renewal = await _decoded(call, _renewals, '{"sessions": [id, …]}')
        caller = caller_of(call)
        gone: list[str] = []
        for id in renewal.sessions:
            session = self._sessions.get(id)
            if session is not None and session.live and caller.sees(session.owner, shared=session.shared):
                session.renew()
            else:
                gone.append(id)
        return {"renewed": len(renewal.sessions) - len(gone), "gone": gone}

    async def control(self, call: Call, id: str) -> Any:
        """``GET /sessions/<id>/control``, or ``/s/<id>/control``: every part of the control plane.

        One that is not there is null, and it says why.
        """
        session = when_ready(self._lookup.session(call, id))
        values: dict[str, Any] = {}
        problems: dict[str, str] = {}
        for part in PARTS:
            try:
                values[part] = await session.control.read(part, {}, _CONTROL_TIMEOUT)
            except ControlUnreadable as error:
                values[part] = None
                problems[part] = str(error)
        return {**values, **({"problems": problems} if problems else {})}

    async def part_of_session(self, call: Call, id: str, part: str) -> Any:
        """``GET /s/<id>/control/<part>``."""
        return await read_part(self._lookup.session(call, id), part)

    async def envs(self, call: Call) -> Any:
        """``GET /envs``."""
        environments = self._environments.rows(caller_of(call), partial(self._public.urls_of_environment, call))
        return {"environments": environments, "default": self._openings.default_env}

    async def env(self, call: Call, env: str) -> Any:
        """``GET /envs/<env>``: what it consists of as its files are now, for a run that is resumed; not for agents."""
        with refusing(caller_of(call), None, 502):
            spec = self._sessions.spec(env)
        async with self._surveying:
            parts = await asyncio.to_thread(parts_of, spec)
        mcp = f"{self._public.base(call)}/envs/{spec.name}/mcp"
        return {"name": spec.name, "shared": spec.shared, "mcp": mcp, "parts": parts}

    async def index(self, call: Call) -> Any:
        """``GET /``: what is here."""
        base = self._public.base(call)
        urls = {name: base + path for name, path in _URLS.items()}
        environments = [spec.name for spec in self._sessions.specs()]
        return {"name": "muxsim", "version": __version__, "environments": environments, "urls": urls}

    async def health(self, call: Call) -> Any:
        """``GET /health``: the process answers, and whether it takes sessions; and what it holds, for who may know."""
        refusal = await self._refusing()
        state = {"status": "ok"} if refusal is None else {"status": "refusing", "reason": refusal.setting}
        if Scope.MONITOR not in caller_of(call).scope:
            return state
        statistics = self._pool.statistics()
        placement = statistics.placement
        return {
            **state,
            "version": __version__,
            "sessions": len(self._sessions),
            "waiting": statistics.leases.waiting,
            "processes": placement.backends,
            "limits": self._counters.limits(),
            "warm": {name: {**asdict(now), **self._slots(name)} for name, now in placement.warm.items()},
        }

    def _slots(self, env: str) -> dict[str, int]:
        return {key: self._counters.total(counter, env) for key, counter in _SLOTS.items()}

    async def readiness(self, call: Call) -> Answered:
        """``GET /ready``: whether a new session of the default environment has a chance now, and else why not."""
        refusal = await self._refusing()
        if refusal is None:
            return Answered({"ready": True})
        wait = str(math.ceil(refusal.retry_after)).encode()
        return Answered({"ready": False, "reason": refusal.setting}, 503, [(b"retry-after", wait)])

    async def _refusing(self) -> Refusal | None:
        """Why every session that is asked for now is refused; None if one would start, or wait."""
        if self._sessions.draining:
            return DRAINING
        return await self._bridge.call(self._pool.refusing, self._openings.default_env)

    async def _open(self, call: Call, wish: OpenRequest) -> Session:
        env = wish.env or self._openings.default_env
        if env is None:
            raise HTTPRefusal(400, 'name an environment: {"env": …}; GET /envs lists them')
        try:
            with refusing(caller_of(call), None, 502):
                spec = self._sessions.spec(env)
                wanted: Wanted = {"seed": wish.seed, "id": wish.id, "ttl": wish.ttl, "lease": wish.lease}
                check_times(spec, wanted)
                return await self._openings.open(call, spec, **wanted)
        except ValueError as error:
            raise HTTPRefusal(400, str(error)) from None

    def _describe(self, call: Call, session: Session) -> dict[str, Any]:
        return {**told(session), "urls": self._public.urls_of(call, session)}


async def _wish(call: Call) -> OpenRequest:
    wish = await _decoded(call, _decoder, "{env, seed?, id?, ttl?, lease?}")
    if wish.seed is not None and not 0 <= wish.seed < SEED_LIMIT:
        raise HTTPRefusal(400, f"seed {wish.seed} must be a whole number from 0 to {SEED_LIMIT - 1}")
    return wish


async def _decoded(call: Call, decoder: msgspec.json.Decoder[T], form: str) -> T:
    """The JSON that a request has for its body. Raises a 400 that says which ``form`` it is to have."""
    check_json_content(call.headers)
    body = await read_body(call, _MAX_BODY, _BODY_TIMEOUT)
    try:
        return decoder.decode(body or b"{}")
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise HTTPRefusal(400, f"the body must be {form}: {error}") from None
