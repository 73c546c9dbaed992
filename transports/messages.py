"""JSON-RPC envelopes around payloads that are never looked into.

A message is decoded one level deep: its members stay :class:`msgspec.Raw`, the very bytes that came, in their
order, unknown members included. Changing the id makes a new envelope around the same payload.

Whatever one of the official SDKs reads as a message is one here. What the strict decoder refuses is mended, where that
helps (`transports.mending`), so that what is odd costs time and the rest does not.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from enum import Enum
from typing import Any, Final, Literal

import msgspec
from msgspec import UNSET, Raw, UnsetType

from transports import mending
from transports.errors import INVALID_REQUEST, PARSE_ERROR, RemoteProtocolError
from transports.origin import Origin

RequestId = int | str


class Kind(Enum):
    """What a message is, in JSON-RPC's words."""

    REQUEST = "request"
    NOTIFICATION = "notification"
    RESULT = "result"
    ERROR = "error"


_members_decoder: Final = msgspec.json.Decoder(dict[str, Raw])
_number_decoder: Final = msgspec.json.Decoder(float)
_id_decoder: Final = msgspec.json.Decoder[int | str](int | str)
_method_decoder: Final = msgspec.json.Decoder(str)
_encode: Final = msgspec.json.encode

# Up to here JavaScript tells whole numbers apart.
_MOST_EXACT: Final = 2**53 - 1
# More messages in one line are none: they would be read without a pause.
MAX_BATCH: Final = 1024
_ANSWERING: Final = frozenset({"result", "error"})
# Where building a line costs more than writing it in pieces.
_LARGE: Final = 64 * 1024
# How many of them are looked at before parsing is cheaper.
_UNDERSCORES: Final = 64

_VERSION: Final = b'"2.0"'
_NULL: Final = b"null"
_NOTIFICATION: Final = b'"notifications/'
_ID_NAME: Final = b'"id"'
# Two quotes, a colon, and a comma or a brace.
_AROUND_A_MEMBER: Final = 4
_NEWLINES_TO_SPACES: Final = bytes.maketrans(b"\r\n", b"  ")


class _Params(msgspec.Struct, gc=False):
    meta: Raw | UnsetType = msgspec.field(name="_meta", default=UNSET)


_params_decoder: Final = msgspec.json.Decoder(_Params)


def _meta_of(params: Raw | None) -> dict[str, Raw]:
    if params is None:
        return {}
    try:
        meta = _params_decoder.decode(params).meta
    except (msgspec.DecodeError, RecursionError):
        return members_of(member(params, "_meta"))
    return {} if meta is UNSET else members_of(meta)


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
    _halves: bool = False
    _meta: dict[str, Raw] | None = None
    # The HTTP request that it came with, if that said anything of itself.
    origin: Origin | None = None

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

    @property
    def size(self) -> int:
        """How many bytes the line of `encode` has, without making it: of odd names about as many."""
        if self._data is not None:
            return len(self._data)
        return sum(len(name) + len(raw) + _AROUND_A_MEMBER for name, raw in self.members.items()) + 1

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
        changed._large, changed._halves = self._large, self._halves
        return changed

    def well_formed(self) -> Message:
        """The same message for a reader who decodes it strictly: halves of surrogate pairs become U+FFFD."""
        return decode(mending.well_formed(self.encode())) if self._halves else self


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

    Raises :class:`RemoteProtocolError` with code -32700 if the bytes are not JSON, and -32600 if they are JSON but not
    one JSON-RPC 2.0 message; `transports.unread` may still find the id then.
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
        both = envelope.result is not UNSET or envelope.error is not UNSET
        call = Message(Kind.REQUEST, id, envelope.method, False, raw_id, params, None, data, False, True)
        return None if both else call
    if (envelope.result is UNSET) is (envelope.error is UNSET):
        return None
    kind = Kind.ERROR if envelope.result is UNSET else Kind.RESULT
    return Message(kind, id, "", True, raw_id, params, None, data, False, True)


def _decode_carefully(data: bytes) -> Message:
    data, members, halves = _read_members(data)
    if b"\n" in data or b"\r" in data:
        # Pretty-printed JSON: a raw newline is only white space by now, and would break every line-based framing.
        data = data.translate(_NEWLINES_TO_SPACES)
        data, members, halves = _read_members(data)
    said = _unambiguous(members)
    message = _from_members(*_classify(said), said)
    if said is members:
        message._data = data
    message._large, message._halves = len(data) >= _LARGE, halves
    return message


def _read_members(data: bytes) -> tuple[bytes, dict[str, Raw], bool]:
    """The JSON in ``data``, its members, and whether halves of surrogate pairs stand in it."""
    try:
        if not data.isascii():
            data.decode()
        return data, _members_decoder.decode(data), False
    except msgspec.ValidationError:
        raise _no_object() from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        if not data.lstrip(mending.BLANK).startswith(b"{"):
            raise _no_json(error) from None
    mended = mending.mended(data)
    try:
        mended.decode()
        try:
            return mended, _members_decoder.decode(mended), False
        except msgspec.DecodeError:
            return mended, mending.members(mended), True
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _no_json(error) from None


def _no_object() -> RemoteProtocolError:
    return RemoteProtocolError(INVALID_REQUEST, "not a JSON-RPC message: expected one JSON object")


