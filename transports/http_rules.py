"""What the HTTP transports must check before a message goes anywhere. Pure: headers in, refusals out."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from transports.errors import INVALID_REQUEST
from transports.messages import Message, RequestId, error, member, text_of
from transports.revisions import HANDSHAKE_VERSIONS, KNOWN_VERSIONS, MODERN_VERSIONS

RawHeaders = Sequence[tuple[bytes, bytes]]

SESSION_HEADER: Final = b"mcp-session-id"
VERSION_HEADER: Final = b"mcp-protocol-version"
LAST_EVENT_HEADER: Final = b"last-event-id"
# A client that names no revision speaks the first one that had streamable HTTP.
UNNAMED_VERSION: Final = "2025-03-26"
# From this revision on an event stream starts with an event that only carries an id, so that it can be resumed.
PRIMING_SINCE: Final = "2025-11-25"

# What a browser says of a request that no other page has made: of this server's own, or of the user's.
_OWN_SITE: Final = frozenset({b"same-origin", b"none"})
_LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})
# A client names the same host with every request; others' must not fill the memory.
_REMEMBERED_HOSTS: Final = 256
# urlsplit overlooks what stands around the brackets: "evil.example[::1]" would be loopback.
_BRACKETED: Final = re.compile(r"\[[^\[\]]*\](:[0-9]*)?")


class HTTPRefusal(Exception):
    """A request that is answered here, with ``status`` and a JSON-RPC error that says what to do.

    ``limit`` names the setting whose bound was passed, if it was one, for whoever counts. The answer is sent after
    ``delay`` seconds.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: int = INVALID_REQUEST,
        data: object = None,
        id: RequestId | None = None,
        headers: RawHeaders = (),
        limit: str = "",
        delay: float = 0.0,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.data = {"cause": limit} if limit and data is None else data
        self.id = id
        self.headers = headers
        self.limit = limit
        self.delay = delay

    def body(self) -> Message:
        """The JSON-RPC error that goes out."""
        return error(self.id, self.code, self.message, self.data)


