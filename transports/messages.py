"""JSON-RPC envelopes around payloads that are never looked into.

A message is decoded one level deep: its members stay :class:`msgspec.Raw`, the very bytes that came, in their
order, unknown members included. Changing the id makes a new envelope around the same payload.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any, Final, Literal

import msgspec
from msgspec import UNSET, Raw, UnsetType

from transports.errors import INVALID_REQUEST, PARSE_ERROR, RemoteProtocolError

RequestId = int | str
ProgressToken = int | str


class Kind(Enum):
    """What a message is, in JSON-RPC's words."""

    REQUEST = "request"
    NOTIFICATION = "notification"
    RESULT = "result"
    ERROR = "error"


_members_decoder: Final = msgspec.json.Decoder(dict[str, Raw])
_id_decoder: Final = msgspec.json.Decoder[int | str](int | str)
_method_decoder: Final = msgspec.json.Decoder(str)
_encode: Final = msgspec.json.encode

# Where building a line costs more than writing it in pieces.
_LARGE: Final = 64 * 1024
# How many of them are looked at before parsing is cheaper.
_UNDERSCORES: Final = 64

_VERSION: Final = b'"2.0"'
_NULL: Final = b"null"
_ID_NAME: Final = b'"id"'
_NEWLINES_TO_SPACES: Final = bytes.maketrans(b"\r\n", b"  ")


class _Params(msgspec.Struct, gc=False):
    meta: Raw | UnsetType = msgspec.field(name="_meta", default=UNSET)


_params_decoder: Final = msgspec.json.Decoder(_Params)


def _meta_of(params: Raw | None) -> dict[str, Raw]:
    if params is None:
        return {}
    try:
        meta = _params_decoder.decode(params).meta
        return {} if meta is UNSET else _members_decoder.decode(meta)
    except (msgspec.DecodeError, RecursionError):
        return {}


def _may_name_meta(data: bytes) -> bool:
    """Whether ``"_meta"`` may stand in ``data``. For most large payloads, base64 say, this is known without parsing."""
    if b"\\" in data:
        return True
    at = -1
    for _ in range(_UNDERSCORES):
        at = data.find(b"_", at + 1)
        if at < 0:
            return False
        if data.startswith(b"_meta", at):
            return True
    return True


class Message(msgspec.Struct, eq=False, gc=False):
    """One JSON-RPC message: ``kind``, ``id`` (None for notifications), ``method`` ("" for answers) and raw members.

    ``raw_id`` and ``params`` are the very bytes that came, None where there are none. Treat a message as frozen,
    several receivers may share it. A Struct, since several are made on each call's way.
    """

    kind: Kind
    id: RequestId | None
    method: str
    # Whether this ends a request; asked so often on a call's way that it is not worth a property.
    is_answer: bool
    raw_id: bytes | None
    params: Raw | None
    _members: dict[str, Raw] | None = None
    _data: bytes | None = None
    _large: bool = False
    _plain: bool = False
    _meta: dict[str, Raw] | None = None

    def __repr__(self) -> str:
        name = f" {self.method}" if self.method else ""
        number = "" if self.id is None else f" id={self.id!r}"
        return f"<Message {self.kind.value}{name}{number}>"

    @property
    def members(self) -> dict[str, Raw]:
        """Each top-level name and its raw JSON."""
        if self._members is None:
            assert self._data is not None
            self._members = _members_decoder.decode(self._data)
        return self._members

    @property
    def meta(self) -> dict[str, Raw]:
        """The raw members of the params' ``_meta``; {} if there is none. Decoded once: several steps look at it."""
        if self._meta is None:
            none = self._large and self._data is not None and not _may_name_meta(self._data)
            self._meta = {} if none else _meta_of(self.params)
        return self._meta

    def pieces(self) -> list[bytes | memoryview]:
        """The line that `encode` gives, in pieces that need no copy of a large payload."""
        if self._data is not None:
            return [self._data]
        if not self._large:
            return [self.encode()]
        pieces: list[bytes | memoryview] = []
        separator = b"{"
        for name, raw in self.members.items():
            pieces += (separator + _encode(name) + b":", memoryview(raw))
            separator = b","
        return [*pieces, b"}"]

    def encode(self) -> bytes:
        """The message as one line of JSON without its newline; the bytes that came, if nothing was changed."""
        if self._data is None:
            self._data = _encode(self._members)
        return self._data

    def with_id(self, id: RequestId, raw: bytes | None = None) -> Message:
        """The same message under another id; ``raw`` is the id's own spelling, where one is to be kept."""
        if raw is None:
            raw = b"%d" % id if type(id) is int else _encode(id)
        data, old = self._data, self.raw_id
        if self._plain and old is not None and data is not None and data.count(_ID_NAME) == 1:
            # The only place that can be the id's name; to make the whole line anew costs several times as much.
            start = data.index(old, data.index(_ID_NAME) + len(_ID_NAME))
            data = b"".join((data[:start], raw, data[start + len(old) :]))
            return Message(self.kind, id, self.method, self.is_answer, raw, self.params, None, data, False, True)
        return self.with_members({**self.members, "id": Raw(raw)}, id)

    def with_params(self, params: Mapping[str, Any]) -> Message:
        """The same message with other params, whose values may be Raw."""
        return self.with_members({**self.members, "params": Raw(_encode(params))})

    def with_members(self, members: dict[str, Raw], id: RequestId | None = None) -> Message:
        """The same message with other members; ``id`` where they change it."""
        changed = _from_members(self.kind, self.id if id is None else id, self.method, members)
        changed._large = self._large
        return changed


