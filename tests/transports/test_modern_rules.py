"""The HTTP rules of 2026-07-28, row by row as the official conformance suite asks for them."""

import msgspec
import pytest
from msgspec import Raw

from transports import messages
from transports.http_rules import HTTPRefusal
from transports.messages import decode
from transports.modern_rules import (
    check_param_headers,
    check_request,
    check_version,
    claims_modern,
    handshake_only,
    needs_schema,
    status_of,
)

VERSION = "2026-07-28"
PREFIX = "io.modelcontextprotocol/"
META = {
    f"{PREFIX}protocolVersion": VERSION,
    f"{PREFIX}clientCapabilities": {},
    f"{PREFIX}clientInfo": {"name": "tests", "version": "1"},
}
HANDSHAKE_VERSIONS = ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"]


def without(name):
    return {key: value for key, value in META.items() if key != PREFIX + name}


def request(method="tools/list", id=1, meta=META, **params):
    if meta is not None:
        params["_meta"] = meta
    # As it comes from the wire: every member is a Raw of the whole.
    return decode(messages.request(id, method, params).encode())


def headers(method="tools/list", version=VERSION, **more):
    named = {"mcp-protocol-version": version, "mcp-method": method}
    named |= {name.replace("_", "-"): value for name, value in more.items()}
    return [(name.encode(), value.encode("latin-1")) for name, value in named.items() if value is not None]


def refusal(check, *arguments):
    with pytest.raises(HTTPRefusal) as refused:
        check(*arguments)
    return refused.value


def refused(message, lines):
    """(status, code) of what `check_request` answers, None if it lets the request pass."""
    return verdict(message, check_request, message, lines)


def verdict(message, check, *arguments):
    try:
        check(*arguments)
    except HTTPRefusal as refusal:
        return refusal.status, refusal.code if refusal.id == message.id else "wrong id"
    return None


# which era


@pytest.mark.parametrize(
    ("params", "modern"),
    [
        ({"_meta": META}, True),
        ({"_meta": {f"{PREFIX}protocolVersion": "v999.0.0"}}, True),
        ({"_meta": {f"{PREFIX}protocolVersion": None}}, True),
        ({"_meta": {f"{PREFIX}clientCapabilities": {}}}, False),
        ({"_meta": {"progressToken": 1}}, False),
        ({"_meta": [f"{PREFIX}protocolVersion"]}, False),
        ({}, False),
        ([], False),
        (None, False),
    ],
)
def test_a_request_claims_the_new_era_by_its_envelope(params, modern):
    assert claims_modern(messages.request(1, "m", params)) is modern


# the ladder (section 3a of the suite's server-stateless and http-header-validation)


@pytest.mark.parametrize(
    ("message", "lines", "expected"),
    [
        # server-stateless
        (request("server/discover", 101, None), headers("server/discover"), (400, -32602)),
        (request("server/discover", 102, without("protocolVersion")), headers("server/discover"), (400, -32602)),
        (request("server/discover", 104, without("clientCapabilities")), headers("server/discover"), (400, -32602)),
        (request("server/discover", 105, without("clientInfo")), headers("server/discover"), None),
        (
            request("tools/list", 301, META | {f"{PREFIX}protocolVersion": "v999.0.0"}),
            headers(version="v999.0.0"),
            (400, -32022),
        ),
        (request("tools/list", 302, META | {f"{PREFIX}protocolVersion": "v999.0.0"}), headers(), (400, -32020)),
        # http-header-validation
        (request(), headers("prompts/list"), (400, -32020)),
        (request(), headers(None), (400, -32020)),
        (request(), headers("TOOLS/LIST"), (400, -32020)),
        (request("tools/call", name="echo"), headers("tools/call", mcp_name="wrong_tool_name"), (400, -32020)),
        (request("tools/call", name="echo"), headers("tools/call", mcp_name="Echo"), (400, -32020)),
        (request("tools/call", name="echo"), headers("tools/call"), (400, -32020)),
        (request("tools/call", name="echo"), headers("tools/call", mcp_name="  echo\t "), None),
        (request("tools/call", name="echo"), headers(" tools/call ", mcp_name="echo"), None),
        # the same for the other methods that name something
        (request("prompts/get", name="p"), headers("prompts/get", mcp_name="p"), None),
        (request("prompts/get", name="p"), headers("prompts/get"), (400, -32020)),
        (request("resources/read", uri="a://b"), headers("resources/read", mcp_name="a://b"), None),
        (request("resources/read", uri="a://b"), headers("resources/read", mcp_name="a://c"), (400, -32020)),
        (request("tools/call", name="käse"), headers("tools/call", mcp_name="=?base64?a8Okc2U=?="), None),
        (request("tools/call", name="käse"), headers("tools/call", mcp_name="=?base64?a8Okc2V=?="), (400, -32020)),
        # envelopes of other shapes
        (request(), headers(), None),
        (request(meta={}), headers(), (400, -32602)),
        (request(meta=[]), headers(), (400, -32602)),
        (request(meta="x"), headers(), (400, -32602)),
        (request(meta=META | {f"{PREFIX}protocolVersion": 20260728}), headers(), (400, -32020)),
        (request(meta=META | {f"{PREFIX}protocolVersion": None}), headers(), (400, -32020)),
        (request(meta=META | {"progressToken": "t"}), headers(), None),
        (request(), headers(version="2025-11-25"), (400, -32020)),
        (request(), headers(version=None), (400, -32020)),
        (request("initialize"), headers("initialize"), None),
        (decode(b'{"jsonrpc":"2.0","id":1,"method":"ping"}'), headers("ping"), (400, -32602)),
        (decode(b'{"jsonrpc":"2.0","id":1,"method":"ping","params":[1]}'), headers("ping"), (400, -32602)),
    ],
)
def test_the_ladder_of_checks(message, lines, expected):
    assert refused(message, lines) == expected


