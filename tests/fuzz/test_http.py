"""A real `muxsim serve` under requests that no client should send: answered, or cut off, and never with a 500."""

from __future__ import annotations

import json
import re
import socket
from dataclasses import dataclass
from urllib.parse import urlsplit

import h11
import pytest
from harness import SERVERS, muxsim_serve
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from transports.errors import RemoteProtocolError
from transports.messages import Kind, decode

from .strategies import LINES, WELL_FORMED, encoded

pytestmark = pytest.mark.children

PATIENCE = 60
"""Seconds after which a connection that says nothing hangs."""

SHORT = 1.5
"""Seconds that headers and bodies have: more than muxsim may stand still for without giving everybody more time."""

CONFIG = f"""
[server]
body_timeout = {SHORT}
header_timeout = {SHORT}
stream_silence = 0.3
stall_timeout = 2
max_body = 20_000
max_sessions = 12
queue_timeout = 0.3
max_failures = 1_000_000
opens_per_second = 0
call_timeout = 0.5
start_timeout = 2
ttl = 2
default = "sturdy"
allowed_origins = ["https://app.example"]

[environments.sturdy]
command = "python3"
args = ["-I", "-S", "{SERVERS / "sturdy.py"}"]

[environments.lasting]
command = "python3"
args = ["-I", "-S", "{SERVERS / "sturdy.py"}"]
ttl = 3600
call_timeout = 60
start_timeout = 60
"""
STATUSES = {
    200,
    201,
    202,
    204,
    206,
    400,
    401,
    403,
    404,
    405,
    406,
    408,
    409,
    411,
    413,
    414,
    415,
    417,
    421,
    426,
    429,
    431,
}
STATUSES |= {307, 501, 502, 503}

WORDS = st.text(st.characters(max_codepoint=255, exclude_characters="\r\n\0"), max_size=12)
PATHS = st.one_of(
    st.sampled_from(
        [
            *(
                "/mcp",
                "/sse",
                "/messages",
                "/sessions",
                "/envs",
                "/health",
                "/ready",
                "/",
                "/metrics",
                "*",
                "//",
                "/s//mcp",
            ),
            *(
                "/s/LASTING/mcp",
                "/s/LASTING/agent/mcp",
                "/s/LASTING/sse",
                "/s/LASTING/messages",
                "/sessions/LASTING/control",
            ),
            *(
                "/control/reward",
                "/envs/sturdy/control/reward",
                "/envs/sturdy/control/reset_session",
                "/s/LASTING/mcp?env=sturdy&seed=1",
                "/s/LASTING/control",
                "/leases",
                "/envs/sturdy/mcp",
                "/envs/sturdy/sse",
                "/envs/../mcp",
                "/s/%2e%2e/mcp",
                "/%00",
                "/mcp/",
            ),
            *(
                "http://127.0.0.1/mcp",
                "/sessions/x",
                "/s/x/mcp",
                "/envs/%ff/mcp",
                "/s/LASTING%2fmcp",
                "/sessions/x/fork",
            ),
        ]
    ),
    WORDS.map(lambda word: "/" + word.replace(" ", "+")),
)
QUERIES = st.one_of(
    st.just(""),
    st.sampled_from(["?env=sturdy", "?env=sturdy&seed=1", "?seed=-1", "?seed=" + "9" * 5000, "?env=", "?sessionId=x"]),
    WORDS.map(lambda word: "?env=" + word.replace(" ", "+")),
)
TARGETS = st.builds(str.__add__, PATHS, QUERIES)
METHODS = st.sampled_from(
    ["POST"] * 6 + ["GET", "DELETE", "PUT", "HEAD", "OPTIONS", "PATCH", "TRACE", "CONNECT", "FOO", "post"]
)
HEADERS = st.lists(
    st.one_of(
        st.tuples(
            st.just("Content-Type"),
            st.sampled_from(["application/json"] * 4 + ["text/plain", "", "application/json;"]) | WORDS,
        ),
        st.tuples(
            st.just("Accept"),
            st.sampled_from(["application/json, text/event-stream"] * 3 + ["*/*", "text/html", "application/json"])
            | WORDS,
        ),
        st.tuples(st.just("Mcp-Session-Id"), st.sampled_from(["CLIENT", "CLIENT", "LASTING", "x" * 5000]) | WORDS),
        st.tuples(
            st.just("Mcp-Protocol-Version"), st.sampled_from(["2025-11-25", "2026-07-28", "2024-11-05", "1"]) | WORDS
        ),
        st.tuples(
            st.sampled_from(["Mcp-Method", "Mcp-Name", "Mcp-Param-x"]), st.sampled_from(["tools/call", "say"]) | WORDS
        ),
        st.tuples(st.just("Last-Event-ID"), st.sampled_from(["1-0", "1-1", "9" * 400 + "-1"]) | WORDS),
        st.tuples(st.just("Origin"), st.sampled_from(["https://app.example", "null", "http://["]) | WORDS),
        st.tuples(
            st.just("Host"), st.sampled_from(["localhost", "[::1]:1", "evil.example", "[", "localhost:x"]) | WORDS
        ),
        st.tuples(st.just("Authorization"), st.sampled_from(["Bearer x", "Basic eDp4"]) | WORDS),
        st.tuples(st.just("Connection"), st.sampled_from(["close", "keep-alive", "upgrade", "Content-Length"])),
        st.tuples(st.just("Upgrade"), st.sampled_from(["websocket", "h2c"])),
        st.tuples(st.just("Expect"), st.sampled_from(["100-continue", "x"])),
        st.tuples(st.just("X-Forwarded-For"), WORDS),
        st.tuples(st.sampled_from(["Content-Encoding", "Access-Control-Request-Method", "X"]), WORDS),
    ),
    max_size=7,
)
CALLS = st.fixed_dictionaries(
    {
        "jsonrpc": st.just("2.0"),
        "id": st.one_of(st.integers(-5, 5), st.text(max_size=3), st.integers()),
        "method": st.just("tools/call"),
        "params": st.fixed_dictionaries({"name": st.sampled_from(["say", "log", "own_error", "progress", "no"])}),
    }
).map(encoded)
BODIES = st.one_of(CALLS, CALLS, WELL_FORMED, LINES, st.just(b""), st.just(b"x" * 30_000))
LENGTHS = st.sampled_from(
    ["right"] * 6 + ["chunked", "too long", "too short", "none", "both", "bad chunks", "twice", "word"]
)


