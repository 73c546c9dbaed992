"""Sessions that requests ask for: of which environment, with which seed, and for whom."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, Literal, TypeVar, Unpack
from urllib.parse import parse_qsl

from muxsim.errors import UnknownEnvironment
from muxsim.runtime.guest import Guest
from muxsim.runtime.soon import Soon, begin
from muxsim.serve.auth.callers import Caller
from muxsim.serve.routes.guard import caller_of
from muxsim.session.endings import Past
from muxsim.session.registry import SEED_LIMIT, Sessions, Wanted
from muxsim.session.session import Session
from muxsim.spec import EnvSpec
from transports.asgi import Call, while_waited_for
from transports.http_rules import HTTPRefusal
from transports.messages import RequestId
from transports.origin import origin_of

T = TypeVar("T")

_TIMES: Final[tuple[Literal["ttl"], Literal["lease"]]] = ("ttl", "lease")
_NUMBER: Final = re.compile(r"[0-9]{1,12}(\.[0-9]{1,12})?", re.ASCII)


class Openings:
    """Makes sessions for whoever asks; of ``default_env`` where a request names no environment."""

    def __init__(self, sessions: Sessions, bridge: Guest[Any], default_env: str | None) -> None:
        self.default_env = default_env
        self._sessions = sessions
        self._bridge = bridge

    def asked_for(self, env: str | None, query_string: bytes, id: RequestId | None) -> tuple[EnvSpec, Wanted]:
        """The environment of a session that a URL asks for, and what else it says of it. Raises a 400 or 404."""
        query = query_of(query_string, id)
        spec = self._spec(self._env_name(env, query, id), id)
        wanted = wanted_from(query, id)
        check_times(spec, wanted, id)
        return spec, wanted

    def _env_name(self, env: str | None, query: Mapping[str, str], id: RequestId | None) -> str:
        asked = query.get("env", "")
        if env and asked and env != asked:
            raise HTTPRefusal(400, f"the path names the environment {env!r} and the query {asked!r}", id=id)
        name = env or asked or self.default_env
        if name is None:
            raise HTTPRefusal(404, "name an environment: /mcp?env=<name>; GET /envs lists them", id=id)
        return name

    def _spec(self, name: str, id: RequestId | None) -> EnvSpec:
        try:
            return self._sessions.spec(name)
        except UnknownEnvironment as error:
            raise HTTPRefusal(404, str(error), id=id) from None

    async def open(self, call: Call, spec: EnvSpec, **wanted: Unpack[Wanted]) -> Session:
        """A session for whoever asks, or the one for all. Raises as `Sessions.open` does, and `ClientGone`."""
        wanted["origin"] = origin_of(call.headers)
        return await self.when_there(begin(self.session_for(caller_of(call), call.peer, spec, **wanted)), call)

    async def named(self, call: Call, id: str, spec: EnvSpec, wanted: Wanted) -> Session | Past:
        """The session that a URL names, made if there is none. Raises as `Sessions.named` does, and `ClientGone`."""
        caller = caller_of(call)
        wanted["client"], wanted["owner"], wanted["asked_from"] = caller.share(call.peer), caller.name, call.peer
        wanted["origin"] = origin_of(call.headers)
        return await self.when_there(begin(self._sessions.named(id, spec, caller.sees, wanted)), call)

    async def session_for(self, caller: Caller, peer: str, spec: EnvSpec, **wanted: Unpack[Wanted]) -> Session:
        """Likewise, on trio, as far as it is not there at once. Raises as `Sessions.open` does."""
        if spec.shared:
            return await self._sessions.shared(spec.name)
        wanted["client"], wanted["owner"], wanted["asked_from"] = caller.share(peer), caller.name, peer
        return await self._sessions.open(spec.name, **wanted)

    async def when_there(self, soon: Soon[T], call: Call) -> T:
        """What there is, or will be on trio. Raises `ClientGone` if nobody waits for that any more."""
        return soon.value if soon.ready else await while_waited_for(call, self._bridge.call(soon.wait))

    async def shared(self, env: str | None) -> Session | None:
        """The one session for all of an environment; None if it has none such."""
        name = env or self.default_env
        if name is None or not self._spec(name, None).shared:
            return None
        return await self._bridge.call(self._sessions.shared, name)


def query_of(query_string: bytes, id: RequestId | None) -> dict[str, str]:
    """The parameters of a URL. Raises a 400 for one that is given twice, for nobody knows which was meant."""
    query: dict[str, str] = {}
    for name, value in parse_qsl(query_string.decode("latin-1"), keep_blank_values=True):
        if name in query:
            raise HTTPRefusal(400, f"the parameter {name!r} is given twice; send it once", id=id)
        query[name] = value
    return query


def wanted_from(query: Mapping[str, str], id: RequestId | None) -> Wanted:
    """What a query says of a session but its environment: ``seed``, and ``ttl`` and ``lease`` in seconds."""
    times = {name: _seconds(name, query[name], id) for name in _TIMES if query.get(name)}
    return {"seed": seed_from(query, id), "ttl": times.get("ttl"), "lease": times.get("lease")}


def _seconds(name: str, text: str, id: RequestId | None) -> float:
    if not _NUMBER.fullmatch(text):
        raise HTTPRefusal(400, f"{name} {text!r:.80} must be a number of seconds, as 30 or 0.5", id=id)
    return float(text)


def check_times(spec: EnvSpec, wanted: Wanted, id: RequestId | None = None) -> None:
    """Raise a 400 for times that no session of this environment may have."""
    for name in _TIMES:
        seconds = wanted.get(name)
        if seconds is not None and seconds <= 0:
            raise HTTPRefusal(400, f"{name} {seconds:g} must be more than 0 seconds", id=id)
    ttl, most = wanted.get("ttl"), spec.limits.ttl
    if ttl is not None and most is not None and ttl > most:
        raise HTTPRefusal(400, f"ttl {ttl:g} must not be more than the {most:g} s of {spec.name!r} (ttl)", id=id)


def seed_from(query: Mapping[str, str], id: RequestId | None) -> int | None:
    """The ``seed`` of a query; 0 is one. Raises a 400 for anything but a whole number in range."""
    text = query.get("seed", "")
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and int(text) < SEED_LIMIT):
        raise HTTPRefusal(400, f"seed {text!r} must be a whole number from 0 to {SEED_LIMIT - 1}", id=id)
    return int(text)
