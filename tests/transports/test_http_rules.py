import pytest

from transports.errors import INVALID_REQUEST
from transports.http_rules import (
    Accepts,
    HostRules,
    HTTPRefusal,
    accepts,
    check_event_stream,
    check_json_content,
    header,
    is_modern,
    primes_streams,
    protocol_version,
)

OWN = "127.0.0.1:8000"


def headers(*pairs, **named):
    """Headers as ASGI has them: pairs first, then keywords with ``_`` for ``-``."""
    named_pairs = [(name.replace("_", "-"), value) for name, value in named.items()]
    return [(name.encode(), value.encode("latin-1")) for name, value in (*pairs, *named_pairs)]


def refusal(check, *arguments):
    with pytest.raises(HTTPRefusal) as refused:
        check(*arguments)
    return refused.value


def status(check, *arguments):
    try:
        check(*arguments)
    except HTTPRefusal as refused:
        return refused.status
    return None


# what a client takes


@pytest.mark.parametrize(
    ("value", "json", "stream"),
    [
        ("application/json, text/event-stream", True, True),
        ("text/event-stream, application/json", True, True),
        ("application/json", True, False),
        ("text/event-stream", False, True),
        ("APPLICATION/JSON", True, False),
        ("Text/Event-Stream;q=0.5", False, True),
        ("application/json;charset=utf-8 , text/html", True, False),
        ("*/*", True, True),
        ("text/html, */*;q=0.1", True, True),
        ("application/*", True, False),
        ("text/*", False, True),
        ("  text/event-stream  ", False, True),
    ],
)
def test_the_accept_header_says_which_forms_a_client_takes(value, json, stream):
    assert accepts(headers(accept=value)) == Accepts(json, stream)


def test_a_client_that_sends_no_accept_header_takes_both_forms():
    assert accepts([]) == Accepts(json=True, stream=True)


def test_several_accept_headers_count_as_one_list():
    lines = headers(("accept", "application/json"), ("accept", "text/event-stream"))
    assert accepts(lines) == Accepts(json=True, stream=True)


@pytest.mark.parametrize("value", ["text/html", "", "application/jsonx", "image/*", "json", "*"])
def test_a_client_that_takes_neither_form_is_refused_with_406_L12(value):
    assert status(accepts, headers(accept=value)) == 406


@pytest.mark.parametrize(
    ("value", "expected"),
    [("text/event-stream", None), ("*/*", None), ("application/json", 406), ("text/html", 406)],
)
def test_an_event_stream_is_only_for_who_accepts_it(value, expected):
    assert status(check_event_stream, headers(accept=value)) == expected


# what a body is declared as


@pytest.mark.parametrize(
    "value", ["application/json", "application/json; charset=utf-8", "Application/JSON", " application/json ;x=y"]
)
def test_a_json_body_is_taken(value):
    assert status(check_json_content, headers(content_type=value)) is None


@pytest.mark.parametrize(
    "value",
    [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "text/plain; application/json",
        "application/jsonp",
        "application/json, text/plain",
        "",
    ],
)
def test_a_body_that_a_form_of_another_site_could_send_is_refused_with_415_L12(value):
    assert status(check_json_content, headers(content_type=value)) == 415


def test_a_body_that_is_not_declared_is_refused_with_415():
    refused = refusal(check_json_content, [])
    assert (refused.status, refused.message) == (415, "Content-Type must be application/json, not missing")


# revisions


@pytest.mark.parametrize("version", ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25", "2026-07-28"])
def test_a_known_revision_is_taken(version):
    assert protocol_version(headers(mcp_protocol_version=version)) == version
    assert protocol_version(headers(mcp_protocol_version=f"  {version} ")) == version


def test_a_client_that_names_no_revision_speaks_the_first_with_streamable_http():
    assert protocol_version([]) == "2025-03-26"


@pytest.mark.parametrize("version", ["", "v999.0.0", "2025-11-26", "1", "2025-11-25, 2025-06-18"])
def test_an_unknown_revision_is_refused_with_400_and_told_the_known_ones_L13(version):
    refused = refusal(protocol_version, headers(mcp_protocol_version=version))
    assert refused.status == 400
    assert "2025-11-25" in refused.message


@pytest.mark.parametrize(
    ("version", "modern", "primes"),
    [
        ("2024-11-05", False, False),
        ("2025-03-26", False, False),
        ("2025-06-18", False, False),
        ("2025-11-25", False, True),
        ("2026-07-28", True, False),
    ],
)
def test_revisions_differ_in_handshake_and_priming(version, modern, primes):
    assert is_modern(version) is modern
    assert primes_streams(version) is primes


def test_no_revision_is_not_a_modern_one():
    assert not is_modern(None)


# Host


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "127.0.0.1:8000", "localhost", "localhost:1", "LOCALHOST:8000", "[::1]", "[::1]:8000", "localhost:"],
)
def test_loopback_is_served_on_any_port(host):
    assert status(HostRules().check, headers(host=host)) is None


