"""Whose message is this? Ids, exchanges and the two directions of one session. Pure: no I/O, no clock.

A backend sees one client; a session may have several attachments, all of which number their requests from 1. The router
gives each request an id of its own on the way in, restores the client's on the way out, and knows where everything
else that a backend says belongs.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from msgspec import Raw

from muxsim.observe.traffic import BACKEND, Traffic
from muxsim.session.audience import Audience
from muxsim.session.correlation import (
    LOG_LEVEL_KEY,
    SUBSCRIPTION_KEY,
    abridged,
    as_known,
    cancelled_by,
    envelope_of,
    replaced,
    with_progress_token,
    with_subscription_id,
)
from muxsim.session.exchange import NOTHING, Attachment, Delivery, Exchange, Routed
from muxsim.session.handshake import Handshake
from muxsim.session.questions import NO_RECEIVER, Questions
from muxsim.session.standing import NOTED, Standing
from transports import messages
from transports.errors import INVALID_REQUEST
from transports.messages import Kind, Message, RequestId, as_number, id_in, member

LISTEN: Final = "subscriptions/listen"
# Notifications that belong to no request, whoever happens to have one in flight.
_UNRELATED: Final = frozenset(
    {
        "notifications/tools/list_changed",
        "notifications/prompts/list_changed",
        "notifications/resources/list_changed",
        "notifications/resources/updated",
    }
)
# How many cancelled requests a session remembers, to tell their late answers from answers to nothing.
_ABANDONED_KEPT: Final = 256
# Bytes of a request that is kept as it is while it is in flight.
_MOST_KEPT: Final = 4 * 1024
# Requests that hold beyond their answers, or have none.
_LASTING: Final = NOTED | {LISTEN}
_ACKNOWLEDGED: Final = "notifications/subscriptions/acknowledged"
_NO_ENVELOPE: Final[dict[str, Raw]] = {}


@dataclass(slots=True)
class Router:
    """The exchanges of one session. Every method returns what is to be sent, and has done its bookkeeping by then."""

    _attachments: dict[Attachment, None] = field(default_factory=dict)
    _exchanges: dict[int, Exchange] = field(default_factory=dict)
    _by_client: dict[tuple[Attachment, RequestId], int] = field(default_factory=dict)
    _questions: Questions = field(default_factory=Questions)
    _last_id: int = 0
    _abandoned: int = 0
    _handshake: Handshake = field(default_factory=Handshake)
    _standing: Standing = field(default_factory=Standing)
    answered: int = 0
    """How many requests the backend has answered, in time or too late."""
    late_calls: int = 0
    """How many tool calls have been answered that nobody waited for any more."""
    audience: Audience | None = None
    """Of a session that several principals share; None where all clients are one's."""
    traffic: Traffic | None = None
    """Where answered requests are counted, if they are."""
    now: float = 0.0
    """The time of the message that is being routed, in seconds: only for that."""

    def __repr__(self) -> str:
        return f"<Router {len(self._attachments)} attachments, {len(self._exchanges)} in flight>"

    @property
    def in_flight(self) -> int:
        """How many requests somebody still wants an answer to, the endless ``subscriptions/listen`` included."""
        return len(self._exchanges) - self._abandoned + self._handshake.waiting

    @property
    def asked(self) -> int:
        """How many of the backend's own requests wait for a client's answer."""
        return len(self._questions)

    @property
    def calls(self) -> int:
        """How many of those will end by themselves."""
        return sum(1 for exchange in self._exchanges.values() if not exchange.abandoned and exchange.method != LISTEN)

    @property
    def calls_given_up(self) -> bool:
        """Whether the backend may still be at work on a tool call that nobody waits for."""
        if not self._abandoned:
            return False
        return any(exchange.abandoned and exchange.method == "tools/call" for exchange in self._exchanges.values())

    @property
    def attachments(self) -> int:
        """How many attachments there are."""
        return len(self._attachments)

    @property
    def initialize_result(self) -> Raw | None:
        """The backend's answer to the handshake, once it has come."""
        return self._handshake.result

    def attach(self, attachment: Attachment) -> None:
        """Let an attachment take part."""
        self._attachments[attachment] = None
        if self.audience is not None:
            self.audience.heard_from(attachment)

    def detach(self, attachment: Attachment, *, cancel: bool) -> Routed:
        """Forget an attachment. Its calls go on and their answers are dropped, or they are cancelled at the backend."""
        self._attachments.pop(attachment, None)
        self._handshake.forget(attachment)
        if self.audience is not None:
            self.audience.left(attachment)
        to_backend: list[Message] = []
        for backend_id, exchange in list(self._exchanges.items()):
            if exchange.attachment != attachment or exchange.abandoned:
                continue
            self._abandon(exchange)
            if cancel and exchange.method != "initialize":
                to_backend.append(_cancelled(backend_id, exchange))
        to_backend += self._questions.left(attachment)
        return Routed(tuple(to_backend))

    def exchange(self, backend_id: RequestId | None) -> Exchange | None:
        """The client's request that the backend has under this id, until it is answered."""
        number = backend_id if type(backend_id) is int else as_number(backend_id)
        return None if number is None else self._exchanges.get(number)

    def exchanges(self) -> Iterable[Exchange]:
        """All that the backend has not answered, the oldest first."""
        return self._exchanges.values()

    # ---- from a client

    def awaits(self, attachment: Attachment, id: RequestId | None) -> bool:
        """Whether an attachment has a request with this id in flight."""
        return (attachment, id) in self._by_client

    def asks(self, attachment: Attachment) -> bool:
        """Whether the backend waits for an answer of this attachment's."""
        return self._questions.are_for(attachment)

    def awaits_any(self, attachment: Attachment) -> bool:
        """Whether an attachment has any request in flight, or the backend one of its own at it."""
        return any(one == attachment for one, _ in self._by_client) or self.asks(attachment)

    def from_client(self, attachment: Attachment, message: Message, *, aside: bool = False) -> Routed:
        """Route one message of an attachment; of a request ``aside`` the backend asks nobody anything."""
        if message.kind is Kind.REQUEST:
            return self._client_request(attachment, message, aside)
        if message.kind is Kind.NOTIFICATION:
            return self._client_notification(attachment, message)
        return self._client_answer(attachment, message)

    def _client_request(self, attachment: Attachment, message: Message, aside: bool = False) -> Routed:
        assert message.id is not None
        key = (attachment, message.id)
        if key in self._by_client:
            refusal = messages.error(message.id, INVALID_REQUEST, f"request id {message.id!r} is in flight already")
            # About nothing: under this id the first request is still waiting for its own answer.
            return Routed(to_clients=(Delivery(attachment, refusal, own=True),))
        lasting = message.method in _LASTING
        if lasting and message.method == "initialize":
            known = self._handshake.of_another(attachment, message)
            if known is not None:
                return known
        if self.audience is not None and not aside:
            self.audience.heard_from(attachment)
            if (answer := self._answered_here(self.audience, attachment, message)) is not None:
                restored = answer.with_id(message.id, message.raw_id)
                return Routed(to_clients=(Delivery(attachment, restored, message.id, own=True),))
        self._last_id += 1
        outgoing, token, envelope = message, None, _NO_ENVELOPE
        if message.meta:
            outgoing, token = with_progress_token(message, self._last_id)
            envelope = envelope_of(message)
        assert message.raw_id is not None
        exchange = Exchange(attachment, message.id, message.raw_id, message.method, token, envelope, aside)
        if self.traffic is not None:
            exchange.began, exchange.size = self.now, message.size
        self._exchanges[self._last_id] = exchange
        self._by_client[key] = self._last_id
        sent = outgoing.with_id(self._last_id)
        if sent.size <= _MOST_KEPT:
            exchange.asked = sent
        else:
            exchange.asked, exchange.left_out = abridged(sent), sent.size
        if message.method == LISTEN:
            exchange.again = sent
        elif lasting:
            self._standing.asked(sent)
        return Routed((sent,))

    def _client_notification(self, attachment: Attachment, message: Message) -> Routed:
        if message.method == "notifications/cancelled":
            cancelled = as_known(cancelled_by(message), {id for one, id in self._by_client if one == attachment})
            backend_id = None if cancelled is None else self._by_client.get((attachment, cancelled))
            if cancelled is None or backend_id is None:
                return NOTHING
            if self._exchanges[backend_id].method == "initialize":
                return Routed((replaced(message, "requestId", backend_id),))
            # The backend should not answer it any more, and if it does the client no longer wants to know.
            self._abandon(self._exchanges[backend_id])
            return Routed((replaced(message, "requestId", backend_id),), withdrawn=((attachment, cancelled),))
        if message.method == "notifications/initialized":
            if not self._handshake.completed_by(attachment):
                return NOTHING
            self._standing.completed(message)
        return Routed((message,))

    def _client_answer(self, attachment: Attachment, message: Message) -> Routed:
        answer = self._questions.answered(attachment, message)
        if answer is None:
            return NOTHING
        return Routed((answer,))

    def fail_client_id(self, attachment: Attachment, id: RequestId, code: int, text: str) -> Routed:
        """Answer the one request of the backend whose answer from a client could not be read."""
        return self._client_answer(attachment, messages.error(id, code, text))

    # ---- from the backend

    def from_backend(self, message: Message) -> Routed:
        """Route one message of the backend."""
        if message.is_answer:
            return self._backend_answer(message)
        if message.kind is Kind.REQUEST:
            return self._backend_request(message)
        return self._backend_notification(message)

    def _backend_answer(self, message: Message, *, own: bool = False) -> Routed:
        number = message.id if type(message.id) is int else as_number(message.id)
        exchange = None if number is None else self._exchanges.pop(number, None)
        if exchange is None:
            return NOTHING
        self.answered += 1
        attachment, id = exchange.attachment, exchange.id
        more = self._shaken(message) if exchange.method == "initialize" else NOTHING
        if exchange.abandoned:
            self._abandoned -= 1
            self.late_calls += exchange.method == "tools/call"
            return self._and_forward(more)
        del self._by_client[attachment, id]
        if self.traffic is not None and not exchange.aside:
            self.traffic.answered(exchange.method, self.now - exchange.began, exchange.size, message.size)
            if message.kind is Kind.ERROR and not own:
                self.traffic.failed(BACKEND)
        if exchange.method == LISTEN:
            message = with_subscription_id(message, "result", exchange.raw_id)
        answer = Delivery(attachment, message.with_id(id, exchange.raw_id), id, own)
        if exchange.method != "initialize":
            return Routed((), (answer,))
        return self._and_forward(more, answer)

    def _shaken(self, answer: Message) -> Routed:
        self._standing.answered(answer)
        return self._handshake.answered(answer)

    def _and_forward(self, more: Routed, *first: Delivery) -> Routed:
        """``more`` behind ``first``; a handshake that had to wait for a failed one becomes an exchange now."""
        to_clients = (*first, *more.to_clients)
        to_backend: list[Message] = []
        for waiting in self._handshake.take_retries():
            routed = self._client_request(*waiting)
            to_backend += routed.to_backend
            to_clients += routed.to_clients
        return Routed(tuple(to_backend), to_clients)

    def _backend_request(self, message: Message) -> Routed:
        assert message.id is not None
        if not self._is_for_one():
            text = "several clients share this session, and a request does not say whose call it is about"
            return Routed((messages.error(message.id, NO_RECEIVER, text),))
        exchange = self._latest_exchange()
        attachment = exchange.attachment if exchange else next(reversed(self._attachments), None)
        if attachment is None:
            return Routed((messages.error(message.id, NO_RECEIVER, "no client is attached to the session"),))
        asked = self._questions.put(attachment, message)
        return Routed(to_clients=(Delivery(attachment, asked, exchange.id if exchange else None),))

    def _backend_notification(self, message: Message) -> Routed:
        if message.method == "notifications/progress":
            return self._progress(message)
        if message.method == "notifications/cancelled":
            return self._backend_cancels(message)
        subscription = member(message.params, "_meta", SUBSCRIPTION_KEY)
        if subscription is not None:
            return self._on_subscription(message, as_number(id_in(subscription)))
        if message.method in _UNRELATED:
            return self._to_those_concerned(message)
        return self._to_the_latest(message)

    def _to_the_latest(self, message: Message) -> Routed:
        if not self._is_for_one():
            return NOTHING
        exchange = self._latest_exchange(logging=message.method == "notifications/message")
        return self._to_all(message) if exchange is None else self._deliver(exchange, message)

    def _progress(self, message: Message) -> Routed:
        token = as_number(id_in(member(message.params, "progressToken")))
        exchange = None if token is None else self._exchanges.get(token)
        if exchange is None or exchange.progress_token is None:
            return NOTHING
        return self._deliver(exchange, replaced(message, "progressToken", exchange.progress_token))

    def _backend_cancels(self, message: Message) -> Routed:
        told = self._questions.cancelled(message)
        if told is None:
            return NOTHING
        return Routed(to_clients=(told,))

    def _on_subscription(self, message: Message, subscription: int | None) -> Routed:
        exchange = None if subscription is None else self._exchanges.get(subscription)
        if exchange is None:
            return NOTHING
        if exchange.silent and message.method == _ACKNOWLEDGED:
            exchange.silent = False
            return NOTHING
        return self._deliver(exchange, with_subscription_id(message, "params", exchange.raw_id))

    def _deliver(self, exchange: Exchange, message: Message) -> Routed:
        if exchange.abandoned:
            return NOTHING
        return Routed(to_clients=(Delivery(exchange.attachment, message, exchange.id),))

    def _to_all(self, message: Message) -> Routed:
        return Routed(to_clients=tuple(Delivery(attachment, message) for attachment in self._attachments))

    def _to_those_concerned(self, message: Message) -> Routed:
        """That a list has changed says nothing of anybody; that a resource has, is for who subscribed to it."""
        if self.audience is None or message.method != "notifications/resources/updated":
            return self._to_all(message)
        concerned = self.audience.subscribers(member(message.params, "uri"))
        return Routed(to_clients=tuple(Delivery(attachment, message) for attachment in concerned))

    def _is_for_one(self) -> bool:
        """Whether what belongs to no call can be only one principal's."""
        if self.audience is None:
            return True
        asking = (exchange.attachment for exchange in self._exchanges.values() if not exchange.aside)
        return self.audience.is_one(itertools.chain(self._attachments, asking))

    def _answered_here(self, audience: Audience, attachment: Attachment, message: Message) -> Message | None:
        """The answer to a request that the backend must not have of one client, for it holds for all; else None."""
        assert message.id is not None
        uri = member(message.params, "uri")
        if message.method == "resources/subscribe" and (problem := audience.subscribe(attachment, uri)):
            return messages.error(message.id, INVALID_REQUEST, problem)
        if message.method == "resources/unsubscribe" and not audience.unsubscribe(attachment, uri):
            return messages.result(message.id, {})
        # Its log lines go to nobody any more, so there is nothing to set; the level would be everybody's.
        if message.method == "logging/setLevel" and not self._is_for_one():
            return messages.result(message.id, {})
        return None

    def _latest_exchange(self, *, logging: bool = False) -> Exchange | None:
        """The request that an uncorrelated message most likely belongs to: the newest that can have caused it.

        On stdio such a message does not say. A 2026-07-28 request that did not ask for logs must not get one.
        """
        for exchange in reversed(self._exchanges.values()):
            if exchange.abandoned or exchange.aside or exchange.method == LISTEN:
                continue
            if logging and exchange.envelope and LOG_LEVEL_KEY not in exchange.envelope:
                continue
            return exchange
        return None

    # ---- another backend

    def change_backend(self, code: int, text: str, data: Any = None) -> Routed:
        """Another backend takes this one's place: what this one was to answer gets an error, but what has no end.

        That is asked of the other. It has to be told `standing` before any of this.
        """
        exchanges, self._exchanges = self._exchanges, {}
        kept = {number: one for number, one in exchanges.items() if one.again is not None and not one.abandoned}
        self._exchanges = kept
        self._abandoned = 0
        ends, more = list[Delivery](), NOTHING
        for one in exchanges.values():
            if one.again is not None:
                one.silent = True
                continue
            failure = messages.error(one.id, code, text, data).with_id(one.id, one.raw_id)
            if one.method == "initialize":
                more = self._shaken(failure)
            if not one.abandoned:
                del self._by_client[one.attachment, one.id]
                ends.append(Delivery(one.attachment, failure, one.id, own=True))
        ends += self._questions.change_backend(text)
        again = tuple(one.again for one in kept.values() if one.again is not None)
        forward = self._and_forward(more, *ends)
        return Routed(again + forward.to_backend, forward.to_clients)

    def standing(self) -> list[Message]:
        """What a backend has to be told to stand where the last one stood, under ids of the router's own."""
        return [self._numbered(one) if one.kind is Kind.REQUEST else one for one in self._standing.as_told()]

    def _numbered(self, request: Message) -> Message:
        self._last_id += 1
        return request.with_id(self._last_id)

    # ---- the end

    def cancel(self, attachment: Attachment, request_id: RequestId) -> Routed:
        """Give up one request for its client, who has gone away from it; its answer, if one comes, is dropped."""
        backend_id = self._by_client.pop((attachment, request_id), None)
        if backend_id is None:
            return NOTHING
        exchange = self._exchanges[backend_id]
        self._abandon(exchange)
        return Routed((_cancelled(backend_id, exchange),))

    def _abandon(self, exchange: Exchange) -> None:
        """Keep an exchange only to know its answer when that comes late; many never come, so old ones go."""
        exchange.abandoned = True
        self._by_client.pop((exchange.attachment, exchange.id), None)
        self._abandoned += 1
        if self._abandoned > _ABANDONED_KEPT:
            oldest = next(backend_id for backend_id, one in self._exchanges.items() if one.abandoned)
            del self._exchanges[oldest]
            self._abandoned -= 1

    def fail_all(self, code: int, text: str, data: Any = None) -> Routed:
        """Answer every request in flight with one error: the backend will not."""
        failed = [exchange for exchange in self._exchanges.values() if not exchange.abandoned]
        waiting = self._handshake.take_waiting()
        self._exchanges.clear()
        self._by_client.clear()
        self._questions.drop()
        self._abandoned = 0
        pairs = [
            *((exchange.attachment, exchange.id, exchange.raw_id) for exchange in failed),
            *((attachment, request.id, request.raw_id) for attachment, request in waiting),
        ]
        return Routed(
            to_clients=tuple(
                Delivery(attachment, messages.error(id, code, text, data).with_id(id, raw_id), id, own=True)
                for attachment, id, raw_id in pairs
                if id is not None
            )
        )

    def fail_backend_id(self, id: RequestId, code: int, text: str, data: Any = None) -> Routed:
        """Answer the one request whose answer from the backend could not be read."""
        if as_number(id) not in self._exchanges:
            return NOTHING
        return self._backend_answer(messages.error(id, code, text, data), own=True)


def _cancelled(backend_id: int, exchange: Exchange) -> Message:
    params: dict[str, Any] = {"requestId": backend_id, "reason": "the client closed its connection"}
    if exchange.envelope:
        params["_meta"] = exchange.envelope
    return messages.notification("notifications/cancelled", params)
