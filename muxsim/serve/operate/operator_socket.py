"""The operator's socket: questions of this user's, a line each, and the answers that `operations` gives."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

from muxsim.observe.events import CommandFailed, Events, NoOperatorSocket
from muxsim.runtime.peers import peer_user
from muxsim.serve.operate import running

_QUESTION_TIMEOUT: Final = 5.0
# Seconds until another connection is accepted where the last could not be.
_ACCEPT_PAUSE: Final = 0.5


@asynccontextmanager
async def operator_socket(answer: Callable[[str], dict[str, Any]], events: Events) -> AsyncIterator[Path | None]:
    """Answer this user's questions for the length of a block. Where that cannot be, muxsim serves without it."""
    try:
        folder = running.sockets_folder()
        listener = running.listen(folder)
    except OSError as error:
        events.emit(NoOperatorSocket(str(error)))
        yield None
        return

    path = folder / f"{os.getpid()}.sock"
    serving = asyncio.ensure_future(_serve(listener, partial(_encoded_answer, answer, events)))
    try:
        yield path
    finally:
        serving.cancel()
        listener.close()
        path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # others are in there
            folder.rmdir()


async def _serve(listener: socket.socket, answer: Callable[[str], bytes]) -> None:
    """One after the other: whoever asks is the operator. No question, and no bug in an answer, ends it."""
    listener.setblocking(False)
    loop = asyncio.get_running_loop()
    while True:
        try:
            connection, _ = await loop.sock_accept(listener)
        except OSError:  # there are no descriptors, perhaps; whoever asks goes on waiting
            await asyncio.sleep(_ACCEPT_PAUSE)
            continue
        try:
            with connection:
                async with asyncio.timeout(_QUESTION_TIMEOUT):
                    await _answer_one(connection, answer)
        except (OSError, ValueError, RecursionError, TimeoutError):
            continue  # it has gone, or asked nonsense


async def _answer_one(connection: socket.socket, answer: Callable[[str], bytes]) -> None:
    if peer_user(connection) not in (0, os.getuid()):
        return
    loop = asyncio.get_running_loop()
    connection.setblocking(False)
    line = b""
    while not line.endswith(b"\n"):
        data = await loop.sock_recv(connection, running.LINE_LIMIT)
        line += data
        if not data or len(line) > running.LINE_LIMIT:
            return
    question = json.loads(line)
    command = question.get("command") if isinstance(question, dict) else None
    await loop.sock_sendall(connection, answer(str(command)) + b"\n")


def _encoded_answer(answer: Callable[[str], dict[str, Any]], events: Events, command: str) -> bytes:
    try:
        return json.dumps(answer(command)).encode()
    except Exception as error:  # whatever it is, it is ours: the operator is told, and may ask something else
        events.emit(CommandFailed(command, error))
        return json.dumps({"error": f"muxsim failed at {command!r}, see its log: {error!r}"}).encode()
