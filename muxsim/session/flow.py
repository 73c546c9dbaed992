"""Who waits for whom in one session: a backend for slow clients, clients for a slow backend.

Where many share a session nobody waits for another: there a client that does not read is cut.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

import anyio
import trio

from muxsim.runtime.bell import Bell
from muxsim.session.attachment import Attachment
from muxsim.session.codes import BUSY, CALL_TIMEOUT
from transports.errors import ReceiverBusy
from transports.messages import Message

# A client of a shared session is cut when it has been behind for so many seconds, or by so many bytes more.
# One large answer, or a burst of them, puts any client behind for a moment.
SHARED_PATIENCE: Final = 2.0
SHARED_SLACK: Final = 8 * 2**20


class Reader(Protocol):
    """What clients may have to wait for."""

    @property
    def congested(self) -> bool:
        """Whether it is far behind in reading."""


class Nobody:
    """Waits for nothing, and is waited for by nobody."""

    congested = False


class Absent:
    """Reads nothing for the time being."""

    congested = True


@dataclass(slots=True)
class _Behind:
    """A client for whom more waits than may: since when, and how many bytes have come on top of that."""

    since: float
    size: int = 0


class Flow:
    """Both directions of one session. ``shared``: nobody waits for another there."""

    def __init__(self, *, shared: bool, max_waiting: int) -> None:
        self.clients_ready = True
        """Whether every client keeps up with the backend, where it has to wait for them."""
        self.reader: Reader = Nobody()
        """Who reads what clients send."""
        self._shared = shared
        self._max_waiting = max_waiting
        self._now = trio.lowlevel.current_clock().current_time
        self._slow: dict[Attachment, _Behind] = {}
        self._held: set[Attachment] = set()
        self._waiting = 0
        self._open = True
        self._clients_bell = Bell()
        self._reader_bell = Bell()

    # ---- the backend waits

    def sent(self, attachment: Attachment) -> bool:
        """A client has been sent something; returns whether it is behind since then."""
        if not attachment.transport.congested or attachment in self._slow:
            return False
        self._slow[attachment] = _Behind(self._now())
        self._judge()
        return True

    def is_too_slow(self, attachment: Attachment, message: Message) -> bool:
        """Whether a client reads so little that it cannot be waited for, now that this is for it too."""
        behind = self._slow.get(attachment)
        if behind is None:
            return False
        behind.size += len(message.encode())
        return behind.size > SHARED_SLACK or self._now() - behind.since > SHARED_PATIENCE

    def hold(self, attachment: Attachment) -> bool:
        """Have the backend wait for a client, until `release`; returns whether it did not before."""
        if attachment in self._held or not self._open:
            return False
        self._held.add(attachment)
        self._judge()
        return True

    def release(self, attachment: Attachment) -> None:
        """Let the backend go on: what was held up has been read, or is no more."""
        if attachment in self._held:
            self._held.discard(attachment)
            self._judge()

    def drained(self) -> None:
        """A client has caught up."""
        self._slow = {one: behind for one, behind in self._slow.items() if one.transport.congested}
        self._judge()

    def left(self, attachment: Attachment) -> None:
        """A client has gone."""
        self._slow.pop(attachment, None)
        self._held.discard(attachment)
        self._judge()

    def _judge(self) -> None:
        self.clients_ready = self._shared or not self._open or not (self._slow or self._held)
        if self.clients_ready:
            self._clients_bell.ring()

    async def wait_clients_ready(self) -> None:
        """Wait until they keep up."""
        while not self.clients_ready:
            await self._clients_bell.wait()

    # ---- the clients wait

    def reader_drained(self) -> None:
        """The backend has caught up."""
        self._reader_bell.ring()

    async def wait_reader(self) -> None:
        """Wait until the backend keeps up with what clients send."""
        while self.reader.congested:
            await self._reader_bell.wait()

    async def wait_turn(self, patience: float | None) -> None:
        """Wait with one message until the backend takes it, for ``patience`` seconds. Raises `ReceiverBusy`."""
        if self._waiting >= self._max_waiting:
            raise ReceiverBusy(BUSY, "the backend does not read, and as many messages wait as may", "max_waiting")
        self._waiting += 1
        try:
            with anyio.move_on_after(patience):
                await self.wait_reader()
                return
        finally:
            self._waiting -= 1
        raise ReceiverBusy(CALL_TIMEOUT, f"the backend has read nothing for {patience:g} s", "call_timeout")

    # ---- the end

    def end(self) -> None:
        """Nobody waits for anybody any more."""
        self._open = False
        self.reader = Nobody()
        self._judge()
        self._reader_bell.ring()
