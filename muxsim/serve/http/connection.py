"""One connection to a client: its requests in order, each answered on the short way or on the ordinary one.

This is the protocol that uvicorn is given by its ``http`` option. It parses what comes and judges each request at the
end of its head: what may go the short way is collected, up to a small size, and all else is handed to uvicorn's own
protocol, which `muxsim.serve.http.ordinary` keeps.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final, cast

import uvicorn
from uvicorn.server import ServerState

from muxsim.access import network_of
from muxsim.observe.events import NoRequest
from muxsim.runtime.peers import peer_user
from muxsim.serve.auth.proxies import unix_peer
from muxsim.serve.http.connections import Connections
from muxsim.serve.http.incoming import Incoming, Request
from muxsim.serve.http.interfaces import Answer, Familiar, ShortCall, ShortWay, Taker, Usual
from muxsim.serve.http.ordinary import Ordinary
from muxsim.serve.http.responses import refusal_bytes
from muxsim.serve.http.unread import Reader
from transports.http_rules import HTTPRefusal

# A body that takes longer goes the ordinary way, which has a deadline for it.
_BODY_PATIENCE: Final = 1.0
# Bytes that are read of requests which wait for others. Only who reads on learns that a connection is lost.
_READ_AHEAD: Final = 64 * 1024
# Bytes of a body that nobody wants which are read past its answer, so that the client gets to see that.
_MOST_DISCARDED: Final = 64 * 2**20


class Connection(asyncio.Protocol):
    """One connection, for as long as it lasts."""

    def __init__(
        self,
        short_way: ShortWay,
        limits: Connections,
        *,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self.loop = _loop or asyncio.get_running_loop()
        self.transport: asyncio.Transport
        self.peer = ""
        self.familiar: Familiar | None = None
        """What takes a request that is like one of before, without a look at its head."""
        self.closing = False
        self.reader = Reader("")
        """Whom the answer is for that is written, or was written last."""
        self._short_way = short_way
        self._limits = limits
        self._config = config
        self._state = server_state
        self._incoming = Incoming(self, lambda: limits.bounds, limits.met)
        self._queue: list[Request] = []
        self._ahead = 0
        self._current: Request | None = None
        self._usual: Usual | None = None
        self._call: ShortCall | None = None
        self._ordinary: Ordinary | None = None
        self._taker: Taker | None = None
        self._advancing = False
        self._read_raw = b""
        self._reading = True
        self._body_wanted = True
        self._write_paused = False
        self._fault: HTTPRefusal | None = None
        self._discarded: int | None = None
        self._stray = False
        self._timed: Request | None = None
        self._body_timer: asyncio.TimerHandle | None = None
        self._idle_since: float | None = None
        self._idle_timer: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        state = "closing" if self.closing else "idle" if self.idle else f"serving {self._current}"
        return f"<Connection from {self.peer or 'nowhere'}, {state}>"

    @property
    def idle(self) -> bool:
        """Whether no request is being served, or waits for that."""
        return self._current is None and self._call is None and not self._queue

    # ---- from the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is none by name
        self.peer = _peer_of(self.transport)
        self._state.connections.add(self)  # type: ignore[arg-type]
        full = self._limits.enter(self.peer)
        if full:
            self._limits.met(full)
            text = f"there are too many connections (server.{full})"
            refusal = HTTPRefusal(503, text, headers=[(b"retry-after", b"1")])
            self.transport.write(refusal_bytes(refusal, keep_alive=False))
            self.close_now()
        else:
            self._limits.await_head(self)

    def data_received(self, data: bytes) -> None:
        if self._discarded is not None:
            self._discard(data)
            return
        if self._taker is not None:
            self._taker.came(data)
            return
        between = self._incoming.between
        if between:
            familiar = self.familiar
            if familiar is not None and self.idle and not self._write_paused and self._take_familiar(familiar, data):
                return
            self._read_raw = data
        before = self._incoming.request
        try:
            self._incoming.feed(data)
        except HTTPRefusal as refusal:
            self._bad(refusal)
        self._read_raw = b""
        if self._queue:
            self._ahead += len(data)
            self._read_or_not()
        self._watch_what_is_unfinished(before)

    def eof_received(self) -> bool:
        """Nothing more comes; what is under way is answered nowhere, as if the connection were lost."""
        return False

    def pause_writing(self) -> None:
        self._write_paused = True
        if self._ordinary is not None:
            self._ordinary.pause_writing()
        if self._taker is not None:
            self._taker.pause_writing()
        self._limits.unread.begin(self)

    def resume_writing(self) -> None:
        self._write_paused = False
        if self._ordinary is not None:
            self._ordinary.resume_writing()
        self._limits.unread.end(self)
        if self._taker is not None:
            self._taker.resume_writing()
        else:
            self._advance()

    def connection_lost(self, exc: Exception | None) -> None:
        self.closing = True
        self._state.connections.discard(self)
        self._limits.leave(self, self.peer)
        self._drop_all()
        self._current = None
        call, self._call = self._call, None
        if call is not None:
            call.lost()
        if self._taker is not None:
            self._taker.lost()
        for timer in (self._idle_timer, self._body_timer):
            if timer is not None:
                timer.cancel()

    def shutdown(self) -> None:
        """The server ends: close when what is under way has been answered."""
        self.closing = True
        if self._taker is not None:
            self._taker.shutdown()
        elif self._current is None and self._call is None:
            self.close_now()

    # ---- from the parser (muxsim.serve.http.incoming.Listener)

    def begun(self, request: Request) -> None:
        proxies = self._limits.proxies
        request.peer = proxies.client_of(self.peer, request.headers) if proxies else self.peer
        self._idle_since, self._stray = None, False
        self._queue.append(request)
        self._advance()

    def came(self, request: Request, piece: bytes) -> None:
        if request is self._current and self._ordinary is not None and self._ordinary.request is request:
            self._ordinary.came(request, piece)
        elif self._discarded is None:
            request.body.append(piece)

    def ended(self, request: Request) -> None:
        if request is not self._current:
            return
        if self._ordinary is not None and self._ordinary.request is request:
            self._ordinary.ended(request)
        elif not self._advancing:
            self._advance(request)

    # ---- one request after the other

    def _advance(self, whole: Request | None = None) -> None:
        """Serve the one that is ``whole`` now, and begin with what waits, as long as that is answered at once."""
        if not self._advancing:
            self._advancing = True
            try:
                if whole is not None:
                    self._serve_whole(whole)
                while self._queue and self._may_begin():
                    self._begin(self._queue.pop(0))
            finally:
                self._advancing = False
        if not self._queue:
            self._ahead = 0
        self._read_or_not()

    def _may_begin(self) -> bool:
        return self._current is None and self._call is None and not self._write_paused and not self.closing

    def _begin(self, request: Request) -> None:
        self._current, self._idle_since = request, None
        self._usual = self._short_way.judge(request)
        if self._usual is None:
            self._go_ordinary(request)
        elif request.complete:
            self._serve_whole(request)
        else:
            self._body_timer = self.loop.call_later(_BODY_PATIENCE, self._body_is_slow, request)

    def _body_is_slow(self, request: Request) -> None:
        self._body_timer = None
        if self._current is request:
            self._go_ordinary(request)

    def _serve_whole(self, request: Request) -> None:
        if self._body_timer is not None:
            self._body_timer.cancel()
            self._body_timer = None
        body = request.body[0] if len(request.body) == 1 else b"".join(request.body)
        if self._usual is not None and self._usual.take(self, body, self._read_raw):
            request.body.clear()
        else:
            self._go_ordinary(request)

    def _take_familiar(self, familiar: Familiar, data: bytes) -> bool:
        before, self._idle_since = self._idle_since, None
        if self.closing or not familiar.take(self, data):
            self._idle_since = before
            return False
        self._stray = False
        return True

    def _go_ordinary(self, request: Request, answer: Answer | None = None) -> None:
        if answer is None:
            self.reader = Reader(network_of(request.peer))  # until somebody knows better
        if self._ordinary is None:
            self._ordinary = Ordinary(self, self._config, self._state, self.loop)
        self._current = request
        self._ordinary.begin(request, answer)

    # ---- for the short way (muxsim.serve.http.interfaces.Asker)

    def expect(self, call: ShortCall | None) -> None:
        """A call is under way, which will be answered by `respond` or `lengthen`; None if it is not, after all."""
        self._call = call
        if call is not None:
            self.reader = call.reader

    def respond(self, data: bytes, body: bytes, keep_alive: bool) -> None:
        """Write the answer of a request on the short way."""
        if not self.transport.is_closing():
            self.transport.write(data)
            if body:
                self.transport.write(body)
        self._state.total_requests += 1
        self._call = None
        self._complete(keep_alive)

    def lengthen(self, request: Request, answer: Answer) -> None:
        """The call takes longer, or streams: it goes on by ASGI."""
        self._call = None
        self._go_ordinary(request, answer)

    # ---- the ordinary way (muxsim.serve.http.ordinary.Owner)

    def body_wanted(self, wanted: bool) -> None:
        self._body_wanted = wanted
        self._read_or_not()

    def answer_complete(self) -> None:
        self._drop_ordinary()  # most connections are idle, or go the short way: no need to keep it for the next
        request = self._current
        if request is not None and not request.complete:
            self._stop_listening()
        else:
            self._complete(keep_alive=True)

    def close_now(self) -> None:
        self.closing = True
        request = self._current
        if request is not None and not request.complete:
            self._stop_listening()
        else:
            self._close()

    # ---- for another protocol (muxsim.serve.http.interfaces.Surrendered)

    def hand_over(self, taker: Taker) -> None:
        if self._queue or self._fault is not None or self.closing or not self._incoming.between:
            raise HTTPRefusal(400, "more has come than the request for another protocol, which waits for its answer")
        self._drop_ordinary()
        self._current, self._taker = None, taker

    def finish(self) -> None:
        self._stop_listening()

    def await_goodbye(self) -> None:
        self.closing = True
        self._limits.await_rest(self)

    # ---- between requests, and at the end

    def _complete(self, keep_alive: bool) -> None:
        self._current = None
        if self.closing or not keep_alive or self._fault is not None:
            self.closing = True
            self._close()
            return
        self._body_wanted = True
        if self._queue or not self._reading:
            self._advance()
        if self._current is None and self._call is None and self._incoming.between:
            self._idle_since = self.loop.time()
            if self._idle_timer is None:
                self._await_next(self._config.timeout_keep_alive)

    def _await_next(self, seconds: float) -> None:
        self._idle_timer = self.loop.call_later(seconds, self._look_whether_idle)

    def _look_whether_idle(self) -> None:
        self._idle_timer = None
        if self._idle_since is None or self.closing:
            return
        left = self._idle_since + self._config.timeout_keep_alive - self.loop.time()
        if left > 0:
            self._await_next(left)
        else:
            self.close_now()

    def _read_or_not(self) -> None:
        """Read while somebody wants what comes. Requests that wait for others do so here, if they are not too large."""
        blocked = self._ahead > _READ_AHEAD or (self._current is None and self._write_paused)
        wanted = self._discarded is not None or (self._body_wanted and not blocked and self._fault is None)
        if wanted is self._reading or self.transport.is_closing():
            return
        self._reading = wanted
        if wanted:
            self.transport.resume_reading()
        else:
            self.transport.pause_reading()

    def _close(self) -> None:
        """Close when everything is written; the client has only so much time to read it."""
        if not self.transport.is_closing():
            self.transport.close()
        if self.transport.get_write_buffer_size():
            self._limits.unread.begin(self)

    def _stop_listening(self) -> None:
        """There is an answer and the request goes on: let the client see it, keep nothing, and close."""
        self.closing = True
        self._current, self._discarded = None, 0
        self._drop_all()
        if self.transport.is_closing():
            return
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._limits.await_rest(self)
        self._read_or_not()

    def _discard(self, data: bytes) -> None:
        assert self._discarded is not None
        self._discarded += len(data)
        if self._discarded > _MOST_DISCARDED:
            self.transport.abort()

    def _drop_all(self) -> None:
        self._queue.clear()
        self._drop_ordinary()

    def _drop_ordinary(self) -> None:
        ordinary, self._ordinary = self._ordinary, None
        if ordinary is not None:
            ordinary.lost()

    # ---- faults and deadlines (muxsim.serve.http.connections.Watched)

    @property
    def request(self) -> object:
        """What is read, or was read last; None before the first."""
        return self._incoming.request

    def _watch_what_is_unfinished(self, before: Request | None) -> None:
        incoming = self._incoming
        if incoming.in_head and self._timed is not incoming.request and not self.closing:
            self._timed = incoming.request
            self._limits.await_head(self)
        elif incoming.request is before and incoming.between and self._idle_since is not None and not self._stray:
            # An empty line, perhaps, with which no request has come.
            self._stray = True
            self._limits.await_head(self)

    def _bad(self, refusal: HTTPRefusal) -> None:
        """What has come is no request; a request before it still gets its answer."""
        if refusal.status == 400:  # what is past a bound has its counter
            self._limits.events.emit(NoRequest())
        self._fault = refusal
        current = self._incoming.request
        if self._current is None and self._call is None and not self._queue:
            self._refuse_and_close(refusal)
        elif current is not None and current is self._current and not current.complete and self._call is None:
            # Its own body is no good: whoever reads that is told so by its end.
            self._refuse_current(refusal)
        self._read_or_not()

    def _refuse_current(self, refusal: HTTPRefusal) -> None:
        if self._ordinary is not None and self._ordinary.answering:
            self._drop_all()  # in the middle of its answer
            self.closing = True
            self._close()
        else:
            self._refuse_and_close(refusal)

    def _refuse_and_close(self, refusal: HTTPRefusal) -> None:
        if not self.transport.is_closing():
            self.transport.write(refusal_bytes(refusal, keep_alive=False))
        self._stop_listening()

    def head_is_late(self, request: object) -> None:
        """The time for a head is over; nothing is wrong if ``request`` has its head by now."""
        incoming = self._incoming
        waited_for = incoming.request is request and (incoming.in_head or request is None or self._stray)
        if not waited_for or self.closing or self.transport.is_closing():
            return
        self._limits.met("header_timeout")
        if not incoming.in_head:
            self.close_now()
            return
        seconds = self._limits.bounds.header_timeout
        text = f"the headers did not arrive within {seconds:g} s (server.header_timeout)"
        if self.idle:
            self._refuse_and_close(HTTPRefusal(408, text))
        else:
            self._fault = HTTPRefusal(408, text)
            self._read_or_not()

    def rest_is_late(self) -> None:
        """The time for the rest of a request that has its answer is over."""
        if not self._incoming.between and self._fault is None:
            self._limits.met("body_timeout")
        self.transport.abort()


def _peer_of(transport: asyncio.Transport) -> str:
    """The address at the other end; where that has none, its user."""
    address = transport.get_extra_info("peername")
    if isinstance(address, tuple):
        return str(address[0])
    try:
        return unix_peer(peer_user(transport.get_extra_info("socket")))
    except OSError:
        return ""