def _from_members(kind: Kind, id: RequestId | None, method: str, members: dict[str, Raw]) -> Message:
    raw_id = members.get("id")
    return Message(
        kind,
        id,
        method,
        kind is Kind.RESULT or kind is Kind.ERROR,
        None if raw_id is None else bytes(raw_id),
        members.get("params"),
        members,
    )


class _Envelope(msgspec.Struct, gc=False):
    """What is looked at in a usual message."""

    jsonrpc: Literal["2.0"]
    id: Raw | UnsetType = UNSET
    method: str | UnsetType = UNSET
    params: Raw | UnsetType = UNSET
    result: Raw | UnsetType = UNSET
    error: Raw | UnsetType = UNSET


_envelope_decoder: Final = msgspec.json.Decoder(_Envelope)


def decode(data: bytes) -> Message:
    """Decode one message.

    Raises :class:`RemoteProtocolError` with code -32700 if the bytes are not JSON in UTF-8, and -32600 if they are
    JSON but not one JSON-RPC 2.0 message; :func:`readable_id` may still find the id then.
    """
    if len(data) < _LARGE:
        try:
            message = _decode_usual(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            message = None
        if message is not None:
            return message
    return _decode_carefully(data)


def _decode_usual(data: bytes) -> Message | None:
    """A message that has nothing odd about it, decoded at a fraction of the cost; None for any other."""
    # An escape may hide a member's name, and a newline is for the careful way to take out.
    if b"\\u" in data or b"\n" in data or b"\r" in data:
        return None
    if not data.isascii():
        data.decode()
    envelope = _envelope_decoder.decode(data)
    params = None if envelope.params is UNSET else envelope.params
    if envelope.id is UNSET:
        if envelope.method is UNSET:
            return None
        return Message(Kind.NOTIFICATION, None, envelope.method, False, None, params, None, data)
    raw_id = bytes(envelope.id)
    id = _id_decoder.decode(raw_id)
    if envelope.method is not UNSET:
        return Message(Kind.REQUEST, id, envelope.method, False, raw_id, params, None, data, False, True)
    if (envelope.result is UNSET) is (envelope.error is UNSET):
        return None
    kind = Kind.ERROR if envelope.result is UNSET else Kind.RESULT
    return Message(kind, id, "", True, raw_id, params, None, data, False, True)


def _decode_carefully(data: bytes) -> Message:
    members = _decode_members(data)
    if b"\n" in data or b"\r" in data:
        # Pretty-printed JSON: a raw newline is only white space by now, and would break every line-based framing.
        data = data.translate(_NEWLINES_TO_SPACES)
        members = _decode_members(data)
    message = _from_members(*_classify(members), members)
    message._data = data
    message._large = len(data) >= _LARGE
    return message


def _decode_members(data: bytes) -> dict[str, Raw]:
    try:
        if not data.isascii():
            data.decode()
        return _members_decoder.decode(data)
    except msgspec.ValidationError:
        raise RemoteProtocolError(INVALID_REQUEST, "not a JSON-RPC message: expected one JSON object") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RemoteProtocolError(PARSE_ERROR, f"not JSON: {error}") from None


def _classify(members: dict[str, Raw]) -> tuple[Kind, RequestId | None, str]:
    if bytes(members.get("jsonrpc", b"")) != _VERSION:
        raise RemoteProtocolError(INVALID_REQUEST, 'not a JSON-RPC message: "jsonrpc" is not "2.0"')
    raw_id = members.get("id")
    if "method" in members:
        method = _decode_method(members["method"])
        if raw_id is None:
            return Kind.NOTIFICATION, None, method
        return Kind.REQUEST, decode_id(raw_id), method
    if ("result" in members) == ("error" in members):
        raise RemoteProtocolError(INVALID_REQUEST, "not a JSON-RPC message: no method, and not one of result and error")
    if "result" in members:
        if raw_id is None:
            raise RemoteProtocolError(INVALID_REQUEST, "not a JSON-RPC message: a result without an id")
        return Kind.RESULT, decode_id(raw_id), ""
    # An error that answers something unreadable has no id, or null.
    return Kind.ERROR, None if raw_id is None or bytes(raw_id) == _NULL else decode_id(raw_id), ""


def decode_id(raw: Raw) -> RequestId:
    """A request id, whose type matters: 1 and "1" are two ids."""
    try:
        id: RequestId = _id_decoder.decode(raw)
    except msgspec.DecodeError:
        raise RemoteProtocolError(INVALID_REQUEST, "a request id must be a string or an integer") from None
    return id


def _decode_method(raw: Raw) -> str:
    try:
        return _method_decoder.decode(raw)
    except msgspec.DecodeError:
        raise RemoteProtocolError(INVALID_REQUEST, "a method must be a string") from None


def readable_id(data: bytes) -> RequestId | None:
    """The id in bytes that :func:`decode` refused, where one can still be read; None otherwise."""
    try:
        return decode_id(_members_decoder.decode(data)["id"])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, KeyError, RemoteProtocolError):
        return None