def test_an_unsupported_revision_is_answered_with_the_supported_ones():
    message = request(meta=META | {f"{PREFIX}protocolVersion": "v999.0.0"})
    assert refusal(check_request, message, headers(version="v999.0.0")).data == {
        "supported": [VERSION],
        "requested": "v999.0.0",
    }


@pytest.mark.parametrize("name", [b"mcp-method", b"mcp-name", b"mcp-protocol-version"])
def test_a_routing_header_that_comes_twice_is_a_mismatch(name):
    lines = headers("tools/call", mcp_name="echo")
    lines += [(name, value) for other, value in lines if other == name]
    assert refused(request("tools/call", 7, name="echo"), lines) == (400, -32020)


@pytest.mark.parametrize("id", [0, "", "x", 12345678901234567890])
def test_a_refusal_carries_the_requests_own_id(id):
    assert refused(request(id=id), headers("prompts/list")) == (400, -32020)


def test_a_large_argument_is_not_decoded_by_the_ladder():
    # The payload is JSON that no decoder takes: whoever decoded it would fail.
    arguments = Raw(b'{"n": 1e400, "i": %b}' % (b"1" * 5000))
    with pytest.raises(msgspec.DecodeError):
        msgspec.json.decode(arguments)
    message = request("tools/call", name="echo", arguments=arguments)
    assert refused(message, headers("tools/call", mcp_name="echo")) is None


@pytest.mark.parametrize("value", [Raw(b"1e400"), Raw(b"1" * 5000), Raw(b"[" * 300 + b"]" * 300)])
@pytest.mark.parametrize("place", ["name", "protocolVersion", "clientCapabilities", "clientInfo"])
def test_values_that_cannot_be_decoded_are_refused_or_passed_but_never_an_error_of_ours(value, place):
    if place == "name":
        message = request("tools/call", name=value)
    else:
        message = request("tools/call", meta=META | {PREFIX + place: value}, name="echo")
    status, code = refused(message, headers("tools/call", mcp_name="echo")) or (None, None)
    assert (status, code) in [(None, None), (400, -32602), (400, -32020)]


@pytest.mark.parametrize(
    ("version", "code"),
    [(VERSION, None), ("v999.0.0", -32022), ("2025-11-25", -32022), (None, -32022), (f" {VERSION} ", None)],
)
def test_a_notification_is_judged_by_its_version_header_alone(version, code):
    lines = headers(version=version)
    if code is None:
        check_version(lines)
        return
    refused = refusal(check_version, lines)
    assert (refused.status, refused.code) == (400, code)
    assert refused.data == {"supported": [VERSION], "requested": version or ""}


def test_a_url_of_handshakes_says_so_to_a_client_of_the_new_era():
    refused = handshake_only(request(id="x", meta=META | {f"{PREFIX}protocolVersion": "v999.0.0"}))
    assert (refused.status, refused.code, refused.id) == (400, -32022, "x")
    error = msgspec.json.decode(refused.body().encode())["error"]
    assert error["data"] == {"supported": HANDSHAKE_VERSIONS, "requested": "v999.0.0"}
    assert "POST /sessions" in refused.message
    assert "/s/<an id of your own>/mcp?env=<name>" in refused.message


@pytest.mark.parametrize("version", [Raw(b"1e400"), Raw(b"1" * 5000), {}, None])
def test_a_url_of_handshakes_refuses_any_version_it_cannot_read(version):
    refused = handshake_only(request(meta=META | {f"{PREFIX}protocolVersion": version}))
    assert (refused.status, refused.code) == (400, -32022)
    assert refused.body().encode()


# tool arguments that are mirrored in headers

