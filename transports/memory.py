"""Fakes of the interfaces, for the tests of whatever talks to a transport, here and in other projects."""

from __future__ import annotations

from transports.errors import RemoteProtocolError
from transports.messages import Message, RequestId


class MemoryTransport:
    """Keeps what is sent to it in ``sent``.

    Set ``congested`` to play a slow reader, and clear ``listening`` to play one that may have gone.
    """

    def __init__(self) -> None:
        self.sent: list[tuple[Message, RequestId | None]] = []
        self.withdrawn: list[RequestId] = []
        self.congested = False
        self.listening = True
        self.single_file = False
        self.closed = False

    def send(self, message: Message, about: RequestId | None = None) -> None:
        """Keep one message, unless closed."""
        if not self.closed:
            self.sent.append((message, about))

    def withdraw(self, about: RequestId) -> None:
        """Keep the id in ``withdrawn``."""
        self.withdrawn.append(about)

    def close(self) -> None:
        """Keep nothing more."""
        self.closed = True


class MemoryReceiver:
    """Keeps what a transport hands over."""

    def __init__(self) -> None:
        self.received: list[Message] = []
        self.rejections: list[tuple[bytes, RemoteProtocolError]] = []
        self.gone = 0
        self.drains = 0

    def receive(self, message: Message) -> None:
        """Keep one message."""
        self.received.append(message)

    def rejected(self, line: bytes, error: RemoteProtocolError) -> None:
        """Keep one line that was no message."""
        self.rejections.append((line, error))

    def disconnected(self) -> None:
        """Count."""
        self.gone += 1

    def drained(self) -> None:
        """Count."""
        self.drains += 1

    @property
    def ready(self) -> bool:
        """Always."""
        return True

    async def wait_ready(self) -> None:
        """Always ready."""
