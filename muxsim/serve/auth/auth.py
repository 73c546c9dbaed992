"""Bearer tokens: read from where the config says, and asked for on every request. Runs on asyncio.

Nothing here keeps a token: only digests under a key that lives as long as this process.
"""

from __future__ import annotations

import hmac
import math
import os
import secrets
import stat
import time
from collections.abc import Callable, MutableMapping, Sequence
from pathlib import Path
from typing import Final, Protocol

from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from muxsim.access import AuthSettings, OAuthSettings
from muxsim.errors import ConfigError
from muxsim.serve.auth import callers
from muxsim.serve.auth.callers import (
    ANYONE,
    NOBODY,
    Caller,
    NamedToken,
    TokenFault,
    bearer_token,
    forbidden,
    unauthorized,
)
from muxsim.serve.auth.failures import FailureLimit, network_of
from muxsim.serve.auth.own_environment import take_variable
from muxsim.serve.http.unread import Reader, read_by
from transports.asgi import Call, refuse
from transports.http_rules import HTTPRefusal, RawHeaders

_CALLER: Final = "muxsim.caller"
# Verified tokens that are remembered, so that a signature is checked once and not with each call.
_MOST_VERIFIED: Final = 1024
_MOST_BYTES: Final = 2**20
_OTHERS_MAY: Final = stat.S_IRWXO | stat.S_IWGRP


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
    ) -> None:
        self._failures = failures
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
        """Get ready to take these tokens in place of those of the file; `use_staged` does."""
        self._staged = self._kept(file)

    def use_staged(self) -> bool:
        """Take the staged tokens from now on; False if there are none."""
        if self._staged is None:
            return False
        self._tokens, self._staged = [*self._staged, *self._lasting], None
        for forget in self._on_change:
            forget()
        return True

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

    def has_admitted(self, caller: Caller) -> bool:
        """Whether this caller has been let in before, and by a token that does not expire."""
        return caller in self._used

    async def authenticate(self, call: Call) -> Caller:
        """Who sent this request. Raises a 401, or a 429 for an address that has sent too many wrong tokens."""
        peer, now = peer_of(call), time.monotonic()
        wait = self._failures.wait_of(peer, now)
        try:
            token = bearer_token(call.headers)
            if token is None:
                raise unauthorized("", "this needs a header: Authorization: Bearer TOKEN", self._metadata_url)
            return await self._caller_of(token, wait)
        except HTTPRefusal as refusal:
            if refusal.status == 401 and any(name == b"authorization" for name, _ in call.headers):
                self._failures.failed(peer, now)
            raise

    def glance(self, call: Call) -> Caller:
        """Who sent a request to a path that is open to everybody."""
        peer, now = peer_of(call), time.monotonic()
        try:
            token = bearer_token(call.headers)
        except HTTPRefusal:
            return NOBODY
        caller = None if token is None else self.known(token)
        if token is not None and caller is None:
            self._failures.failed(peer, now)
        if caller is None or (caller not in self._used and self._failures.wait_of(peer, now)):
            return NOBODY
        return caller

    async def _caller_of(self, token: bytes, wait: float) -> Caller:
        caller = self.known(token)
        if wait and (caller is None or caller not in self._used):
            # Not even told whether this one is right; who has been here before goes on.
            raise too_many_failures("wrong tokens", wait)
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


class Guard:
    """Lets a request through to an application if its token is good for its path; without tokens, every one."""

    def __init__(self, app: ASGIApp, auth: Authenticator | None) -> None:
        self._app = app
        self._auth = auth

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        call = Call(scope, receive, send)
        try:
            scope[_CALLER] = caller = ANYONE if self._auth is None else await _admit(call, self._auth)
        except HTTPRefusal as refusal:
            await refuse(call, refusal)
            return
        read_by(call, Reader(share_of(caller, peer_of(call))))
        await self._app(scope, receive, send)


async def _admit(call: Call, auth: Authenticator) -> Caller:
    needed = callers.needed_scope(call.scope["path"])
    if needed is callers.Scope.NONE:
        return auth.glance(call)
    caller = await auth.authenticate(call)
    if caller.scope < needed:
        raise forbidden(needed, auth.scope_prefix)
    return caller


