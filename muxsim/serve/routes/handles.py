"""Sessions that a URL names: ``/s/<id>/mcp?env=&seed=`` makes one at its first request, and is its handle from then on.

A client of a revision without a handshake has nothing but a URL, so that one line of its config is an episode.
"""

from __future__ import annotations

from typing import Final

from muxsim.serve.routes.guard import caller_of
from muxsim.serve.routes.lookup import Lookup
from muxsim.serve.routes.openings import Openings, query_of, seed_from
from muxsim.serve.routes.refusals import refusing
from muxsim.session.endings import Past
from muxsim.session.registry import Sessions
from muxsim.session.session import Session
from transports.asgi import Call
from transports.http_rules import HTTPRefusal
from transports.messages import RequestId

# What says of a URL that it may make its session.
_MAKING: Final = frozenset({"env", "seed", "ttl", "lease"})


class Handles:
    """Finds or makes such sessions for whoever asks."""

    def __init__(self, sessions: Sessions, openings: Openings, lookup: Lookup) -> None:
        self._sessions = sessions
        self._openings = openings
        self._lookup = lookup

    def takes(self, call: Call) -> bool:
        """Whether a request's URL says what its session is to be, should it not be there. Raises a 400."""
        query_string = call.scope["query_string"]
        return bool(query_string) and not _MAKING.isdisjoint(query_of(query_string, None))

    async def session(
        self, call: Call, id: str, *, status: int, about: RequestId | None = None, agent: bool = False
    ) -> Session:
        """The session of this id, made if need be. ``status`` is that of the refusal if it does not start.

        Raises a 404 if it has ended, for an episode does not begin anew unawares: another one has another id.
        """
        session = self._sessions.get(id)
        caller = caller_of(call)
        if session is None or not session.live or not caller.sees(session.owner, shared=session.shared):
            session = await self._made(call, id, status, about, agent)
        self._check_same(call, session, about)
        return session

    async def _made(self, call: Call, id: str, status: int, about: RequestId | None, agent: bool) -> Session:
        spec, wanted = self._openings.asked_for(None, call.scope["query_string"], about)
        if spec.shared:
            text = f"{spec.name!r} has one session for all, whose URL is /envs/{spec.name}/mcp"
            raise HTTPRefusal(400, text, id=about)
        try:
            with refusing(caller_of(call), about, status):
                found = await self._openings.named(call, id, spec, wanted)
        except ValueError as error:
            raise HTTPRefusal(400, str(error), id=about) from None
        if isinstance(found, Past):
            raise self._lookup.over(call, found, about=about, agent=agent)
        return found

    def _check_same(self, call: Call, session: Session, about: RequestId | None) -> None:
        """Raise a 409 if this session is not the one that the URL describes."""
        query = query_of(call.scope["query_string"], about)
        env, seed = query.get("env") or session.spec.name, seed_from(query, about)
        if env != session.spec.name or seed not in (None, session.seed):
            text = (
                f"the session {session.id!r} is there already, and not of the environment or with the seed that this "
                "URL has: an episode of its own has an id of its own"
            )
            raise HTTPRefusal(409, text, id=about)
