"""What an agent may hear: everything a server says, but for what is of the control plane. Pure.

An object that names a resource of the control plane is taken out wherever it stands, together with what holds it, up to
the next list: a content block goes with the resource that is embedded in it. So does the control plane's own key, and
what stands under such a resource's name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec
from msgspec import Raw

from muxsim.session import uris
from transports.messages import Message, members_of

META_KEY: Final = "muxsim/control"
# Lists of bare URIs: what may be completed to, and what is subscribed to.
_OF_URIS: Final = frozenset({"values", "resourcesubscriptions"})
# What the name of a member ends with whose value is the URI of something, or a list of such.
_LINKS: Final = ("uri", "url", "href", "src")
_LISTS_OF_LINKS: Final = ("uris", "urls")
_members: Final = msgspec.json.Decoder(dict[str, Raw])
_elements: Final = msgspec.json.Decoder(list[Raw])
_UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
# Without any of these the bytes spell no name that is looked for. A slash has two spellings.
_SIGNS: Final = (
    b"\\u",
    *(b'%s"' % name.encode() for name in (*_LINKS, *_LISTS_OF_LINKS)),
    b'"uritemplate"',
    b"%s:" % uris.SCHEME.encode(),
    *(b'"%s"' % name.encode() for name in (META_KEY, META_KEY.replace("/", r"\/"), *_OF_URIS)),
)
_PAYLOADS: Final[tuple[str, ...]] = ("params", "result", "error")
_KNOWN: Final[tuple[str, ...]] = ("jsonrpc", "id", "method", *_PAYLOADS)


class Withheld(Exception):
    """Nothing would be left of a payload, or it cannot be looked through."""


class _Struck(Exception):
    """This value is of the control plane."""


def heard(message: Message) -> Message:
    """The message as an agent may hear it: this very one, if it can name nothing of the control plane, else one made
    anew from the members that MCP has. Raises `Withheld`."""
    message = message.well_formed()
    if _is_clean(message.encode()):
        return message
    kept = {name: message.members[name] for name in _KNOWN if name in message.members}
    for name in _PAYLOADS:
        if name in kept:
            kept[name] = without_control(kept[name])
    return message.with_members(kept)


def without_control(payload: Raw) -> Raw:
    """A payload without what is of the control plane: this very one, if it can name none of it. Raises `Withheld`."""
    if _is_clean(bytes(payload)):
        return payload
    sieve = _Sieve()
    try:
        kept = sieve.object(payload, is_holder=True) if _begins(payload, b"{") else sieve.value(payload, "")
    except (_Struck, *_UNREADABLE):
        raise Withheld from None
    return _not_for_everybody(kept) if sieve.has_struck else kept


def _is_clean(data: bytes) -> bool:
    """Whether it can be told without parsing that there is nothing to be found, as of most results."""
    lowered = data.lower()
    return not any(sign in lowered for sign in _SIGNS)


class _Sieve:
    """Makes values anew without what is struck: of two members of one name only the one that was looked at stays."""

    def __init__(self) -> None:
        self.has_struck = False

    def value(self, raw: Raw, name: str) -> Raw:
        if _begins(raw, b"{"):
            return self.object(raw, is_holder=name == "_meta")
        return self._list(raw, name) if _begins(raw, b"[") else raw

    def object(self, raw: Raw, *, is_holder: bool) -> Raw:
        """An object; what is struck inside of it takes it along, unless it holds things that are complete without."""
        kept: dict[str, Raw] = {}
        for name, value in _members.decode(raw).items():
            folded = name.lower()
            if folded == META_KEY or uris.is_control(name):
                self.has_struck = True
            elif _names_control(folded, value):
                raise _Struck
            else:
                try:
                    kept[name] = self.value(value, folded)
                except _Struck:
                    if not is_holder:
                        raise
                    self.has_struck = True
        return Raw(msgspec.json.encode(kept))

    def _list(self, raw: Raw, name: str) -> Raw:
        kept: list[Raw] = []
        for element in _elements.decode(raw):
            try:
                if (name in _OF_URIS or name.endswith(_LISTS_OF_LINKS)) and _is_control(element, uris.is_control):
                    raise _Struck
                kept.append(self.value(element, name))
            except _Struck:
                self.has_struck = True
        return Raw(msgspec.json.encode(kept))


def _names_control(name: str, value: Raw) -> bool:
    """Whether a member names a resource of the control plane; other URIs than a resource's own are links to it."""
    if name == "uritemplate":
        return _is_control(value, uris.may_become_control)
    if not name.endswith(_LINKS):
        return False
    named = _elements.decode(value) if _begins(value, b"[") else [value]
    return any(_is_control(one, uris.is_control) for one in named)


def _is_control(raw: Raw, judge: Callable[[str], bool]) -> bool:
    return _begins(raw, b'"') and judge(msgspec.json.decode(raw, type=str))


def _begins(raw: Raw, sign: bytes) -> bool:
    return memoryview(raw)[:1] == sign


def _not_for_everybody(body: Raw) -> Raw:
    """A result from which something was taken is not what others get, whatever the server says of caches."""
    members = members_of(body)
    if "cacheScope" not in members:
        return body
    return Raw(msgspec.json.encode({**members, "cacheScope": "private"}))
