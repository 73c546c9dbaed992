"""A backend shakes hands once, whoever comes later. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

from msgspec import Raw

from muxsim.session.exchange import NOTHING, Attachment, Delivery, Routed
from transports import messages
from transports.messages import Kind, Message


@dataclass(slots=True)
class Handshake:
    """A backend shakes hands once. The first attachment's handshake goes through; later ones get the same result."""

    first: Attachment | None = None
    result: Raw | None = None
    _completed: bool = False
    _waiting: list[tuple[Attachment, Message]] = field(default_factory=list)
    _retries: list[tuple[Attachment, Message]] = field(default_factory=list)

    def completed_by(self, attachment: Attachment) -> bool:
        """Whether this client's ``initialized`` is the one that the backend waits for: it may not be the first's."""
        if self._completed or (self.result is None and self.first not in (None, attachment)):
            return False
        self._completed = True
        return True

    @property
    def waiting(self) -> int:
        """How many handshakes wait for the first one's answer."""
        return len(self._waiting)

    def forget(self, attachment: Attachment) -> None:
        self._waiting = [one for one in self._waiting if one[0] != attachment]

    def of_another(self, attachment: Attachment, message: Message) -> Routed | None:
        """The answer to a later attachment's handshake, or None where it has to go to the backend."""
        if self.first is None or self.first == attachment:
            self.first = attachment
            self._completed = False
            return None
        if self.result is None:
            self._waiting.append((attachment, message))
            return NOTHING
        return Routed(to_clients=(_result_for(attachment, message, self.result),))

    def answered(self, message: Message) -> Routed:
        """Take the backend's answer; those who waited for it get it too, or try again themselves."""
        waiting = self.take_waiting()
        if message.kind is Kind.RESULT:
            self.result = result = message.members["result"]
            return Routed(to_clients=tuple(_result_for(*one, result) for one in waiting))
        if self.result is None:
            self.first = None
            self._retries = waiting
        return NOTHING

    def take_waiting(self) -> list[tuple[Attachment, Message]]:
        waiting, self._waiting = self._waiting, []
        return waiting

    def take_retries(self) -> list[tuple[Attachment, Message]]:
        retries, self._retries = self._retries, []
        return retries


def _result_for(attachment: Attachment, request: Message, result: Raw) -> Delivery:
    assert request.id is not None
    answer = messages.result(request.id, result).with_id(request.id, request.raw_id)
    return Delivery(attachment, answer, request.id)
