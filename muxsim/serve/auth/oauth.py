"""Access tokens of an OAuth 2.1 authorization server, checked with the SDK's pieces. Runs on asyncio.

muxsim is the resource server only: it checks signature, issuer, audience and time of a token (JWT), and tells clients
without one who gives them out (RFC 9728). Needs the extra ``mcp-muxsim[oauth]``.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import httpx2
import jwt
from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser, BearerAuthBackend
from mcp.server.auth.provider import AccessToken
from mcp.server.auth.routes import build_resource_metadata_url, create_protected_resource_routes
from mcp.server.auth.settings import AuthSettings
from starlette.requests import HTTPConnection
from starlette.routing import BaseRoute

from muxsim.access import OAuthSettings
from muxsim.errors import ConfigError
from muxsim.observe.events import KeysNotHad, KeysOutdated, Listener, TokenUnverified, unheard
from muxsim.serve.auth.addresses import is_loopback
from muxsim.serve.auth.callers import SCOPES, Caller, scope_of
from transports.http_rules import HTTPRefusal

_TABLE: Final = "server.auth.oauth"
# Seconds by which an issuer's clock may be ahead of this one.
_LEEWAY: Final = 10
# Keys are fetched again when they are this old, and sooner for a token whose key is not among them, but not each time.
_KEYS_LAST: Final = 3600.0
_FETCH_PAUSE: Final = 30.0
_FETCH_TIMEOUT: Final = 10.0
_MOST_BYTES: Final = 2**20

Fetch = Callable[[str], Awaitable[bytes]]


class KeysUnavailable(Exception):
    """The issuer's keys cannot be had now; the message says why."""


class OAuth:
    """A `muxsim.serve.auth.authenticator.Verifier` for one issuer's tokens."""

    def __init__(self, settings: OAuthSettings, keys: Keys, public_url: str = "", tell: Listener = unheard) -> None:
        self.scope_prefix = settings.scope_prefix
        # The SDK's settings keep a URL as it was written; issuers are compared letter by letter.
        urls = AuthSettings(
            issuer_url=settings.issuer,  # type: ignore[arg-type]  # pydantic reads it
            resource_server_url=settings.resource or settings.audience,  # type: ignore[arg-type]
            validate_token_resource=False,  # the audience is checked with the signature
        )
        assert urls.resource_server_url is not None
        self.metadata_url = str(build_resource_metadata_url(urls.resource_server_url))
        if public_url:
            # Behind a proxy this server has only what is under its own path, not all of the host's /.well-known.
            self.metadata_url = public_url + urlsplit(self.metadata_url).path
        self.routes: list[BaseRoute] = [
            *create_protected_resource_routes(
                urls.resource_server_url,
                [urls.issuer_url],
                [settings.scope_prefix + name for name in SCOPES],
                "muxsim",
            )
        ]
        self._backend = BearerAuthBackend(_JWTVerifier(settings, keys, tell))
        self._tell = tell

    async def verify(self, token: bytes) -> Caller | None:
        """Whose token it is; None if it is not valid. Raises a 503 while the issuer's keys cannot be had."""
        headers = [(b"authorization", b"Bearer " + token)]
        try:
            found = await self._backend.authenticate(HTTPConnection({"type": "http", "headers": headers}))
        except KeysUnavailable as error:
            self._tell(KeysNotHad(str(error)))
            text = "the authorization server's keys cannot be had now"
            raise HTTPRefusal(503, text, headers=[(b"retry-after", b"5")]) from None
        return None if found is None else _caller(found[1])


def _caller(user: AuthenticatedUser) -> Caller:
    token = user.access_token
    assert token.claims is not None
    # No name of a tokens file has a space in it: the two kinds of principal cannot be mistaken for each other.
    name = f"{token.claims['iss']} {token.subject}"
    return Caller(name, scope_of(token.scopes), float(token.expires_at or 0))


class _JWTVerifier:
    """What the SDK calls a token verifier."""

    def __init__(self, settings: OAuthSettings, keys: Keys, tell: Listener) -> None:
        self._settings = settings
        self._keys = keys
        self._tell = tell

    async def verify_token(self, token: str) -> AccessToken | None:
        try:
            key = await self._keys.find(jwt.get_unverified_header(token).get("kid"))
            if key is None:
                raise jwt.InvalidKeyError("no key of the issuer has this kid")
            return self._access(token, self._claims(token, key))
        except (jwt.PyJWTError, ValueError, TypeError) as error:
            # For who looks for it; the client is told nothing, and the token stands nowhere.
            self._tell(TokenUnverified(type(error).__name__))
            return None

    def _claims(self, token: str, key: jwt.PyJWK) -> dict[str, Any]:
        settings = self._settings
        claims: dict[str, Any] = jwt.decode(
            token,
            key.key,  # the key alone: a JWK without "alg" would allow one algorithm of its kind only
            algorithms=list(settings.algorithms),
            audience=settings.audience,
            issuer=settings.issuer,
            leeway=_LEEWAY,
            options={"require": ["exp", "iss", "aud", settings.principal_claim]},
        )
        return claims

    def _access(self, token: str, claims: dict[str, Any]) -> AccessToken:
        principal = claims[self._settings.principal_claim]
        if not isinstance(principal, str) or not principal:
            raise jwt.InvalidTokenError(f"{self._settings.principal_claim} is no text")
        return AccessToken(
            token=token,
            client_id=str(claims.get("client_id") or claims.get("azp") or principal),
            scopes=scopes_of(claims, self._settings.scope_prefix),
            expires_at=int(claims["exp"]),
            subject=principal,
            claims={"iss": claims["iss"]},
        )


