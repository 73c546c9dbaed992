"""An HTTP server that answers what a test says, byte by byte, on whichever loop the test runs."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import anyio


@dataclass
class Request:
    """``connection`` counts from 0."""

    method: str
    path: str
    headers: dict
    body: bytes
    connection: int

    @property
    def line(self):
        return f"{self.method} {self.path}"


@dataclass
class Scripted:
    """``answer`` gives bytes for a request: all of them, or in pieces; after a None the connection is closed."""

    answer: object
    url: str = ""
    requests: list = field(default_factory=list)
    connections: int = 0

    @property
    def lines(self):
        return [request.line for request in self.requests]

    async def serve(self, stream):
        number, self.connections = self.connections, self.connections + 1
        async with stream:
            pending = b""
            while True:
                request, pending = await _request(stream, pending, number)
                if request is None:
                    return
                self.requests.append(request)
                given = self.answer(request)
                for piece in given if isinstance(given, list) else [given]:
                    if piece is None:
                        return
                    await stream.send(piece)


async def _request(stream, data, number):
    try:
        while b"\r\n\r\n" not in data:
            data += await stream.receive()
        head, _, data = data.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines)
        length = int(headers.get("content-length", 0))
        while len(data) < length:
            data += await stream.receive()
    except (anyio.EndOfStream, anyio.BrokenResourceError):
        return None, b""
    method, path, _ = first.split()
    return Request(method, path, headers, data[:length], number), data[length:]


@asynccontextmanager
async def scripted_http(answer):
    """Serves while the block lasts."""
    scripted = Scripted(answer)
    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener, anyio.create_task_group() as tasks:
        port = listener.extra(anyio.abc.SocketAttribute.local_port)
        scripted.url = f"http://127.0.0.1:{port}"
        tasks.start_soon(listener.serve, scripted.serve)
        yield scripted
        tasks.cancel_scope.cancel()


def answer(status, body=b"", **headers):
    """An answer with a length."""
    if not isinstance(body, bytes):
        body = json.dumps(body).encode()
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {status} As It Is\r\ncontent-length: {len(body)}\r\n{lines}\r\n".encode() + body
