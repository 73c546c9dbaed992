"""The SDK's streams of messages, right on lines of text: its own have a task and a queue between on either side."""

import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Protocol, Self

import anyio
from mcp.shared.message import SessionMessage
from mcp_types import jsonrpc_message_adapter
from pydantic import ValidationError

logger = logging.getLogger(__name__)


class TextOut(Protocol):
    """Where text goes."""

    async def write(self, text: str) -> None:
        """Returns when it is out, or if cancelled, once it will be, whole, before the next one and with `drain`."""

    async def drain(self) -> None:
        """Returns when all is out."""


class FileOut:
    """A file that is written in a worker thread, one text after the other."""

    def __init__(self, file: anyio.AsyncFile[str]) -> None:
        self._file = file
        self._turn = anyio.Lock()

    async def write(self, text: str) -> None:
        async with self._turn:
            await self._file.write(text)
            await self._file.flush()

    async def drain(self) -> None:
        async with self._turn:
            await self._file.flush()


class _Stream:
    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Others may still use what it is on."""


class Incoming(_Stream):
    """The messages in `lines`; for a line that is none, what is wrong with it."""

    def __init__(self, lines: AsyncIterator[str]) -> None:
        self._lines = lines

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> SessionMessage | Exception:
        line = await anext(self._lines)
        try:
            return SessionMessage(jsonrpc_message_adapter.validate_json(line, by_name=False))
        except ValidationError as error:
            return error

    async def receive(self) -> SessionMessage | Exception:
        try:
            return await anext(self)
        except StopAsyncIteration:
            raise anyio.EndOfStream from None


class Outgoing(_Stream):
    """Messages become lines; closing it waits until all are out.

    Where nobody reads any more they are dropped, with a warning: no more requests come either, or soon will not.
    """

    def __init__(self, out: TextOut) -> None:
        self._out = out

    async def send(self, message: SessionMessage) -> None:
        """Raises: anyio.BrokenResourceError: nobody reads any more."""
        text = message.message.model_dump_json(by_alias=True, exclude_unset=True)
        try:
            await self._out.write(text + "\n")
        except BrokenPipeError as error:
            logger.warning("nobody reads stdout any more: a message is dropped")
            raise anyio.BrokenResourceError from error

    async def aclose(self) -> None:
        with contextlib.suppress(BrokenPipeError):  # whoever wrote it has been told
            await self._out.drain()
