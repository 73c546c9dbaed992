"""HTTP as it is on the wire, and just enough MCP on top of it to play any client, well-behaved or not. Runs on trio.

A `Connection` is one TCP connection. Nothing is hidden: not a retry, not a redirect, not a kept-alive connection.
"""

from __future__ import annotations

import json
import socket
import ssl
import struct
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import urljoin, urlsplit

import h11
import trio

LATEST = "2025-11-25"
MODERN = "2026-07-28"
BOTH = "application/json, text/event-stream"
META = "io.modelcontextprotocol/"


@dataclass
class Answer:
    """One HTTP response with its whole body."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self):
        """What is in the body; the last message of an event stream, as which an answer comes that is long in coming."""
        return self.messages[-1] if self._is_stream else json.loads(self.body)

    @property
    def error(self):
        """The error of the JSON-RPC message in the body."""
        return self.json()["error"]

    @property
    def messages(self):
        """The MCP messages in the body, be it JSON or an event stream."""
        if not self._is_stream:
            return [json.loads(self.body)]
        return [json.loads(event.data) for event in parse_events(self.body) if event.data]

    @property
    def _is_stream(self):
        return self.headers.get("content-type", "").startswith("text/event-stream")


@dataclass
class Event:
    """One server-sent event; ``comment`` is that of a ping."""

    type: str = ""
    data: str = ""
    id: str = ""
    comment: str = ""

    def json(self):
        return json.loads(self.data)


def parse_events(data):
    """The complete events at the start of ``data``."""
    return [_event(block) for block in data.replace(b"\r\n", b"\n").split(b"\n\n")[:-1]]


def _event(block):
    fields = {}
    for line in block.decode().split("\n"):
        name, _, value = line.partition(":")
        fields[name] = value.removeprefix(" ")
    return Event(fields.get("event", ""), fields.get("data", ""), fields.get("id", ""), fields.get("", ""))


class Connection:
    """One TCP connection to a server at ``url``; make it with `connect`."""

    def __init__(self, stream, host):
        self.stream = stream
        self.host = host
        self.http = h11.Connection(h11.CLIENT, max_incomplete_event_size=2**20)

    async def send(self, method, path, headers=(), body=b""):
        """Send one request. ``headers`` are pairs; a Host or Content-Length among them takes the usual one's place."""
        await self.stream.send_all(request_bytes(self.host, method, path, headers, body))

    async def head(self):
        """The status and the headers of the next response."""
        if self.http.our_state is h11.DONE:
            self.http.start_next_cycle()
        # h11 has to believe that it sent what `send` did.
        self.http.send(h11.Request(method="POST", target="/", headers=[("host", "x")]))
        self.http.send(h11.EndOfMessage())
        event = await self._next_event()
        return event.status_code, {name.decode(): value.decode() for name, value in event.headers}

    async def body(self):
        """The rest of a response, in pieces as they come."""
        while True:
            event = await self._next_event()
            if isinstance(event, h11.EndOfMessage):
                return
            yield bytes(event.data)

    async def read_body(self):
        """The rest of a response."""
        return b"".join([piece async for piece in self.body()])

    async def events(self):
        """The server-sent events of a response, as they come."""
        rest = b""
        async for piece in self.body():
            *blocks, rest = (rest + piece).replace(b"\r\n", b"\n").split(b"\n\n")
            for block in blocks:
                yield _event(block)

    async def ask(self, method, path, headers=(), body=b""):
        """Send a request and read the whole answer."""
        await self.send(method, path, headers, body)
        return await self.answer()

    async def answer(self):
        """The next response, whole."""
        status, headers = await self.head()
        return Answer(status, headers, await self.read_body())

    def drop(self):
        """Cut the connection as a client that was killed does: no goodbye."""
        self.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.stream.socket.close()

    async def closed_by_server(self):
        """Read until the server closes."""
        try:
            while await self.stream.receive_some(2**16):
                pass
        except trio.BrokenResourceError:
            pass

    async def _next_event(self):
        while (event := self.http.next_event()) is h11.NEED_DATA:
            self.http.receive_data(await self.stream.receive_some(2**18))
        assert not isinstance(event, h11.ConnectionClosed), "the server closed the connection"
        return event


