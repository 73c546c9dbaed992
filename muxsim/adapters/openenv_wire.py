"""The wire of OpenEnv, at ``/envs/<env>/openenv`` of a serving muxsim: a WebSocket for trainers, JSON-RPC for agents.

OpenEnv's clients, and whatever plays through them, take that URL for a server of their own. On the socket reward and
end of an episode stand beside the observation, never in it; the agent's side has none of them.
"""

from __future__ import annotations

import asyncio
import math
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, Protocol, TypeAlias
from urllib.parse import parse_qsl

import msgspec
from msgspec import Raw

from muxsim.adapters import openenv_documents as documents
from muxsim.adapters import openenv_frames as frames
from muxsim.adapters.openenv_frames import Fault, Refused
from muxsim.adapters.openenv_play import Play, Stage
from muxsim.adapters.openenv_stage import Catalogues, ServedStage
from muxsim.errors import UnknownEnvironment
from muxsim.observe.events import HTTPLimit
from muxsim.serve.auth.callers import Caller
from muxsim.serve.http.web_socket import Times, WebSocket, accept
from muxsim.serve.routes.guard import caller_of, known_caller
from muxsim.serve.routes.wires import Site
from muxsim.session.registry import DRAINING
from transports.asgi import Call, respond, while_waited_for
from transports.errors import INVALID_PARAMS, INVALID_REQUEST, METHOD_NOT_FOUND
from transports.http_rules import HTTPRefusal, check_json_content
from transports.origin import Origin, origin_of

_ID_BYTES: Final = 16
_SERVER_ERROR: Final = -32000
# Seconds after which what a client leaves behind ends: one that was lost comes back at once or never, one that has said
# goodbye may think for a while before it opens another socket.
_LOST: Final = 5.0
_AWAY: Final = 300.0
# RFC 6455's code for what is against the rules of this server.
_NOT_ALLOWED: Final = 1008
_TOKEN_OVER: Final = "the token is not good any more"
_NOT_FOR_AGENTS: Final = "a token of the scope agent may only send mcp messages"
_NOT_AN_AGENTS: Final = "an agent may call tools in this session, and neither hold nor end it: a trainer has made it"
_DOCUMENTS: Final[dict[str, Callable[[str], Any]]] = {
    "health": lambda env: documents.HEALTH,
    "schema": lambda env: documents.SCHEMA,
    "metadata": documents.metadata_of,
    "openapi.json": documents.openapi_of,
}
_STATELESS: Final = frozenset({"reset", "step", "state"})


class Socket(Protocol):
    """What `Conversation` needs of a `WebSocket`."""

    said_goodbye: bool

    async def receive(self) -> bytes | None:
        """The next text; None when it is over."""

    async def send(self, text: bytes) -> None:
        """Send a text."""


class Listening(Stage, Protocol):
    """A stage for a client that may be on a socket."""

    def listen(self, listening: bool) -> None:
        """Whether it is, and so will be known to have gone when it has."""


Staging: TypeAlias = Callable[[Site, Catalogues, str, Caller, str, Origin | None], Listening]
"""Makes the stage of a client: of an environment, for a caller, from an address, by a request."""


@dataclass(eq=False)
class Seat:
    """A client's place: what it plays, whose that is, and whether a socket plays it now, or one is to end it."""

    play: Play
    stage: Listening
    env: str
    caller: Caller
    share: str
    lasts: bool
    """Whether it outlives its socket, for the client that has made it by its id."""
    socket: WebSocket | None = None
    closing: bool = False
    leaving: asyncio.TimerHandle | None = field(default=None, repr=False)


