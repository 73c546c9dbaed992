"""The revisions without a handshake (2026-07-28): each POST is a client of its own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import msgspec

from muxsim.serve.http.unread import Reader, read_by
from muxsim.serve.routes.guard import caller_of
from muxsim.serve.routes.schemas import ToolSchemas
from muxsim.session.attachment import Attachment
from muxsim.session.session import Session
from transports import messages, modern_rules
from transports.asgi import Call, respond
from transports.http_rules import HTTPRefusal
from transports.messages import Kind, Message, RequestId, members_of
from transports.revisions import HANDSHAKE_VERSIONS
from transports.streamable_http import SingleExchange, StreamTimes

_SPOKEN: Final = "supportedVersions"
_DISCOVERED: Final = {
    _SPOKEN: list(HANDSHAKE_VERSIONS),
    "capabilities": {},
    "resultType": "complete",
    "ttlMs": 0,
    "cacheScope": "private",
}


_DISCOVER: Final = "server/discover"


class _Discovery(SingleExchange):
    """What a server says that it speaks, and what its URL does beside that: handshakes are for muxsim to take."""

    def send(self, message: Message, about: RequestId | None = None) -> None:
        """Put a message on the response."""
        super().send(_with_handshakes(message) if message.kind is Kind.RESULT else message, about)


def _with_handshakes(answer: Message) -> Message:
    result = members_of(answer.members["result"])
    try:
        spoken = msgspec.json.decode(result.get(_SPOKEN, b""), type=list[str])
    except (msgspec.DecodeError, RecursionError):  # it answers something of its own
        return answer
    more = [version for version in reversed(HANDSHAKE_VERSIONS) if version not in spoken]
    return answer.with_members(
        {**answer.members, "result": msgspec.Raw(msgspec.json.encode({**result, _SPOKEN: [*spoken, *more]}))}
    )


class ModernExchanges:
    """Answers messages of these revisions."""

    def __init__(self, times: StreamTimes) -> None:
        self._times = times
        self._schemas = ToolSchemas()

    async def post(
        self,
        call: Call,
        find: Callable[[Message], Awaitable[Session | None]],
        message: Message,
        view: type[Attachment],
    ) -> None:
        """Answer one, to a session if its URL has one, which ``find`` finds, or makes for a request."""
        if message.kind is Kind.NOTIFICATION:
            # The revision has none from clients: a call is cancelled by closing its connection.
            modern_rules.check_version(call.headers)
            await respond(call, 202)
        elif message.kind is not Kind.REQUEST:
            raise HTTPRefusal(400, "this revision has no requests to clients, so nothing to answer", id=message.id)
        elif (session := await find(message)) is None:
            await _show_the_way(call, message)
        else:
            check(call, message)
            await self._carry(call, session, message, view)

    async def _carry(self, call: Call, session: Session, message: Message, view: type[Attachment]) -> None:
        if modern_rules.needs_schema(message, call.headers):
            modern_rules.check_param_headers(message, call.headers, await self._schemas.of_call(session, message))
        kind = _Discovery if message.method == _DISCOVER else SingleExchange
        exchange, caller = kind(self._times), caller_of(call)
        client = view(session, "streamable-http", cancels=True)
        client.principal = caller.name
        client.connect(exchange)
        read_by(call, Reader(caller.share(call.peer), client))
        await exchange.post(message, client, call)


def check(call: Call, message: Message) -> None:
    """Raise the refusal of a request that is not in order, whatever session it is for."""
    modern_rules.check_request(message, call.headers)
    if message.method == "initialize":
        raise modern_rules.no_handshake(message)


async def _show_the_way(call: Call, message: Message) -> None:
    """A client that tries the new revision first is shown the way to the handshake."""
    if message.method != _DISCOVER:
        raise modern_rules.handshake_only(message)
    assert message.id is not None
    await respond(call, 200, messages.result(message.id, _DISCOVERED).encode())
