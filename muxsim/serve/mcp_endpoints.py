"""MCP over HTTP: which session a request belongs to, and which transport speaks for its client."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import parse_qs

from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS

from muxsim.errors import Busy, StartError, TooMuch, UnknownEnvironment
from muxsim.events import SessionEvent, What
from muxsim.guest import Guest
from muxsim.serve.schemas import ToolSchemas
from muxsim.session.agent_view import AgentAttachment
from muxsim.session.attachment import Attachment
from muxsim.session.session import BACKEND_GONE, Session
from muxsim.session.sessions import SEED_LIMIT, Sessions
from muxsim.spec import EnvSpec
from transports import messages, modern_rules
from transports.asgi import Call, ClientGone, read_body, respond, while_waited_for
from transports.errors import RemoteProtocolError
from transports.http_rules import (
    SESSION_HEADER,
    VERSION_HEADER,
    HTTPRefusal,
    check_event_stream,
    check_json_content,
    header,
    is_modern,
    protocol_version,
)
from transports.messages import Kind, Message, RequestId, decode
from transports.sse import SSE
from transports.streamable_http import SingleExchange, StreamableHTTP, StreamTimes

_CLIENT_ID_BYTES: Final = 16
Opener = Callable[[], Awaitable[Session]]


@dataclass(frozen=True)
class HTTPSettings:
    """``max_body`` in bytes, ``body_timeout`` in seconds; ``default_env`` is used where a URL names none."""

    max_body: int
    body_timeout: float
    times: StreamTimes
    default_env: str | None


@dataclass(slots=True)
class HTTPClient:
    """One Mcp-Session-Id: its transport, what stands behind it, and the paths it may be used on."""

    transport: StreamableHTTP
    attachment: Attachment
    paths: frozenset[str]


class MCPEndpoints:
    """The ASGI endpoints that carry MCP. They run on asyncio."""

    def __init__(self, sessions: Sessions, bridge: Guest[Any], settings: HTTPSettings) -> None:
        self._sessions = sessions
        self._bridge = bridge
        self._settings = settings
        self._schemas = ToolSchemas()
        self._clients: dict[str, HTTPClient] = {}
        self._sse: dict[str, tuple[SSE, Attachment]] = {}

    @property
    def max_body(self) -> int:
        """The largest body in bytes."""
        return self._settings.max_body

    def client(self, id: str) -> HTTPClient | None:
        """The client behind a session header, if its session lives."""
        client = self._clients.get(id)
        if client is None:
            return None
        if not client.attachment.session.live:
            del self._clients[id]
            return None
        return client

    def on_event(self, event: SessionEvent) -> None:
        """Drop the clients of a session that has ended; a listener for `muxsim.events.Events`."""
        if event.what is What.ENDED:
            for id in [id for id, client in self._clients.items() if client.attachment.session.id == event.session]:
                del self._clients[id]

    # ---- streamable HTTP

    async def implicit(self, call: Call, env: str | None) -> None:
        """``/mcp`` and ``/envs/<env>/mcp``: the handshake makes a session."""
        await self._mcp(call, lambda: self._shared_session(env), lambda message: self._handshake(call, env, message))

    async def of_session(self, call: Call, session_id: str) -> None:
        """``/s/<id>/mcp``: a client of a session that is there."""
        session = self._session(session_id)

        async def itself() -> Session:
            return session

        async def attach(message: Message) -> None:
            await self._attach(call, Attachment(session, "streamable-http"), message)

        await self._mcp(call, itself, attach)

    async def agent_of_session(self, call: Call, session_id: str) -> None:
        """``/s/<id>/agent/mcp``: as `of_session`, for a client that must not see the control plane."""
        session = self._session(session_id)

        async def itself() -> Session:
            return session

        async def attach(message: Message) -> None:
            await self._attach(call, AgentAttachment(session, "streamable-http"), message)

        await self._mcp(call, itself, attach, AgentAttachment)

    async def _mcp(
        self,
        call: Call,
        modern_session: Callable[[], Awaitable[Session | None]],
        handshake: Callable[[Message], Awaitable[None]],
        attachment: type[Attachment] = Attachment,
    ) -> None:
        method = call.scope["method"]
        if method == "POST":
            await self._post(call, modern_session, handshake, attachment)
        elif method == "GET":
            check_event_stream(call.headers)
            await self._known_client(call).transport.get(call)
        elif method == "DELETE":
            await self._delete(call, self._known_client(call))
        else:
            raise HTTPRefusal(405, f"{method} is not for this URL", headers=[(b"allow", b"POST, GET, DELETE")])

    async def _post(
        self,
        call: Call,
        modern_session: Callable[[], Awaitable[Session | None]],
        handshake: Callable[[Message], Awaitable[None]],
        attachment: type[Attachment],
    ) -> None:
        message = await self._read(call)
        if header(call.headers, SESSION_HEADER) is not None:
            await self._known_client(call).transport.post(message, call)
        elif is_modern(header(call.headers, VERSION_HEADER)) or modern_rules.claims_modern(message):
            await self._modern(call, await modern_session(), message, attachment)
        elif message.kind is Kind.REQUEST and message.method == "initialize":
            protocol_version(call.headers)
            await handshake(message)
        else:
            raise HTTPRefusal(
                400, "this needs the Mcp-Session-Id header that the answer to initialize had", id=message.id
            )

    async def _read(self, call: Call) -> Message:
        check_json_content(call.headers)
        body = await read_body(call, self._settings.max_body, self._settings.body_timeout)
        try:
            return decode(body)
        except RemoteProtocolError as error:
            raise HTTPRefusal(400, error.message, code=error.code) from None

    def _known_client(self, call: Call) -> HTTPClient:
        id = header(call.headers, SESSION_HEADER)
        if id is None:
            raise HTTPRefusal(400, "the Mcp-Session-Id header is missing")
        client = self.client(id)
        if client is None or call.scope["path"] not in client.paths:
            raise HTTPRefusal(404, "no session has this Mcp-Session-Id; initialize again")
        return client

    async def _delete(self, call: Call, client: HTTPClient) -> None:
        self._drop(client)
        await respond(call, 204)

    def _drop(self, client: HTTPClient) -> None:
        self._clients.pop(client.transport.id, None)
        client.transport.close()
        client.attachment.disconnected()

    # ---- sessions made by a handshake

    async def _handshake(self, call: Call, env: str | None, message: Message) -> None:
        query = parse_qs(call.scope["query_string"].decode("latin-1"), keep_blank_values=True)
        name, seed = self._env_name(env, query, message.id), seed_from(query, message.id)
        spec = self._spec(name, message.id)
        if spec.shared:
            opening = self._open(lambda: self._bridge.call(self._sessions.shared, name), message.id)
        else:
            opening = self._open(lambda: self._bridge.call(self._start, name, seed), message.id)
        session = await while_waited_for(call, opening)
        await self._attach(call, Attachment(session, "streamable-http", ends_session=not spec.shared), message)

    async def _start(self, env: str, seed: int | None) -> Session:
        return await self._sessions.open(env, seed=seed)

    async def _open(self, opener: Opener, id: RequestId | None) -> Session:
        try:
            return await opener()
        except Busy as busy:
            raise too_busy(busy, id) from None
        except StartError as error:
            # The answer to a handshake that cannot be: a client shows a JSON-RPC error, but not an HTTP body.
            raise HTTPRefusal(200, str(error), code=BACKEND_GONE, id=id) from None

    async def _attach(self, call: Call, attachment: Attachment, message: Message) -> None:
        """Make a client of whoever sent this handshake, and answer it."""
        session = attachment.session
        id = session.id if attachment.ends_session else secrets.token_hex(_CLIENT_ID_BYTES)
        transport = StreamableHTTP(id, attachment, self._settings.times)
        attachment.connect(transport)
        session.attach(attachment)
        paths = {call.scope["path"]}
        if attachment.ends_session:
            paths.add(f"/s/{session.id}/mcp")
        client = self._clients[id] = HTTPClient(transport, attachment, frozenset(paths))
        try:
            await while_waited_for(call, transport.post(message, call))
        except ClientGone:
            # Its id has reached nobody, so nobody could use this client, or end it.
            self._drop(client)
            raise

    # ---- revisions without a handshake

    async def _shared_session(self, env: str | None) -> Session | None:
        name = env or self._settings.default_env
        if name is None or not self._spec(name, None).shared:
            return None
        return await self._open(lambda: self._bridge.call(self._sessions.shared, name), None)

    async def _modern(
        self, call: Call, session: Session | None, message: Message, attachment: type[Attachment]
    ) -> None:
        if message.kind is Kind.NOTIFICATION:
            # The revision has none from clients: a call is cancelled by closing its connection.
            modern_rules.check_version(call.headers)
            await respond(call, 202)
            return
        if message.kind is not Kind.REQUEST:
            raise HTTPRefusal(400, "this revision has no requests to clients, so nothing to answer", id=message.id)
        if session is None:
            await self._without_session(call, message)
            return
        modern_rules.check_request(message, call.headers)
        if modern_rules.needs_schema(message, call.headers):
            modern_rules.check_param_headers(message, call.headers, await self._schemas.of_call(session, message))
        exchange = SingleExchange(self._settings.times)
        client = attachment(session, "streamable-http", cancels=True)
        client.connect(exchange)
        await exchange.post(message, client, call)

    async def _without_session(self, call: Call, message: Message) -> None:
        """A client that tries the new revision first is shown the way to the handshake."""
        if message.method != "server/discover":
            raise modern_rules.handshake_only(message)
        assert message.id is not None
        discovered = {
            "supportedVersions": list(HANDSHAKE_PROTOCOL_VERSIONS),
            "capabilities": {},
            "resultType": "complete",
            "ttlMs": 0,
            "cacheScope": "private",
        }
        await respond(call, 200, messages.result(message.id, discovered).encode())

    # ---- SSE

    async def sse(self, call: Call, env: str | None) -> None:
        """``/sse?env=&seed=``: opening the stream makes a session, and closing it ends the session."""
        check_event_stream(call.headers)
        query = parse_qs(call.scope["query_string"].decode("latin-1"), keep_blank_values=True)
        name, seed = self._env_name(env, query, None), seed_from(query, None)
        spec = self._spec(name, None)
        if spec.shared:
            opening = self._open_sse(lambda: self._bridge.call(self._sessions.shared, name))
        else:
            opening = self._open_sse(lambda: self._bridge.call(self._start, name, seed))
        session = await while_waited_for(call, opening)
        await self._serve_sse(call, session, "/messages", ends_session=not spec.shared)

    async def sse_of_session(self, call: Call, session_id: str) -> None:
        """``/s/<id>/sse``: one more client of a session that is there."""
        check_event_stream(call.headers)
        session = self._session(session_id)
        await self._serve_sse(call, session, f"/s/{session_id}/messages", ends_session=False)

    async def _open_sse(self, opener: Opener) -> Session:
        try:
            return await opener()
        except Busy as busy:
            raise too_busy(busy, None) from None
        except StartError as error:
            raise HTTPRefusal(502, str(error), code=BACKEND_GONE) from None

    async def _serve_sse(self, call: Call, session: Session, endpoint: str, *, ends_session: bool) -> None:
        id = secrets.token_hex(_CLIENT_ID_BYTES)
        attachment = Attachment(session, "sse", ends_session=ends_session)
        transport = SSE(id, f"{endpoint}?sessionId={id}", attachment, self._settings.times)
        attachment.connect(transport)
        session.attach(attachment)
        self._sse[id] = (transport, attachment)
        try:
            await transport.get(call)
        finally:
            del self._sse[id]

    async def messages(self, call: Call, session_id: str | None) -> None:
        """``/messages?sessionId=``: what an SSE client sends."""
        query = parse_qs(call.scope["query_string"].decode("latin-1"))
        known = self._sse.get(query.get("sessionId", [""])[0])
        if known is None or (session_id is not None and known[1].session.id != session_id):
            raise HTTPRefusal(404, "no SSE stream has this sessionId; open one first")
        await known[0].post(await self._read(call), call)

    # ---- finding things

    def _session(self, id: str) -> Session:
        session = self._sessions.get(id)
        if session is None or not session.live:
            raise HTTPRefusal(404, "there is no such session")
        return session

    def _env_name(self, env: str | None, query: dict[str, list[str]], id: RequestId | None) -> str:
        name = env or query.get("env", [""])[-1] or self._settings.default_env
        if name is None:
            raise HTTPRefusal(404, "name an environment: /mcp?env=<name>; GET /envs lists them", id=id)
        return name

    def _spec(self, name: str, id: RequestId | None) -> EnvSpec:
        try:
            return self._sessions.spec(name)
        except UnknownEnvironment as error:
            raise HTTPRefusal(404, str(error), id=id) from None


def too_busy(busy: Busy, id: RequestId | None) -> HTTPRefusal:
    """The refusal of a session for which there is no room."""
    retry = (b"retry-after", b"%d" % max(1, round(busy.retry_after)))
    return HTTPRefusal(429 if isinstance(busy, TooMuch) else 503, str(busy), code=BACKEND_GONE, id=id, headers=[retry])


def seed_from(query: dict[str, list[str]], id: RequestId | None) -> int | None:
    """The ``seed`` of a query; 0 is one. Raises a 400 for anything but a whole number in range."""
    text = query.get("seed", [""])[-1]
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and int(text) < SEED_LIMIT):
        raise HTTPRefusal(400, f"seed {text!r} must be a whole number from 0 to {SEED_LIMIT - 1}", id=id)
    return int(text)
