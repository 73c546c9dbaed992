"""MCP over streamable HTTP: which session a request belongs to, and which transport speaks for its client."""

from __future__ import annotations

import functools
import re
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final

from muxsim.serve.auth.callers import Caller
from muxsim.serve.http.unread import read_by
from muxsim.serve.routes.bodies import Bodies
from muxsim.serve.routes.clients import Clients, HTTPClient, view_of
from muxsim.serve.routes.guard import caller_of
from muxsim.serve.routes.lookup import NO_CLIENT, Lookup
from muxsim.serve.routes.modern import ModernExchanges
from muxsim.serve.routes.openings import Openings
from muxsim.serve.routes.refusals import refusing
from muxsim.session.agent_view import AgentAttachment
from muxsim.session.attachment import Attachment
from muxsim.session.session import Session
from transports import modern_rules
from transports.asgi import Call, ClientGone, respond, while_waited_for
from transports.event_stream import EventStream
from transports.http_rules import (
    SESSION_HEADER,
    VERSION_HEADER,
    HTTPRefusal,
    check_event_stream,
    header,
    is_modern,
    proposed_version,
    protocol_version,
)
from transports.messages import Kind, Message

# Bytes of a handshake, which says who somebody is and what they can do.
_MOST_HANDSHAKE: Final = 64 * 1024
# As the routes of the gateway have them, written in the usual way.
_IMPLICIT: Final = re.compile(r"/mcp|/envs/([^/%]+)/mcp")


