"""One client's connection to a session."""

from __future__ import annotations

import math
from typing import Any, ClassVar, Protocol

from muxsim.spec import EnvSpec
from transports import messages
from transports.errors import LineTooLong, RemoteProtocolError
from transports.interfaces import Transport
from transports.messages import Message, RequestId
from transports.origin import Origin


class ForClients(Protocol):
    """The conversation that an attachment takes part in. All but the waiting are plain calls, from either loop."""

    @property
    def backend_ready(self) -> bool:
        """Whether the backend keeps up with what clients send."""

    def attach(self, attachment: Attachment) -> bool:
        """Let a client take part, and hear what is meant for everybody. Raises `Busy` past ``max_attachments``.

        Returns whether another had to make way, whose transport is closed now.
        """

    def detach(self, attachment: Attachment) -> None:
        """A client has gone for good."""

    def from_client(self, attachment: Attachment, message: Message) -> None:
        """Take one message from a client."""

    def refuse(self, attachment: Attachment, request: Message, code: int, text: str, data: Any = None) -> None:
        """Answer a request of a client with an error."""

    def cancel(self, attachment: Attachment, request_id: RequestId) -> None:
        """Give up a request of a client that has gone on without its answer."""

    def client_unreadable(
        self, attachment: Attachment, data: bytes, error: RemoteProtocolError
    ) -> list[RequestId | None]:
        """Take bytes of a client's that are no message, and return the ids under which they are to be answered.

        No id that another request has in flight: the error would be taken for its answer. A request of the backend's
        that they answer gets an error.
        """

    def client_drained(self) -> None:
        """A client has caught up."""

    def hold(self, attachment: Attachment) -> None:
        """Have the backend wait for a client whose connections hold too much that is not read, until `release`."""

    def release(self, attachment: Attachment) -> None:
        """Let the backend go on: what was held up has been read, or is no more."""

    async def wait_backend_ready(self) -> None:
        """Wait until the backend keeps up."""

    async def wait_turn(self, patience: float | None) -> None:
        """Wait with one message until the backend takes it, for ``patience`` seconds. Raises `ReceiverBusy`."""


class Host(Protocol):
    """The session that an attachment belongs to, as far as clients and what carries them need to know it."""

    id: str
    spec: EnvSpec
    shared: bool

    @property
    def conversation(self) -> ForClients:
        """What goes on in it."""

    @property
    def live(self) -> bool:
        """Whether messages still go through."""

    @property
    def agreed_version(self) -> str:
        """The revision that its backend has answered the handshake with; "" before that."""


class Attachment:
    """Stands between a transport and a session; give it its transport with `connect`.

    ``ends_session``: the session was made by this client's handshake, and ends when the client has gone for good.
    ``cancels``: the client's going away cancels its requests, as revision 2026-07-28 has it.
    ``last_heard``: when it attached, or sent its last message, by the session's clock.
    ``patience``: seconds for each of its requests, instead of the spec's ``call_timeout``.
    ``principal``: the name of whoever speaks through it; None where nobody has to have one.
    ``peer``: the address that it has come from; None of one that came by no network.
    ``origin``: the request that it came with, where that says something of itself.
    ``number``: which of its session's clients it is, counted from 1; None for one that is there for a single request.
    ``cut``: it is heard no more, for it did not read.
    ``aside``: what it asks is muxsim's own reading: no request of the server's is for it, nor is any log line.
    """

    is_agent: ClassVar[bool] = False
    """Whether its client must not see the control plane."""

    def __init__(
        self,
        session: Host,
        kind: str,
        *,
        ends_session: bool = False,
        cancels: bool = False,
        patience: float | None = None,
        aside: bool = False,
    ) -> None:
        self.session = session
        self._conversation = session.conversation
        self.kind = kind
        self.ends_session = ends_session
        self.cancels = cancels
        self.last_heard = -math.inf
        self.patience = session.spec.limits.call_timeout if patience is None else patience
        self.aside = aside
        self.principal: str | None = None
        self.peer: str | None = None
        self.origin: Origin | None = None
        self.number: int | None = None
        self.cut = False
        self.transport: Transport

    def __repr__(self) -> str:
        return f"<Attachment over {self.kind} to {self.session!r}>"

    def named(self) -> dict[str, Any]:
        """Who it is, for events."""
        request, traceparent = (None, None) if self.origin is None else self.origin[:2]
        who = {"attachment": self.number, "principal": self.principal, "peer": self.peer}
        return {**who, "request": request, "traceparent": traceparent}

    def connect(self, transport: Transport) -> None:
        """Use ``transport`` for what goes to the client."""
        self.transport = transport

    def receive(self, message: Message) -> None:
        """Take a message from the client."""
        self._conversation.from_client(self, message)

    def deliver(self, message: Message, about: RequestId | None = None) -> None:
        """Send the client what the backend says."""
        self.transport.send(message, about)

    def tell(self, answer: Message, about: RequestId | None = None) -> None:
        """Send the client an answer of muxsim's own."""
        self.transport.send(answer, about)

    def rejected(self, line: bytes, error: RemoteProtocolError) -> None:
        """Answer a line that is no message; only stdio has these, HTTP answers by status."""
        for id in self._conversation.client_unreadable(self, line, error):
            self.tell(messages.error(id, error.code, error.message))
        if isinstance(error, LineTooLong):
            self.transport.close()

    def disconnected(self) -> None:
        """The client has gone for good."""
        self._conversation.detach(self)

    def drained(self) -> None:
        """The client has caught up."""
        self._conversation.client_drained()

    @property
    def ready(self) -> bool:
        """Whether the backend keeps up with what clients send."""
        return self._conversation.backend_ready

    async def wait_ready(self) -> None:
        """Wait until `ready`. Raises `ReceiverBusy` where that takes too long, or too many wait already."""
        if self.transport.single_file:
            await self._conversation.wait_backend_ready()
        elif not self.ready:
            await self._conversation.wait_turn(self.patience)
