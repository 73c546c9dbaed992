"""Where clients find muxsim: at the address they asked, or at the one that a proxy before it has."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, urlsplit

from muxsim.session.session import Session
from muxsim.spec import EnvSpec
from transports.asgi import Call
from transports.http_rules import header

_MESSAGES: Final = "messages"
_PORTS: Final = {"https": ":443", "http": ":80"}


@dataclass(frozen=True)
class PublicURL:
    """``url`` has scheme, host and the path that a proxy serves muxsim under; "" where there is no proxy.

    What a request says of a proxy (X-Forwarded-…, Forwarded) is not looked at: any client can say it.
    """

    url: str = ""

    @functools.cached_property
    def prefix(self) -> str:
        """The path that stands before every path of muxsim's."""
        return urlsplit(self.url).path

    @property
    def hosts(self) -> tuple[str, ...]:
        """What a proxy that passes the Host header on sends, whether or not with a port."""
        return tuple(filter(None, [urlsplit(self.url).hostname]))

    @property
    def origins(self) -> tuple[str, ...]:
        """What a browser calls the pages that come from there."""
        address = urlsplit(self.url)
        # A browser leaves out the port that goes with the scheme.
        return (f"{address.scheme}://{address.netloc.removesuffix(_PORTS[address.scheme])}",) if self.url else ()

    def base(self, call: Call) -> str:
        """What stands before a path, for whoever sent this request."""
        return self.url or f"{call.scope['scheme']}://{header(call.headers, b'host')}"

    def urls_of(self, call: Call, session: Session) -> dict[str, str]:
        """Where a session is found, for whoever sent this request."""
        base, id, env = self.base(call), session.id, quote(session.spec.name, safe="")
        # A handle says what its session is, which a shared one is for nobody alone.
        handle = {} if session.shared else {"handle": f"{base}/s/{id}/mcp?env={env}&seed={session.seed}"}
        return {
            "mcp": f"{base}/s/{id}/mcp",
            "sse": f"{base}/s/{id}/sse",
            "agent_mcp": f"{base}/s/{id}/agent/mcp",
            **handle,
            "control": f"{base}/sessions/{id}/control",
            "session": f"{base}/sessions/{id}",
        }

    def urls_of_environment(self, call: Call, spec: EnvSpec, wires: Iterable[str]) -> dict[str, str]:
        """Where sessions of an environment are made: by a handshake, by a handle, by what ``wires`` trainers have."""
        base, env = self.base(call), quote(spec.name, safe="")
        here = f"{base}/envs/{env}"
        handle = {} if spec.shared else {"handle": f"{base}/s/{{id}}/mcp?env={env}&seed={{seed}}"}
        return {"mcp": f"{here}/mcp", "sse": f"{here}/sse", **handle, **{wire: f"{here}/{wire}" for wire in wires}}

    def route(self, path: str) -> str:
        """Which path of muxsim's a request's path means.

        Without the prefix, which some proxies take off and some leave on, and without a slash at its end.
        """
        if self.prefix and (path == self.prefix or path.startswith(self.prefix + "/")):
            path = path[len(self.prefix) :]
        return path.rstrip("/") or "/"

    def messages_beside(self, call: Call) -> str:
        """Where an SSE client is to send what it has to say: the path beside its stream's."""
        if self.url:
            folder = call.scope["path"].rpartition("/")[0]
            return f"{self.prefix}{folder}/{_MESSAGES}"
        # A relative one is right under whatever prefix a proxy has put before it.
        return f"../{_MESSAGES}" if call.scope.get("raw_path", b"").endswith(b"/") else _MESSAGES