@dataclass(frozen=True)
class Attempt:
    """One request, as it is put together."""

    method: str
    target: str
    headers: list
    body: bytes
    length: str

    def bytes(self, names):
        """What goes over the wire; ``names`` are put in the places left for them."""
        body, length = self.body, len(self.body)
        framed = {
            "right": [("Content-Length", length)],
            "chunked": [("Transfer-Encoding", "chunked")],
            "too long": [("Content-Length", length + 5)],
            "too short": [("Content-Length", max(length - 5, 0))],
            "none": [],
            "both": [("Content-Length", length), ("Transfer-Encoding", "chunked")],
            "bad chunks": [("Transfer-Encoding", "chunked")],
            "twice": [("Content-Length", length), ("Content-Length", length + 1)],
            "word": [("Content-Length", "five")],
        }[self.length]
        if self.length in ("chunked", "both"):
            body = (b"%x\r\n%b\r\n" % (length, body) if body else b"") + b"0\r\n\r\n"
        headers = [*self.headers, *framed]
        if not any(name == "Host" for name, _ in headers):
            headers.append(("Host", names["HOST"]))
        head = f"{self.method} {self.target} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in headers)
        for name, value in names.items():
            head = head.replace(name, value)
        return head.encode("latin-1") + b"\r\n" + body


ATTEMPTS = st.builds(Attempt, METHODS, TARGETS, HEADERS, BODIES, LENGTHS)
# Requests that are nearly right go further in.
NEARLY = st.builds(
    lambda attempt, extra: Attempt(
        "POST", "/s/LASTING/mcp" if extra else "/mcp", [*GOOD, *attempt.headers[:extra]], attempt.body, attempt.length
    ),
    ATTEMPTS,
    st.integers(0, 2),
)
GOOD = [
    ("Content-Type", "application/json"),
    ("Accept", "application/json, text/event-stream"),
    ("Mcp-Session-Id", "CLIENT"),
]