class OpenEnvWire:
    """Of one server; `muxsim.serve.routes.wires.Wire`."""

    def __init__(self, site: Site, staging: Staging = ServedStage) -> None:
        self._site = site
        self._staging = staging
        self._catalogues = Catalogues()
        self._seats: dict[str, Seat] = {}
        self._open: dict[WebSocket, Call] = {}
        if site.auth is not None:
            site.auth.on_change(self._doubt)

    def __repr__(self) -> str:
        return f"<OpenEnvWire {len(self._seats)} seats>"

    async def answer(self, call: Call, env: str, path: str) -> None:
        """Serve one request. Raises `HTTPRefusal`."""
        try:
            self._site.sessions.spec(env)
        except UnknownEnvironment as error:
            raise HTTPRefusal(404, str(error)) from None
        if path == "mcp":
            await self._post(call, env)
        elif path == "ws":
            _check_method(call, "GET")
            await self._serve(call, env)
        elif path in _DOCUMENTS:
            _check_method(call, "GET", "HEAD")
            await respond(call, 200, msgspec.json.encode(_DOCUMENTS[path](env)))
        elif path in _STATELESS:
            text = f"an episode is played on the WebSocket, /envs/{env}/openenv/ws: a request by itself has no episode"
            raise HTTPRefusal(501, text)
        else:
            raise HTTPRefusal(404, f"OpenEnv's clients find ws, mcp, {', '.join(_DOCUMENTS)} here, and no {path}")

    # ---- sockets

    async def _serve(self, call: Call, env: str) -> None:
        """One socket, from its beginning to its end."""
        caller, bodies = caller_of(call), self._site.bodies
        named = dict(parse_qsl(call.scope["query_string"].decode("latin-1"))).get("session_id", "")
        arriving = partial(bodies.unfinished.begin, caller.share(call.peer))
        times = Times(self._site.ping_interval, bodies.timeout)
        socket = accept(call, max_size=bodies.longest, times=times, arriving=arriving)
        try:
            seat = self._take_seat(call, env, named, socket)
        except Fault as fault:
            await socket.send(frames.failed(fault))
            socket.close(reason="no session")
            return
        agent = partial(self.respond, call, env, seat=seat)
        conversation = Conversation(socket, seat.play, agent, controls=caller.controls)
        conversing = asyncio.ensure_future(conversation.go_on())
        socket.on_over = partial(_cancel, conversing)
        self._open[socket] = call
        over = None if caller.expires == math.inf else self._end_at(caller.expires, socket)
        try:
            await asyncio.wait((conversing,))
            if not conversing.cancelled():
                conversing.result()
        finally:
            conversing.cancel()
            socket.on_over = None
            del self._open[socket]
            if over is not None:
                over.cancel()
            socket.close()
            if socket.was_too_large:
                self._site.events.emit(HTTPLimit("max_body"))
            if socket.was_too_slow:
                self._site.events.emit(HTTPLimit("body_timeout"))
            self._left(seat, socket)

    def _end_at(self, expires: float, socket: WebSocket) -> asyncio.TimerHandle:
        """End a socket when the token is over that it was opened with."""
        seconds = max(0.0, expires - time.time())
        return asyncio.get_running_loop().call_later(seconds, socket.close, _NOT_ALLOWED, _TOKEN_OVER)

    def _doubt(self) -> None:
        """Tokens are others now: end the sockets of those that are not good for what they were any more."""
        for socket, call in list(self._open.items()):
            if known_caller(self._site.auth, call.headers) != caller_of(call):
                socket.close(_NOT_ALLOWED, _TOKEN_OVER)

    def _take_seat(self, call: Call, env: str, named: str, socket: WebSocket) -> Seat:
        if not named:
            seat = self._new_seat(call, env, lasts=False)
        else:
            found = self._seat(named, env, caller_of(call))
            if found is None:
                raise Fault(frames.SESSION_ERROR, "there is no session of this session_id: create another")
            if found.caller.controls and not caller_of(call).controls:
                raise Fault(frames.SESSION_ERROR, _NOT_AN_AGENTS)
            if found.socket is not None:
                raise Fault(frames.SESSION_ERROR, "this session has a WebSocket already")
            seat = found
        self._expect(seat)
        seat.socket = socket
        seat.stage.listen(True)
        return seat

    def _left(self, seat: Seat, socket: WebSocket) -> None:
        """A socket is over. What nobody can come back to ends now, all else when nobody does."""
        seat.socket = None
        seat.stage.listen(False)
        if not seat.lasts or seat.closing:
            self._end(seat)
        else:
            self._await_return(seat, _AWAY if socket.said_goodbye else _LOST)

    # ---- seats

    def _new_seat(self, call: Call, env: str, *, lasts: bool) -> Seat:
        caller = caller_of(call)
        stage = self._staging(self._site, self._catalogues, env, caller, call.peer, origin_of(call.headers))
        id = secrets.token_hex(_ID_BYTES)
        seat = self._seats[id] = Seat(Play(id, stage), stage, env, caller, caller.share(call.peer), lasts)
        return seat

    def _seat(self, id: Any, env: str, caller: Caller) -> Seat | None:
        """The one of this id, if it is there for this caller: one of the same name, or anybody where nobody has one."""
        seat = self._seats.get(id) if isinstance(id, str) else None
        here = seat is not None and seat.env == env and caller.sees(seat.caller.name)
        return seat if here else None

    def _end(self, seat: Seat) -> None:
        self._expect(seat)
        self._seats.pop(seat.play.id, None)
        seat.play.end()

    def _await_return(self, seat: Seat, seconds: float) -> None:
        """End it then, unless somebody comes back."""
        self._expect(seat)
        seat.leaving = asyncio.get_running_loop().call_later(seconds, self._end, seat)

    @staticmethod
    def _expect(seat: Seat) -> None:
        """Somebody is there."""
        if seat.leaving is not None:
            seat.leaving.cancel()
            seat.leaving = None

    # ---- the agent's side

    async def _post(self, call: Call, env: str) -> None:
        _check_method(call, "POST")
        check_json_content(call.headers)
        body = await self._site.bodies.read(call)
        try:
            value = frames.read_body(body)
        except Refused as refused:
            await respond(call, 200, frames.refusal(None, refused))
            return
        await respond(call, 200, await while_waited_for(call, self.respond(call, env, value)))

    async def respond(self, call: Call, env: str, value: Any, seat: Seat | None = None) -> bytes:
        """The JSON-RPC response to a request, which on a socket is about its ``seat``, if it names no other."""
        id = frames.id_of(value)
        try:
            request = frames.read_request(value)
            return frames.response(id, await self._result(call, env, request, seat))
        except Refused as refused:
            return frames.refusal(id, refused)

    async def _result(self, call: Call, env: str, request: frames.Request, seat: Seat | None) -> Any:
        if request.method == "openenv/session/create":
            return {"session_id": (seat or await self._create(call, env)).play.id}
        if request.method == "openenv/session/close":
            return self._close(self._named(call, env, request, required=True), seat, caller_of(call))
        if request.method == "tools/list":
            return await self._playing(call, env, request, seat, lambda play: play.agent_tools())
        if request.method == "tools/call":
            name, arguments = request.params.get("name"), request.params.get("arguments")
            return await self._playing(call, env, request, seat, lambda play: play.agent_call(name, arguments))
        raise Refused(METHOD_NOT_FOUND, f"there is no method {request.method[:80]!r} here: tools/list, tools/call")

    async def _playing(
        self, call: Call, env: str, request: frames.Request, seat: Seat | None, what: Callable[[Play], Any]
    ) -> Raw:
        """What comes of it in the session that a request names, that of its socket, or else one for it alone."""
        named = self._named(call, env, request) or seat
        alone = self._new_seat(call, env, lasts=False) if named is None else None
        playing = named or alone
        assert playing is not None
        try:
            found: Raw = await what(playing.play)
            return found
        finally:
            if alone is not None:
                self._end(alone)
            elif playing.socket is None:
                self._await_return(playing, self._patience(env))

    def _named(self, call: Call, env: str, request: frames.Request, *, required: bool = False) -> Seat | None:
        id = request.params.get("session_id")
        if id is None and not required:
            return None
        seat = self._seat(id, env, caller_of(call))
        if seat is None:
            raise Refused(INVALID_PARAMS, "there is no session of this session_id")
        self._expect(seat)
        return seat

    async def _create(self, call: Call, env: str) -> Seat:
        """A place for a session, which begins when it is needed."""
        draining = DRAINING if self._site.sessions.draining else None
        refusal = draining or await self._site.bridge.call(self._site.pool.refusing, env)
        room = self._site.pool.statistics().leases
        share = caller_of(call).share(call.peer)
        taken = sum(seat.share == share and seat.lasts for seat in self._seats.values())
        if refusal is not None or taken >= room.most:
            text = refusal.text if refusal is not None else "as many sessions as may be are created: close one"
            data = {"active_sessions": max(room.held, taken), "max_sessions": room.most}
            raise Refused(_SERVER_ERROR, text, data)
        seat = self._new_seat(call, env, lasts=True)
        self._await_return(seat, self._patience(env))
        return seat

    def _close(self, seat: Seat | None, own: Seat | None, caller: Caller) -> dict[str, Any]:
        assert seat is not None
        if seat.caller.controls and not caller.controls:
            raise Refused(INVALID_REQUEST, _NOT_AN_AGENTS)
        if seat is own:
            raise Refused(INVALID_REQUEST, "this is the session of this WebSocket, which ends with it")
        if seat.socket is not None:
            seat.closing = True
            return {"session_id": seat.play.id, "closed": False, "closing": True}
        self._end(seat)
        return {"session_id": seat.play.id, "closed": True}

    def _patience(self, env: str) -> float:
        """Seconds for which a session that somebody has made by its id is kept for them."""
        try:
            idle = self._site.sessions.spec(env).limits.idle_timeout
        except UnknownEnvironment:  # not any more, since a reload
            return _AWAY
        return _AWAY if idle is None else idle


