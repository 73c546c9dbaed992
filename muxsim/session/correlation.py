"""What a message says of the exchange that it belongs to: ids, tokens and the envelope, read and put. Pure."""

from __future__ import annotations

import re
from collections.abc import Container
from typing import Any, Final

import msgspec
from msgspec import Raw

from muxsim import __version__
from transports import messages
from transports.messages import Message, RequestId, as_number, id_in, member, members_of, text_of

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
# Which of its params tells what a request is about.
_ABOUT: Final = {
    "tools/call": "name",
    "prompts/get": "name",
    "resources/read": "uri",
    "resources/subscribe": "uri",
    "resources/unsubscribe": "uri",
}
_LONGEST_TARGET: Final = 1024
# As clients write it: before whatever is large or, in order of the alphabet, behind it, which need not be gone through.
_MEMBER: Final = rb'\s*"(name|uri)"\s*:\s*"([^"\\]{0,%d})"\s*' % _LONGEST_TARGET
_AT_FIRST: Final = re.compile(rb"\s*\{" + _MEMBER)
_AT_LAST: Final = re.compile(rb"," + _MEMBER + rb"\}\Z")
_TAIL: Final = 2 * _LONGEST_TARGET


def cancelled_by(message: Message) -> RequestId | None:
    """The id of the request that a ``notifications/cancelled`` is about."""
    return id_in(member(message.params, "requestId"))


def target_of(request: Message) -> str:
    """The tool, prompt or resource that a request is about; "" where it is about none."""
    about = _ABOUT.get(request.method)
    if about is None or request.params is None:
        return ""
    behind = max(0, len(memoryview(request.params)) - _TAIL)
    found = _AT_LAST.search(request.params, behind) or _AT_FIRST.match(request.params)
    if found is not None and found[1] == about.encode():
        return found[2].decode("utf-8", "replace")
    return text_of(member(request.params, about))[:_LONGEST_TARGET]


def abridged(request: Message) -> Message:
    """A request of which nothing is left but what it is about."""
    assert request.id is not None
    target = target_of(request)
    return messages.request(request.id, request.method, {_ABOUT[request.method]: target} if target else None)


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
