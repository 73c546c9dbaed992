"""What can still be told of bytes that are no message: which request they were, or which they answer. Pure.

Nobody may wait for ever because a parser has failed: the call whose answer cannot be read gets an error, and so does a
request. Only the outermost level is looked at, so no nesting is too deep, and not all of it, so no line is too long.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass, field
from typing import Final

from msgspec import Raw

from transports import mending
from transports.errors import RemoteProtocolError
from transports.messages import Kind, RequestId, decode_id

_TOKEN: Final = re.compile(
    rb'(?:(?P<comma>,)\s*+)?(?:"(?P<text>(?:[^"\\]++|\\.)*+)(?:"|\\?\Z)(?P<colon>\s*+:)?'
    rb'|(?P<open>[{\[])|(?P<close>[}\]])|[^\s"{}\[\]:,]++)',
    re.DOTALL,
)
# Some two milliseconds' worth.
_MOST_TOKENS: Final = 4000
# An id at the end of an object that ends the line: no nesting is looked through for it. Some put it behind the result.
_LAST_ID: Final = re.compile(
    rb'[,{]\s*"id"\s*:\s*([^\s"{}\[\]:,]{1,24}|"(?:[^"\\]|\\.){0,64}")\s*(?:,\s*"jsonrpc"\s*:\s*"[^"\\]{0,8}"\s*)?\}\s*\Z'
)
_TAIL: Final = 256
_OF_ANSWERS: Final = frozenset({b"result", b"error", b"jsonrpc"})


@dataclass(frozen=True, slots=True)
class Unread:
    """A message that could not be read, but for its id: a request, or an answer (`Kind.RESULT`)."""

    kind: Kind
    id: RequestId


def unread(data: bytes) -> list[Unread]:
    """The messages in refused bytes, several where they were a batch; [] where they look like none.

    What only has an ``id`` is none: servers log JSON lines with one on their stdout.
    """
    if not data.lstrip(mending.BLANK).startswith((b"{", b"[")):
        return []
    data = mending.mended(data)
    outlines, whole = _outlines(data)
    if not whole and len(outlines) == 1 and outlines[0].raw_id is None:
        last = _LAST_ID.search(data, max(len(data) - _TAIL, 0))
        outlines[0].raw_id = None if last is None else last[1]
    return [message for outline in outlines if (message := outline.message()) is not None]


def request_id(data: bytes) -> RequestId | None:
    """The id of the one request that refused bytes were, if they were one."""
    found = unread(data)
    return found[0].id if len(found) == 1 and found[0].kind is Kind.REQUEST else None


@dataclass(slots=True)
class _Outline:
    """One object: the names of its members, and how its id is spelled.

    Its id is what stands there as a member does: behind the brace or a comma, and before the other or the end. Where
    the text is no JSON just there, nobody knows what was meant, and it may be another request's id.
    """

    names: set[bytes] = field(default_factory=set)
    raw_id: bytes | None = None
    _begins: bool = True
    _name: bytes | None = None
    _after_id: bool = False

    def message(self) -> Unread | None:
        is_request = b"method" in self.names
        if self.raw_id is None or not (is_request or self.names & _OF_ANSWERS):
            return None
        try:
            return Unread(Kind.REQUEST if is_request else Kind.RESULT, decode_id(Raw(self.raw_id)))
        except RemoteProtocolError:
            return None

    def take(self, token: re.Match[bytes]) -> None:
        """The next token that stands in this object and in none inside it; of such a one, only its opening."""
        begins, self._begins = self._begins or bool(token["comma"]), False
        name, self._name = self._name, None
        after_id, self._after_id = self._after_id, False
        if token["close"]:
            return
        if begins:
            if token["colon"]:
                self._name = token["text"]
                self.names.add(self._name)
        elif name == b"id":
            self.raw_id, self._after_id = token[0], True
        elif after_id:
            self.raw_id = None


def _outlines(data: bytes) -> tuple[list[_Outline], bool]:
    """The object that ``data`` is, or the objects in the array that it is; and whether all of it was looked through."""
    found: list[_Outline] = []
    outermost = 2 if data.lstrip(mending.BLANK).startswith(b"[") else 1
    depth = 0
    tokens = _TOKEN.finditer(data)
    for token in itertools.islice(tokens, _MOST_TOKENS):
        if depth == outermost and found:
            found[-1].take(token)
        if token["open"]:
            depth += 1
            if depth == outermost and token["open"] == b"{":
                found.append(_Outline())
        elif token["close"]:
            depth -= 1
    return found, next(tokens, None) is None