def request_bytes(host, method, path, headers=(), body=b""):
    """One HTTP/1.1 request."""
    given = {name.lower() for name, _ in headers}
    lines = [f"{method} {path} HTTP/1.1"]
    if "host" not in given:
        lines.append(f"Host: {host}")
    if body and not given & {"content-length", "transfer-encoding"}:
        lines.append(f"Content-Length: {len(body)}")
    lines += [f"{name}: {value}" for name, value in headers]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


@asynccontextmanager
async def connect(url, *, receive_buffer=None, source=None):
    """A connection to the server at ``url``, which may be ``unix:PATH``; with TLS as $SSL_CERT_FILE has it."""
    address = urlsplit(url)
    over_unix = address.scheme == "unix"
    sock = trio.socket.socket(socket.AF_UNIX if over_unix else socket.AF_INET)
    if receive_buffer is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    try:
        if source is not None:
            await sock.bind((source, 0))
        await sock.connect(address.path if over_unix else (address.hostname, address.port))
        stream = trio.SocketStream(sock)
        if address.scheme == "https":
            context = ssl.create_default_context()
            stream = trio.SSLStream(stream, context, server_hostname=address.hostname, https_compatible=True)
        yield Connection(stream, "localhost" if over_unix else address.netloc)
    finally:
        sock.close()  # which wakes a reader in another task; leaving the socket's own block would not


async def ask(url, method, path, headers=(), body=b""):
    """One request on a connection of its own."""
    if not isinstance(body, bytes):
        body = json.dumps(body).encode()
        headers = [("Content-Type", "application/json"), *headers]
    async with connect(url) as connection:
        return await connection.ask(method, path, headers, body)


def rpc(id, method, params=None):
    """A request."""
    return {"jsonrpc": "2.0", "id": id, "method": method} | ({} if params is None else {"params": params})


def tool_call(id, name, arguments=None, meta=None):
    """A ``tools/call`` request."""
    params = {"name": name, "arguments": arguments or {}} | ({} if meta is None else {"_meta": meta})
    return rpc(id, "tools/call", params)


def initialize(id=0, version=LATEST, capabilities=None):
    """The first request of a handshake."""
    client = {"name": "wire", "version": "0"}
    params = {"protocolVersion": version, "capabilities": capabilities or {}, "clientInfo": client}
    return rpc(id, "initialize", params)


def text_of(message):
    """The text that a tool answered."""
    assert "result" in message, message
    return message["result"]["content"][0]["text"]


@dataclass
class Client:
    """One client of a handshake revision, after `shake_hands`; each request has a connection of its own."""

    url: str
    path: str
    id: str
    version: str = LATEST
    last_id: int = field(default=0)
    extra: tuple = ()

    @property
    def headers(self):
        return [
            ("Content-Type", "application/json"),
            ("Accept", BOTH),
            ("Mcp-Session-Id", self.id),
            ("Mcp-Protocol-Version", self.version),
            *self.extra,
        ]

    def next_id(self):
        self.last_id += 1
        return self.last_id

    async def post(self, message, headers=()):
        """POST one message; the HTTP answer."""
        given = {name for name, _ in headers}
        headers = [*(pair for pair in self.headers if pair[0] not in given), *headers]
        body = message if isinstance(message, bytes) else json.dumps(message).encode()
        async with connect(self.url) as connection:
            return await connection.ask("POST", self.path, headers, body)

    async def request(self, method, params=None):
        """The message that answers a request."""
        return (await self.post(rpc(self.next_id(), method, params))).messages[-1]

    async def call(self, tool, **arguments):
        """The message that answers a call."""
        return (await self.post(tool_call(self.next_id(), tool, arguments))).messages[-1]

    async def text(self, tool, **arguments):
        """The text that answers a call."""
        return text_of(await self.call(tool, **arguments))

    async def value(self, tool, **arguments):
        """The value that answers a call in JSON text."""
        return json.loads(await self.text(tool, **arguments))

    async def heard(self):
        """What the backend has read so far, message by message."""
        return [json.loads(line) for line in await self.value("heard")]

    @asynccontextmanager
    async def posting(self, message, headers=()):
        """A connection on which ``message`` has been sent, to be read from."""
        async with connect(self.url) as connection:
            await connection.send("POST", self.path, [*self.headers, *headers], json.dumps(message).encode())
            yield connection

    @asynccontextmanager
    async def listening(self, headers=(), **options):
        """A connection with a GET stream, whose head is read."""
        async with connect(self.url, **options) as connection:
            await connection.send("GET", self.path, [*self.headers, *headers])
            status, _ = await connection.head()
            assert status == 200
            yield connection

    async def delete(self):
        async with connect(self.url) as connection:
            return await connection.ask("DELETE", self.path, self.headers)

    async def session(self):
        """What muxsim says of the session that this client's handshake made."""
        return (await ask(self.url, "GET", f"/sessions/{self.id}")).json()


