"""Which requests are so usual that they may go the short way, found out once for each kind of head."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from muxsim.serve.auth.callers import Caller, Scope
from muxsim.serve.routes.gateway import Gateway
from muxsim.serve.routes.guard import known_caller
from transports.http_rules import Accepts, HTTPRefusal, RawHeaders, accepts, is_modern, protocol_version

_REMEMBERED_HEADERS: Final = 1024
# fmt: off
JUDGED: Final = (
    b"host", b"origin", b"sec-fetch-site", b"accept", b"content-type", b"mcp-protocol-version", b"authorization",
)
# fmt: on
"""The headers that a verdict goes by."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a client accepts, and who it is."""

    wanted: Accepts
    caller: Caller


class Verdicts:
    """A real client sends the same headers with each call, so what was found out about them is remembered."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._known: dict[tuple[bytes | None, ...], Verdict] = {}
        if gateway.auth is not None:
            gateway.auth.on_change(self._known.clear)

    def of(self, pairs: RawHeaders, headers: dict[bytes, bytes]) -> Verdict | None:
        """The verdict on a POST whose headers pass every check and whose answer may be JSON.

        None sends it to the application, which says what is wrong with it, if anything is.
        """
        if len(headers) != len(pairs):
            return None
        key = tuple(map(headers.get, JUDGED))
        verdict = self._known.get(key)
        if verdict is None:
            verdict = self._judge(pairs, headers)
            # A token that expires is looked up each time.
            if verdict is not None and verdict.caller.expires == math.inf:
                if len(self._known) >= _REMEMBERED_HEADERS:
                    self._known.clear()
                self._known[key] = verdict
        return verdict

    def is_guess(self, verdict: Verdict) -> bool:
        """Whether the token may have been guessed: then the application has to see from where, and how often."""
        auth = self._gateway.auth
        return auth is not None and not auth.has_admitted(verdict.caller)

    def _judge(self, pairs: RawHeaders, headers: dict[bytes, bytes]) -> Verdict | None:
        if b"origin" in headers or headers.get(b"content-type") != b"application/json":
            return None
        try:
            self._gateway.rules.check(pairs)
            if is_modern(protocol_version(pairs)):
                return None
            caller, wanted = known_caller(self._gateway.auth, pairs), accepts(pairs)
        except HTTPRefusal:
            return None
        if caller is None or Scope.AGENT not in caller.scope or not wanted.json:
            return None
        return Verdict(wanted, caller)