def _no_json(error: Exception) -> RemoteProtocolError:
    return RemoteProtocolError(PARSE_ERROR, f"not JSON: {error}")


def _unambiguous(members: dict[str, Raw]) -> dict[str, Raw]:
    """The members without what must not stand beside others, as the SDKs read it: what is null is not there."""
    dropped = set()
    answers = [name for name in ("result", "error") if name in members]
    under_id = "id" in members and not _is_null(members, "id")
    if answers and "method" in members and (not _is_call(members) or (under_id and _has_whole_error(members))):
        dropped.add("method")
    if len(answers) == 2 and ("method" not in members or dropped):
        dropped.add("result" if _is_error(members) else "error")
    if _is_null(members, "id") and bytes(members.get("method", b"")).startswith(_NOTIFICATION):
        dropped.add("id")
    return {name: raw for name, raw in members.items() if name not in dropped} if dropped else members


def _is_call(members: dict[str, Raw]) -> bool:
    params = bytes(members.get("params", _NULL))
    return bytes(members["method"]).startswith(b'"') and (params == _NULL or params.startswith(b"{"))


def _is_error(members: dict[str, Raw]) -> bool:
    """Whether it is the error that counts of an error and a result."""
    return not _is_null(members, "error") if _is_null(members, "result") else _has_whole_error(members)


def _has_whole_error(members: dict[str, Raw]) -> bool:
    return "error" in members and members_of(members["error"]).keys() >= {"code", "message"}


def _is_null(members: dict[str, Raw], name: str) -> bool:
    raw = members.get(name)
    return raw is not None and bytes(raw) == _NULL


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
    """A request id, whose type matters: 1 and "1" are two ids, but 1.0 is 1, as JavaScript has it."""
    try:
        id: RequestId = _id_decoder.decode(raw)
    except msgspec.DecodeError:
        return _decode_whole_number(raw)
    except UnicodeDecodeError:
        raise _no_id() from None
    return id


def _decode_whole_number(raw: Raw) -> int:
    try:
        number = _number_decoder.decode(raw)
    except msgspec.DecodeError:
        number = math.nan
    if not (number.is_integer() and abs(number) <= _MOST_EXACT):
        raise _no_id()
    return int(number)


def _no_id() -> RemoteProtocolError:
    return RemoteProtocolError(INVALID_REQUEST, "a request id must be a string or an integer")


def id_in(raw: Raw | None) -> RequestId | None:
    """An id or a token inside a payload, where anything may stand: None for what is neither string nor integer."""
    try:
        return None if raw is None else decode_id(raw)
    except RemoteProtocolError:
        return None


def as_number(id: RequestId | None) -> int | None:
    """The number that an id means to the SDKs, which take "1" for 1; None if it means none."""
    if not isinstance(id, str):
        return id
    for read in (int, float):
        try:
            number = read(id)
            return int(number) if number == int(number) else None
        except (ValueError, OverflowError):
            continue
    return None


def _decode_method(raw: Raw) -> str:
    try:
        return _method_decoder.decode(raw)
    except msgspec.DecodeError:
        raise RemoteProtocolError(INVALID_REQUEST, "a method must be a string") from None


def batch(data: bytes) -> list[bytes]:
    """The messages of a batch with an answer in it, as servers of revision 2025-03-26 send it; [] for what is none."""
    if not data.lstrip(mending.BLANK).startswith(b"["):
        return []
    data = mending.mended(data)
    try:
        data.decode()
        found = mending.elements(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return []
    if len(found) > MAX_BATCH or not all(bytes(raw).startswith(b"{") for raw in found):
        return []
    return [bytes(raw) for raw in found] if any(_ANSWERING & members_of(raw).keys() for raw in found) else []


def member(raw: Raw | None, *path: str) -> Raw | None:
    """The raw value at ``path`` of nested objects, or None where the path ends early; nothing else is decoded."""
    for name in path:
        if raw is None:
            return None
        raw = members_of(raw).get(name)
    return raw


def text_of(raw: Raw | None) -> str:
    """The text that a raw value is; "" for anything else."""
    try:
        value = "" if raw is None else mending.value(raw)
    except (msgspec.DecodeError, RecursionError):
        return ""
    return value if isinstance(value, str) else ""


def members_of(raw: Raw | None) -> dict[str, Raw]:
    """The raw members of an object; {} for anything that is not one."""
    if raw is None:
        return {}
    try:
        return _members_decoder.decode(raw)
    except (msgspec.ValidationError, RecursionError):
        return {}
    except msgspec.DecodeError:
        return _members_with_halves(bytes(raw))


def _members_with_halves(data: bytes) -> dict[str, Raw]:
    try:
        return mending.members(data)
    except (msgspec.DecodeError, RecursionError):
        return {}


def request(id: RequestId, method: str, params: Any = None) -> Message:
    """A new request, as a line already: the next that is done with one is to change its id and send it."""
    raw_id, raw_params = _encode(id), None if params is None else Raw(_encode(params))
    rest = b"" if raw_params is None else b',"params":' + bytes(raw_params)
    data = b'{"jsonrpc":"2.0","id":%b,"method":%b%b}' % (raw_id, _encode(method), rest)
    return Message(Kind.REQUEST, id, method, False, raw_id, raw_params, None, data, False, True)


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
