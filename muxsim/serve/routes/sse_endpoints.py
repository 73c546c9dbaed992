"""MCP over HTTP+SSE, the pair of revision 2024-11-05: a stream to open, and a URL beside it to post to."""

from __future__ import annotations

from muxsim.serve.http.unread import read_by
from muxsim.serve.routes.bodies import Bodies
from muxsim.serve.routes.clients import Clients, view_of
from muxsim.serve.routes.guard import caller_of
from muxsim.serve.routes.handles import Handles
from muxsim.serve.routes.lookup import Lookup
from muxsim.serve.routes.openings import Openings, query_of
from muxsim.serve.routes.public_url import PublicURL
from muxsim.serve.routes.refusals import refusing
from muxsim.session.session import Session
from transports.asgi import Call
from transports.http_rules import check_event_stream
from transports.origin import origin_of


class SSEEndpoints:
    """The ASGI endpoints of clients whose answers come on one stream. They run on asyncio."""

    def __init__(
        self,
        clients: Clients,
        lookup: Lookup,
        openings: Openings,
        handles: Handles,
        bodies: Bodies,
        public: PublicURL,
    ) -> None:
        self._clients = clients
        self._lookup = lookup
        self._openings = openings
        self._handles = handles
        self._bodies = bodies
        self._public = public

    async def implicit(self, call: Call, env: str | None) -> None:
        """``/sse?env=&seed=``: opening the stream makes a session, and closing it ends the session."""
        check_event_stream(call.headers)
        spec, wanted = self._openings.asked_for(env, call.scope["query_string"], None)
        with refusing(caller_of(call), None, 502):
            session = await self._openings.open(call, spec, **wanted)
        await self._serve(call, session, ends_session=not spec.shared)

    async def of_session(self, call: Call, id: str) -> None:
        """``/s/<id>/sse``: one more client of a session that is there, or that the rest of the URL describes."""
        check_event_stream(call.headers)
        if self._handles.takes(call):
            session = await self._handles.session(call, id, status=502)
        else:
            session = self._lookup.session(call, id)
        await self._serve(call, session, ends_session=False)

    async def _serve(self, call: Call, session: Session, *, ends_session: bool) -> None:
        caller = caller_of(call)
        attachment = view_of(caller)(session, "sse", ends_session=ends_session)
        attachment.origin = origin_of(call.headers)
        endpoint = f"{self._public.messages_beside(call)}?sessionId="
        client = self._clients.join_by_sse(attachment, caller, endpoint, call.peer)
        read_by(call, client.reader)
        try:
            await client.transport.get(call)
        finally:
            self._clients.left(client)

    async def messages(self, call: Call, id: str | None = None, env: str | None = None) -> None:
        """``/messages?sessionId=``: what such a client sends, beside its stream."""
        stream = query_of(call.scope["query_string"], None).get("sessionId", "")
        client = self._lookup.stream(call, stream, session=id)
        await client.transport.post(await self._bodies.message(call, client.attachment), call)
