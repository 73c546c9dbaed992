"""The ways into muxsim that a life may take."""

from __future__ import annotations

import json
from contextlib import AsyncExitStack

import trio
from serve.wire import ask, connect, modern_call, modern_headers, tool_call

from .record import Gone, Violation, is_answer


def streams(headers):
    """Whether an answer is a stream of events."""
    return headers.get("content-type", "").startswith("text/event-stream")


class Streamable:
    """A client of a handshake revision over streamable HTTP."""

    def __init__(self, player, client):
        self.player = player
        self.client = client

    def message(self, id, tool, arguments, meta=None):
        return tool_call(id, tool, arguments, meta)

    async def exchange(self, message, connection=None):
        """The HTTP status and all messages that came for a request, with the requests of the server answered."""
        async with AsyncExitStack() as stack:
            connection = connection or await stack.enter_async_context(connect(self.client.url))
            await self.send(connection, message)
            return await self.read(connection)

    async def send(self, connection, message):
        await connection.send("POST", self.client.path, self.client.headers, json.dumps(message).encode())

    async def read(self, connection):
        status, headers = await connection.head()
        return status, await self.messages(connection, headers)

    async def messages(self, connection, headers):
        """What comes behind such a head."""
        if not streams(headers):
            body = await connection.read_body()
            return [json.loads(body)] if body else []
        messages = []
        async for event in connection.events():
            if event.data:
                messages.append(event.json())
                await self.reply(messages[-1])
        return messages

    async def reply(self, message):
        if "method" in message and "id" in message:
            answer = {"jsonrpc": "2.0", "id": message["id"], "result": {"mine": self.player.life.seed}}
            await self.notify(answer)

    async def notify(self, message):
        return (await self.client.post(message)).status


class Modern(Streamable):
    """A client of 2026-07-28 on a session's own URL."""

    def message(self, id, tool, arguments, meta=None):
        return modern_call(id, tool, arguments, meta)

    async def send(self, connection, message):
        await connection.send("POST", self.client.path, modern_headers(message), json.dumps(message).encode())

    async def reply(self, message):
        if "method" in message and "id" in message:
            raise Violation(f"a server's request came to a client of 2026-07-28: {message}")


class SSEPair:
    """A client over the SSE pair."""

    def __init__(self, player, url, endpoint, events):
        self.player = player
        self.url = url
        self.endpoint = endpoint
        self.events = events
        self.waiting = {}
        self.given_up = set()
        self.over = trio.Event()

    def message(self, id, tool, arguments, meta=None):
        return tool_call(id, tool, arguments, meta)

    async def listen(self):
        """Read the stream to its end."""
        try:
            while True:
                message = (await self.events.next()).json()
                self.player.check_signature(message)
                if is_answer(message):
                    self._take(message)
                elif "id" in message:
                    answer = {"jsonrpc": "2.0", "id": message["id"], "result": {"mine": self.player.life.seed}}
                    self.player.nursery.start_soon(self.notify, answer)
        except (StopAsyncIteration, AssertionError, trio.BrokenResourceError, trio.ClosedResourceError):
            self.over.set()
            for send in self.waiting.values():
                send.close()

    def _take(self, message):
        if message["id"] in self.given_up:
            return
        send = self.waiting.pop(message["id"], None)
        if send is None:
            self.player.wrong(f"an answer to nothing on the SSE stream: {str(message)[:300]}")
        else:
            send.send_nowait(message)

    async def exchange(self, message):
        send, receive = trio.open_memory_channel(1)
        self.waiting[message["id"]] = send
        if self.over.is_set():
            raise Gone
        answer = await ask(self.url, "POST", self.endpoint, body=message)
        if answer.status != 202:
            self.waiting.pop(message["id"], None)
            return answer.status, [answer.json()]
        try:
            return 200, [await receive.receive()]
        except trio.EndOfChannel:
            return 0, []

    async def notify(self, message):
        return (await ask(self.url, "POST", self.endpoint, body=message)).status
