"""What an agent may hear: everything a server says, but for what is of the control plane. Pure.

An object that names a resource of the control plane is taken out wherever it stands, together with what holds it, up to
the next list: a content block goes with the resource that is embedded in it. So does the control plane's own key.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec
from msgspec import Raw

from muxsim.session import uris
from transports.messages import Message, members_of

META_KEY: Final = "muxsim/control"
_OF_RESOURCES: Final = {"uri": uris.is_control, "uritemplate": uris.may_become_control}
# Lists of bare URIs: what may be completed to, and what is subscribed to.
_OF_URIS: Final = frozenset({"values", "resourcesubscriptions"})
_members: Final = msgspec.json.Decoder(dict[str, Raw])
_elements: Final = msgspec.json.Decoder(list[Raw])
_UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
# Without any of these the bytes spell no name that is looked for.
_SIGNS: Final = (b"\\u", b'"uri', *(b'"%s"' % name.encode() for name in (META_KEY, *_OF_URIS)))


class Withheld(Exception):
    """Nothing would be left of a payload, or it cannot be looked through."""


class _Struck(Exception):
    """This value is of the control plane."""


def heard(message: Message) -> Message:
    """The message as an agent may hear it: this very one, if nothing had to be taken out. Raises `Withheld`."""
    message = message.well_formed()
    changed: dict[str, Raw] = {}
    for name in ("params", "result", "error"):
        raw = message.members.get(name) if name != "params" else message.params
        if raw is not None and (kept := without_control(raw)) is not raw:
            changed[name] = kept
    return message.with_members({**message.members, **changed}) if changed else message


def without_control(payload: Raw) -> Raw:
    """A payload without what is of the control plane: this very one, if nothing is. Raises `Withheld`."""
    if _is_clean(bytes(payload)):
        return payload
    try:
        kept = _object(payload, is_holder=True) if _begins(payload, b"{") else _value(payload, "")
    except (_Struck, *_UNREADABLE):
        raise Withheld from None
    return payload if kept is payload else _not_for_everybody(kept)


def _is_clean(data: bytes) -> bool:
    """Whether it can be told without parsing that there is nothing to be found, as of most results."""
    lowered = data.lower()
    return not any(sign in lowered for sign in _SIGNS)


def _value(raw: Raw, name: str) -> Raw:
    if _begins(raw, b"{"):
        return _object(raw, is_holder=name == "_meta")
    return _list(raw, name) if _begins(raw, b"[") else raw


def _object(raw: Raw, *, is_holder: bool) -> Raw:
    """An object; what is struck inside of it takes it along, unless it holds things that are complete without."""
    members = _members.decode(raw)
    kept: dict[str, Raw] = {}
    changed = False
    for name, value in members.items():
        folded = name.lower()
        if folded == META_KEY:
            changed = True
            continue
        if folded in _OF_RESOURCES and _is_control(value, _OF_RESOURCES[folded]):
            raise _Struck
        try:
            kept[name] = _value(value, folded)
        except _Struck:
            if not is_holder:
                raise
            changed = True
        else:
            changed = changed or kept[name] is not value
    return Raw(msgspec.json.encode(kept)) if changed else raw


def _list(raw: Raw, name: str) -> Raw:
    elements = _elements.decode(raw)
    kept: list[Raw] = []
    changed = False
    for element in elements:
        try:
            if name in _OF_URIS and _is_control(element, uris.is_control):
                raise _Struck
            kept.append(_value(element, name))
        except _Struck:
            changed = True
        else:
            changed = changed or kept[-1] is not element
    return Raw(msgspec.json.encode(kept)) if changed else raw


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
