"""MCP clients that choose their own request ids and send nothing that a test has not asked for. They run on trio."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from urllib.parse import urljoin

import httpx2

from .python_clients import DEADLINE, LATEST_HANDSHAKE, MODERN

BOTH = {"Accept": "application/json, text/event-stream"}
CLIENT_INFO = {"name": "peer", "version": "0"}
META = "io.modelcontextprotocol/"


def http_client():
    """One for any number of peers, with a connection for each of their requests in flight."""
    return httpx2.AsyncClient(timeout=DEADLINE, limits=httpx2.Limits(max_connections=None))


def request(id, method, params=None):
    return {"jsonrpc": "2.0", "id": id, "method": method, "params": params or {}}


def tool_call(id, name, arguments=None, *, token=None, meta=None):
    """A ``tools/call``; with ``token`` it asks for progress."""
    meta = {**(meta or {}), **({} if token is None else {"progressToken": token})}
    return request(id, "tools/call", {"name": name, "arguments": arguments or {}} | ({"_meta": meta} if meta else {}))


def text_of(message):
    """The text that a tool answered."""
    assert "result" in message, message
    return message["result"]["content"][0]["text"]


def messages_in(response):
    """The MCP messages of a response, be it JSON or an event stream."""
    assert response.status_code == 200, (response.status_code, response.text)
    if response.headers["content-type"].startswith("application/json"):
        return [response.json()]
    return [json.loads(data) for _, data in events_in(response.text.splitlines()) if data]


def events_in(lines):
    """The (type, data) of each event in the lines of an event stream."""
    kind, data = "message", []
    for line in lines:
        field, _, value = line.partition(":")
        if field == "event":
            kind = value.strip()
        elif field == "data":
            data.append(value.removeprefix(" "))
        elif not line and data:
            yield kind, "\n".join(data)
            kind, data = "message", []


class HTTPPeer:
    """A client over streamable HTTP with a handshake; make it with `open`."""

    def __init__(self, http, url, headers):
        self.http = http
        self.url = url
        self.headers = headers

    @classmethod
    async def open(cls, http, url):
        """Shake hands."""
        params = {"protocolVersion": LATEST_HANDSHAKE, "capabilities": {}, "clientInfo": CLIENT_INFO}
        answer = await http.post(url, json=request(0, "initialize", params), headers=BOTH)
        assert answer.status_code == 200, answer.text
        named = {"Mcp-Session-Id": answer.headers["mcp-session-id"], "Mcp-Protocol-Version": LATEST_HANDSHAKE}
        peer = cls(http, url, {**BOTH, **named})
        await peer.notify("notifications/initialized")
        return peer

    async def notify(self, method, params=None):
        message = {"jsonrpc": "2.0", "method": method, "params": params or {}}
        assert (await self.http.post(self.url, json=message, headers=self.headers)).status_code == 202

    async def ask(self, message):
        """All that comes back for a request; the answer is the last."""
        return messages_in(await self.http.post(self.url, json=message, headers=self.headers))

    async def call(self, id, name, **arguments):
        """The text of a tool's answer, which has to be the answer to this request."""
        answer = (await self.ask(tool_call(id, name, arguments)))[-1]
        assert answer["id"] == id
        return text_of(answer)

    async def close(self):
        assert (await self.http.delete(self.url, headers=self.headers)).status_code == 204


class ModernPeer:
    """A client of revision 2026-07-28, which has neither handshake nor session header."""

    def __init__(self, http, url):
        self.http = http
        self.url = url

    async def ask(self, message):
        """All that comes back for a ``tools/call``; the answer is the last."""
        envelope = {
            META + "protocolVersion": MODERN,
            META + "clientInfo": CLIENT_INFO,
            META + "clientCapabilities": {},
        }
        params = {**message["params"], "_meta": {**message["params"].get("_meta", {}), **envelope}}
        routing = {
            "Mcp-Protocol-Version": MODERN,
            "Mcp-Method": message["method"],
            "Mcp-Name": message["params"]["name"],
        }
        sent = await self.http.post(self.url, json={**message, "params": params}, headers={**BOTH, **routing})
        return messages_in(sent)


class SSEPeer:
    """A client over the SSE pair of 2024-11-05; make it with `open`."""

    def __init__(self, http, endpoint, events):
        self.http = http
        self.endpoint = endpoint
        self.events = events

    @classmethod
    @asynccontextmanager
    async def open(cls, http, url):
        """Open the stream and shake hands."""
        async with http.stream("GET", url, headers={"Accept": "text/event-stream"}) as response:
            assert response.status_code == 200
            events = _stream(response.aiter_lines())
            kind, endpoint = await anext(events)
            assert kind == "endpoint"
            peer = cls(http, urljoin(url, endpoint), events)
            params = {"protocolVersion": "2024-11-05", "capabilities": {}, "clientInfo": CLIENT_INFO}
            await peer.ask(request(0, "initialize", params))
            await peer.post({"jsonrpc": "2.0", "method": "notifications/initialized"})
            yield peer

    async def post(self, message):
        assert (await self.http.post(self.endpoint, json=message)).status_code == 202

    async def ask(self, message):
        """All that comes on the stream up to the answer to this request."""
        await self.post(message)
        came = []
        while not came or came[-1].get("id") != message["id"]:
            came.append(json.loads((await anext(self.events))[1]))
        return came


async def _stream(lines):
    pending = []
    async for line in lines:
        pending.append(line)
        if not line:
            for event in events_in(pending):
                yield event
            pending = []
