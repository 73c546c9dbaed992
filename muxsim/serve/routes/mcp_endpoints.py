"""MCP over HTTP: which session a request belongs to, and which transport speaks for its client."""

from __future__ import annotations

import functools
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final, Unpack
from urllib.parse import parse_qsl

from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS

from muxsim.errors import Busy, StartError, TooMuch, UnknownEnvironment
from muxsim.observe.events import SessionEvent, What
from muxsim.runtime.guest import Guest
from muxsim.serve.auth.callers import Caller
from muxsim.serve.auth.failures import FailureLimit
from muxsim.serve.http.unread import Reader, Unread, read_by
from muxsim.serve.routes.guard import caller_of
from muxsim.serve.routes.public_url import NO_PROXY, PublicURL
from muxsim.serve.routes.schemas import ToolSchemas
from muxsim.session.agent_view import AgentAttachment
from muxsim.session.attachment import Attachment
from muxsim.session.registry import SEED_LIMIT, Sessions, Wanted
from muxsim.session.session import BACKEND_GONE, Session
from muxsim.spec import EnvSpec
from transports import messages, modern_rules
from transports.asgi import Call, ClientGone, read_body, respond, while_waited_for
from transports.errors import RemoteProtocolError
from transports.event_stream import EventStream
from transports.http_rules import (
    SESSION_HEADER,
    VERSION_HEADER,
    HTTPRefusal,
    check_event_stream,
    check_json_content,
    header,
    is_modern,
    proposed_version,
    protocol_version,
)
from transports.messages import Kind, Message, RequestId, decode
from transports.sse import SSE
from transports.streamable_http import SingleExchange, StreamableHTTP, StreamTimes
from transports.unread import request_id

_CLIENT_ID_BYTES: Final = 16
# Bytes of a handshake, which says who somebody is and what they can do.
_MOST_HANDSHAKE: Final = 64 * 1024
NO_CLIENT: Final = "no session has this Mcp-Session-Id; initialize again"
# Seconds for which whoever has asked for too many unknown sessions waits for each further answer.
_GUESS_DELAY: Final = 1.0
_CLOSE: Final = (b"connection", b"close")
# The causes of an end after which nobody wants to read what the session has said.
_UNWANTED: Final = frozenset({"deleted", "client_gone"})
# As the routes of the gateway have them, written in the usual way.
_IMPLICIT: Final = re.compile(r"/mcp|/envs/([^/%]+)/mcp")


@dataclass(frozen=True)
class HTTPSettings:
    """``max_body`` in bytes, ``body_timeout`` in seconds; ``default_env`` is used where a URL names none.

    ``max_failures`` requests for unknown sessions may come from one address in a minute.
    """

    max_body: int
    body_timeout: float
    times: StreamTimes
    default_env: str | None
    max_failures: int


@dataclass(slots=True)
class HTTPClient:
    """One Mcp-Session-Id: its transport, what stands behind it, the paths it may be used on, and who made it."""

    transport: StreamableHTTP
    attachment: Attachment
    paths: frozenset[str]
    caller: Caller
    reader: Reader

    def admits(self, caller: Caller) -> bool:
        """Whether ``caller`` may go on with it."""
        return caller is self.caller or _admits(self.caller, self.attachment, caller)


