"""Bearer tokens, asked for on every request. Runs on asyncio.

Nothing here keeps a token: only digests under a key that lives as long as this process.
"""

from __future__ import annotations

import hmac
import math
import secrets
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from starlette.routing import BaseRoute

from muxsim.errors import ConfigError
from muxsim.observe.events import Listener, TokenRefused, unheard
from muxsim.serve.auth.callers import NOBODY, Caller, NamedToken, bearer_token, unauthorized
from muxsim.serve.auth.failures import FailureLimit, too_many_failures
from transports.asgi import Call
from transports.http_rules import HTTPRefusal

IN_BOTH: Final = "a token stands in the file and in the variable: make a new one"

# Refusals that are told of in a minute, each of another address; the others are for counters.
_MOST_TOLD: Final = 60
# Verified tokens that are remembered, so that a signature is checked once and not with each call.
_MOST_VERIFIED: Final = 1024


class Verifier(Protocol):
    """Checks tokens that are not configured here."""

    metadata_url: str
    """Where a client learns who gives out tokens; for the answer to one that has none."""

    scope_prefix: str
    """What the issuer has before its scopes."""

    routes: list[BaseRoute]
    """What is served there."""

    async def verify(self, token: bytes) -> Caller | None:
        """Whose token it is; None if it is not valid. Raises a 503 if that cannot be found out now."""