@pytest.mark.parametrize(
    "host",
    [
        "evil.example.com",
        "evil.example.com:8000",
        "localhost.evil.example",
        "evil-localhost",
        "127.0.0.1.evil.example",
        "127.0.0.1.nip.io:8000",
        "127.0.0.2",
        "0.0.0.0",
        "2130706433",
        "0x7f.1",
        "[::]",
        "[::ffff:127.0.0.1]",
        "::1",
        "[::1]evil.example",
        "[::1]evil.example:80",
        "evil.example[::1]",
        "evil.example[::1]:8000",
        "[localhost]",
        "[::1",
        "::1]",
        "[[::1]]",
        "localhost@evil.example",
        "evil.example@localhost",
        "user:secret@127.0.0.1:8000",
        "@localhost",
        "localhost:8000:8000",
        "localhost:x",
        "localhost:-1",
        "localhost:99999",
        "localhost/evil",
        "localhost?evil",
        "localhost#evil",
        "localhost\\evil",
        "localhost evil",
        "localhost\tevil",
        "localhost,evil.example",
        "http://localhost",
        "//localhost",
        "localhost.",
        "localhost\x00",
        "null",
        "*",
        "",
    ],
)
def test_another_host_is_misdirected_L19(host):
    refused = refusal(HostRules().check, headers(host=host))
    assert refused.status == 421
    assert "server.allowed_hosts" in refused.message


@pytest.mark.parametrize("lines", [[], [OWN, OWN], [OWN, "evil.example"], ["evil.example", OWN], ["", OWN]])
def test_anything_but_one_host_header_is_refused_with_400_L19(lines):
    assert status(HostRules().check, headers(*(("host", line) for line in lines))) == 400


@pytest.mark.parametrize(
    ("named", "host", "served"),
    [
        ("app.example", "app.example", True),
        ("app.example", "APP.example:8000", True),
        ("App.Example", "app.example", True),
        ("app.example:8000", "app.example:8000", True),
        ("App.Example:8000", "app.example:8000", True),
        ("app.example:8000", "app.example:8001", False),
        ("app.example:8000", "app.example", False),
        ("app.example", "sub.app.example", False),
        ("app.example", "app.example.evil", False),
        ("app.example", "x@app.example", False),
        ("::2", "[::2]:8000", True),
        ("[::2]", "[::2]", True),
    ],
)
def test_a_named_host_is_served_with_any_port_unless_it_names_one(named, host, served):
    rules = HostRules(hosts=(named,))
    assert rules.allows_host(host) is served
    assert rules.allows_host(OWN)


# Origin


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        (OWN, "http://127.0.0.1:8000"),
        ("localhost:8000", "http://localhost:8000"),
        ("LOCALHOST:8000", "http://localhost:8000"),
        ("[::1]:8000", "http://[::1]:8000"),
        ("localhost", "http://localhost"),
        ("localhost", "https://localhost"),
    ],
)
def test_a_page_of_this_server_is_served(host, origin):
    assert status(HostRules().check, headers(host=host, origin=origin)) is None


