"""The rules that are written anew here say what the official SDK says: revisions, envelopes, mirrored arguments."""

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from mcp.shared import inbound
from mcp_types import CLIENT_CAPABILITIES_META_KEY, PROTOCOL_VERSION_META_KEY, jsonrpc, version

from transports import errors, messages, revisions
from transports.http_rules import HTTPRefusal
from transports.messages import decode
from transports.mirrored import contradiction, decoded, mirrored
from transports.modern_rules import check_request, check_version, status_of

VERSIONS = ["2026-07-28", "2025-11-25", "v999", ""]
ANNOTATION = inbound.X_MCP_HEADER_KEY


def test_the_revisions_and_their_keys_are_the_sdks():
    assert revisions.HANDSHAKE_VERSIONS == version.HANDSHAKE_PROTOCOL_VERSIONS
    assert revisions.MODERN_VERSIONS == version.MODERN_PROTOCOL_VERSIONS
    assert revisions.KNOWN_VERSIONS == version.KNOWN_PROTOCOL_VERSIONS
    assert revisions.PROTOCOL_VERSION_KEY == PROTOCOL_VERSION_META_KEY
    assert revisions.CLIENT_CAPABILITIES_KEY == CLIENT_CAPABILITIES_META_KEY


def test_the_codes_are_the_sdks_and_so_are_their_statuses_but_of_a_handlers_invalid_params():
    assert errors.HEADER_MISMATCH == jsonrpc.HEADER_MISMATCH
    assert errors.MISSING_CAPABILITY == jsonrpc.MISSING_REQUIRED_CLIENT_CAPABILITY
    assert errors.UNSUPPORTED_VERSION == jsonrpc.UNSUPPORTED_PROTOCOL_VERSION
    statuses = dict(inbound.ERROR_CODE_HTTP_STATUS) | {jsonrpc.INVALID_PARAMS: 200}
    assert {code: status_of(messages.error(1, code, "")) for code in statuses} == statuses


values = st.one_of(st.sampled_from(VERSIONS), st.none(), st.booleans(), st.integers(), st.just({}), st.just("a"))
# What a client may write of a name, right and wrong.
written = st.sampled_from(["a", "b", "", "=?base64?YQ==?=", "=?base64?YR==?=", "=?base64?YQ?=", "=?base64?/w==?=", "A"])


def as_told(check, *arguments):
    try:
        check(*arguments)
    except HTTPRefusal as refusal:
        return refusal.status, refusal.code, refusal.data
    return None


def as_the_sdk_tells(verdict):
    if not isinstance(verdict, inbound.InboundLadderRejection):
        return None
    return inbound.ERROR_CODE_HTTP_STATUS[verdict.code], verdict.code, verdict.data


@given(
    method=st.sampled_from(["tools/call", "prompts/get", "resources/read", "tools/list"]),
    meta=st.none()
    | st.just([])
    | st.dictionaries(st.sampled_from([PROTOCOL_VERSION_META_KEY, CLIENT_CAPABILITIES_META_KEY]), values),
    params=st.dictionaries(st.sampled_from(["name", "uri"]), values),
    told=st.fixed_dictionaries(
        {},
        optional={
            "mcp-protocol-version": st.sampled_from(VERSIONS),
            "mcp-method": st.sampled_from(["tools/call", "prompts/get", "resources/read", "tools/list"]),
            "mcp-name": written,
        },
    ),
    agreeing=st.booleans(),
)
def test_an_envelope_is_judged_as_by_the_sdk(method, meta, params, told, agreeing):
    if agreeing:  # most of what is drawn would fail at the first step
        meta = {PROTOCOL_VERSION_META_KEY: told.get("mcp-protocol-version", ""), CLIENT_CAPABILITIES_META_KEY: {}}
        told["mcp-method"] = method
    params = params if meta is None else params | {"_meta": meta}
    message = decode(messages.request(1, method, params).encode())
    headers = [(name.encode(), value.encode()) for name, value in told.items()]
    verdict = inbound.classify_inbound_request({"method": method, "params": params}, headers=told)
    assert as_told(check_request, message, headers) == as_the_sdk_tells(verdict)


