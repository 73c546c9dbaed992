"""``/control/<part>`` and ``/envs/<env>/control/<part>``: the control plane in the form that reward-kit's and
eval-protocol's clients ask for, with a client's id in the session header: its own, or the one that it goes by.

Such a client adds up what it reads for the reward after each call. So that is what its calls have earned since it read
last, and not the reward of the last step, which a call that was refused would earn once more.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final
from weakref import WeakKeyDictionary

from muxsim.serve.routes.clients import Clients, HTTPClient
from muxsim.serve.routes.guard import caller_of
from muxsim.serve.routes.lookup import NO_CLIENT, Lookup
from muxsim.session.attachment import Attachment
from muxsim.session.codes import BACKEND_GONE
from muxsim.session.control.control import PARTS, ControlUnreadable
from muxsim.session.control.ledger import STEP, Ledger, Unknown, count_in, number_in
from muxsim.session.registry import Sessions
from muxsim.session.session import Session
from muxsim.session.states import RESET, State
from transports.asgi import Call
from transports.http_rules import SESSION_HEADER, HTTPRefusal, header
from transports.origin import origin_of

_CONTROL_TIMEOUT: Final = 10.0


@dataclass(slots=True)
class _Earnings:
    """What one client has read for its reward: after which calls, and how the counts stood."""

    ledger: Ledger = field(default_factory=Ledger)
    calls: int = -1
    answer: dict[str, Any] = field(default_factory=dict)


class ControlReads:
    """Reads for clients, by their headers. Runs on asyncio."""

    def __init__(self, sessions: Sessions, clients: Clients, lookup: Lookup) -> None:
        self._sessions = sessions
        self._clients = clients
        self._lookup = lookup
        self._earnings: WeakKeyDictionary[Attachment, _Earnings] = WeakKeyDictionary()

    async def part(self, call: Call, part: str, env: str | None = None) -> Any:
        """``GET``: a part of the control plane of the session of the client in the header."""
        client, session = self._named(call, env)
        if part == "reward":
            return await self._reward(client, session)
        value = await read_part(session, part)
        if part == "status" and isinstance(value, dict) and STEP in value:
            return {"step_count": value[STEP], **value}
        return value

    async def reset(self, call: Call, env: str | None = None) -> Any:
        """``POST …/control/reset_session``: what was played is over; the client's next handshake begins anew.

        Of a client that is not there nothing is left to be reset.
        """
        if header(call.headers, SESSION_HEADER) is None:
            raise HTTPRefusal(400, "the Mcp-Session-Id header is missing")
        clients = self._all_named(call, env)
        for client, session in clients:
            if not session.shared:
                text = "its client has reset the session"
                by = caller_of(call).known_as(call.peer)
                session.end(RESET, text, by=by, origin=origin_of(call.headers))
            self._clients.drop(client)
        return {"message": "initialize again for a new episode", "ended": len(clients)}

    async def _reward(self, client: HTTPClient, session: Session) -> dict[str, Any]:
        earnings = self._earnings.setdefault(client.attachment, _Earnings())
        calls = session.statistics().calls
        if earnings.calls != calls:
            earnings.answer = await _earned(earnings.ledger, session)
            earnings.calls = calls
        return earnings.answer

    def _named(self, call: Call, env: str | None) -> tuple[HTTPClient, Session]:
        if header(call.headers, SESSION_HEADER) is None:
            raise HTTPRefusal(400, "the Mcp-Session-Id header is missing")
        named = self._all_named(call, env)
        if len(named) > 1:
            text = f"{len(named)} clients go by this Mcp-Session-Id, so nobody knows whose control plane is meant"
            raise HTTPRefusal(409, text)
        if not named:
            raise self._lookup.no_client(call, elsewhere=True)
        return named[0]

    def _all_named(self, call: Call, env: str | None) -> list[tuple[HTTPClient, Session]]:
        """The clients that the header means to whoever asks, with their sessions."""
        own = self._lookup.client_here(call, elsewhere=True)
        name = header(call.headers, SESSION_HEADER) or ""
        caller = caller_of(call)
        clients = [own] if own is not None else self._clients.going_by(name)
        found: list[tuple[HTTPClient, Session]] = []
        for client in clients:
            session = self._sessions.get(client.attachment.session.id)
            if session is None or not session.live or not client.admits(caller):
                continue
            if client.attachment.is_agent:
                raise HTTPRefusal(404, NO_CLIENT)
            if env in (None, session.spec.name):
                found.append((client, session))
        return found


async def _earned(ledger: Ledger, session: Session) -> dict[str, Any]:
    """What the calls of a session have earned since its counts were read into ``ledger``; null if nobody can tell."""
    last = await read_part(session, "reward")
    try:
        status = await read_part(session, "status")
    except HTTPRefusal:
        status = None
    counts = status if isinstance(status, dict) else {}
    answer: dict[str, Any] = {"step_count": count_in(counts.get(STEP))}
    try:
        reward = number_in(last.get("reward")) if isinstance(last, dict) else None
        return {"reward": ledger.earned(counts, reward, failed=False, crowded=False), **answer}
    except Unknown as why:
        return {"reward": None, **answer, "problem": str(why)}


async def read_part(session: Session, part: str) -> Any:
    """A part of a session's control plane. Raises a refusal for one that cannot be read."""
    if part not in PARTS:
        raise HTTPRefusal(404, f"the control plane has {', '.join(PARTS)}, not {part!r}")
    try:
        return await when_ready(session).control.read(part, {}, _CONTROL_TIMEOUT)
    except ControlUnreadable as error:
        raise HTTPRefusal(502, str(error), code=BACKEND_GONE) from None


def when_ready(session: Session) -> Session:
    """The session, if its backend has answered anything. Raises a 409."""
    if session.state is State.STARTED:
        raise HTTPRefusal(409, "no client has shaken hands with this session yet")
    return session
