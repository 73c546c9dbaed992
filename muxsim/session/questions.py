"""What a backend asks its clients, from the request to the answer. Pure."""

from __future__ import annotations

from typing import Final, NamedTuple

from muxsim.session.correlation import as_known, cancelled_by, replaced
from muxsim.session.exchange import Attachment, Delivery
from transports import messages
from transports.messages import Message, RequestId

NO_RECEIVER: Final = -32000


class _Asked(NamedTuple):
    """Who is to answer, and the backend's own id for the request."""

    attachment: Attachment
    id: RequestId
    raw_id: bytes | None


class Questions:
    """The requests of one session's backends that wait for answers, by the ids under which clients have them.

    Those are the backend's own. A backend that has taken another's place may use the same ones again, so its requests
    get others: a late answer to the last one's must not be taken for an answer to its own.
    """

    def __init__(self) -> None:
        self._asked: dict[RequestId, _Asked] = {}
        self._backend = 0
        self._renamed = 0

    def __repr__(self) -> str:
        return f"<Questions {len(self._asked)} unanswered>"

    def __len__(self) -> int:
        return len(self._asked)

    def are_for(self, attachment: Attachment) -> bool:
        """Whether any waits for an answer of this attachment's."""
        return any(asked.attachment == attachment for asked in self._asked.values())

    def put(self, attachment: Attachment, request: Message) -> Message:
        """Note a request for a client, and return it as the client is to have it."""
        assert request.id is not None
        asked = _Asked(attachment, request.id, request.raw_id)
        if self._backend:
            self._renamed += 1
            request = request.with_id(f"{self._backend}:{self._renamed}")
        assert request.id is not None
        self._asked[request.id] = asked
        return request

    def answered(self, attachment: Attachment, answer: Message) -> Message | None:
        """A client's answer as the backend is to have it; None if it answers nothing."""
        known = as_known(answer.id, self._asked)
        asked = None if known is None else self._asked.get(known)
        if known is None or asked is None or asked.attachment != attachment:
            return None
        del self._asked[known]
        return answer if asked.id == answer.id else answer.with_id(asked.id, asked.raw_id)

    def cancelled(self, notification: Message) -> Delivery | None:
        """The backend takes a request back: what its client is told, if one has it."""
        cancelled = cancelled_by(notification)
        by_backend = {asked.id: known for known, asked in self._asked.items()}
        id = as_known(cancelled, by_backend)
        if id is None or id not in by_backend:
            return None
        known = by_backend[id]
        asked = self._asked.pop(known)
        told = notification if known == cancelled else replaced(notification, "requestId", known)
        return Delivery(asked.attachment, told)

    def left(self, attachment: Attachment) -> list[Message]:
        """A client has gone: what the backend is told of the requests that it would have answered."""
        gone = [known for known, asked in self._asked.items() if asked.attachment == attachment]
        return [messages.error(self._asked.pop(known).id, NO_RECEIVER, "the client has gone") for known in gone]

    def change_backend(self, reason: str) -> list[Delivery]:
        """Another backend takes the place of the one that has asked: what clients are told of its requests."""
        asked = self.drop()
        self._backend += 1
        return [
            Delivery(
                one.attachment,
                messages.notification("notifications/cancelled", {"requestId": known, "reason": reason}),
            )
            for known, one in asked.items()
        ]

    def drop(self) -> dict[RequestId, _Asked]:
        """Nobody waits for any answer any more."""
        asked, self._asked = self._asked, {}
        return asked
