"""What an agent may say: every message is made anew, of names that are known here and values that were judged. Pure.

Whatever else an agent sends is left out: a server may match names without case, heed the first of two, or know methods
of its own. So no reading of a message by a server can differ from the one that it was judged by.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

import msgspec
from msgspec import Raw

from muxsim.session import agent_answers, uris
from muxsim.session.correlation import PROTOCOL_VERSION_KEY
from transports.errors import INVALID_PARAMS, METHOD_NOT_FOUND
from transports.messages import Kind, Message, members_of

# MCP's code for a resource that is not there, up to 2025-11-25; after that it is invalid params.
RESOURCE_NOT_FOUND: Final = -32002
_ROUNDS: Final = ("inputResponses", "requestState")
_PAGE: Final = ("cursor",)
# The params of each method of any revision, without `_meta`, which all have. What is missing here no agent can ask for.
REQUESTS: Final[dict[str, tuple[str, ...]]] = {
    "completion/complete": ("ref", "argument", "context"),
    "initialize": ("protocolVersion", "capabilities", "clientInfo"),
    "logging/setLevel": ("level",),
    "ping": (),
    "prompts/get": ("name", "arguments", *_ROUNDS),
    "prompts/list": _PAGE,
    "resources/list": _PAGE,
    "resources/read": ("uri", *_ROUNDS),
    "resources/subscribe": ("uri",),
    "resources/templates/list": _PAGE,
    "resources/unsubscribe": ("uri",),
    "server/discover": (),
    "subscriptions/listen": ("notifications",),
    "tasks/cancel": ("taskId",),
    "tasks/get": ("taskId",),
    "tasks/list": _PAGE,
    "tasks/result": ("taskId",),
    "tasks/update": ("taskId", "inputResponses"),
    "tools/call": ("name", "arguments", "task", *_ROUNDS),
    "tools/list": _PAGE,
}
NOTIFICATIONS: Final[dict[str, tuple[str, ...]]] = {
    "notifications/cancelled": ("requestId", "reason"),
    "notifications/initialized": (),
    "notifications/progress": ("progressToken", "progress", "total", "message"),
    "notifications/roots/list_changed": (),
}
_INSIDE: Final[dict[str, tuple[str, ...]]] = {
    "ref": ("type", "name", "title", "uri"),
    "argument": ("name", "value"),
    "context": ("arguments",),
    "notifications": ("toolsListChanged", "promptsListChanged", "resourcesListChanged", "resourceSubscriptions"),
}
_NO_URI: Final = "the uri must be a string of Unicode text"
_META: Final = frozenset({"progressToken", "traceparent", "tracestate", "baggage"})
_META_PREFIX: Final = "io.modelcontextprotocol/"


class NotForAgents(Exception):
    """An agent may not say this; a request is answered with ``code`` and the message."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


def admitted(message: Message) -> Message:
    """The message that goes on in place of an agent's. Raises `NotForAgents`."""
    if message.is_answer:
        return _answer(message)
    known = (REQUESTS if message.kind is Kind.REQUEST else NOTIFICATIONS).get(message.method)
    if known is None:
        raise NotForAgents(METHOD_NOT_FOUND, "an agent has no such method")
    members = _chosen(message.members, ("jsonrpc", "id"))
    members["method"] = Raw(msgspec.json.encode(message.method))
    if message.params is not None or "uri" in known:
        members["params"] = Raw(msgspec.json.encode(_params(message, known)))
    return message.with_members(members)


def _answer(message: Message) -> Message:
    """An answer to what the server has asked."""
    message = message.well_formed()
    name = "result" if message.kind is Kind.RESULT else "error"
    members = _chosen(message.members, ("jsonrpc", "id"))
    try:
        members[name] = agent_answers.without_control(message.members[name])
    except agent_answers.Withheld:
        raise NotForAgents(INVALID_PARAMS, "an agent may not give this answer") from None
    return message.with_members(members)


def _params(message: Message, known: tuple[str, ...]) -> dict[str, Raw]:
    given = members_of(message.params)
    meta = {key: raw for key, raw in members_of(given.get("_meta")).items() if _passes(key)}
    missing = INVALID_PARAMS if PROTOCOL_VERSION_KEY in meta else RESOURCE_NOT_FOUND
    params = _chosen(given, known)
    if "uri" in known and "uri" not in params:
        raise NotForAgents(INVALID_PARAMS, _NO_URI)
    for name, raw in params.items():
        params[name] = _judged(name, raw, missing)
    if "_meta" in given:
        params["_meta"] = Raw(msgspec.json.encode(meta))
    return params


def _judged(name: str, raw: Raw, missing: int) -> Raw:
    if name == "uri":
        return _uri(raw, missing)
    if name == "resourceSubscriptions":
        return _uris(raw)
    if name == "inputResponses":
        return _responses(raw)
    if name not in _INSIDE:
        return raw
    inner = _chosen(members_of(raw), _INSIDE[name])
    return Raw(msgspec.json.encode({key: _judged(key, value, missing) for key, value in inner.items()}))


def _uri(raw: Raw, missing: int) -> Raw:
    uri = _decoded(raw, str)
    if uri is None:
        raise NotForAgents(INVALID_PARAMS, _NO_URI)
    normal = uris.plain(uri)
    if normal is None:
        raise NotForAgents(missing, "there is no such resource")
    return Raw(msgspec.json.encode(normal))


def _uris(raw: Raw) -> Raw:
    """Those of a list that an agent may have: what is not there is never updated."""
    given: Iterable[Any] = _decoded(raw, list) or ()
    plain = [uris.plain(uri) for uri in given if isinstance(uri, str)]
    return Raw(msgspec.json.encode([uri for uri in plain if uri is not None]))


def _responses(raw: Raw) -> Raw:
    try:
        return agent_answers.without_control(raw)
    except agent_answers.Withheld:
        raise NotForAgents(INVALID_PARAMS, "an agent may not give these answers") from None


def _decoded(raw: Raw, type: Callable[..., Any]) -> Any:
    try:
        return msgspec.json.decode(raw, type=type)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _passes(key: str) -> bool:
    return key in _META or key.startswith(_META_PREFIX)


def _chosen(members: dict[str, Raw], names: Iterable[str]) -> dict[str, Raw]:
    return {name: members[name] for name in names if name in members}
