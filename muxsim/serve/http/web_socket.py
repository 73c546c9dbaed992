"""A WebSocket on a connection that was judged, and answered so far, as any HTTP request is.

The protocol itself is that of the package ``websockets``, without its I/O: bytes in, frames out. It is imported with
the first socket, since it is an extra.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from starlette.types import Scope

from muxsim.serve.http.incoming import Request
from muxsim.serve.http.interfaces import Surrendered
from muxsim.serve.http.unfinished import Arriving
from transports.asgi import Call
from transports.http_rules import HTTPRefusal

if TYPE_CHECKING:
    from websockets.frames import Frame
    from websockets.server import ServerProtocol

_UPGRADE: Final = "muxsim.upgrade"
_WEBSOCKET: Final = b"websocket"
_HOW: Final = [(b"upgrade", _WEBSOCKET), (b"connection", b"upgrade")]
# What may have come and not been taken: past either nothing more is read. Who asks one thing after the other, as
# clients do, has one.
_MOST_WAITING: Final = 64
_MOST_WAITING_BYTES: Final = 64 * 1024
# Opcodes of RFC 6455; of the package's own names each use would be an import, since it is an extra.
_CONTINUATION: Final = 0
_TEXT: Final = 1
_BINARY: Final = 2
_CLOSE: Final = 8
# Codes of RFC 6455.
_GOING_AWAY: Final = 1001
_NOT_TEXT: Final = 1003
_NOT_UNICODE: Final = 1007
_NOT_ALLOWED: Final = 1008
_TOO_LARGE: Final = 1009
_TRY_LATER: Final = 1013  # registered with IANA, not in the RFC


@dataclass(frozen=True, slots=True)
class _Upgrade:
    """A request for a WebSocket, and the connection that it has come on."""

    connection: Surrendered
    request: Request


def offer_upgrade(scope: Scope, connection: Surrendered, request: Request) -> None:
    """Let whoever serves a request `accept` it as a WebSocket, if it asks for one."""
    if request.upgrade == _WEBSOCKET:
        scope[_UPGRADE] = _Upgrade(connection, request)


@dataclass(frozen=True, slots=True)
class Times:
    """In seconds: it is pinged each ``ping``, so that a connection that leads nowhere is found out about, and a text
    has to be complete within ``text`` of its first byte."""

    ping: float
    text: float


def load() -> None:
    """Import what a WebSocket needs, if that is installed: beforehand, where nobody waits for it."""
    with contextlib.suppress(ImportError):
        import websockets.server  # noqa: F401, PLC0415 - an extra


def accept(call: Call, *, max_size: int, times: Times, arriving: Callable[[], Arriving]) -> WebSocket:
    """Make a WebSocket of a request's connection, for texts of up to ``max_size`` bytes.

    Each text that does not come at once is told of by ``arriving``. Raises a 426 for a request that asks for no
    WebSocket, a 400 for one that does it wrongly, and a 501 without ``websockets``.
    """
    upgrade: _Upgrade | None = call.scope.get(_UPGRADE)
    if upgrade is None:
        raise HTTPRefusal(426, "this is the URL of a WebSocket: ask for one", headers=_HOW)
    try:
        from websockets.server import ServerProtocol  # noqa: PLC0415 - an extra
    except ImportError:
        text = 'this muxsim has no WebSockets; whoever runs it has to install them: pip install "mcp-muxsim[openenv]"'
        raise HTTPRefusal(501, text) from None
    # Without extensions: no text is compressed, and none can be a bomb.
    protocol = ServerProtocol(max_size=max_size)
    handshake = _handshake(protocol, upgrade.request)
    socket = WebSocket(upgrade.connection, protocol, times, arriving)
    upgrade.connection.hand_over(socket)
    call.answered = True
    socket.begin(handshake)
    return socket


def _handshake(protocol: ServerProtocol, request: Request) -> bytes:
    """The answer that accepts a request. Raises a 400: it is not as RFC 6455 has it."""
    from websockets.http11 import Request as Asked  # noqa: PLC0415 - an extra

    protocol.receive_data(request.head(with_upgrade=True))
    asked = next((event for event in protocol.events_received() if isinstance(event, Asked)), None)
    if asked is None:
        raise HTTPRefusal(400, "the request for a WebSocket cannot be read; it has to be a GET of HTTP/1.1")
    response = protocol.accept(asked)
    if response.status_code != 101:
        raise HTTPRefusal(400, (response.body or b"this asks for no WebSocket").decode().strip(), headers=_HOW)
    protocol.send_response(response)
    return b"".join(protocol.data_to_send())


class WebSocket:
    """One client's: texts in both directions, each way in order. Made by `accept`."""

    def __init__(
        self, connection: Surrendered, protocol: ServerProtocol, times: Times, arriving: Callable[[], Arriving]
    ) -> None:
        self.over = False
        """Whether nothing more comes, and nothing can be sent."""
        self.said_goodbye = False
        """Whether the client has ended it as one does, and was not just lost."""
        self.was_too_large = False
        """Whether it has ended by a text of more than ``max_size`` bytes."""
        self.was_too_slow = False
        """Whether it has ended by a text that was not complete in time."""
        self.on_over: Callable[[], None] | None = None
        """Called once, as soon as it is over, whatever anybody waits for; it may not raise."""
        self._connection = connection
        self._protocol = protocol
        self._times = times
        self._begin_arriving = arriving
        self._arriving: Arriving | None = None
        self._late: asyncio.TimerHandle | None = None
        self._texts: deque[bytes] = deque()
        self._size = 0
        self._fragments = bytearray()
        self._waiter: asyncio.Future[None] | None = None
        self._writable = asyncio.Event()
        self._writable.set()
        self._reading = True
        self._timer: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<WebSocket{' over' if self.over else ''}, {len(self._texts)} texts wait>"

    def begin(self, handshake: bytes) -> None:
        """Send the answer that accepts it; called once, before anything else."""
        self._connection.transport.write(handshake)
        self._ping_later()

    # ---- for whoever serves it

    async def receive(self) -> bytes | None:
        """The next text, which is Unicode; None when it is over. Only one may wait."""
        while not self._texts:
            if self.over:
                return None
            self._waiter = self._connection.loop.create_future()
            await self._waiter
        text = self._texts.popleft()
        self._size -= len(text)
        self._read_or_not()
        return text

    async def send(self, text: bytes) -> None:
        """Send a text, and wait until the client has read enough of what was sent before; nothing once it is over."""
        if not self.over:
            self._protocol.send_text(text)
            self._flush()
            await self._writable.wait()

    def close(self, code: int = 1000, reason: str = "") -> None:
        """End it. Calling it again is harmless."""
        if not self.over:
            self._protocol.send_close(code, reason)
            self._end()
            self._flush()
            self._connection.await_goodbye()

    # ---- from the connection (muxsim.serve.http.interfaces.Taker)

    def came(self, data: bytes) -> None:
        self._protocol.receive_data(data)
        events = self._protocol.events_received()
        if not self.over:
            for event in events:
                self._take(event)  # type: ignore[arg-type]  # the handshake is over, so it is a frame
            self._look_whether_over()
        self._weigh()
        self._flush()  # pongs, and goodbyes
        self._read_or_not()

    def pause_writing(self) -> None:
        self._writable.clear()
        self._read_or_not()

    def resume_writing(self) -> None:
        self._writable.set()
        self._read_or_not()

    def lost(self) -> None:
        self._end()
        self._protocol.reader.discard()  # what had come of a text: whoever holds this one is not to hold that too

    def shutdown(self) -> None:
        self.close(_GOING_AWAY, "muxsim is shutting down")

    # ---- frames

    def _take(self, frame: Frame) -> None:
        opcode = frame.opcode
        if opcode == _CLOSE:
            self.said_goodbye = True
        elif opcode == _BINARY:
            self._protocol.fail(_NOT_TEXT, "only texts are understood here")
        elif opcode in (_TEXT, _CONTINUATION):
            self._fragments += frame.data
            if frame.fin:
                text, self._fragments = bytes(self._fragments), bytearray()
                self._forget_unfinished()  # what has come of the next one has its own time
                self._take_text(text)

    def _take_text(self, text: bytes) -> None:
        try:
            text.decode()
        except UnicodeDecodeError:
            self._protocol.fail(_NOT_UNICODE, "a text has to be UTF-8")
            return
        self._texts.append(text)
        self._size += len(text)
        self._wake()

    # ---- a text that is not complete

    def _weigh(self) -> None:
        """Tell how much there is of a text that is not complete, and how long it may take."""
        size = len(self._fragments) + len(self._protocol.reader.buffer)
        if self.over or not size:
            self._forget_unfinished()
            if size > _MOST_WAITING_BYTES:  # all that is waited for now is a goodbye
                self._protocol.reader.discard()
            return
        if self._arriving is None:
            self._arriving = self._begin_arriving()
            self._arriving.on_room = self._read_or_not
            self._late = self._connection.loop.call_later(self._times.text, self._is_late)
        self._arriving.add(size - self._arriving.size)

    def _forget_unfinished(self) -> None:
        arriving, self._arriving = self._arriving, None
        if arriving is not None:
            arriving.end()
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _is_late(self) -> None:
        if self.over:
            return
        if self._arriving is not None and not self._arriving.may_go_on:
            self.close(_TRY_LATER, "too much of what this client sends waits to be taken (server.max_unfinished)")
        else:
            self.was_too_slow = True
            self.close(_NOT_ALLOWED, f"the text did not arrive within {self._times.text:g} s (server.body_timeout)")

    def _look_whether_over(self) -> None:
        from websockets.protocol import State  # noqa: PLC0415 - an extra

        if self._protocol.state is not State.OPEN:
            sent = self._protocol.close_sent
            self.was_too_large = sent is not None and sent.code == _TOO_LARGE
            self._end()

    def _end(self) -> None:
        if self.over:
            return
        self.over = True
        self._texts.clear()
        self._fragments.clear()
        self._forget_unfinished()
        self._writable.set()
        if self._timer is not None:
            self._timer.cancel()
        self._wake()
        if self.on_over is not None:
            self.on_over()

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _flush(self) -> None:
        transport = self._connection.transport
        for piece in self._protocol.data_to_send():
            if not piece:
                self._connection.finish()  # both have said goodbye, or there is no understanding
            elif not transport.is_closing():
                transport.write(piece)

    def _read_or_not(self) -> None:
        """Read on while what has come is taken, and what is sent is read: pongs would pile up too."""
        full = len(self._texts) >= _MOST_WAITING or self._size > _MOST_WAITING_BYTES
        held_back = self._arriving is not None and not self._arriving.may_go_on
        wanted = self.over or not (full or held_back or not self._writable.is_set())
        transport = self._connection.transport
        if wanted is self._reading or transport.is_closing():
            return
        self._reading = wanted
        if wanted:
            transport.resume_reading()
        else:
            transport.pause_reading()

    def _ping_later(self) -> None:
        self._timer = self._connection.loop.call_later(self._times.ping, self._ping)

    def _ping(self) -> None:
        if self._writable.is_set():
            self._protocol.send_ping(b"")
            self._flush()
        self._ping_later()
