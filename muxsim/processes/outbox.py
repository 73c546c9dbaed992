"""What is to be sent over a channel: in its order, however slowly that is taken, and nothing twice."""

from __future__ import annotations

import math
import socket
from collections import deque
from collections.abc import Callable

import trio

from muxsim.inside import wire

RESEND_PAUSE = 0.01
"""Seconds until a message is sent again that the kernel had no memory for."""

Refused = Callable[[OSError], None]
"""Is told that the kernel does not take a message, which is then given up."""


class Outbox:
    """The messages of one channel, which does not block. `post` sends at once what it takes, `run` the rest."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._waiting: deque[tuple[wire.Packet, Refused | None]] = deque()
        self._stalled = trio.Event()
        self._resend_after = -math.inf
        self._closed = False

    def post(self, packet: wire.Packet, refused: Refused | None = None) -> None:
        """Send this after all that was posted before; a closed outbox forgets it.

        Without a `refused` nobody could be told that it was not sent, so it is tried for as long as it takes.
        """
        if self._closed:
            packet.close()
            return
        self._waiting.append((packet, refused))
        if len(self._waiting) == 1:
            self._flush()

    async def run(self) -> None:
        """Send what had to wait, for ever."""
        while True:
            await self._stalled.wait()
            await trio.sleep_until(self._resend_after)
            await trio.lowlevel.wait_writable(self._channel)
            self._flush()

    def close(self) -> None:
        """Forget what is still to be sent, and whatever is posted later."""
        self._closed = True
        self._forget()

    def _flush(self) -> None:
        while self._waiting:
            packet, refused = self._waiting[0]
            try:
                wire.send(self._channel, packet)
            except BlockingIOError:
                self._stalled.set()
                return
            except (BrokenPipeError, ConnectionResetError):
                self._forget()  # who reads the channel sees its end too
                break
            except OSError as error:
                if refused is None:  # the kernel is short of memory for it now
                    self._stalled.set()
                    self._resend_after = trio.current_time() + RESEND_PAUSE
                    return
                # It takes no more descriptors in flight (ETOOMANYREFS), or has no memory for them.
                refused(error)
            self._waiting.popleft()
            packet.close()
        if self._stalled.is_set():
            self._stalled = trio.Event()

    def _forget(self) -> None:
        while self._waiting:
            self._waiting.popleft()[0].close()