def member(raw: Raw | None, *path: str) -> Raw | None:
    """The raw value at ``path`` of nested objects, or None where the path ends early; nothing else is decoded."""
    for name in path:
        if raw is None:
            return None
        try:
            raw = _members_decoder.decode(raw).get(name)
        except (msgspec.DecodeError, RecursionError):
            return None
    return raw


def text_of(raw: Raw | None) -> str:
    """The text that a raw value is; "" for anything else."""
    try:
        value = "" if raw is None else msgspec.json.decode(raw)
    except (msgspec.DecodeError, RecursionError):
        return ""
    return value if isinstance(value, str) else ""


def members_of(raw: Raw | None) -> dict[str, Raw]:
    """The raw members of an object; {} for anything that is not one."""
    if raw is None:
        return {}
    try:
        return _members_decoder.decode(raw)
    except (msgspec.DecodeError, RecursionError):
        return {}


def request(id: RequestId, method: str, params: Any = None) -> Message:
    """A new request."""
    members = {"jsonrpc": Raw(_VERSION), "id": Raw(_encode(id)), "method": Raw(_encode(method))}
    if params is not None:
        members["params"] = Raw(_encode(params))
    return _from_members(Kind.REQUEST, id, method, members)


def notification(method: str, params: Any = None) -> Message:
    """A new notification."""
    members = {"jsonrpc": Raw(_VERSION), "method": Raw(_encode(method))}
    if params is not None:
        members["params"] = Raw(_encode(params))
    return _from_members(Kind.NOTIFICATION, None, method, members)


def result(id: RequestId, value: Any) -> Message:
    """A new result."""
    members = {"jsonrpc": Raw(_VERSION), "id": Raw(_encode(id)), "result": Raw(_encode(value))}
    return _from_members(Kind.RESULT, id, "", members)


def error(id: RequestId | None, code: int, message: str, data: Any = None) -> Message:
    """A new error; ``id`` None answers something whose id could not be read."""
    body: dict[str, Any] = {"code": code, "message": message}
    if data is not None:
        body["data"] = data
    members = {"jsonrpc": Raw(_VERSION), "id": Raw(_encode(id)), "error": Raw(_encode(body))}
    return _from_members(Kind.ERROR, id, "", members)


def error_code(message: Message) -> int | None:
    """The ``code`` of an error message; None for other messages and codes that are not integers."""
    raw = member(message.members.get("error"), "code")
    try:
        return None if raw is None else msgspec.json.decode(raw, type=int)
    except msgspec.DecodeError:
        return None
