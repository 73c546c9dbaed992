"""Processes made before it is known what they are to be: they wait on their stdin for one order, and then become it.

An order is four bytes, big-endian, which give the length of the JSON object after them:

    {"argv": [...], "env": {...}, "cwd": "/...", "umask": null or a number}

`argv` is the whole command line, the program first. What follows on stdin is the backend's own. Whoever waits reads
the order with exact blocking reads, so that not a byte of the rest is taken; at the end of its stdin it exits. What
confines a process (rlimits and the like) is not in the order, but was applied when it was made.

A process may also begin with an order that leaves open what only the session knows, and says so (supervise/late.py):

    {..., "late": {"env": [names...], "argv": true if what follows in the command line is not known}}

`argv` and `env`, with these variables only, then come as one more order on a descriptor of their own.
"""

from __future__ import annotations

import errno
import json
import os
import select
from collections.abc import Callable
from dataclasses import dataclass

import trio

from muxsim.supervise.guardian import Message
from muxsim.supervise.process import AT_ONCE, Command, Process, ProcessStartError, check_command, order_of

ORDER_LIMIT = 10.0
"""Seconds for a waiting process to take its order, which a pipe holds whole unless the environment is very large."""


@dataclass(frozen=True)
class Late:
    """What a process begins without."""

    variables: tuple[str, ...]
    """The names of these variables."""

    arguments: bool
    """Whether it does not have all of its command line either."""


class Prepared:
    """A process that waits for its order; whoever holds it calls `activate` or `discard`, once.

    `late_fd`, which is its own from now on, leads to where the process reads what comes late.
    """

    def __init__(self, process: Process, late_fd: int | None = None) -> None:
        self.process = process
        self._late_fd = late_fd
        self._late: Late | None = None

    @property
    def alive(self) -> bool:
        """Whether it has not exited, as far as is known."""
        return self.process.returncode is None

    async def begin(self, command: Command, late: Late) -> None:
        """Let it become `command`, which is without what comes late, and run until it asks for that.

        Raises as `activate` does.
        """
        self._late = late
        await self._order(self.process.stdin, lambda: encode_order(command, self.process.mark, late))

    async def activate(self, command: Command) -> Process:
        """Let it become `command`, whose confinement must be the one it was made with; returns the process.

        Raises ProcessStartError, stage "command" or "order", and then, as when cancelled, has ended it.
        """
        fd, encode = self._last_order(command)
        await self._order(fd, encode)
        self.close()
        return self.process

    def activate_now(self, command: Command) -> bool:
        """As `activate`, if that need not wait and does not fail; else False, and nothing has happened."""
        fd, encode = self._last_order(command)
        try:
            order = encode()
            if len(order) > select.PIPE_BUF or _written(fd, order):
                return False
        except OSError:
            return False
        self.close()
        return True

    async def discard(self) -> None:
        """End it. Not to be cancelled."""
        self.close()
        await self.process.end(AT_ONCE)

    def _last_order(self, command: Command) -> tuple[int, Callable[[], bytes]]:
        """Where the order goes that makes it `command`, and what makes its bytes."""
        late, mark = self._late, self.process.mark
        if late is None or self._late_fd is None:
            return self.process.stdin, lambda: encode_order(command, mark)
        return self._late_fd, lambda: encode_late(command, late)

    async def _order(self, fd: int, encode: Callable[[], bytes]) -> None:
        try:
            if not (rest := _written(fd, encode())):
                return
            with trio.move_on_after(ORDER_LIMIT):
                while rest:
                    await trio.lowlevel.wait_writable(fd)
                    rest = _written(fd, rest)
                return
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

    def close(self) -> None:
        """Send no order any more."""
        if self._late_fd is not None:
            os.close(self._late_fd)
            self._late_fd = None


def _written(fd: int, data: bytes) -> bytes:
    """Write what goes in at once; returns the rest."""
    try:
        return data[os.write(fd, data) :]
    except BlockingIOError:
        return data


def encode_order(command: Command, mark: str, late: Late | None = None) -> bytes:
    """The bytes of an order, with the mark in its environment. Raises ProcessStartError for what makes no sense."""
    order = order_of(command, mark)
    told = {key: order[key] for key in ("argv", "env", "cwd", "umask")}
    if late is not None:
        told["late"] = {"env": late.variables, "argv": late.arguments}
    return _framed(told)


def encode_late(command: Command, late: Late) -> bytes:
    """The bytes of the order that brings what `late` names. Raises ProcessStartError for what makes no sense."""
    env = {name: command.env[name] for name in late.variables}
    check_command(command, env)
    return _framed({"argv": list(command.argv), "env": env})


def _framed(order: Message) -> bytes:
    text = json.dumps(order).encode()
    return len(text).to_bytes(4, "big") + text
