"""The operator's socket: questions of this user's, a line each, and the answers that `operations` gives."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from muxsim.errors import ListenError, NotDone
from muxsim.observe.events import CommandFailed, Events, NoOperatorSocket, OperatorSocketMoved
from muxsim.runtime.peers import peer_of
from muxsim.serve.operate import running
from muxsim.serve.operate.running import Reachable
from muxsim.serve.routes.operating import Answering

_QUESTION_TIMEOUT: Final = 5.0
# Whoever has asked may take so long to read.
_READING_TIMEOUT: Final = 60.0
# Seconds until another connection is accepted where the last could not be.
_ACCEPT_PAUSE: Final = 0.5
# Seconds between two looks at whether the socket is still where it was: a logout removes its folder.
_LOOK_AGAIN: Final = 2.0


def refuse_unreachable() -> None:
    """Raise `ListenError` if an operator could not reach a muxsim that starts here."""
    try:
        running.be_reachable().close()
    except OSError as error:
        raise ListenError(f"there can be no operator socket, which is required (operator_socket): {error}") from None


@asynccontextmanager
async def operator_socket(answer: Answering, events: Events, *, wanted: bool = True) -> AsyncIterator[None]:
    """Answer this user's questions for the length of a block. Where that cannot be, muxsim serves without it."""
    if not wanted:
        yield
        return
    serving = _OperatorSocket(answer, events)
    serving.bind()
    staying = asyncio.ensure_future(serving.stay())
    try:
        yield
    finally:
        staying.cancel()
        serving.close()


class _OperatorSocket:
    """Is there as long as it can be, and again when somebody has removed it."""

    def __init__(self, answer: Answering, events: Events) -> None:
        self._answer = answer
        self._events = events
        self._reachable: Reachable | None = None
        self._serving: asyncio.Future[None] | None = None
        self._problem = ""
        self._connections: set[asyncio.Future[None]] = set()

    def bind(self) -> None:
        """Be reachable, if that can be; else tell why not, once."""
        try:
            self._reachable = running.be_reachable()
        except OSError as error:
            if str(error) != self._problem:
                self._problem = str(error)
                self._events.emit(NoOperatorSocket(self._problem))
            return
        self._problem = ""
        self._serving = asyncio.ensure_future(self._serve(self._reachable.listener))

    def close(self) -> None:
        """Answer nobody any more."""
        self._take_leave()
        for connection in self._connections:
            connection.cancel()

    def _take_leave(self) -> None:
        if self._serving is not None:
            self._serving.cancel()
        if self._reachable is not None:
            self._reachable.close()
        self._reachable = self._serving = None

    async def stay(self) -> None:
        """Look again and again whether it can be found, and have it found again."""
        while True:
            await asyncio.sleep(_LOOK_AGAIN)
            if self._reachable is not None and self._reachable.found:
                continue
            self._take_leave()
            self.bind()
            if self._reachable is not None:
                self._events.emit(OperatorSocketMoved(str(self._reachable.path)))

    async def _serve(self, listener: socket.socket) -> None:
        """Take whoever comes. No question, and no bug in an answer, ends it."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, _ = await loop.sock_accept(listener)
            except OSError:  # there are no descriptors, perhaps; whoever asks goes on waiting
                await asyncio.sleep(_ACCEPT_PAUSE)
                continue
            answering = asyncio.ensure_future(self._answer_one(connection))
            self._connections.add(answering)
            answering.add_done_callback(self._connections.discard)

    async def _answer_one(self, connection: socket.socket) -> None:
        # What it sends may be nonsense, and it may go at any time.
        with connection, contextlib.suppress(OSError, ValueError, RecursionError, TimeoutError):
            pid, user = peer_of(connection)
            if user not in (0, os.getuid()):
                return
            connection.setblocking(False)
            async with asyncio.timeout(_QUESTION_TIMEOUT):
                question = await _question(connection)
            if question is None:
                return
            answer = await self._encoded_answer(question, f"user {user} (process {pid})")
            async with asyncio.timeout(_READING_TIMEOUT):
                await asyncio.get_running_loop().sock_sendall(connection, answer + b"\n")

    async def _encoded_answer(self, question: dict[str, Any], by: str) -> bytes:
        command = str(question.pop("command", None))
        try:
            return json.dumps(await self._answer(command, question, by)).encode()
        except NotDone as refusal:
            return json.dumps({"error": str(refusal)}).encode()
        except Exception as error:  # whatever it is, it is ours: the operator is told, and may ask something else
            self._events.emit(CommandFailed(command, error))
            return json.dumps({"error": f"muxsim failed at {command!r}, see its log: {error!r}"}).encode()


async def _question(connection: socket.socket) -> dict[str, Any] | None:
    """The question that comes over a connection; None for one that ends, or is too long."""
    line = b""
    while not line.endswith(b"\n"):
        data = await asyncio.get_running_loop().sock_recv(connection, running.LINE_LIMIT)
        line += data
        if not data or len(line) > running.LINE_LIMIT:
            return None
    question = json.loads(line)
    return question if isinstance(question, dict) else {}