REGION = {
    "type": "object",
    "properties": {
        "region": {"type": "string", "x-mcp-header": "Region"},
        "count": {"type": "integer", "x-mcp-header": "Count"},
        "text": {"type": "string"},
    },
}


def call(**arguments):
    return request("tools/call", name="test_custom_header", arguments=arguments)


def params_refused(message, schema=REGION, **values):
    lines = headers("tools/call", mcp_name="test_custom_header")
    lines += [(f"mcp-param-{name}".encode(), value.encode("latin-1")) for name, value in values.items()]
    return verdict(message, check_param_headers, message, lines, schema)


@pytest.mark.parametrize(
    ("header", "argument", "expected"),
    [
        # http-custom-header-server-validation
        ("=?base64?SGVsbG8=?=", "Hello", None),
        ("=?base64?SGVsbG8?=", "Hello", (400, -32020)),
        ("=?base64?SGVs!!!bG8=?=", "Hello", (400, -32020)),
        ("SGVsbG8=", "SGVsbG8=", None),
        ("=?base64?SGVsbG8=", "=?base64?SGVsbG8=", None),
        (None, "test-value", (400, -32020)),
        # and its like
        ("eu", "eu", None),
        ("  eu ", "eu", None),
        ("eu", "us", (400, -32020)),
        ("EU", "eu", (400, -32020)),
        ("eu", None, (400, -32020)),
        (None, None, None),
    ],
)
def test_a_mirrored_argument_must_be_what_its_header_says(header, argument, expected):
    message = call(text="x") if argument is None else call(text="x", region=argument)
    values = {} if header is None else {"region": header}
    assert params_refused(message, **values) == expected


def test_numbers_are_compared_as_numbers():
    assert params_refused(call(count=42), count="42.0") is None
    assert params_refused(call(count=12345678901234567890), count="12345678901234567890") is None
    assert params_refused(call(count=12345678901234567890), count="12345678901234567891") == (400, -32020)


def test_a_tool_without_mirrored_arguments_has_nothing_to_contradict():
    assert params_refused(call(region="eu"), {"type": "object"}, region="us") is None
    assert params_refused(call(region="eu"), None, region="us") is None


@pytest.mark.parametrize("arguments", [Raw(b"[]"), Raw(b"null"), Raw(b'"x"')])
def test_arguments_that_are_no_object_are_the_backends_matter(arguments):
    assert params_refused(request("tools/call", name="t", arguments=arguments)) is None


def test_a_call_without_arguments_has_none_for_its_headers():
    assert params_refused(request("tools/call", name="t")) is None
    assert params_refused(request("tools/call", name="t"), region="eu") == (400, -32020)


@pytest.mark.parametrize("number", [b"1e400", b"1" * 5000])
def test_arguments_that_cannot_be_decoded_pass_only_where_no_header_mirrors_one(number):
    message = request("tools/call", name="t", arguments=Raw(b'{"region": "us", "text": %b}' % number))
    assert params_refused(message, {"type": "object"}, region="eu") is None
    assert params_refused(message, region="us") == (400, -32020)


def test_a_mirrored_header_that_comes_twice_is_a_mismatch():
    lines = headers("tools/call") + [(b"mcp-param-region", b"eu")] * 2
    refused = refusal(check_param_headers, call(region="eu"), lines, REGION)
    assert (refused.status, refused.code) == (400, -32020)
    check_param_headers(call(region="eu"), [*lines[:-1], *[(b"mcp-param-other", b"x")] * 2], REGION)


@pytest.mark.parametrize(
    ("message", "extra", "needs"),
    [
        (call(region="eu"), [], True),
        (call(), [(b"mcp-param-region", b"eu")], True),
        (call(), [], False),
        (request("tools/call", name="t"), [], False),
        (request("tools/list"), [(b"mcp-param-region", b"eu")], False),
        (request("prompts/get", name="p", arguments={"a": "b"}), [], False),
    ],
)
def test_a_schema_is_only_needed_where_something_could_contradict_it(message, extra, needs):
    assert needs_schema(message, headers("tools/call") + extra) is needs


# status codes (section 3b)


@pytest.mark.parametrize(
    ("code", "status"),
    [
        (-32601, 404),
        (-32021, 400),
        (-32020, 400),
        (-32022, 400),
        (-32700, 400),
        (-32600, 400),
        (-32602, 200),
        (-32603, 200),
        (-32000, 200),
        (-32002, 200),
        (1, 200),
    ],
)
def test_the_status_of_a_backends_error(code, status):
    assert status_of(messages.error(1, code, "")) == status


@pytest.mark.parametrize(
    "answer",
    [
        messages.result(1, {}),
        messages.result(1, {"code": -32601}),
        messages.error(1, "x", ""),
        messages.notification("n"),
    ],
)
def test_whatever_has_no_code_is_ok(answer):
    assert status_of(answer) == 200