class MCPEndpoints:
    """The ASGI endpoints that carry MCP. They run on asyncio."""

    def __init__(
        self,
        sessions: Sessions,
        bridge: Guest[Any],
        settings: HTTPSettings,
        unread: Unread,
        public: PublicURL = NO_PROXY,
    ) -> None:
        unread.ask(self.attachments_of)
        self._unread = unread
        self._sessions = sessions
        self._public = public
        self._bridge = bridge
        self._settings = settings
        self._schemas = ToolSchemas()
        self._clients: dict[str, HTTPClient] = {}
        self._sse: dict[str, tuple[SSE, Attachment, Caller, Reader]] = {}
        self._misses = FailureLimit(settings.max_failures)

    def use(self, settings: HTTPSettings) -> None:
        """Serve new requests by these settings."""
        self._settings = settings

    @property
    def max_body(self) -> int:
        """The largest body in bytes."""
        return self._settings.max_body

    def client(self, id: str) -> HTTPClient | None:
        """The client behind a session header, if its session lives."""
        client = self._clients.get(id)
        if client is None:
            return None
        if client.attachment.cut or not client.attachment.session.live:
            del self._clients[id]
            return None
        return client

    def doubt_clients(self) -> None:
        """Have each client's next request judged anew, by its token too."""
        # Whatever is remembered of a client's requests is remembered of this very object.
        self._clients = {id: replace(client) for id, client in self._clients.items()}

    def on_event(self, event: SessionEvent) -> None:
        """Drop the clients of a session that has ended; a listener for `muxsim.observe.events.Events`."""
        if event.what is What.ENDED:
            self._unread.end_session(event.session, at_once=event.details.get("cause") in _UNWANTED)
            for id in [id for id, client in self._clients.items() if client.attachment.session.id == event.session]:
                del self._clients[id]

    # ---- streamable HTTP

    async def implicit(self, call: Call, env: str | None) -> None:
        """``/mcp`` and ``/envs/<env>/mcp``: the handshake makes a session."""
        await self._mcp(
            call,
            lambda: self._shared_session(call, env),
            lambda message: self._handshake(call, env, message),
            _view(caller_of(call)),
        )

    async def of_session(self, call: Call, session_id: str) -> None:
        """``/s/<id>/mcp``: a client of a session that is there."""
        await self._of_session(call, session_id, _view(caller_of(call)))

    async def agent_of_session(self, call: Call, session_id: str) -> None:
        """``/s/<id>/agent/mcp``: as `of_session`, for a client that must not see the control plane."""
        await self._of_session(call, session_id, AgentAttachment)

    async def _of_session(self, call: Call, session_id: str, view: type[Attachment]) -> None:
        session = self.session(call, session_id)

        async def itself() -> Session:
            return session

        async def attach(message: Message) -> None:
            await self._attach(call, view(session, "streamable-http"), message)

        await self._mcp(call, itself, attach, view)

    async def _mcp(
        self,
        call: Call,
        modern_session: Callable[[], Awaitable[Session | None]],
        handshake: Callable[[Message], Awaitable[None]],
        view: type[Attachment],
    ) -> None:
        method = call.scope["method"]
        if method == "POST":
            await self._post(call, modern_session, handshake, view)
        elif method == "GET":
            check_event_stream(call.headers)
            client = self.known_client(call)
            read_by(call, client.reader)
            await client.transport.get(call)
        elif method == "DELETE":
            await self._delete(call, self.known_client(call))
        else:
            raise HTTPRefusal(405, f"{method} is not for this URL", headers=[(b"allow", b"POST, GET, DELETE")])

    async def _post(
        self,
        call: Call,
        modern_session: Callable[[], Awaitable[Session | None]],
        handshake: Callable[[Message], Awaitable[None]],
        view: type[Attachment],
    ) -> None:
        named = header(call.headers, SESSION_HEADER) is not None
        known = self._client_here(call) if named else None
        stranger = named and known is None
        attachment = None if known is None else known.attachment
        message = await (self._read_of_stranger(call) if stranger else self._read(call, attachment=attachment))
        if named and not stranger:  # but it may have ended while its body came
            client = self.known_client(call)
            read_by(call, client.reader)
            await client.transport.post(message, call)
        elif is_modern(header(call.headers, VERSION_HEADER)) or modern_rules.claims_modern(message):
            await self._modern(call, await modern_session(), message, view)
        elif _is_handshake(message):
            protocol_version(call.headers, functools.partial(proposed_version, message))
            await handshake(message)
        else:
            raise HTTPRefusal(
                400, "this needs the Mcp-Session-Id header that the answer to initialize had", id=message.id
            )

    async def _read_of_stranger(self, call: Call) -> Message:
        """The handshake of a client that names a session which is over: it asks for a new one. Refuses all else."""
        try:
            message = await self._read(call, min(_MOST_HANDSHAKE, self._settings.max_body))
        except HTTPRefusal as refusal:
            if refusal.limit != "max_body":
                raise
            message = None
        if message is None or not _is_handshake(message):
            raise self._missing(call, NO_CLIENT)
        return message

    async def _read(self, call: Call, limit: int | None = None, attachment: Attachment | None = None) -> Message:
        check_json_content(call.headers)
        body = await read_body(call, limit or self._settings.max_body, self._settings.body_timeout)
        try:
            return decode(body)
        except RemoteProtocolError as error:
            if attachment is None:
                id = request_id(body)
            else:
                ids = attachment.session.client_unreadable(attachment, body, error)
                id = ids[0] if len(ids) == 1 else None
            raise HTTPRefusal(400, error.message, code=error.code, id=id) from None

    def known_client(self, call: Call, *, elsewhere: bool = False) -> HTTPClient:
        """The client that a request's session header names; ``elsewhere``, also on a path that is not the client's.

        Raises a 400 without the header, and the same 404 for an id that never was, that is over, or another's.
        """
        id = header(call.headers, SESSION_HEADER)
        if id is None:
            raise HTTPRefusal(400, "the Mcp-Session-Id header is missing")
        client = self._client_here(call, elsewhere=elsewhere)
        if client is None:
            raise self._missing(call, NO_CLIENT)
        return client

    def _client_here(self, call: Call, *, elsewhere: bool = False) -> HTTPClient | None:
        """The client that a request's session header names, if it is one of this URL's and of whoever asks."""
        client = self.client(header(call.headers, SESSION_HEADER) or "")
        here = client is not None and (elsewhere or call.scope["path"] in client.paths)
        return client if client is not None and here and client.admits(caller_of(call)) else None

    async def _delete(self, call: Call, client: HTTPClient) -> None:
        self.drop(client)
        await respond(call, 204)

    def drop(self, client: HTTPClient) -> None:
        """End a client, and its session if it has made that."""
        self._clients.pop(client.transport.id, None)
        client.transport.close()
        client.attachment.disconnected()

    # ---- sessions made by a handshake

    async def _handshake(self, call: Call, env: str | None, message: Message) -> None:
        spec, seed = self._asked_for(env, call.scope["query_string"], message.id)
        # A client shows a JSON-RPC error, but not an HTTP body.
        with _refusing(caller_of(call), message.id, 200):
            session = await self.open(call, spec, seed)
        await self._attach(
            call, _view(caller_of(call))(session, "streamable-http", ends_session=not spec.shared), message
        )

    async def open(
        self, call: Call, spec: EnvSpec, seed: int | None, *, id: str | None = None, ttl: float | None = None
    ) -> Session:
        """A session for whoever asks, or the one for all. Raises as `Sessions.open` does, and `ClientGone`."""
        if spec.shared:
            return await while_waited_for(call, self._bridge.call(self._sessions.shared, spec.name))
        wanted = _wanted(caller_of(call), call.peer, seed=seed, id=id, ttl=ttl)
        session = self._sessions.open_now(spec.name, **wanted)
        if session is None:
            later = functools.partial(self._sessions.open, spec.name, **wanted)
            session = await while_waited_for(call, self._bridge.call(later))
        return session

    def handshake_now(self, url: bytes, caller: Caller, peer: str, message: Message) -> HTTPClient | None:
        """The client that a POST of a handshake to `implicit` makes, if a process is ready for its session.

        What it said is not handed on yet. None if it is for `implicit` to see. Raises a refusal of the session.
        """
        target, _, query_string = url.partition(b"?")
        path = target.decode("latin-1")
        implicit = _IMPLICIT.fullmatch(path)
        if implicit is None or not _is_handshake(message):
            return None
        try:
            spec, seed = self._asked_for(implicit[1], query_string, message.id)
        except HTTPRefusal:
            return None
        if spec.shared:
            return None
        with _refusing(caller, message.id, 200):
            session = self._sessions.open_now(spec.name, **_wanted(caller, peer, seed=seed))
        if session is None:
            return None
        attachment = _view(caller)(session, "streamable-http", ends_session=True)
        return self._client(attachment, caller, path, peer)

    async def resume_handshake(self, client: HTTPClient, stream: EventStream, call: Call) -> None:
        """Answer a handshake that `handshake_now` began, and that takes longer or streams."""
        await self._unless_gone(client, call, client.transport.resume(stream, call))

    async def _attach(self, call: Call, attachment: Attachment, message: Message) -> None:
        """Make a client of whoever sent this handshake, and answer it."""
        client = self._client(attachment, caller_of(call), call.scope["path"], call.peer)
        read_by(call, client.reader)
        await self._unless_gone(client, call, client.transport.post(message, call))

    def attachments_of(self, share: str) -> list[Attachment]:
        """The clients that count for a share."""
        readers = [*(client.reader for client in self._clients.values()), *(known[3] for known in self._sse.values())]
        return [reader.attachment for reader in readers if reader.share == share and reader.attachment is not None]

    def _client(self, attachment: Attachment, caller: Caller, path: str, peer: str) -> HTTPClient:
        session = attachment.session
        id = session.id if attachment.ends_session else secrets.token_hex(_CLIENT_ID_BYTES)
        transport = StreamableHTTP(id, attachment, self._settings.times, lambda: session.agreed_version)
        attachment.connect(transport)
        self._attach_to(session, attachment)
        paths = {path, f"/s/{session.id}/mcp"} if attachment.ends_session else {path}
        reader = Reader(caller.share(peer), attachment)
        client = self._clients[id] = HTTPClient(transport, attachment, frozenset(paths), caller, reader)
        self._unread.joined(reader)
        return client

    def _attach_to(self, session: Session, attachment: Attachment) -> None:
        try:
            others_left = session.attach(attachment)
        except Busy as busy:
            raise too_busy(busy, None) from None
        if others_left:
            self._clients = {id: client for id, client in self._clients.items() if not client.transport.closed}

    async def _unless_gone(self, client: HTTPClient, call: Call, answering: Coroutine[Any, Any, None]) -> None:
        try:
            await while_waited_for(call, answering)
        except ClientGone:
            # Its id has reached nobody, so nobody could use this client, or end it.
            self.drop(client)
            raise

    # ---- revisions without a handshake

    async def _shared_session(self, call: Call, env: str | None) -> Session | None:
        name = env or self._settings.default_env
        if name is None or not self._spec(name, None).shared:
            return None
        with _refusing(caller_of(call), None, 200):
            return await self._bridge.call(self._sessions.shared, name)

    async def _modern(self, call: Call, session: Session | None, message: Message, view: type[Attachment]) -> None:
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
        if message.method == "initialize":
            raise modern_rules.no_handshake(message)
        if modern_rules.needs_schema(message, call.headers):
            modern_rules.check_param_headers(message, call.headers, await self._schemas.of_call(session, message))
        exchange = SingleExchange(self._settings.times)
        client = view(session, "streamable-http", cancels=True)
        client.principal = caller_of(call).name
        client.connect(exchange)
        read_by(call, Reader(caller_of(call).share(call.peer), client))
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
        spec, seed = self._asked_for(env, call.scope["query_string"], None)
        with _refusing(caller_of(call), None, 502):
            session = await self.open(call, spec, seed)
        await self._serve_sse(call, session, ends_session=not spec.shared)

    async def sse_of_session(self, call: Call, session_id: str) -> None:
        """``/s/<id>/sse``: one more client of a session that is there."""
        check_event_stream(call.headers)
        session = self.session(call, session_id)
        await self._serve_sse(call, session, ends_session=False)

    async def _serve_sse(self, call: Call, session: Session, *, ends_session: bool) -> None:
        id = secrets.token_hex(_CLIENT_ID_BYTES)
        attachment = _view(caller_of(call))(session, "sse", ends_session=ends_session)
        endpoint = f"{self._public.messages_beside(call)}?sessionId={id}"
        transport = SSE(id, endpoint, attachment, self._settings.times)
        attachment.connect(transport)
        self._attach_to(session, attachment)
        reader = Reader(caller_of(call).share(call.peer), attachment)
        self._sse[id] = (transport, attachment, caller_of(call), reader)
        self._unread.joined(reader)
        read_by(call, reader)
        try:
            await transport.get(call)
        finally:
            del self._sse[id]

    async def messages(self, call: Call, session_id: str | None) -> None:
        """``/messages?sessionId=``: what an SSE client sends."""
        known = self._sse.get(_query_of(call.scope["query_string"], None).get("sessionId", ""))
        here = known is not None and (session_id is None or known[1].session.id == session_id)
        if known is None or not here or not _admits(known[2], known[1], caller_of(call)):
            raise self._missing(call, "no SSE stream has this sessionId; open one first")
        await known[0].post(await self._read(call, attachment=known[1]), call)

    # ---- finding things

    def session(self, call: Call, id: str) -> Session:
        """The live session with this id. Raises the same 404 for one that never was, that has ended, or another's."""
        session = self._sessions.get(id)
        if session is None or not session.live or not caller_of(call).sees(session.owner, shared=session.shared):
            raise self._missing(call, "there is no such session")
        return session

    def _missing(self, call: Call, text: str) -> HTTPRefusal:
        """The refusal of a session that is not there for whoever asks."""
        peer, now = call.peer, time.monotonic()
        # A client whose session has ended goes by the status, whoever else is at its address: 404 makes it initialize
        # again. So a guesser gets that too, but slowly, and has to connect anew each time.
        if self._misses.wait_of(peer, now):
            return HTTPRefusal(404, text, headers=[_CLOSE], limit="max_failures", delay=_GUESS_DELAY)
        self._misses.failed(peer, now)
        return HTTPRefusal(404, text)

    def _asked_for(self, env: str | None, query_string: bytes, id: RequestId | None) -> tuple[EnvSpec, int | None]:
        """The environment, and the seed if there is one, of a session that a URL asks for."""
        query = _query_of(query_string, id)
        name, seed = self._env_name(env, query, id), seed_from(query, id)
        return self._spec(name, id), seed

    def _env_name(self, env: str | None, query: Mapping[str, str], id: RequestId | None) -> str:
        asked = query.get("env", "")
        if env and asked and env != asked:
            raise HTTPRefusal(400, f"the path names the environment {env!r} and the query {asked!r}", id=id)
        name = env or asked or self._settings.default_env
        if name is None:
            raise HTTPRefusal(404, "name an environment: /mcp?env=<name>; GET /envs lists them", id=id)
        return name

    def _spec(self, name: str, id: RequestId | None) -> EnvSpec:
        try:
            return self._sessions.spec(name)
        except UnknownEnvironment as error:
            raise HTTPRefusal(404, str(error), id=id) from None