def header(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> str | None:
    """The first value of a header (lower-case name), without white space around it; None if it is not there."""
    for key, value in headers:
        if key == name:
            return value.decode("latin-1").strip()
    return None


@dataclass(frozen=True)
class Accepts:
    """Which forms of answer a client takes."""

    json: bool
    stream: bool


_BOTH: Final = Accepts(json=True, stream=True)


def accepts(headers: RawHeaders) -> Accepts:
    """What the Accept header allows; a client that sends none takes both. Raises a 406 if it allows neither."""
    lines = [value.decode("latin-1") for name, value in headers if name == b"accept"]
    if not lines:
        return _BOTH
    kinds = {part.split(";", 1)[0].strip().lower() for part in ",".join(lines).split(",")}
    if "*/*" in kinds:
        return _BOTH
    found = Accepts(
        json=bool(kinds & {"application/json", "application/*"}),
        stream=bool(kinds & {"text/event-stream", "text/*"}),
    )
    if not (found.json or found.stream):
        raise HTTPRefusal(406, "Accept must allow application/json or text/event-stream")
    return found


def check_json_content(headers: RawHeaders) -> None:
    """Raise a 415 unless the body is declared as JSON, which no HTML form of another site can do."""
    value = header(headers, b"content-type") or ""
    if value.split(";", 1)[0].strip().lower() != "application/json":
        raise HTTPRefusal(415, f"Content-Type must be application/json, not {value or 'missing'}")


def check_event_stream(headers: RawHeaders) -> None:
    """Raise a 406 unless the client takes an event stream."""
    if not accepts(headers).stream:
        raise HTTPRefusal(406, "Accept must allow text/event-stream")


def protocol_version(headers: RawHeaders, agreed: Callable[[], str] = str) -> str:
    """The revision that a request names. Raises a 400 for one that is neither known nor the one that was ``agreed``."""
    value = header(headers, VERSION_HEADER)
    if value is None:
        return UNNAMED_VERSION
    if value not in KNOWN_VERSIONS and (not value or value != agreed()):
        raise HTTPRefusal(
            400,
            f"MCP-Protocol-Version {value!r} is not known; known are {', '.join(KNOWN_VERSIONS)}",
        )
    return value


def proposed_version(message: Message) -> str:
    """The revision that a handshake asks for."""
    return text_of(member(message.params, "protocolVersion"))


def is_modern(version: str | None) -> bool:
    """Whether a revision has neither handshake nor session header (2026-07-28 and later)."""
    return version in MODERN_VERSIONS


def primes_streams(version: str) -> bool:
    """Whether a request under this revision gets a priming event; older clients choke on its empty data."""
    return version in HANDSHAKE_VERSIONS and version >= PRIMING_SINCE


@dataclass(frozen=True)
class HostRules:
    """Which Host and Origin headers are served, against DNS rebinding and against pages of other sites.

    ``hosts`` are further host names beside loopback's, with or without a port. ``origins`` are whole origins such as
    ``https://app.example``; a port may be ``*``, and ``*`` alone allows every origin but ``null``.
    """

    hosts: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "hosts", tuple(host.lower() for host in self.hosts))
        object.__setattr__(self, "origins", tuple(origin.lower() for origin in self.origins))

    def check(self, headers: RawHeaders, *, linked: bool = False) -> None:
        """Raise 400, 403 or 421 for a request that did not come from where it should.

        ``linked``: it is for a page, to which pages of other sites may have links.
        """
        hosts, origins, foreign = [], [], False
        for name, value in headers:
            if name == b"host":
                hosts.append(value.decode("latin-1").strip())
            elif name == b"origin":
                origins.append(value.decode("latin-1").strip())
            elif name == b"sec-fetch-site":
                foreign = foreign or value not in _OWN_SITE
        if len(hosts) != 1:
            raise HTTPRefusal(400, "exactly one Host header is needed")
        if not self.allows_host(hosts[0]):
            raise HTTPRefusal(421, f"host {hosts[0]!r} is not served here; name it in server.allowed_hosts")
        for origin in origins:
            if not self.allows_origin(origin, hosts[0]):
                raise HTTPRefusal(403, f"origin {origin!r} is not allowed; name it in server.allowed_origins")
        # A page's <img>, <script> or link names no origin, but the browser says that it is of another site.
        if foreign and not origins and not (linked and _opens_a_page(headers)):
            raise HTTPRefusal(403, "this came from a page of another site; ask with fetch or EventSource")

    def allows_host(self, host: str) -> bool:
        """Whether a Host header is loopback's or one of ``hosts``."""
        name = _host_name(host)
        return name is not None and (name in _LOOPBACK or name in self.hosts or host.lower() in self.hosts)

    def allows_origin(self, origin: str, host: str) -> bool:
        """Whether an Origin header is this server's own, or one of ``origins``."""
        if origin == "null":
            return "null" in self.origins
        return origin.partition("://")[2].lower() == host.lower() or self.names_origin(origin)

    def names_origin(self, origin: str) -> bool:
        """Whether ``origins`` has this origin."""
        scheme_and_host, _, port = origin.rpartition(":")
        return (
            "*" in self.origins
            or origin in self.origins
            or (port.isdecimal() and f"{scheme_and_host}:*" in self.origins)
        )


def _opens_a_page(headers: RawHeaders) -> bool:
    """Whether a browser says that it is to show the answer by itself, and in no frame of another page."""
    told = dict(headers)
    return (told.get(b"sec-fetch-mode"), told.get(b"sec-fetch-dest")) == (b"navigate", b"document")


@functools.lru_cache(maxsize=_REMEMBERED_HOSTS)
def _host_name(host: str) -> str | None:
    if "[" in host and not _BRACKETED.fullmatch(host):
        return None
    try:
        parts = urlsplit(f"//{host}")
        _ = parts.port
    except ValueError:
        return None
    return parts.hostname if parts.netloc == host and "@" not in host else None
