"""The HTTP rules of revisions without a handshake (2026-07-28): header checks and status codes. Pure.

A stdio server sees no headers, so whoever puts one behind HTTP has to check them. The rules themselves are the SDK's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

import msgspec
from mcp.shared.inbound import (
    ERROR_CODE_HTTP_STATUS,
    MCP_PARAM_HEADER_PREFIX,
    NAME_BEARING_METHODS,
    InboundLadderRejection,
    classify_inbound_request,
    find_duplicated_routing_header,
    unsupported_protocol_version_rejection,
    validate_mcp_param_headers,
    x_mcp_header_map,
)
from mcp_types import (
    CLIENT_CAPABILITIES_META_KEY,
    CLIENT_INFO_META_KEY,
    HEADER_MISMATCH,
    PROTOCOL_VERSION_META_KEY,
)
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS

from transports.errors import INVALID_PARAMS, METHOD_NOT_FOUND
from transports.http_rules import VERSION_HEADER, HTTPRefusal, RawHeaders, header
from transports.messages import Message, error_code, member, members_of

_PARAM_PREFIX: Final = MCP_PARAM_HEADER_PREFIX.lower().encode()
_ENVELOPE_KEYS: Final = (PROTOCOL_VERSION_META_KEY, CLIENT_CAPABILITIES_META_KEY, CLIENT_INFO_META_KEY)
_UNREADABLE: Final = object()
# What the SDK's server answers for a handler's own "invalid params": the call was well-formed HTTP.
_STATUS_OF_ANSWERS: Final = {code: status for code, status in ERROR_CODE_HTTP_STATUS.items() if code != INVALID_PARAMS}


def claims_modern(message: Message) -> bool:
    """Whether a request carries the per-request envelope, whatever its headers say."""
    return member(message.params, "_meta", PROTOCOL_VERSION_META_KEY) is not None


def check_request(message: Message, headers: RawHeaders) -> None:
    """Raise the refusal of a request whose envelope and headers do not agree or are not complete."""
    pairs = _text_headers(headers)
    if (twice := find_duplicated_routing_header(pairs)) is not None:
        raise HTTPRefusal(400, f"{twice} header appears more than once", code=HEADER_MISMATCH, id=message.id)
    verdict = classify_inbound_request(_routing_view(message), headers=dict(pairs))
    if isinstance(verdict, InboundLadderRejection):
        raise _refusal(message, verdict)


def check_version(headers: RawHeaders) -> None:
    """Raise the refusal of a version header that names no revision of this kind."""
    verdict = unsupported_protocol_version_rejection(header(headers, VERSION_HEADER) or "")
    if verdict is not None:
        raise HTTPRefusal(400, verdict.message, code=verdict.code, data=verdict.data)


def needs_schema(message: Message, headers: RawHeaders) -> bool:
    """Whether a call has anything that its tool's ``x-mcp-header`` annotations could contradict."""
    if message.method != "tools/call":
        return False
    return bool(members_of(member(message.params, "arguments"))) or any(
        name.startswith(_PARAM_PREFIX) for name, _ in headers
    )


def check_param_headers(message: Message, headers: RawHeaders, input_schema: Any) -> None:
    """Raise the refusal of a ``tools/call`` whose Mcp-Param-* headers contradict its arguments."""
    mirrored = x_mcp_header_map(input_schema)
    if not mirrored:
        return
    pairs = _text_headers(headers)
    lines = Counter(name for name, _ in pairs)
    for token in mirrored.values():
        name = MCP_PARAM_HEADER_PREFIX + token
        if lines[name.lower()] > 1:
            raise HTTPRefusal(400, f"{name} header appears more than once", code=HEADER_MISMATCH, id=message.id)
    arguments = member(message.params, "arguments")
    values = {} if arguments is None else _decoded(arguments)
    if values is _UNREADABLE:
        why = "the arguments hold a number that is out of range, so their headers cannot be checked"
        raise HTTPRefusal(400, why, code=HEADER_MISMATCH, id=message.id)
    if not isinstance(values, Mapping):
        return
    verdict = validate_mcp_param_headers(input_schema, values, dict(pairs))
    if verdict is not None:
        raise _refusal(message, verdict)


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
    requested = member(message.params, "_meta", PROTOCOL_VERSION_META_KEY)
    name = "unknown" if requested is None else requested
    return HTTPRefusal(
        400,
        "this URL makes a session by the initialize handshake; for revisions without one, "
        "POST /sessions first and use the session's own URL",
        code=-32022,
        data={"supported": list(HANDSHAKE_PROTOCOL_VERSIONS), "requested": name},
        id=message.id,
    )


def _routing_view(message: Message) -> dict[str, Any]:
    # Only what the checks look at is decoded: a 10 MiB argument stays raw.
    params = members_of(message.params)
    view: dict[str, Any] = {}
    if "_meta" in params:
        meta = members_of(params["_meta"])
        view["_meta"] = {key: _decoded(meta[key]) for key in _ENVELOPE_KEYS if key in meta}
    name_key = NAME_BEARING_METHODS.get(message.method)
    if name_key is not None and name_key in params:
        view[name_key] = _decoded(params[name_key])
    return {"method": message.method, "params": view}


def _decoded(raw: msgspec.Raw) -> Any:
    """The value; for JSON that is none in Python (1e400), something that no header equals."""
    try:
        return msgspec.json.decode(raw)
    except (msgspec.DecodeError, RecursionError):
        return _UNREADABLE


def _text_headers(headers: RawHeaders) -> list[tuple[str, str]]:
    return [(name.decode("latin-1"), value.decode("latin-1").strip(" \t")) for name, value in headers]


def _refusal(message: Message, verdict: InboundLadderRejection) -> HTTPRefusal:
    status = ERROR_CODE_HTTP_STATUS.get(verdict.code, 400)
    return HTTPRefusal(status, verdict.message, code=verdict.code, data=verdict.data, id=message.id)
