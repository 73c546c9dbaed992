"""What a message says of the exchange that it belongs to: ids, tokens and the envelope, read and put. Pure."""

from __future__ import annotations

from collections.abc import Container
from typing import Any, Final

import msgspec
from msgspec import Raw

from muxsim import __version__
from transports.messages import Message, RequestId, as_number, id_in, member, members_of

SUBSCRIPTION_KEY: Final = "io.modelcontextprotocol/subscriptionId"
LOG_LEVEL_KEY: Final = "io.modelcontextprotocol/logLevel"
PROTOCOL_VERSION_KEY: Final = "io.modelcontextprotocol/protocolVersion"
_ENVELOPE_PREFIX: Final = "io.modelcontextprotocol/"
OWN_ENVELOPE: Final = {
    PROTOCOL_VERSION_KEY: "2026-07-28",
    f"{_ENVELOPE_PREFIX}clientInfo": {"name": "muxsim", "version": __version__},
    f"{_ENVELOPE_PREFIX}clientCapabilities": {},
}
"""What muxsim says of itself in what it asks a backend that nobody has shaken hands with."""


def cancelled_by(message: Message) -> RequestId | None:
    """The id of the request that a ``notifications/cancelled`` is about."""
    return id_in(member(message.params, "requestId"))


def as_known(id: RequestId | None, known: Container[RequestId]) -> RequestId | None:
    """The id as it was given out: the SDKs take "1" for 1, so each is the other where only one of them can be meant."""
    if id is None or id in known:
        return id
    twin = str(id) if isinstance(id, int) else as_number(id)
    return twin if twin is not None and twin in known else None


def replaced(message: Message, name: str, value: Any) -> Message:
    return message.with_params({**members_of(message.params), name: value})


def with_progress_token(message: Message, token: int) -> tuple[Message, Raw | None]:
    """The request with a progress token of ours, and the client's own; several clients may choose the same."""
    meta = message.meta
    theirs = meta.get("progressToken")
    if theirs is None:
        return message, None
    return replaced(message, "_meta", {**meta, "progressToken": token}), theirs.copy()


def with_subscription_id(message: Message, holder: str, id: bytes) -> Message:
    """A listen stream is named by its request's id, which is the client's own to the client."""
    body = members_of(message.members.get(holder))
    meta = members_of(body.get("_meta"))
    if SUBSCRIPTION_KEY not in meta:
        return message
    body["_meta"] = Raw(msgspec.json.encode({**meta, SUBSCRIPTION_KEY: Raw(id)}))
    members = {**message.members, holder: Raw(msgspec.json.encode(body))}
    return message.with_members(members)


def envelope_of(request: Message) -> dict[str, Raw]:
    """What every 2026-07-28 message has in its ``_meta``, since there is no handshake to settle it."""
    meta = request.meta
    if PROTOCOL_VERSION_KEY not in meta:
        return {}
    # Copies, since a Raw out of a message keeps the whole message.
    return {key: value.copy() for key, value in meta.items() if key.startswith(_ENVELOPE_PREFIX)}
