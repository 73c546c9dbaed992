"""MCP over streamable HTTP: which session a request belongs to, and which transport speaks for its client."""

from __future__ import annotations

import functools
import re
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final

from muxsim.runtime.soon import Soon, begin
from muxsim.serve.auth.callers import Caller
from muxsim.serve.http.unread import Reader, read_by
from muxsim.serve.routes.bodies import Bodies
from muxsim.serve.routes.clients import Clients, HTTPClient, view_of
from muxsim.serve.routes.guard import caller_of
from muxsim.serve.routes.handles import Handles
from muxsim.serve.routes.lookup import Lookup
from muxsim.serve.routes.modern import ModernExchanges, check
from muxsim.serve.routes.openings import Openings
from muxsim.serve.routes.presented import Presented
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


@dataclass(frozen=True, slots=True)
class Newcomer:
    """Whoever has sent a handshake to a URL that makes sessions, and the client that they are, or will be."""

    message: Message
    reader: Reader
    client: Soon[HTTPClient]


class MCPEndpoints:
    """The ASGI endpoints of clients that have a session header. They run on asyncio."""

    def __init__(self, clients: Clients, lookup: Lookup, openings: Openings, handles: Handles, bodies: Bodies) -> None:
        self.clients = clients
        self._lookup = lookup
        self._openings = openings
        self._handles = handles
        self._bodies = bodies
        self._modern = ModernExchanges(clients.times)

    @property
    def max_body(self) -> int:
        """The largest body in bytes."""
        return self._bodies.longest

    async def implicit(self, call: Call, env: str | None) -> None:
        """``/mcp`` and ``/envs/<env>/mcp``: the handshake makes a session."""

        async def shared(message: Message) -> Session | None:
            with refusing(caller_of(call), None, 200):
                return await self._openings.shared(env)

        await self._mcp(
            call,
            shared,
            lambda message: self._greet(call, env, message),
            view_of(caller_of(call)),
        )

    async def of_session(self, call: Call, id: str) -> None:
        """``/s/<id>/mcp``: a client of a session that is there, or of one that the rest of the URL describes."""
        await self._of_session(call, id, view_of(caller_of(call)))

    async def agent_of_session(self, call: Call, id: str) -> None:
        """``/s/<id>/agent/mcp``: as `of_session`, for a client that must not see the control plane."""
        await self._of_session(call, id, AgentAttachment)

    async def _of_session(self, call: Call, id: str, view: type[Attachment]) -> None:
        agent = view.is_agent
        there = None if self._handles.takes(call) else self._lookup.session(call, id, agent=agent)

        async def session(message: Message) -> Session:
            # A client shows a JSON-RPC error, but not an HTTP body.
            return there or await self._handles.session(call, id, status=200, about=message.id, agent=agent)

        async def without_handshake(message: Message) -> Session:
            if there is None:
                check(call, message)
            return await session(message)

        async def attach(message: Message) -> None:
            attachment = view(await session(message), "streamable-http")
            attachment.origin = message.origin
            await self._attach(call, attachment, message)

        await self._mcp(call, without_handshake, attach, view)

    async def _mcp(
        self,
        call: Call,
        modern_session: Callable[[Message], Awaitable[Session | None]],
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
            if not self._lookup.was_reset(call):
                self.clients.drop(self._lookup.client(call))
            await respond(call, 204)
        else:
            raise HTTPRefusal(405, f"{method} is not for this URL", headers=[(b"allow", b"POST, GET, DELETE")])

    async def _post(
        self,
        call: Call,
        modern_session: Callable[[Message], Awaitable[Session | None]],
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
            await self._modern.post(call, modern_session, message, view)
        elif _is_handshake(message):
            protocol_version(call.headers, functools.partial(proposed_version, message))
            await handshake(message)
        else:
            raise HTTPRefusal(
                400,
                "this needs the Mcp-Session-Id header that the answer to initialize had; where there was none, "
                "the header MCP-Protocol-Version: 2026-07-28",
                id=message.id,
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
            raise self._lookup.no_client(call)
        return message

    # ---- sessions made by a handshake

    async def _greet(self, call: Call, env: str | None, message: Message) -> None:
        query_string, path = call.scope["query_string"], call.scope["path"]
        await self.welcome(self._newcomer(env, query_string, path, caller_of(call), call.peer, message), call)

    def newcomer(self, url: bytes, caller: Caller, peer: str, message: Message) -> Newcomer | None:
        """Whoever has posted a handshake to `implicit`; None if this is something else."""
        target, _, query_string = url.partition(b"?")
        path = target.decode("latin-1")
        implicit = _IMPLICIT.fullmatch(path)
        if implicit is None or not _is_handshake(message):
            return None
        return self._newcomer(implicit[1], query_string, path, caller, peer, message)

    def _newcomer(
        self, env: str | None, query_string: bytes, path: str, caller: Caller, peer: str, message: Message
    ) -> Newcomer:
        client = begin(self._join(env, query_string, path, caller, peer, message))
        return Newcomer(message, Reader(caller.share(peer)), client)

    async def _join(
        self, env: str | None, query_string: bytes, path: str, caller: Caller, peer: str, message: Message
    ) -> HTTPClient:
        spec, wanted = self._openings.asked_for(env, query_string, message.id)
        wanted["origin"] = message.origin
        presented = Presented.by(message) if caller.controls else Presented()
        if wanted["seed"] is None:
            wanted["seed"] = presented.seed
        # A client shows a JSON-RPC error, but not an HTTP body.
        with refusing(caller, message.id, 200):
            session = await self._openings.session_for(caller, peer, spec, **wanted)
        attachment = view_of(caller)(session, "streamable-http", ends_session=not spec.shared)
        attachment.origin = message.origin
        return self.clients.join_by_http(attachment, caller, path, peer, alias=presented.alias)

    async def welcome(self, newcomer: Newcomer, call: Call) -> None:
        """Answer a handshake, which may have to wait for its session."""
        read_by(call, newcomer.reader)
        client = await self._openings.when_there(newcomer.client, call)
        await self._answer_handshake(client, newcomer.message, call)

    async def resume_handshake(self, client: HTTPClient, stream: EventStream, call: Call) -> None:
        """Answer a handshake that is under way, and takes longer or streams."""
        await self._unless_gone(client, call, client.transport.resume(stream, call))

    async def _attach(self, call: Call, attachment: Attachment, message: Message) -> None:
        """Make a client of whoever sent this handshake, and answer it."""
        client = self.clients.join_by_http(attachment, caller_of(call), call.scope["path"], call.peer)
        await self._answer_handshake(client, message, call)

    async def _answer_handshake(self, client: HTTPClient, message: Message, call: Call) -> None:
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
