"""The HTTP rules of revisions without a handshake (2026-07-28): header checks and status codes. Pure.

A stdio server sees no headers, so whoever puts one behind HTTP has to check them. The rules are those of the official
SDK, in its order; tests compare the two.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from transports.errors import (
    HEADER_MISMATCH,
    INVALID_PARAMS,
    INVALID_REQUEST,
    METHOD_NOT_FOUND,
    MISSING_CAPABILITY,
    PARSE_ERROR,
    UNSUPPORTED_VERSION,
)
from transports.http_rules import VERSION_HEADER, HTTPRefusal, RawHeaders, header
from transports.messages import Message, RequestId, error_code, member, members_of
from transports.mirrored import PREFIX, contradiction, decoded, mirrored
from transports.revisions import CLIENT_CAPABILITIES_KEY, HANDSHAKE_VERSIONS, MODERN_VERSIONS, PROTOCOL_VERSION_KEY

_PARAM_PREFIX: Final = PREFIX.encode()
_VERSION: Final = VERSION_HEADER.decode()
_METHOD: Final = "mcp-method"
_NAME: Final = "mcp-name"
# Which of a method's params its name header repeats.
_NAMED_BY: Final = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}
_UNREADABLE: Final = object()
# A handler's own "invalid params" is not among them: such a call was well-formed HTTP.
_STATUS_OF_ANSWERS: Final = {
    **dict.fromkeys((PARSE_ERROR, INVALID_REQUEST, HEADER_MISMATCH, MISSING_CAPABILITY, UNSUPPORTED_VERSION), 400),
    METHOD_NOT_FOUND: 404,
}


def claims_modern(message: Message) -> bool:
    """Whether a request carries the per-request envelope, whatever its headers say."""
    return member(message.params, "_meta", PROTOCOL_VERSION_KEY) is not None


def check_request(message: Message, headers: RawHeaders) -> None:
    """Raise the refusal of a request whose envelope and headers do not agree or are not complete."""
    pairs = _text_headers(headers)
    lines = Counter(name for name, _ in pairs)
    if twice := [name for name in (_VERSION, _METHOD, _NAME) if lines[name] > 1]:
        raise _mismatch(message, f"{twice[0]} header appears more than once")
    told, params = dict(pairs), members_of(message.params)
    meta = members_of(params.get("_meta"))
    if missing := [key for key in (PROTOCOL_VERSION_KEY, CLIENT_CAPABILITIES_KEY) if key not in meta]:
        why = f"params._meta must have {' and '.join(missing)}"
        raise HTTPRefusal(400, why, code=INVALID_PARAMS, id=message.id)
    version = _decoded(meta[PROTOCOL_VERSION_KEY])
    if told.get(_VERSION) is None or told[_VERSION] != version:
        raise _mismatch(message, f"{_VERSION} header is not the version of the request")
    if told.get(_METHOD) != message.method:
        raise _mismatch(message, f"{_METHOD} header is not the method of the request")
    key = _NAMED_BY.get(message.method)
    name = None if key is None or key not in params else _decoded(params[key])
    if name is not None and decoded(told.get(_NAME)) != name:
        raise _mismatch(message, f"{_NAME} header is not the {key} of the request")
    _check_version(version, message.id)


def check_version(headers: RawHeaders) -> None:
    """Raise the refusal of a version header that names no revision of this kind."""
    _check_version(header(headers, VERSION_HEADER) or "")


def _check_version(version: str, id: RequestId | None = None) -> None:
    if version not in MODERN_VERSIONS:
        data = {"supported": list(MODERN_VERSIONS), "requested": version}
        raise HTTPRefusal(400, "Unsupported protocol version", code=UNSUPPORTED_VERSION, data=data, id=id)


def needs_schema(message: Message, headers: RawHeaders) -> bool:
    """Whether a call has anything that its tool's ``x-mcp-header`` annotations could contradict."""
    if message.method != "tools/call":
        return False
    return bool(members_of(member(message.params, "arguments"))) or any(
        name.startswith(_PARAM_PREFIX) for name, _ in headers
    )


def check_param_headers(message: Message, headers: RawHeaders, input_schema: Any) -> None:
    """Raise the refusal of a ``tools/call`` whose Mcp-Param-* headers contradict its arguments."""
    found = mirrored(input_schema)
    if not found:
        return
    arguments = member(message.params, "arguments")
    values = {} if arguments is None else _decoded(arguments)
    if values is _UNREADABLE:
        raise _mismatch(message, "the arguments hold a number that is out of range, so their headers cannot be checked")
    if isinstance(values, Mapping) and (why := contradiction(found, values, _text_headers(headers))):
        raise _mismatch(message, why)


def status_of(answer: Message) -> int:
    """The HTTP status that goes with an answer which is the first thing sent."""
    code = error_code(answer)
    return 200 if code is None else _STATUS_OF_ANSWERS.get(code, 200)


def no_handshake(message: Message) -> HTTPRefusal:
    """The refusal of an ``initialize`` under a revision that has none."""
    return HTTPRefusal(
        404, "this revision has no initialize: send the request itself", code=METHOD_NOT_FOUND, id=message.id
    )


def handshake_only(message: Message) -> HTTPRefusal:
    """The refusal of a 2026-07-28 request on a URL that makes sessions by a handshake."""
    requested = member(message.params, "_meta", PROTOCOL_VERSION_KEY)
    name = "unknown" if requested is None else requested
    return HTTPRefusal(
        400,
        "this URL makes a session by the initialize handshake; for revisions without one, "
        "POST /sessions first and use the session's own URL, or /s/<an id of your own>/mcp?env=<name>&seed=<n>",
        code=UNSUPPORTED_VERSION,
        data={"supported": list(HANDSHAKE_VERSIONS), "requested": name},
        id=message.id,
    )


def _decoded(raw: msgspec.Raw) -> Any:
    """The value; for JSON that is none in Python (1e400), something that no header equals."""
    try:
        return msgspec.json.decode(raw)
    except (msgspec.DecodeError, RecursionError):
        return _UNREADABLE


def _text_headers(headers: RawHeaders) -> list[tuple[str, str]]:
    return [(name.decode("latin-1"), value.decode("latin-1").strip(" \t")) for name, value in headers]


def _mismatch(message: Message, why: str) -> HTTPRefusal:
    return HTTPRefusal(400, why, code=HEADER_MISMATCH, id=message.id)
