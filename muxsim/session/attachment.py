"""One client's connection to a session."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from transports import messages
from transports.errors import LineTooLong, RemoteProtocolError
from transports.interfaces import Transport
from transports.messages import Message, RequestId

if TYPE_CHECKING:
    from muxsim.session.session import Session


class Attachment:
    """Stands between a transport and a session; give it its transport with `connect`.

    ``ends_session``: the session was made by this client's handshake, and ends when the client has gone for good.
    ``cancels``: the client's going away cancels its requests, as revision 2026-07-28 has it.
    ``last_heard``: when it attached, or sent its last message, by the session's clock.
    ``patience``: seconds for each of its requests, instead of the spec's ``call_timeout``.
    ``principal``: the name of whoever speaks through it; None where nobody has to have one.
    ``cut``: it is heard no more, for it did not read.
    ``aside``: what it asks is muxsim's own reading: no request of the server's is for it, nor is any log line.
    """

    def __init__(
        self,
        session: Session,
        kind: str,
        *,
        ends_session: bool = False,
        cancels: bool = False,
        patience: float | None = None,
        aside: bool = False,
    ) -> None:
        self.session = session
        self.kind = kind
        self.ends_session = ends_session
        self.cancels = cancels
        self.last_heard = -math.inf
        self.patience = session.spec.limits.call_timeout if patience is None else patience
        self.aside = aside
        self.principal: str | None = None
        self.cut = False
        self.transport: Transport

    def __repr__(self) -> str:
        return f"<Attachment over {self.kind} to {self.session!r}>"

    def connect(self, transport: Transport) -> None:
        """Use ``transport`` for what goes to the client."""
        self.transport = transport

    def receive(self, message: Message) -> None:
        """Take a message from the client."""
        self.session.from_client(self, message)

    def deliver(self, message: Message, about: RequestId | None = None) -> None:
        """Send the client what the backend says."""
        self.transport.send(message, about)

    def tell(self, answer: Message, about: RequestId | None = None) -> None:
        """Send the client an answer of muxsim's own."""
        self.transport.send(answer, about)

    def rejected(self, line: bytes, error: RemoteProtocolError) -> None:
        """Answer a line that is no message; only stdio has these, HTTP answers by status."""
        for id in self.session.client_unreadable(self, line, error):
            self.tell(messages.error(id, error.code, error.message))
        if isinstance(error, LineTooLong):
            self.transport.close()

    def disconnected(self) -> None:
        """The client has gone for good."""
        self.session.detach(self)

    def drained(self) -> None:
        """The client has caught up."""
        self.session.client_drained()

    @property
    def ready(self) -> bool:
        """Whether the backend keeps up with what clients send."""
        return self.session.backend_ready

    async def wait_ready(self) -> None:
        """Wait until `ready`. Raises `ReceiverBusy` where that takes too long, or too many wait already."""
        if self.transport.single_file:
            await self.session.wait_backend_ready()
        elif not self.ready:
            await self.session.wait_turn(self.patience)