def _wanted(caller: Caller, peer: str, **wanted: Unpack[Wanted]) -> Wanted:
    """What is wanted of a session for whoever asks."""
    return {"client": caller.share(peer), "owner": caller.name, **wanted}


def _is_handshake(message: Message) -> bool:
    is_first = message.kind is Kind.REQUEST and message.method == "initialize"
    return is_first and not modern_rules.claims_modern(message)


def _view(caller: Caller) -> type[Attachment]:
    """What this caller may see of a session."""
    return Attachment if caller.controls else AgentAttachment


def _admits(maker: Caller, attachment: Attachment, caller: Caller) -> bool:
    """Whether ``caller`` may speak as the client that ``maker`` made: the same principal, and no more than it sees."""
    return caller.sees(maker.name) and (caller.controls or isinstance(attachment, AgentAttachment))


@contextmanager
def _refusing(caller: Caller, id: RequestId | None, status: int) -> Iterator[None]:
    """Answer what is asked for in this block with a refusal if it cannot be; of this status if it does not start.

    Why it does not may quote what an installer or the environment has said, which is not for agents.
    """
    try:
        yield
    except Busy as busy:
        raise too_busy(busy, id) from None
    except StartError as error:
        text = str(error) if caller.controls else "the environment could not be started"
        raise HTTPRefusal(status, text, code=BACKEND_GONE, id=id) from None


def too_busy(busy: Busy, id: RequestId | None) -> HTTPRefusal:
    """The refusal of a session for which there is no room."""
    retry = (b"retry-after", b"%d" % max(1, round(busy.retry_after)))
    return HTTPRefusal(429 if isinstance(busy, TooMuch) else 503, str(busy), code=BACKEND_GONE, id=id, headers=[retry])


def _query_of(query_string: bytes, id: RequestId | None) -> dict[str, str]:
    """The parameters of a URL. Raises a 400 for one that is given twice, for nobody knows which was meant."""
    query: dict[str, str] = {}
    for name, value in parse_qsl(query_string.decode("latin-1"), keep_blank_values=True):
        if name in query:
            raise HTTPRefusal(400, f"the parameter {name!r} is given twice; send it once", id=id)
        query[name] = value
    return query


def seed_from(query: Mapping[str, str], id: RequestId | None) -> int | None:
    """The ``seed`` of a query; 0 is one. Raises a 400 for anything but a whole number in range."""
    text = query.get("seed", "")
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and int(text) < SEED_LIMIT):
        raise HTTPRefusal(400, f"seed {text!r} must be a whole number from 0 to {SEED_LIMIT - 1}", id=id)
    return int(text)
