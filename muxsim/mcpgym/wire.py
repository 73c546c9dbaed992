"""The process's stdin and stdout as MCP's wire, and nothing else's."""

import asyncio
import fcntl
import gc
import io
import os
import signal
import sys
from collections.abc import AsyncIterator
from typing import Any, TypeAlias

import anyio
import sniffio
from mcp.server.lowlevel import Server
from mcp.server.models import InitializationOptions

from muxsim.mcpgym.pipes import PipeReader, PipeWriter, without_blocking
from muxsim.mcpgym.streams import FileOut, Incoming, Outgoing, TextOut

_STDIN, _STDOUT, _STDERR = 0, 1, 2

Wire: TypeAlias = tuple[AsyncIterator[str], TextOut]
"""In and out, as text."""


class Connection:
    """A server's one connection, over the stdin and stdout of the process: made up to where it waits for a first line.

    `divert` and `serve` do then no more than what is left. No event loop runs meanwhile, so that others may run theirs.

    Raises: OSError: stdin or stdout is closed.
    """

    def __init__(self, server: Server[Any]) -> None:
        _require_standard_streams()
        self._server = server
        self._options = server.create_initialization_options()
        self._wire = self._lines(_reading(_moved(_STDIN))), _writing(_moved(_STDOUT))
        self._nothing = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        self._runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)  # else it would be everybody's loop
        self._loop = self._runner.get_loop()
        self._is_awaited = self._loop.create_future()
        self._may_begin = self._loop.create_future()
        self._talk = self._loop.create_task(self._begin())
        self._loop.run_until_complete(self._ready())

    def __enter__(self) -> "Connection":
        return self

    def __exit__(self, *_: object) -> None:
        self._runner.close()

    def divert(self) -> None:
        """Move the wire off fd 0 and 1, for as long as the process lives.

        From here on fd 0 is empty and fd 1 is stderr, so that nothing that environment code, a C library or a
        child process prints can get between the messages. The SDK's own diversion ends with the connection, and
        what Python or C still hold in their buffers for stdout would then be written to the wire as the process
        exits.
        """
        os.dup2(self._nothing, _STDIN)
        os.dup2(_STDERR, _STDOUT)
        os.close(self._nothing)
        if isinstance(sys.stdout, io.TextIOWrapper):
            # Flushes what was printed before, and puts prints into the log at once and in order.
            sys.stdout.reconfigure(line_buffering=True)

    def serve(self) -> None:
        """Serve it, until stdin ends."""
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            # What is no pipe is read in a thread that no KeyboardInterrupt reaches: it would wait for the next line.
            signal.signal(signal.SIGINT, signal.SIG_DFL)
        # What was imported stays until the end: collecting it once more then takes 150 ms of the way out.
        gc.freeze()
        self._options.instructions = self._server.instructions  # which may have come after the options were made
        self._may_begin.set_result(None)
        self._loop.run_until_complete(self._talk)

    async def _begin(self) -> None:
        # As `anyio.run` does it: else anyio finds out with every move.
        sniffio.current_async_library_cvar.set("asyncio")
        await converse(self._server, self._wire, self._options)

    async def _lines(self, lines: AsyncIterator[str]) -> AsyncIterator[str]:
        self._is_awaited.set_result(None)
        await self._may_begin
        async for line in lines:
            yield line

    async def _ready(self) -> None:
        await asyncio.wait((self._talk, self._is_awaited), return_when=asyncio.FIRST_COMPLETED)
        await asyncio.sleep(0)  # those who wait for the line get to where they do


async def converse(server: Server[Any], wire: Wire, options: InitializationOptions) -> None:
    """Serve one connection on the loop that runs, until `wire` ends."""
    lines, out = wire
    await server.run(Incoming(lines), Outgoing(out), options)


def _reading(descriptor: int) -> AsyncIterator[str]:
    if (pipe := without_blocking(descriptor, os.O_RDONLY)) is not None:
        os.close(descriptor)
        return PipeReader(pipe)
    return aiter(anyio.wrap_file(os.fdopen(descriptor, "r", encoding="utf-8", errors="replace", newline="\n")))


def _writing(descriptor: int) -> TextOut:
    if (pipe := without_blocking(descriptor, os.O_WRONLY)) is not None:
        os.close(descriptor)
        return PipeWriter(pipe)
    return FileOut(anyio.wrap_file(os.fdopen(descriptor, "w", encoding="utf-8", newline="\n")))


def _moved(descriptor: int) -> int:
    return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, _STDERR + 1)


def _require_standard_streams() -> None:
    """Without one, the next file to be opened would be in its place: read for stdin, or written to by libraries.

    Raises: OSError: stdin or stdout is closed. A closed stderr is opened.
    """
    os.fstat(_STDIN)
    os.fstat(_STDOUT)
    try:
        os.fstat(_STDERR)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), _STDERR)
