"""What a backend has been told and goes by ever after: what another has to be told that takes its place. Pure.

That is the handshake, the level of its log, and what clients are subscribed to. What it knows by calls is its own.
"""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec import Raw

from muxsim.session.audience import LONGEST_URI, MOST_SUBSCRIPTIONS
from transports import messages
from transports.messages import Kind, Message, RequestId, member

# The requests that are noted here.
NOTED: Final = frozenset({"initialize", "logging/setLevel", "resources/subscribe", "resources/unsubscribe"})


class Standing:
    """Of one session's backend. A handshake counts once it has been answered with a result."""

    def __init__(self) -> None:
        self._agreed: list[Message] = []
        self._asking: list[Message] = []
        self._level: Message | None = None
        self._subscribed: dict[bytes, None] = {}

    def __repr__(self) -> str:
        return f"<Standing {len(self._agreed)} of the handshake, {len(self._subscribed)} subscriptions>"

    def asked(self, request: Message) -> None:
        """The backend is asked for one of `NOTED`."""
        if request.method == "initialize":
            self._asking = [request]
        elif request.method == "logging/setLevel":
            self._level = request
        else:
            self._subscribe(request, member(request.params, "uri"))

    def _subscribe(self, request: Message, uri: Raw | None) -> None:
        if uri is None or len(text := bytes(uri)) > LONGEST_URI:
            return
        if request.method == "resources/unsubscribe":
            self._subscribed.pop(text, None)
        elif len(self._subscribed) < MOST_SUBSCRIPTIONS:
            self._subscribed[text] = None

    def completed(self, notification: Message) -> None:
        """The backend is told that the handshake is over, which may be before it has answered."""
        (self._asking or self._agreed).append(notification)

    def answered(self, answer: Message) -> None:
        """The backend has answered the handshake."""
        if answer.kind is Kind.RESULT:
            self._agreed = self._asking
        self._asking = []

    def as_told(self) -> list[Message]:
        """All of it, in the order in which a backend is to be told. The requests need ids of their own."""
        told = [*self._agreed, *([] if self._level is None else [self._level])]
        return told + [_subscribing(uri) for uri in self._subscribed]


_NO_ID: Final[RequestId] = 0


def _subscribing(uri: bytes) -> Message:
    return messages.decode(messages.request(_NO_ID, "resources/subscribe", {"uri": msgspec.Raw(uri)}).encode())