@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example",
        "http://evil.example:8000",
        "http://127.0.0.1:8001",
        "http://127.0.0.1",
        "http://localhost:8000",
        "http://127.0.0.1:8000.evil.example",
        "http://evil.example/127.0.0.1:8000",
        "http://127.0.0.1:8000/",
        "http://127.0.0.1:8000@evil.example",
        "http://evil.example@127.0.0.1:8000",
        "http://evil.example://127.0.0.1:8000",
        "127.0.0.1:8000",
        "//127.0.0.1:8000",
        "null",
        "NULL",
        "file://",
        "",
    ],
)
def test_a_page_of_another_origin_is_forbidden_L19(origin):
    refused = refusal(HostRules().check, headers(host=OWN, origin=origin))
    assert refused.status == 403
    assert "server.allowed_origins" in refused.message


def test_every_origin_header_is_looked_at():
    own, evil = ("origin", f"http://{OWN}"), ("origin", "http://evil.example")
    assert status(HostRules().check, headers(own, evil, host=OWN)) == 403
    assert status(HostRules().check, headers(evil, own, host=OWN)) == 403


def test_an_evil_host_is_refused_whatever_its_origin():
    evil = headers(host="evil.example.com", origin="http://evil.example.com")
    assert status(HostRules(origins=("*",)).check, evil) == 421


@pytest.mark.parametrize(
    ("named", "origin", "served"),
    [
        ("https://app.example", "https://app.example", True),
        ("https://app.example", "http://app.example", False),
        ("https://app.example", "https://app.example:8443", False),
        ("https://app.example", "https://app.example.evil", False),
        ("https://app.example:8443", "https://app.example:8443", True),
        ("https://app.example:*", "https://app.example:1", True),
        ("https://app.example:*", "https://app.example:65535", True),
        ("https://app.example:*", "http://app.example:1", False),
        ("https://app.example:*", "https://app.example.evil:1", False),
        ("https://app.example:*", "https://app.example:1.evil", False),
        ("https://app.example:*", "https://app.example:x@evil.example", False),
        ("https://app.example:*", "https://app.example:", False),
        ("https://[::2]:*", "https://[::2]:1", True),
        ("*", "https://anything.example", True),
        ("*", "null", False),
        ("null", "null", True),
        ("null", "https://app.example", False),
    ],
)
def test_a_named_origin_is_served(named, origin, served):
    assert status(HostRules(origins=(named,)).check, headers(host=OWN, origin=origin)) == (None if served else 403)


def test_a_request_without_an_origin_comes_from_no_page():
    assert status(HostRules().check, headers(host=OWN)) is None


# refusals


@pytest.mark.parametrize(
    ("site", "origin", "status"),
    [
        (b"cross-site", None, 403),
        (b"same-site", None, 403),
        (b"who-knows", None, 403),
        (b"same-origin", None, None),
        (b"none", None, None),
        (b"cross-site", b"https://app.example", None),
        (b"same-origin", b"https://evil.example", 403),
    ],
)
def test_a_page_that_names_no_origin_is_found_out_by_its_site_L19(site, origin, status):
    """An image of another site, for one, which would start a session if it named an event stream."""
    headers = [(b"host", b"localhost"), (b"sec-fetch-site", site), *([(b"origin", origin)] if origin else [])]
    rules = HostRules(origins=("https://app.example",))
    if status is None:
        rules.check(headers)
    else:
        with pytest.raises(HTTPRefusal) as raised:
            rules.check(headers)
        assert raised.value.status == status


def test_a_refusal_is_a_json_rpc_error_with_the_requests_id():
    refused = HTTPRefusal(400, "why", code=-5, data={"x": 1}, id="7", headers=[(b"retry-after", b"1")])
    assert refused.body().encode() == (b'{"jsonrpc":"2.0","id":"7","error":{"code":-5,"message":"why","data":{"x":1}}}')
    assert refused.headers == [(b"retry-after", b"1")]


def test_a_refusal_of_something_unread_has_a_null_id():
    assert HTTPRefusal(400, "why").body().encode() == (
        b'{"jsonrpc":"2.0","id":null,"error":{"code":%d,"message":"why"}}' % INVALID_REQUEST
    )


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        ([(b"x", b" a\t")], "a"),
        ([(b"x", b"a"), (b"x", b"b")], "a"),
        ([(b"y", b"a")], None),
        ([(b"x", b"")], ""),
        ([(b"x", b"\xe4")], "ä"),
    ],
)
def test_a_header_is_its_first_value_without_white_space_around_it(lines, found):
    assert header(lines, b"x") == found
