"""The feeds of the dashboard, as event streams."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Final

from muxsim.serve.auth.callers import Scope, forbidden
from muxsim.serve.routes.guard import caller_of
from muxsim.serve.routes.lookup import Lookup
from muxsim.serve.routes.public_url import PublicURL
from muxsim.serve.watch.dashboard import Dashboard
from muxsim.serve.watch.pictures import SHOWN
from muxsim.serve.watch.session_feed import Viewer
from muxsim.session.session import Session
from transports.asgi import Call, stream_events
from transports.http_rules import HTTPRefusal, RawHeaders, check_event_stream
from transports.streamable_http import StreamTimes

# What an environment calls an image may be anything: nothing in it runs, also where somebody opens it by itself.
_INERT: Final[RawHeaders] = (
    (b"content-security-policy", b"default-src 'none'; sandbox"),
    (b"x-content-type-options", b"nosniff"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
)
# What an agent is told of where its session is.
_OF_AGENTS: Final = ("agent_mcp",)


class WatchEndpoints:
    """The ASGI endpoints of who only looks. They run on asyncio."""

    def __init__(self, dashboard: Dashboard, lookup: Lookup, public: PublicURL, times: StreamTimes) -> None:
        self._dashboard = dashboard
        self._lookup = lookup
        self._public = public
        self._times = times

    async def server(self, call: Call) -> None:
        """``GET /watch``: what goes on in all of the server."""
        check_event_stream(call.headers)
        self._dashboard.check()
        with self._dashboard.server.readers.admit(caller_of(call), call.peer) as reading:
            await self._stream(call, self._dashboard.server.events(reading))

    async def session(self, call: Call, id: str) -> None:
        """``GET /watch/sessions/<id>``: what goes on in one session, for who may see it."""
        check_event_stream(call.headers)
        self._dashboard.check()
        session, caller = self._session(call, id), caller_of(call)
        urls = self._public.urls_of(call, session)
        seen = urls if caller.controls else {name: urls[name] for name in _OF_AGENTS}
        with self._dashboard.sessions.readers.admit(caller, call.peer) as reading:
            await self._stream(call, self._dashboard.sessions.events(Viewer(reading, seen), session))

    async def image(self, call: Call, id: str, number: str) -> None:
        """``GET /watch/sessions/<id>/images/<number>``: an image that a message of that feed had, while it is kept."""
        self._session(call, id)
        watched = self._dashboard.records.of(id)
        found = None
        if watched is not None and number.isdecimal() and len(number) < 10:
            found = watched.record.image(int(number), for_agent=not caller_of(call).controls)
        if found is None:
            raise HTTPRefusal(404, "there is no such image, or it is not kept any more")
        body = found.decoded()
        mime = found.mime if found.mime in SHOWN else "application/octet-stream"
        fields = [*_INERT, (b"content-type", mime.encode()), (b"content-length", b"%d" % len(body))]
        call.answered = True
        await call.send({"type": "http.response.start", "status": 200, "headers": fields})
        await call.send({"type": "http.response.body", "body": body})

    def _session(self, call: Call, id: str) -> Session:
        """The session of this id, live or remembered, if whoever asks may see what is said in it.

        Raises a 404, and a 403 for a shared one: in that others speak too, and only the admin may see them all.
        """
        past, caller = self._dashboard.records.past(id), caller_of(call)
        if past is not None and caller.sees(past.session.owner, shared=past.session.shared):
            session = past.session
        else:
            session = self._lookup.session(call, id)
        if session.shared and caller.scope != Scope.ADMIN:
            raise forbidden(Scope.ADMIN)
        return session

    async def _stream(self, call: Call, events: AsyncGenerator[bytes, None]) -> None:
        try:
            await stream_events(call, events, ping_interval=self._times.ping, stall_timeout=self._times.stall)
        finally:
            await events.aclose()
