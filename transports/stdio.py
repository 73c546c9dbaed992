"""Our own standard streams as a transport: the server's side of stdio. Runs on trio."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from transports.pipe import DEFAULT_MAX_LINE, LineReceiver, PipeTransport


@contextmanager
def claim_stdio(receiver: LineReceiver, max_line: int = DEFAULT_MAX_LINE) -> Iterator[PipeTransport]:
    """Take stdin and stdout for MCP alone: whatever else is printed by this process goes to stderr meanwhile.

    On the way out both descriptors are back in place, blocking or not as they were.
    """
    saved_in, saved_out = os.dup(0), os.dup(1)
    blocking = [(fd, os.get_blocking(fd)) for fd in (saved_in, saved_out)]
    transport = PipeTransport(os.dup(0), os.dup(1), receiver, max_line)
    sys.stdout.flush()
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    try:
        yield transport
    finally:
        transport.abort()
        sys.stdout.flush()
        for fd, was in blocking:
            # The mode belongs to the open file, which a terminal shares with the shell that started us.
            os.set_blocking(fd, was)
        os.dup2(saved_in, 0)
        os.dup2(saved_out, 1)
        os.close(saved_in)
        os.close(saved_out)
