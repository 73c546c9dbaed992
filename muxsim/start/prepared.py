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
from collections.abc import Callable
from dataclasses import replace

import trio

from muxsim.processes.command import Command, ProcessStartError, order_of
from muxsim.processes.process import AT_ONCE, Process
from muxsim.runtime.soon import may_wait

ORDER_LIMIT = 10.0
"""Seconds for a waiting process to take its order, which a pipe holds whole unless the environment is very large."""


class Prepared:
    """A process that waits for its order; whoever holds it calls `activate` or `discard`, once.

    ``told`` gives the command line that it takes for a spec's own, or None for what it cannot become; ``is_outdated``
    says whether what it was made from has changed meanwhile.
    """

    def __init__(
        self,
        process: Process,
        told: Callable[[tuple[str, ...]], tuple[str, ...] | None] = lambda argv: argv,
        is_outdated: Callable[[], bool] = lambda: False,
    ) -> None:
        self.process = process
        self.is_outdated = is_outdated
        self._told = told

    async def activate(self, command: Command) -> Process:
        """Let it become `command`, whose confinement must be the one it was made with; returns the process.

        At once, if its pipe takes the order.
        Raises ProcessStartError, stage "command" or "order", and then, as when cancelled, has ended it.
        """
        try:
            if (argv := self._told(command.argv)) is None:
                raise ProcessStartError(errno.EINVAL, "order", "a prepared process cannot become another program")
            await self._send(encode_order(replace(command, argv=argv), self.process.mark))
        except OSError as error:
            await may_wait()
            await self.discard()
            if isinstance(error, ProcessStartError):
                raise
            gone = f"a prepared process has ended before its order came: {error.strerror}"
            raise ProcessStartError(error.errno or errno.EPIPE, "order", gone) from error
        except trio.Cancelled:
            await self.discard()
            raise
        return self.process

    async def discard(self) -> None:
        """End it. Not to be cancelled."""
        await self.process.end(AT_ONCE)

    async def _send(self, order: bytes) -> None:
        fd = self.process.stdin
        if not (rest := _written(fd, order)):
            return
        await may_wait()
        with trio.move_on_after(ORDER_LIMIT):
            while rest:
                await trio.lowlevel.wait_writable(fd)
                rest = _written(fd, rest)
            return
        raise ProcessStartError(errno.ETIMEDOUT, "order", "a prepared process does not take its order")


def _written(fd: int, data: bytes) -> bytes:
    """Write what goes in at once; returns the rest."""
    try:
        return data[os.write(fd, data) :]
    except BlockingIOError:
        return data


def encode_order(command: Command, mark: str) -> bytes:
    """The bytes of an order, with the mark in its environment. Raises ProcessStartError for what makes no sense."""
    order = order_of(command, mark)
    text = json.dumps({key: order[key] for key in ("argv", "env", "cwd", "umask")}).encode()
    return len(text).to_bytes(4, "big") + text
