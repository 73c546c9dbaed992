"""The process's stdin and stdout as MCP's wire, and nothing else's."""

import gc
import io
import os
import signal
import sys
from typing import Any, TextIO

import anyio
from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server

_STDIN, _STDOUT, _STDERR = 0, 1, 2


def take_wire() -> tuple[TextIO, TextIO]:
    """Move the wire off fd 0 and 1, for as long as the process lives: in and out, as text.

    From here on fd 0 is empty and fd 1 is stderr, so that nothing that environment code, a C library or a
    child process prints can get between the messages. The SDK's own diversion ends with the connection, and
    what Python or C still hold in their buffers for stdout would then be written to the wire as the process
    exits.
    """
    wire_in = os.fdopen(os.dup(_STDIN), "r", encoding="utf-8", errors="replace", newline="\n")
    wire_out = os.fdopen(os.dup(_STDOUT), "w", encoding="utf-8", newline="\n")
    _redirect(os.open(os.devnull, os.O_RDONLY), _STDIN)
    _redirect(_open_stderr(), _STDOUT)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Flushes what was printed before, and puts prints into the log at once and in order.
        sys.stdout.reconfigure(line_buffering=True)
    return wire_in, wire_out


def serve(server: Server[Any], wire: tuple[TextIO, TextIO]) -> None:
    """Serve one connection, until stdin ends."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        # The SDK reads stdin in a thread that no KeyboardInterrupt reaches: Ctrl-C would wait for the next line.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    # What was imported stays until the end: collecting it once more then takes 150 ms of the way out.
    gc.freeze()
    anyio.run(_serve, server, wire)


async def _serve(server: Server[Any], wire: tuple[TextIO, TextIO]) -> None:
    wire_in, wire_out = wire
    async with stdio_server(anyio.wrap_file(wire_in), anyio.wrap_file(wire_out)) as (incoming, outgoing):
        await server.run(incoming, outgoing, server.create_initialization_options())


def _open_stderr() -> int:
    try:
        return os.dup(_STDERR)
    except OSError:  # started with stderr closed
        return os.open(os.devnull, os.O_WRONLY)


def _redirect(source: int, target: int) -> None:
    os.dup2(source, target)
    os.close(source)
