"""A WebSocket as it is on the wire, for a test that plays any client. Runs on trio."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager, suppress

import trio
from websockets.client import ClientProtocol
from websockets.frames import Opcode
from websockets.protocol import State
from websockets.uri import parse_uri

from .wire import connect


class Refused(Exception):
    """The server has answered with something else than a WebSocket."""

    def __init__(self, status, body):
        super().__init__(f"{status} {body}")
        self.status = status
        self.error = json.loads(body)["error"] if body else {}


class Closed(Exception):
    """The server has closed it."""

    def __init__(self, code, reason):
        super().__init__(f"{code} {reason}")
        self.code = code


class Socket:
    """One connection; make it with `web_socket`. ``pongs`` has what came back."""

    def __init__(self, connection, protocol):
        self.connection = connection
        self.protocol = protocol
        self.pongs = []
        self.pings = 0
        self._events = []

    async def flush(self):
        for piece in self.protocol.data_to_send():
            if piece:
                await self.connection.stream.send_all(piece)

    async def next_event(self):
        """The next frame; `Closed` after the last."""
        while not self._events:
            data = await self.connection.stream.receive_some(2**16)
            if data:
                self.protocol.receive_data(data)
            else:
                self.protocol.receive_eof()
            await self.flush()
            self._events += self.protocol.events_received()
            if not data and not self._events:
                raise Closed(self.protocol.close_code, self.protocol.close_reason)
        return self._events.pop(0)

    async def receive(self):
        """The next text, as JSON."""
        while True:
            frame = await self.next_event()
            if frame.opcode is Opcode.CLOSE:
                raise Closed(self.protocol.close_rcvd.code, self.protocol.close_rcvd.reason)
            if frame.opcode is Opcode.PONG:
                self.pongs.append(bytes(frame.data))
            elif frame.opcode is Opcode.PING:
                self.pings += 1
            else:
                return json.loads(frame.data)

    async def next_event_of_control(self):
        """Take a ping or a pong; anything else is a fault."""
        frame = await self.next_event()
        assert frame.opcode in (Opcode.PING, Opcode.PONG), frame
        if frame.opcode is Opcode.PONG:
            self.pongs.append(bytes(frame.data))

    async def flush_or_fail(self):
        """Send what there is, to a server that may have had enough of it."""
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await self.flush()

    async def send(self, frame):
        """Send a text: JSON, or as it stands."""
        self.protocol.send_text(frame if isinstance(frame, bytes) else json.dumps(frame).encode())
        await self.flush()

    async def ask(self, type, data=None):
        """Send a frame of this type; what answers it."""
        await self.send({"type": type} | ({} if data is None else {"data": data}))
        return await self.receive()

    async def ping(self, payload):
        self.protocol.send_ping(payload)
        await self.flush()

    async def goodbye(self):
        """Close it as one does."""
        self.protocol.send_close()
        await self.flush()
        while self.protocol.state is not State.CLOSED:
            data = await self.connection.stream.receive_some(2**16)
            self.protocol.receive_data(data) if data else self.protocol.receive_eof()


@asynccontextmanager
async def web_socket(url, path, headers=(), **options):
    """A socket that is open; cut without a goodbye at the end of the block. Raises `Refused`."""
    async with connect(url, **options) as connection:
        protocol = ClientProtocol(parse_uri(f"ws://{connection.host}{path}"), max_size=None)
        request = protocol.connect()
        for name, value in headers:
            request.headers.pop(name, None)
            request.headers[name] = value
        protocol.send_request(request)
        socket = Socket(connection, protocol)
        await socket.flush()
        response = await socket.next_event()
        if response.status_code != 101:
            raise Refused(response.status_code, response.body)
        yield socket
