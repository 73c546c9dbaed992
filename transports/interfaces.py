"""The seam between the relay and everything that carries messages.

Both directions are plain calls: the relay decides at once and the transport does the waiting. That is what lets a
request go from a socket to a child's pipe, and its answer back, without a task switch on the way.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from transports.messages import Message, RequestId


class Receiver(Protocol):
    """What stands behind a transport and takes what the peer sends. Calls do not block and do not raise."""

    def receive(self, message: Message) -> None:
        """Take one message from the peer."""

    def disconnected(self) -> None:
        """The peer is gone for good; called once."""

    def drained(self) -> None:
        """The peer has taken enough that :attr:`Transport.congested` is False again."""

    @property
    def ready(self) -> bool:
        """Whether another message can be taken without growing a queue past its bound."""

    async def wait_ready(self) -> None:
        """Wait until `ready`. The one call that may raise: `ReceiverBusy`, if that will not be soon."""


class Transport(Protocol):
    """One peer as the relay sees it: a way to send to it, and a measure of how far it is behind."""

    @property
    def congested(self) -> bool:
        """Whether more is waiting for the peer than should; whoever feeds the transport then waits for `drained`."""

    @property
    def listening(self) -> bool:
        """Whether the peer is there for certain although it says nothing, as one that holds a stream open."""

    @property
    def single_file(self) -> bool:
        """Whether what has to wait leaves the peer's next messages unread, as on a pipe; else each waits by itself."""

    def send(self, message: Message, about: RequestId | None = None) -> None:
        """Send, or queue, one message; ``about`` is the peer's request that it belongs to, if any.

        Never blocks. What is sent to a peer that has gone is dropped: the relay learns of it by `disconnected`.
        """

    def withdraw(self, about: RequestId) -> None:
        """No answer will come to this request of the peer's: it was cancelled."""

    def close(self) -> None:
        """End the peer's streams after what is queued; nothing can be sent afterwards. Calling it again is harmless."""


class Watch(Protocol):
    """Has another event loop call ``callback`` whenever a descriptor is readable, until what it returns is called.

    Where trio is a guest, the host's loop reads the pipes of busy children: a guest learns of each through a thread.
    """

    def __call__(self, fd: int, callback: Callable[[], None], /) -> Callable[[], None]:
        """Begin to watch; call the result to stop."""
