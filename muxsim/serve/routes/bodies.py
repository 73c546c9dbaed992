"""Bodies of requests: declared as JSON, within bounds, and decoded, or refused."""

from __future__ import annotations

import asyncio
from typing import Final

from muxsim.serve.http.unfinished import Arriving, Unfinished
from muxsim.serve.routes.guard import caller_of
from muxsim.session.attachment import Attachment
from transports.asgi import Call, read_body
from transports.errors import RemoteProtocolError
from transports.http_rules import HTTPRefusal, check_json_content
from transports.messages import Message, decode
from transports.origin import origin_of
from transports.unread import request_id

_NO_ROOM: Final = "too much of what this client sends waits to be taken (server.max_unfinished)"
_LATER: Final = [(b"retry-after", b"1"), (b"connection", b"close")]


class Bodies:
    """Reads bodies of up to ``longest`` bytes, which have to be there within ``timeout`` seconds."""

    def __init__(self, longest: int, timeout: float, unfinished: Unfinished) -> None:
        self.unfinished = unfinished
        self.use(longest, timeout)

    def use(self, longest: int, timeout: float) -> None:
        """Hold new requests to these bounds."""
        self.longest, self.timeout = longest, timeout

    async def message(self, call: Call, attachment: Attachment | None = None, longest: int | None = None) -> Message:
        """The message of a request, from the client of ``attachment`` if there is one."""
        check_json_content(call.headers)
        body = await self.read(call, longest)
        try:
            message = decode(body)
        except RemoteProtocolError as error:
            if attachment is None:
                id = request_id(body)
            else:
                ids = attachment.session.conversation.client_unreadable(attachment, body, error)
                id = ids[0] if len(ids) == 1 else None
            raise HTTPRefusal(400, error.message, code=error.code, id=id) from None
        message.origin = origin_of(call.headers)
        return message

    async def read(self, call: Call, longest: int | None = None) -> bytes:
        """The body of a request. Raises a 413, a 408, and a 503: its client's others left it no room in that time."""
        arriving = self.unfinished.begin(caller_of(call).share(call.peer))
        try:
            return await read_body(call, min(self.longest, longest or self.longest), self.timeout, _Paced(arriving))
        except HTTPRefusal as refusal:
            if refusal.status == 408 and not arriving.may_go_on:
                raise HTTPRefusal(503, _NO_ROOM, headers=_LATER, limit="max_unfinished") from None
            raise
        finally:
            arriving.end()


class _Paced:
    """A body that is read on as far as its client's others let it (`transports.asgi.Pace`)."""

    def __init__(self, arriving: Arriving) -> None:
        self._arriving = arriving

    async def wait(self) -> None:
        while not self._arriving.may_go_on:
            room = asyncio.Event()
            self._arriving.on_room = room.set
            await room.wait()

    def came(self, size: int) -> None:
        self._arriving.add(size)