async def shake_hands(url, path="/mcp?env=naughty", version=LATEST, capabilities=None, headers=()):
    """A new client; on ``/mcp`` and ``/envs/…`` with a new session. It sends ``headers`` with each request."""
    answer = await ask(url, "POST", path, [("Accept", BOTH), *headers], initialize(0, version, capabilities))
    assert answer.status == 200, answer
    assert "result" in answer.messages[-1], answer.messages
    client = Client(url, path.partition("?")[0], answer.headers["mcp-session-id"], version, extra=tuple(headers))
    answer = await client.post({"jsonrpc": "2.0", "method": "notifications/initialized"})
    assert answer.status == 202
    return client


async def open_session(url, headers=(), **wish):
    """`POST /sessions`; what it answers."""
    answer = await ask(url, "POST", "/sessions", headers, body={"env": "naughty"} | wish)
    assert answer.status == 201, answer
    return answer.json()


async def live_sessions(server):
    """What `GET /sessions` lists, without those whose processes are on their way out."""
    sessions = (await ask(server.url, "GET", "/sessions")).json()["sessions"]
    return [session for session in sessions if session["state"] != "ending"]


class EventReader:
    """Reads the server-sent events of a connection's response one by one."""

    def __init__(self, connection):
        self._events = connection.events()

    async def next(self):
        """The next event that is no ping."""
        while True:
            event = await anext(self._events)
            if not event.comment:
                return event

    async def until(self, wanted):
        """The next event whose message ``wanted`` accepts."""
        while True:
            event = await self.next()
            if event.data.startswith("{") and wanted(event.json()):
                return event

    async def pings(self, count):
        """Wait until so many pings have come."""
        while count:
            count -= bool((await anext(self._events)).comment)

    async def rest(self):
        """All that is left, pings included."""
        return [event async for event in self._events]


@asynccontextmanager
async def sse_client(url, path="/sse?env=naughty", headers=(), **options):
    """A client of revision 2024-11-05 that has shaken hands: its stream, a way to post, and its events."""
    async with connect(url, **options) as connection:
        await connection.send("GET", path, [("Accept", "text/event-stream"), *headers])
        status, _ = await connection.head()
        assert status == 200
        events = EventReader(connection)
        endpoint = await events.next()
        assert endpoint.type == "endpoint"
        events.endpoint = urljoin(path, endpoint.data)

        async def post(message):
            assert (await ask(url, "POST", events.endpoint, headers, message)).status == 202

        await post(initialize(0, "2024-11-05"))
        assert (await events.next()).json()["id"] == 0
        yield connection, post, events


def modern_call(id, name, arguments=None, meta=None):
    """A ``tools/call`` of revision 2026-07-28, which carries what the handshake used to settle."""
    envelope = {
        META + "protocolVersion": MODERN,
        META + "clientInfo": {"name": "wire", "version": "0"},
        META + "clientCapabilities": {},
    }
    return tool_call(id, name, arguments, {**envelope, **(meta or {})})


def modern_headers(message):
    """The headers that go with a message of revision 2026-07-28."""
    headers = [
        ("Content-Type", "application/json"),
        ("Accept", BOTH),
        ("Mcp-Protocol-Version", MODERN),
        ("Mcp-Method", message["method"]),
    ]
    name = message.get("params", {}).get("name")
    return headers if name is None else [*headers, ("Mcp-Name", name)]