def scopes_of(claims: dict[str, Any], prefix: str) -> list[str]:
    """The scopes of a token, without their prefix: of ``scope`` (RFC 9068) or of ``scp``, as some issuers have it."""
    given = claims.get("scope", claims.get("scp", ""))
    words = given.split() if isinstance(given, str) else given if isinstance(given, list) else []
    return [word.removeprefix(prefix) for word in words if isinstance(word, str) and word.startswith(prefix)]


# ---- keys


class Keys:
    """An issuer's public keys: those of a file, or fetched and kept for a while."""

    def __init__(
        self,
        source: str,
        fetch: Fetch | None,
        now: Callable[[], float] = time.monotonic,
        tell: Listener = unheard,
    ) -> None:
        self._source = source
        self._tell = tell
        self._fetch = fetch
        self._now = now
        self._keys: list[jwt.PyJWK] = []
        self._fetched = self._tried = -_KEYS_LAST
        self._fetching = asyncio.Lock()

    def read(self, data: bytes) -> None:
        """Take the keys of a JWK set. Raises ValueError if it is none, or has none."""
        try:
            self._keys = jwt.PyJWKSet.from_dict(json.loads(data)).keys
        except (jwt.PyJWTError, ValueError, TypeError, AttributeError, KeyError) as error:
            raise ValueError(f"it has no set of keys (JWKS): {error}") from None

    async def find(self, kid: object) -> jwt.PyJWK | None:
        """The key of this id; the only one there is for a token that names none. Raises `KeysUnavailable`."""
        if self._fetch is not None and self._now() - self._fetched >= _KEYS_LAST:
            await self._refresh(self._fetch)
        key = self._known(kid)
        if key is None and self._fetch is not None and self._now() - self._tried >= _FETCH_PAUSE:
            await self._refresh(self._fetch)
            key = self._known(kid)
        return key

    def _known(self, kid: object) -> jwt.PyJWK | None:
        if kid is None:
            return self._keys[0] if len(self._keys) == 1 else None
        return next((key for key in self._keys if key.key_id == kid), None)

    async def _refresh(self, fetch: Fetch) -> None:
        async with self._fetching:
            if self._now() - self._tried < _FETCH_PAUSE:
                # Somebody else has just done it, or failed to.
                if not self._keys:
                    raise KeysUnavailable(f"{self._source} did not answer a moment ago")
                return
            self._tried = self._now()
            try:
                self.read(await fetch(self._source))
            except (httpx2.HTTPError, ValueError) as error:
                if self._keys:
                    self._tell(KeysOutdated(self._source, str(error)))
                    self._fetched = self._now() - _KEYS_LAST + _FETCH_PAUSE
                    return
                raise KeysUnavailable(f"{self._source}: {error or type(error).__name__}") from None
            self._fetched = self._now()


async def fetch_keys(url: str) -> bytes:
    """What ``url`` has. Raises an HTTP error, or ValueError for too much."""
    async with (
        httpx2.AsyncClient(timeout=_FETCH_TIMEOUT, follow_redirects=False) as http,
        http.stream("GET", url, headers={"accept": "application/json"}) as response,
    ):
        response.raise_for_status()
        data = b""
        async for piece in response.aiter_bytes():
            data += piece
            if len(data) > _MOST_BYTES:
                raise ValueError(f"it is longer than {_MOST_BYTES} bytes")
    return data


def open_oauth(settings: OAuthSettings, public_url: str = "", tell: Listener = unheard) -> OAuth:
    """What checks an issuer's tokens, for clients that find this server at ``public_url``.

    Raises `ConfigError` for settings that cannot work.
    """
    settings = replace(settings, resource=settings.resource or public_url)
    if not _is_url(settings.resource or settings.audience):
        raise ConfigError("is missing: the audience is no URL, so name this server's own", table=_TABLE, key="resource")
    if not _is_url(settings.jwks):
        return OAuth(settings, _keys_of_file(Path(settings.jwks)), public_url, tell)
    address = urlsplit(settings.jwks)
    host = address.hostname or ""
    if address.scheme != "https" and host != "localhost" and not is_loopback(host):
        raise ConfigError("must be https: whoever can change the keys can make tokens", table=_TABLE, key="jwks")
    return OAuth(settings, Keys(settings.jwks, fetch_keys, tell=tell), public_url, tell)


def _keys_of_file(path: Path) -> Keys:
    keys = Keys(str(path), None)
    try:
        keys.read(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", file=str(path)) from None
    except ValueError as error:
        raise ConfigError(str(error), file=str(path)) from None
    return keys


def _is_url(text: str) -> bool:
    return text.startswith(("https://", "http://"))