class Server:
    """A running muxsim, and a session of it whose client is asked for again and again."""

    def __init__(self, running):
        self.running = running
        self.address = urlsplit(running.url)
        opened = self.talk(self._request("/sessions", {"env": "lasting"}))
        self.names = {"HOST": self.address.netloc, "LASTING": json.loads(opened[2])["id"]}
        self.names["CLIENT"] = self._shake_hands()

    def _request(self, path, value, headers=()):
        return Attempt("POST", path, [GOOD[0], GOOD[1], *headers], encoded(value), "right").bytes(
            {"HOST": self.address.netloc}
        )

    def _shake_hands(self):
        info = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "x", "version": "0"}}
        message = {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": info}
        _, headers, _ = self.talk(self._request(f"/s/{self.names['LASTING']}/mcp", message))
        return headers["mcp-session-id"]

    def works(self):
        """Whether its lasting session still answers; a new client's handshake, if the last one was deleted."""
        for _ in range(2):
            message = {"jsonrpc": "2.0", "id": "w", "method": "ping"}
            path, client = f"/s/{self.names['LASTING']}/mcp", ("Mcp-Session-Id", self.names["CLIENT"])
            status, _, body = self.talk(self._request(path, message, [client]))
            if status == 200:
                return json.loads(body)["id"] == "w" and "result" in json.loads(body)
            assert status == 404, (status, body)
            self.names["CLIENT"] = self._shake_hands()
        return False

    def talk(self, data, method="POST"):
        """(status, headers, body) of the answer; None if the connection is closed without one. Streams are left."""
        with socket.create_connection((self.address.hostname, self.address.port), PATIENCE) as sock:
            sock.settimeout(PATIENCE)
            sock.sendall(data)
            http = h11.Connection(h11.CLIENT, max_incomplete_event_size=2**20)
            http.send(h11.Request(method="HEAD" if method == "HEAD" else "POST", target="/", headers=[("host", "x")]))
            http.send(h11.EndOfMessage())
            try:
                return _answer(sock, http)
            except h11.RemoteProtocolError as error:
                if "ConnectionClosed" in str(error):  # in the middle of an answer, or before it
                    return None
                raise


def _answer(sock, http):
    status, headers, body = None, {}, b""
    while True:
        event = http.next_event()
        if event is h11.NEED_DATA:
            try:
                http.receive_data(sock.recv(65536))
            except ConnectionResetError:
                return status and (status, headers, body)
        elif isinstance(event, h11.Response):
            status, headers = event.status_code, {name.decode(): value.decode() for name, value in event.headers}
            if headers.get("content-type", "").startswith("text/event-stream"):
                return status, headers, b""
        elif isinstance(event, h11.Data):
            body += event.data
        elif isinstance(event, h11.EndOfMessage):
            return status, headers, body
        elif isinstance(event, h11.ConnectionClosed):
            return None


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with muxsim_serve(tmp_path_factory.mktemp("fuzz"), CONFIG) as running:
        server = Server(running)
        yield server
        assert server.works()
        assert running.process.poll() is None


@given(attempt=ATTEMPTS | NEARLY)
@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_request_is_answered_with_a_500_or_with_another_ones_id(server, attempt):
    came = server.talk(attempt.bytes(server.names), attempt.method)
    assert came is not None or attempt.length != "right", "no answer"
    if came is not None:
        status, headers, body = came
        assert status in STATUSES, (status, body)
        if status >= 400 and body and headers.get("content-type") == "application/json":
            assert json.loads(body)["error"]["message"]
        _check_id(attempt, status, headers, body)
    assert server.works()
    assert "Traceback" not in server.running.log.read_text()


def _check_id(attempt, status, headers, body):
    """A JSON-RPC answer has the request's own id; where the request could not be read, what stood there as its id."""
    if attempt.length not in ("right", "chunked") or headers.get("content-type") != "application/json" or not body:
        return
    try:
        asked = decode(attempt.body)
    except RemoteProtocolError:
        asked = None
    answer = json.loads(body)
    if isinstance(answer, dict) and "jsonrpc" in answer:
        if asked is None:
            allowed = [None, *_ids_in(attempt.body)]
        else:
            allowed = [None, asked.id] if asked.kind is Kind.REQUEST else [None]
        assert any(answer["id"] == id and type(answer["id"]) is type(id) for id in allowed), (attempt, answer)
        assert status != 200 or answer["id"] is not None or asked is None, (attempt, answer)


MEMBER_ID = re.compile(rb'[{,]\s*"id"\s*:\s*("(?:[^"\\]|\\.)*"|[^\s,}"]+)\s*(?=[,}]|\Z)')


def _ids_in(body):
    """What stands as a member called id in a text, be it JSON or not, and may be one."""
    for spelled in MEMBER_ID.findall(body):
        try:
            id = json.loads(spelled)
        except ValueError:
            continue
        yield int(id) if isinstance(id, float) and id.is_integer() else id


@pytest.mark.parametrize(
    ("body", "id"),
    [
        (b'{"jsonrpc":"""id":0', None),
        (b'{"jsonrpc":"2.0","method":3,"id":"w"}', "w"),
        (b'{"jsonrpc":"2.0","id":5.0,"method":"ping","params":{"na', 5),
        (b'{"method":"ping","params":{"id":5}', None),
    ],
)
def test_a_refusal_has_the_id_only_where_one_stands_as_a_member_does(server, body, id):
    attempt = Attempt("POST", "/s/LASTING/mcp", GOOD, body, "right")
    came = server.talk(attempt.bytes(server.names))
    assert json.loads(came[2])["id"] == id
    _check_id(attempt, *came)
