"""The process's stdin and stdout as MCP's wire, and nothing else's."""

import fcntl
import gc
import io
import os
import signal
import sys
from typing import Any, TypeAlias, cast

import anyio
from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server

from muxsim.mcpgym.pipes import PipeReader, PipeWriter, without_blocking

_STDIN, _STDOUT, _STDERR = 0, 1, 2

Wire: TypeAlias = tuple[anyio.AsyncFile[str] | PipeReader, anyio.AsyncFile[str] | PipeWriter]
"""In and out, as text."""


def take_wire() -> Wire:
    """Move the wire off fd 0 and 1, for as long as the process lives.

    From here on fd 0 is empty and fd 1 is stderr, so that nothing that environment code, a C library or a
    child process prints can get between the messages. The SDK's own diversion ends with the connection, and
    what Python or C still hold in their buffers for stdout would then be written to the wire as the process
    exits.
    """
    wire_in, wire_out = _moved(_STDIN), _moved(_STDOUT)
    _redirect(os.open(os.devnull, os.O_RDONLY), _STDIN)
    _require_stderr()
    _redirect(os.dup(_STDERR), _STDOUT)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Flushes what was printed before, and puts prints into the log at once and in order.
        sys.stdout.reconfigure(line_buffering=True)
    return _reading(wire_in), _writing(wire_out)


def serve(server: Server[Any], wire: Wire) -> None:
    """Serve one connection, until stdin ends."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        # What is no pipe is read in a thread that no KeyboardInterrupt reaches: Ctrl-C would wait for the next line.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    # What was imported stays until the end: collecting it once more then takes 150 ms of the way out.
    gc.freeze()
    anyio.run(converse, server, wire)


async def converse(server: Server[Any], wire: Wire) -> None:
    """Serve one connection on the loop that runs, until `wire` ends."""
    wire_in, wire_out = cast("tuple[anyio.AsyncFile[str], anyio.AsyncFile[str]]", wire)  # all that the SDK uses of them
    async with stdio_server(wire_in, wire_out) as (incoming, outgoing):
        await server.run(incoming, outgoing, server.create_initialization_options())


def _reading(descriptor: int) -> anyio.AsyncFile[str] | PipeReader:
    if (pipe := without_blocking(descriptor, os.O_RDONLY)) is not None:
        os.close(descriptor)
        return PipeReader(pipe)
    return anyio.wrap_file(os.fdopen(descriptor, "r", encoding="utf-8", errors="replace", newline="\n"))


def _writing(descriptor: int) -> anyio.AsyncFile[str] | PipeWriter:
    if (pipe := without_blocking(descriptor, os.O_WRONLY)) is not None:
        os.close(descriptor)
        return PipeWriter(pipe)
    return anyio.wrap_file(os.fdopen(descriptor, "w", encoding="utf-8", newline="\n"))


def _moved(descriptor: int) -> int:
    return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, _STDERR + 1)


def _require_stderr() -> None:
    """Started with stderr closed, the next file to be opened would be fd 2, where libraries print: the wire itself."""
    try:
        os.fstat(_STDERR)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), _STDERR)


def _redirect(source: int, target: int) -> None:
    os.dup2(source, target)
    os.close(source)
