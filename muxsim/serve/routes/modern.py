"""The revisions without a handshake (2026-07-28): each POST is a client of its own."""

from __future__ import annotations

from typing import Final

from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS

from muxsim.serve.http.unread import Reader, read_by
from muxsim.serve.routes.guard import caller_of
from muxsim.serve.routes.schemas import ToolSchemas
from muxsim.session.attachment import Attachment
from muxsim.session.session import Session
from transports import messages, modern_rules
from transports.asgi import Call, respond
from transports.http_rules import HTTPRefusal
from transports.messages import Kind, Message
from transports.streamable_http import SingleExchange, StreamTimes

_DISCOVERED: Final = {
    "supportedVersions": list(HANDSHAKE_PROTOCOL_VERSIONS),
    "capabilities": {},
    "resultType": "complete",
    "ttlMs": 0,
    "cacheScope": "private",
}


class ModernExchanges:
    """Answers messages of these revisions."""

    def __init__(self, times: StreamTimes) -> None:
        self._times = times
        self._schemas = ToolSchemas()

    async def post(self, call: Call, session: Session | None, message: Message, view: type[Attachment]) -> None:
        """Answer one, to a session if its URL has one."""
        if message.kind is Kind.NOTIFICATION:
            # The revision has none from clients: a call is cancelled by closing its connection.
            modern_rules.check_version(call.headers)
            await respond(call, 202)
        elif message.kind is not Kind.REQUEST:
            raise HTTPRefusal(400, "this revision has no requests to clients, so nothing to answer", id=message.id)
        elif session is None:
            await _show_the_way(call, message)
        else:
            await self._carry(call, session, message, view)

    async def _carry(self, call: Call, session: Session, message: Message, view: type[Attachment]) -> None:
        modern_rules.check_request(message, call.headers)
        if message.method == "initialize":
            raise modern_rules.no_handshake(message)
        if modern_rules.needs_schema(message, call.headers):
            modern_rules.check_param_headers(message, call.headers, await self._schemas.of_call(session, message))
        exchange, caller = SingleExchange(self._times), caller_of(call)
        client = view(session, "streamable-http", cancels=True)
        client.principal = caller.name
        client.connect(exchange)
        read_by(call, Reader(caller.share(call.peer), client))
        await exchange.post(message, client, call)


async def _show_the_way(call: Call, message: Message) -> None:
    """A client that tries the new revision first is shown the way to the handshake."""
    if message.method != "server/discover":
        raise modern_rules.handshake_only(message)
    assert message.id is not None
    await respond(call, 200, messages.result(message.id, _DISCOVERED).encode())
