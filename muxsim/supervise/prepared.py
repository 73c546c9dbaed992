"""Processes made before it is known what they are to be: they wait on their stdin for one order, and then become it.

An order is four bytes, big-endian, which give the length of the JSON object after them:

    {"argv": [...], "env": {...}, "cwd": "/...", "umask": null or a number}

`argv` is the whole command line, the program first. What follows on stdin is the backend's own. Whoever waits reads
the order with exact blocking reads, so that not a byte of the rest is taken; at the end of its stdin it exits. What
confines a process (rlimits and the like) is not in the order, but was applied when it was made.
"""

from __future__ import annotations

import errno
import json
import os
from dataclasses import dataclass

import trio

from muxsim.supervise.process import AT_ONCE, Command, Process, ProcessStartError, order_of

ORDER_LIMIT = 10.0
"""Seconds for a waiting process to take its order, which a pipe holds whole unless the environment is very large."""


@dataclass(frozen=True)
class Prepared:
    """A process that waits for its order; whoever holds it calls `activate` or `discard`, once."""

    process: Process

    @property
    def alive(self) -> bool:
        """Whether it has not exited, as far as is known."""
        return self.process.returncode is None

    async def activate(self, command: Command) -> Process:
        """Let it become `command`, whose confinement must be the one it was made with; returns the process.

        Raises ProcessStartError, stage "command" or "order", and then, as when cancelled, has ended it.
        """
        try:
            with trio.move_on_after(ORDER_LIMIT):
                await self._write(encode_order(command, self.process.mark))
                return self.process
            raise ProcessStartError(errno.ETIMEDOUT, "order", "a prepared process does not take its order")
        except OSError as error:
            await self.discard()
            if isinstance(error, ProcessStartError):
                raise
            gone = f"a prepared process has ended before its order came: {error.strerror}"
            raise ProcessStartError(error.errno or errno.EPIPE, "order", gone) from error
        except trio.Cancelled:
            await self.discard()
            raise

    async def discard(self) -> None:
        """End it. Not to be cancelled."""
        await self.process.end(AT_ONCE)

    async def _write(self, data: bytes) -> None:
        while data:
            try:
                data = data[os.write(self.process.stdin, data) :]
            except BlockingIOError:
                await trio.lowlevel.wait_writable(self.process.stdin)


def encode_order(command: Command, mark: str) -> bytes:
    """The bytes of an order, with the mark in its environment. Raises ProcessStartError for what makes no sense."""
    order = order_of(command, mark)
    text = json.dumps({key: order[key] for key in ("argv", "env", "cwd", "umask")}).encode()
    return len(text).to_bytes(4, "big") + text