@given(st.lists(st.sampled_from(["mcp-protocol-version", "mcp-method", "mcp-name", "accept"]), max_size=4))
def test_a_routing_header_that_comes_twice_is_found_as_by_the_sdk(names):
    twice = inbound.find_duplicated_routing_header([(name, "x") for name in names])
    meta = {PROTOCOL_VERSION_META_KEY: "x", CLIENT_CAPABILITIES_META_KEY: {}}
    message = decode(messages.request(1, "x", {"_meta": meta}).encode())
    with pytest.raises(HTTPRefusal) as refused:
        check_request(message, [(name.encode(), b"x") for name in names])
    assert ("more than once" in refused.value.message) == (twice is not None)


@given(st.sampled_from(VERSIONS))
def test_a_version_is_judged_as_by_the_sdk(named):
    verdict = inbound.unsupported_protocol_version_rejection(named)
    assert as_told(check_version, [(b"mcp-protocol-version", named.encode())]) == as_the_sdk_tells(verdict)


@given(written | st.text(max_size=5) | st.text(max_size=5).map(inbound.encode_header_value) | st.none())
def test_what_a_header_says_is_read_as_by_the_sdk(value):
    assert decoded(value) == inbound.decode_header_value(value)


tokens = st.sampled_from(["A", "a", "B-c", "", "no token", 1, None])
types = st.sampled_from(["string", "integer", "boolean", "number", ["string"], None])
leaves = st.fixed_dictionaries({}, optional={ANNOTATION: tokens, "type": types}) | st.booleans()


def schemas_of(inner):
    keywords = ["items", "not", "additionalProperties", "allOf", "anyOf", "$defs", "patternProperties", "default"]
    named = st.dictionaries(st.sampled_from("pqr"), inner, max_size=2)
    places = st.dictionaries(st.sampled_from(keywords), inner | st.lists(inner, max_size=2) | named, max_size=1)
    return st.builds(lambda own, more: {"properties": own, **more}, named, places)


schemas = st.recursive(leaves, schemas_of, max_leaves=4)
# Of which the annotations are right, so that values are compared.
fitting = st.dictionaries(
    st.sampled_from("pq"),
    st.builds(lambda kind, token: {"type": kind, ANNOTATION: token}, st.sampled_from(["string", "integer"]), tokens),
    max_size=2,
).map(lambda properties: {"properties": properties})
scalars = st.sampled_from([None, True, 42, 42.0, 42.5, -1, 10**5000, "42", "a", "ä", [], {"p": 42}])
arguments_drawn = st.dictionaries(st.sampled_from("pqr"), scalars, max_size=3)
said = st.dictionaries(
    st.sampled_from(["mcp-param-a", "mcp-param-b-c", "mcp-param-x"]),
    st.sampled_from(["42", "42.0", "42.5", "042", "-1", "true", "True", "a", "=?base64?w6Q=?=", "=?base64?YR==?=", ""]),
)


@given(schemas | fitting, arguments_drawn, said)
@example({"properties": {"p": {"type": "integer", ANNOTATION: "A"}}}, {"p": 42}, {"mcp-param-a": "9" * 5000})
@example({"properties": {"p": {"properties": {"p": {"type": "integer", ANNOTATION: "A"}}}}}, {"p": {"p": 42}}, {})
def test_mirrored_arguments_are_judged_as_by_the_sdk(schema, arguments, headers):
    found = mirrored(schema)
    if inbound.find_invalid_x_mcp_header(schema) is None:
        assert {one.path: one.token for one in found} == inbound.x_mcp_header_map(schema)
    else:
        assert found == []
    rejected = inbound.validate_mcp_param_headers(schema, arguments, headers) is not None
    assert (contradiction(found, arguments, list(headers.items())) is not None) == rejected


def test_a_schema_may_be_deep():
    schema = {}
    for _ in range(10_000):
        schema = {"items": schema}
    assert mirrored(schema) == []
    assert mirrored(msgspec.json.decode(b'[{"x-mcp-header": "A"}]')) == []
