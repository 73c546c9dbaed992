"""What an agent may see of a session: everything but the control plane."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec
from msgspec import Raw

from muxsim.session.attachment import Attachment
from muxsim.session.control import META_KEY, SCHEME
from transports import messages
from transports.interfaces import Transport
from transports.messages import Kind, Message, RequestId, member, members_of

if TYPE_CHECKING:
    from muxsim.session.session import Session

# MCP's code for a resource that is not there, up to 2025-11-25.
RESOURCE_NOT_FOUND: Final = -32002
_BY_URI: Final = frozenset({"resources/read", "resources/subscribe", "resources/unsubscribe"})
_LISTS: Final = {
    "resources/list": ("resources", "uri"),
    "resources/templates/list": ("resourceTemplates", "uriTemplate"),
}


class AgentAttachment(Attachment):
    """A client that must not see the control plane: neither its resources nor its ``_meta``, whatever it asks for."""

    def __init__(self, session: Session, kind: str, **options: Any) -> None:
        super().__init__(session, kind, **options)
        self._asked: dict[RequestId, str] = {}

    def connect(self, transport: Transport) -> None:
        """Use ``transport`` for what goes to the agent, with the control plane taken out."""
        super().connect(_Filtered(transport, self._asked))

    def receive(self, message: Message) -> None:
        """Take a message from the agent; a wish for the control plane is refused or struck out."""
        if message.kind is Kind.REQUEST:
            assert message.id is not None
            request_id = message.id
            message = _unambiguous(message)
            if names_control(message):
                self.transport.send(
                    messages.error(request_id, RESOURCE_NOT_FOUND, "there is no such resource"), request_id
                )
                return
            message = without_wish(message)
            self._asked[request_id] = message.method
        super().receive(message)


class _Filtered:
    """A transport in front of the agent's own."""

    def __init__(self, transport: Transport, asked: dict[RequestId, str]) -> None:
        self._transport = transport
        self._asked = asked

    @property
    def congested(self) -> bool:
        """As the agent's transport says."""
        return self._transport.congested

    @property
    def listening(self) -> bool:
        """As the agent's transport says."""
        return bool(getattr(self._transport, "listening", True))

    def send(self, message: Message, about: RequestId | None = None) -> None:
        """Pass a message on without what the agent must not see."""
        if message.is_answer:
            method = "" if message.id is None else self._asked.pop(message.id, "")
            message = without_control(message, method)
        elif message.method == "notifications/resources/updated" and names_control(message):
            return
        self._transport.send(message, about)

    def withdraw(self, about: RequestId) -> None:
        """Pass it on."""
        self._asked.pop(about, None)
        self._transport.withdraw(about)

    def close(self) -> None:
        """Pass it on."""
        self._transport.close()


def names_control(message: Message) -> bool:
    """Whether a message is about a resource of the control plane."""
    if message.method in _BY_URI or message.method == "notifications/resources/updated":
        return _is_control(member(message.params, "uri"))
    if message.method == "completion/complete":
        return _is_control(member(message.params, "ref", "uri"))
    return False


def _unambiguous(message: Message) -> Message:
    """The request with every name once: of two, a backend might heed the first, while the last is looked at here."""
    params = members_of(message.params)
    for name in ("_meta", "ref"):
        if inner := members_of(params.get(name)):
            params[name] = Raw(msgspec.json.encode(inner))
    members = {**message.members}
    if params:
        members["params"] = Raw(msgspec.json.encode(params))
    return message.with_members(members)


def without_wish(message: Message) -> Message:
    """A request whose ``_meta`` does not ask for the control plane."""
    params = members_of(message.params)
    meta = members_of(params.get("_meta"))
    if META_KEY not in meta:
        return message
    del meta[META_KEY]
    return message.with_params({**params, "_meta": meta})


def without_control(answer: Message, method: str) -> Message:
    """An answer to ``method`` without control plane resources in lists, and without its ``_meta``."""
    if answer.kind is not Kind.RESULT:
        return answer
    body = members_of(answer.members["result"])
    changed = False
    if method in _LISTS:
        changed = _strike_resources(body, *_LISTS[method])
    meta = members_of(body.get("_meta"))
    if META_KEY in meta:
        del meta[META_KEY]
        body["_meta"] = Raw(msgspec.json.encode(meta))
        if not meta:
            del body["_meta"]
        changed = True
    if not changed:
        return answer
    members = {**answer.members, "result": Raw(msgspec.json.encode(body))}
    return answer.with_members(members)


def _strike_resources(body: dict[str, Raw], list_name: str, uri_name: str) -> bool:
    raw = body.get(list_name)
    try:
        entries: list[Raw] = msgspec.json.decode(raw or b"[]", type=list[Raw])
    except msgspec.DecodeError:
        return False
    kept = [entry for entry in entries if not _is_control(member(entry, uri_name))]
    if len(kept) == len(entries):
        return False
    body[list_name] = Raw(msgspec.json.encode(kept))
    return True


def _is_control(raw_uri: Raw | None) -> bool:
    if raw_uri is None:
        return False
    uri: Any = msgspec.json.decode(raw_uri)
    # Schemes know no case, and servers may trim what they are given.
    return isinstance(uri, str) and uri.strip().lower().startswith(SCHEME.rstrip("/"))