class Conversation:
    """The frames of one socket, each answered before the next is looked at.

    ``agent`` answers JSON-RPC; the rest is only for a caller that ``controls``.
    """

    def __init__(self, socket: Socket, play: Play, agent: Callable[[Any], Awaitable[bytes]], *, controls: bool) -> None:
        self._socket = socket
        self._play = play
        self._agent = agent
        self._controls = controls

    async def go_on(self) -> None:
        """Answer all that comes, until the client leaves."""
        while (text := await self._socket.receive()) is not None:
            try:
                frame = frames.read_frame(text)
                if isinstance(frame, frames.Close):
                    self._socket.said_goodbye = True
                    return
                answer = await self._answer(frame)
            except Fault as fault:
                answer = frames.failed(fault)
            await self._socket.send(answer)

    async def _answer(self, frame: frames.Frame) -> bytes:
        if isinstance(frame, frames.AgentCalls):
            return frames.answered(await self._agent(frame.request))
        if not self._controls:
            raise Fault(frames.EXECUTION_ERROR, _NOT_FOR_AGENTS)
        if isinstance(frame, frames.Reset):
            return frames.observed(await self._play.reset(frame))
        if isinstance(frame, frames.CallTool):
            return frames.observed(await self._play.call(frame))
        if isinstance(frame, frames.ListTools):
            return frames.observed(await self._play.list_tools())
        return frames.state(await self._play.state())


def _cancel(task: asyncio.Future[None]) -> None:
    task.cancel()


def _check_method(call: Call, *methods: str) -> None:
    if call.scope["method"] not in methods:
        allowed = ", ".join(methods)
        raise HTTPRefusal(405, f"this URL takes {allowed}", headers=[(b"allow", allowed.encode())])