class Authenticator:
    """Tells who sent a request."""

    def __init__(
        self,
        file: Sequence[NamedToken],
        failures: FailureLimit,
        verifier: Verifier | None = None,
        *,
        variable: Sequence[NamedToken] = (),
        tell: Listener = unheard,
    ) -> None:
        self._tell = tell
        self._failures = failures
        self._shortfalls = FailureLimit(1)
        self._told = FailureLimit(_MOST_TOLD)
        self._verifier = verifier
        self._key = secrets.token_bytes(32)
        self._lasting = self._kept(variable)
        self._tokens = [*self._kept(file), *self._lasting]
        self._staged: list[tuple[bytes, Caller]] | None = None
        self._on_change: list[Callable[[], None]] = []
        self._used: set[Caller] = set()
        self._verified: dict[bytes, Caller] = {}

    def __repr__(self) -> str:
        return f"<Authenticator {len(self._tokens)} tokens{' and a verifier' if self._verifier else ''}>"

    def stage(self, file: Sequence[NamedToken]) -> None:
        """Get ready to take these tokens in place of those of the file; `use_staged` does. Raises `ConfigError`."""
        staged = self._kept(file)
        if {digest for digest, _ in staged} & {digest for digest, _ in self._lasting}:
            raise ConfigError(IN_BOTH, table="server.auth")
        self._staged = staged

    def use_staged(self) -> tuple[str, ...]:
        """Take the staged tokens from now on; returns whose are other ones then, in words, none of which is a token."""
        if self._staged is None:
            return ()
        before, after = self._tokens, [*self._staged, *self._lasting]
        self._staged = None
        changes = _changes(before, after)
        if changes:
            self._tokens = after
            for forget in self._on_change:
                forget()
        return changes

    def on_change(self, forget: Callable[[], None]) -> None:
        """Call ``forget`` whenever a token that was good may be so no more."""
        self._on_change.append(forget)

    def known(self, token: bytes) -> Caller | None:
        """Whose token it is, if it is configured or has been verified; every token takes the same time."""
        digest, found = self._digest(token), None
        for known, caller in self._tokens:
            if hmac.compare_digest(known, digest):
                found = caller
        return found or self._verified_before(digest)

    def knows(self, name: str) -> bool:
        """Whether somebody may have this name: a token's that is good, or about to be, or one of an issuer's."""
        if self._verifier is not None and " " in name:
            return True
        return any(caller.name == name for _, caller in [*self._tokens, *(self._staged or ())])

    def has_admitted(self, caller: Caller) -> bool:
        """Whether this caller has been let in before, and by a token that does not expire."""
        return caller in self._used

    async def authenticate(self, call: Call) -> Caller:
        """Who sent this request. Raises a 401, or a 429 for an address that has sent too many wrong tokens."""
        peer, now = call.peer, time.monotonic()
        wait = self._failures.wait_of(peer, now)
        try:
            token = bearer_token(call.headers)
            if token is None:
                raise unauthorized("", "this needs a header: Authorization: Bearer TOKEN", self._metadata_url)
            return await self._caller_of(token, wait)
        except HTTPRefusal as refusal:
            if refusal.status == 401 and any(name == b"authorization" for name, _ in call.headers):
                self._refused("unknown", peer, now)
            raise

    def fell_short(self, caller: Caller, call: Call) -> None:
        """A token of this caller's is good for less than was asked."""
        first = self._shortfalls.failed(call.peer, time.monotonic()) == 1
        self._tell_refused("scope", call.peer, first, caller.name)

    def _refused(self, reason: str, peer: str, now: float) -> None:
        self._tell_refused(reason, peer, self._failures.failed(peer, now) == 1)

    def _tell_refused(self, reason: str, peer: str, first: bool, principal: str | None = None) -> None:
        told = first and self._told.failed("", time.monotonic()) <= _MOST_TOLD
        self._tell(TokenRefused(reason, peer, principal, None if told else True))

    def glance(self, call: Call) -> Caller:
        """Who sent a request to a path that is open to everybody."""
        peer, now = call.peer, time.monotonic()
        try:
            token = bearer_token(call.headers)
        except HTTPRefusal:
            return NOBODY
        caller = None if token is None else self.known(token)
        if token is not None and caller is None:
            self._refused("unknown", peer, now)
        if caller is None or (caller not in self._used and self._failures.wait_of(peer, now)):
            return NOBODY
        return caller

    async def _caller_of(self, token: bytes, wait: float) -> Caller:
        caller = self.known(token)
        if wait and (caller is None or caller not in self._used):
            # Not even told whether this one is right; who has been here before goes on.
            raise too_many_failures(wait)
        if caller is None and self._verifier is not None:
            caller = await self._verifier.verify(token)
            if caller is not None:
                self._remember(self._digest(token), caller)
        if caller is None:
            raise unauthorized("invalid_token", "the token is not valid here", self._metadata_url)
        if math.isinf(caller.expires):
            self._used.add(caller)
        return caller

    @property
    def scope_prefix(self) -> str:
        """What stands before a scope where tokens are given out."""
        return "" if self._verifier is None else self._verifier.scope_prefix

    @property
    def routes(self) -> list[BaseRoute]:
        """What clients without a token may read."""
        return [] if self._verifier is None else self._verifier.routes

    @property
    def _metadata_url(self) -> str:
        return "" if self._verifier is None else self._verifier.metadata_url

    def _verified_before(self, digest: bytes) -> Caller | None:
        caller = self._verified.get(digest)
        if caller is not None and caller.expires <= time.time():
            del self._verified[digest]
            return None
        return caller

    def _remember(self, digest: bytes, caller: Caller) -> None:
        while len(self._verified) >= _MOST_VERIFIED:
            del self._verified[next(iter(self._verified))]
        self._verified[digest] = caller

    def _kept(self, tokens: Sequence[NamedToken]) -> list[tuple[bytes, Caller]]:
        return [(self._digest(one.token.encode()), Caller(one.name, one.scope)) for one in tokens]

    def _digest(self, token: bytes) -> bytes:
        return hmac.digest(self._key, token, "sha256")


def _changes(before: Sequence[tuple[bytes, Caller]], after: Sequence[tuple[bytes, Caller]]) -> tuple[str, ...]:
    """Whose tokens were added, removed or replaced."""
    gone = Counter(_told(caller) for digest, caller in before if (digest, caller) not in after)
    new = Counter(_told(caller) for digest, caller in after if (digest, caller) not in before)
    replaced = gone & new
    words = (("added", new - replaced), ("replaced", replaced), ("removed", gone - replaced))
    return tuple(f"{word} {who}" for word, those in words for who in those.elements())


def _told(caller: Caller) -> str:
    return f"{caller.name} ({caller.scope.words})"