class MCPEndpoints:
    """The ASGI endpoints of clients that have a session header. They run on asyncio."""

    def __init__(self, clients: Clients, lookup: Lookup, openings: Openings, bodies: Bodies) -> None:
        self.clients = clients
        self._lookup = lookup
        self._openings = openings
        self._bodies = bodies
        self._modern = ModernExchanges(clients.times)

    @property
    def max_body(self) -> int:
        """The largest body in bytes."""
        return self._bodies.longest

    async def implicit(self, call: Call, env: str | None) -> None:
        """``/mcp`` and ``/envs/<env>/mcp``: the handshake makes a session."""

        async def shared() -> Session | None:
            with refusing(caller_of(call), None, 200):
                return await self._openings.shared(env)

        await self._mcp(
            call,
            shared,
            lambda message: self._handshake(call, env, message),
            view_of(caller_of(call)),
        )

    async def of_session(self, call: Call, id: str) -> None:
        """``/s/<id>/mcp``: a client of a session that is there."""
        await self._of_session(call, id, view_of(caller_of(call)))

    async def agent_of_session(self, call: Call, id: str) -> None:
        """``/s/<id>/agent/mcp``: as `of_session`, for a client that must not see the control plane."""
        await self._of_session(call, id, AgentAttachment)

    async def _of_session(self, call: Call, id: str, view: type[Attachment]) -> None:
        session = self._lookup.session(call, id)

        async def itself() -> Session:
            return session

        async def attach(message: Message) -> None:
            await self._attach(call, view(session, "streamable-http"), message)

        await self._mcp(call, itself, attach, view)

    async def _mcp(
        self,
        call: Call,
        modern_session: Callable[[], Awaitable[Session | None]],
        handshake: Callable[[Message], Awaitable[None]],
        view: type[Attachment],
    ) -> None:
        method = call.scope["method"]
        if method == "POST":
            await self._post(call, modern_session, handshake, view)
        elif method == "GET":
            check_event_stream(call.headers)
            client = self._lookup.client(call)
            read_by(call, client.reader)
            await client.transport.get(call)
        elif method == "DELETE":
            self.clients.drop(self._lookup.client(call))
            await respond(call, 204)
        else:
            raise HTTPRefusal(405, f"{method} is not for this URL", headers=[(b"allow", b"POST, GET, DELETE")])

    async def _post(
        self,
        call: Call,
        modern_session: Callable[[], Awaitable[Session | None]],
        handshake: Callable[[Message], Awaitable[None]],
        view: type[Attachment],
    ) -> None:
        named = header(call.headers, SESSION_HEADER) is not None
        known = self._lookup.client_here(call) if named else None
        stranger = named and known is None
        attachment = None if known is None else known.attachment
        message = await (self._read_of_stranger(call) if stranger else self._bodies.message(call, attachment))
        if named and not stranger:  # but it may have ended while its body came
            client = self._lookup.client(call)
            read_by(call, client.reader)
            await client.transport.post(message, call)
        elif is_modern(header(call.headers, VERSION_HEADER)) or modern_rules.claims_modern(message):
            await self._modern.post(call, await modern_session(), message, view)
        elif _is_handshake(message):
            protocol_version(call.headers, functools.partial(proposed_version, message))
            await handshake(message)
        else:
            raise HTTPRefusal(
                400, "this needs the Mcp-Session-Id header that the answer to initialize had", id=message.id
            )

    async def _read_of_stranger(self, call: Call) -> Message:
        """The handshake of a client that names a session which is over: it asks for a new one. Refuses all else."""
        try:
            message = await self._bodies.message(call, longest=_MOST_HANDSHAKE)
        except HTTPRefusal as refusal:
            if refusal.limit != "max_body":
                raise
            message = None
        if message is None or not _is_handshake(message):
            raise self._lookup.missing(call, NO_CLIENT)
        return message

    # ---- sessions made by a handshake

    async def _handshake(self, call: Call, env: str | None, message: Message) -> None:
        spec, seed = self._openings.asked_for(env, call.scope["query_string"], message.id)
        # A client shows a JSON-RPC error, but not an HTTP body.
        with refusing(caller_of(call), message.id, 200):
            session = await self._openings.open(call, spec, seed)
        await self._attach(
            call, view_of(caller_of(call))(session, "streamable-http", ends_session=not spec.shared), message
        )

    def handshake_now(self, url: bytes, caller: Caller, peer: str, message: Message) -> HTTPClient | None:
        """The client that a POST of a handshake to `implicit` makes, if a process is ready for its session.

        What it said is not handed on yet. None if it is for `implicit` to see. Raises a refusal of the session.
        """
        target, _, query_string = url.partition(b"?")
        path = target.decode("latin-1")
        implicit = _IMPLICIT.fullmatch(path)
        if implicit is None or not _is_handshake(message):
            return None
        try:
            spec, seed = self._openings.asked_for(implicit[1], query_string, message.id)
        except HTTPRefusal:
            return None
        if spec.shared:
            return None
        with refusing(caller, message.id, 200):
            session = self._openings.open_now(caller, peer, spec, seed)
        if session is None:
            return None
        return self.clients.join_by_http(
            view_of(caller)(session, "streamable-http", ends_session=True), caller, path, peer
        )

    async def resume_handshake(self, client: HTTPClient, stream: EventStream, call: Call) -> None:
        """Answer a handshake that `handshake_now` began, and that takes longer or streams."""
        await self._unless_gone(client, call, client.transport.resume(stream, call))

    async def _attach(self, call: Call, attachment: Attachment, message: Message) -> None:
        """Make a client of whoever sent this handshake, and answer it."""
        client = self.clients.join_by_http(attachment, caller_of(call), call.scope["path"], call.peer)
        read_by(call, client.reader)
        await self._unless_gone(client, call, client.transport.post(message, call))

    async def _unless_gone(self, client: HTTPClient, call: Call, answering: Coroutine[Any, Any, None]) -> None:
        try:
            await while_waited_for(call, answering)
        except ClientGone:
            # Its id has reached nobody, so nobody could use this client, or end it.
            self.clients.drop(client)
            raise


def _is_handshake(message: Message) -> bool:
    is_first = message.kind is Kind.REQUEST and message.method == "initialize"
    return is_first and not modern_rules.claims_modern(message)