def caller_of(call: Call) -> Caller:
    """Who sent a request that `Guard` has let through."""
    caller: Caller = call.scope[_CALLER]
    return caller


def known_caller(auth: Authenticator | None, headers: RawHeaders) -> Caller | None:
    """Who sent these headers, if that can be told at once; raises a 401 for a malformed token."""
    if auth is None:
        return ANYONE
    token = bearer_token(headers)
    return None if token is None else auth.known(token)


def peer_of(call: Call) -> str:
    """The address that a request came from; "" where there is none."""
    client = call.scope.get("client")
    return str(client[0]) if client else ""


def share_of(caller: Caller, peer: str) -> str:
    """Whose share of the pool a new session counts for: the principal's, or the address's where nobody has a name."""
    return caller.name or network_of(peer)


def too_many_failures(what: str, wait: float) -> HTTPRefusal:
    """The 429 of an address past its `FailureLimit`."""
    text = f"too many {what} came from this address (server.max_failures); wait {math.ceil(wait)} s"
    return HTTPRefusal(429, text, headers=[(b"retry-after", b"%d" % math.ceil(wait))], limit="max_failures")


# ---- where tokens come from


def open_auth(
    settings: AuthSettings | None, limit: int, environ: MutableMapping[str, str], public_url: str = ""
) -> Authenticator | None:
    """What checks tokens as the config wants it, for clients that find this server at ``public_url``, if it has one.

    None where it wants none.

    The variable of the tokens is taken out of ``environ``, so that no child can inherit it. Raises `ConfigError`.
    """
    if settings is None:
        return None
    verifier = None if settings.oauth is None else _verifier(settings.oauth, public_url)
    file, variable = read_tokens_file(settings), _read_variable(settings, environ)
    if {one.token for one in file} & {one.token for one in variable}:
        raise ConfigError("a token stands in the file and in the variable: make a new one", table="server.auth")
    return Authenticator(file, FailureLimit(limit), verifier, variable=variable)


def _verifier(settings: OAuthSettings, public_url: str) -> Verifier:
    try:
        from muxsim.serve.auth.oauth import open_oauth  # noqa: PLC0415 - an extra, and slow to import
    except ImportError as error:
        raise ConfigError(
            f"needs what is not installed ({error.name}): pip install 'mcp-muxsim[oauth]'", table="server.auth.oauth"
        ) from None
    return open_oauth(settings, public_url)


def read_tokens_file(settings: AuthSettings) -> list[NamedToken]:
    """The tokens of the config's file. Raises `ConfigError`, which never has a token's text."""
    if not settings.tokens_file:
        return []
    return _parse(_read_private(Path(settings.tokens_file)), settings.tokens_file)


def _read_variable(settings: AuthSettings, environ: MutableMapping[str, str]) -> list[NamedToken]:
    if not settings.tokens_env:
        return []
    text = take_variable(settings.tokens_env, environ)
    if text is None:
        raise ConfigError(
            f"the variable {settings.tokens_env} is not set: set it to lines of NAME SCOPE[,SCOPE] TOKEN",
            table="server.auth",
            key="tokens_env",
        )
    return _parse(text, f"the variable {settings.tokens_env}")


def _parse(text: str, place: str) -> list[NamedToken]:
    try:
        tokens = callers.parse_tokens(text)
    except TokenFault as fault:
        raise ConfigError(str(fault), file=place) from None
    if not tokens:
        raise ConfigError("has no token: add a line of NAME SCOPE[,SCOPE] TOKEN", file=place)
    return tokens


def _read_private(path: Path) -> str:
    try:
        with path.open("rb") as file:
            check_private(file.fileno(), path)
            data = file.read(_MOST_BYTES)
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", file=str(path)) from None
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise ConfigError(f"is not UTF-8, see byte {error.start}", file=str(path)) from None


def check_private(fd: int, path: Path) -> None:
    """Raise `ConfigError` for an open file that others may read, or others or its group may write."""
    status = os.fstat(fd)
    if stat.S_ISREG(status.st_mode) and status.st_mode & _OTHERS_MAY:
        mode = stat.S_IMODE(status.st_mode)
        raise ConfigError(f"has mode {mode:04o}, so others may use what is in it: chmod 600 {path}", file=str(path))
