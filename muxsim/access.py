"""The settings that say who may call, and how much: the `[server.auth]` and `[server.clients]` tables of the config."""

from __future__ import annotations

from dataclasses import dataclass

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""Signatures that an issuer's public key can check; with a shared secret, whoever checks a token could make one."""

UNIX_PEERS = "unix"
"""What `trusted_proxies` calls whoever calls over a unix socket."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OAuthSettings:
    """Access tokens (JWT) of an OAuth 2.1 authorization server: the `[server.auth.oauth]` table."""

    issuer: str
    """Who signs the tokens: the ``iss`` claim, letter by letter."""

    audience: str
    """For whom they are: what the ``aud`` claim has to name."""

    jwks: str
    """The issuer's public keys: an ``https`` URL, or a file."""

    resource: str = ""
    """The public URL of this server, for clients that look for its authorization server; `public_url` if left out,
    or else the audience."""

    algorithms: tuple[str, ...] = ("RS256", "ES256")
    """The signatures that are taken."""

    principal_claim: str = "sub"
    """The claim that tells whose sessions are whose."""

    scope_prefix: str = ""
    """What stands before ``agent``, ``trainer``, ``monitor`` and ``admin`` in the ``scope`` claim: ``muxsim:``, say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientBounds:
    """What one client may have that others may not: a `[server.clients.NAME]` table. None is as in `[server]`."""

    max_sessions_per_client: int | None = None
    """How many sessions it may have open or asked for; 0 sets no bound."""

    opens_per_second: float | None = None
    """How many sessions it may ask for per second in the long run; 0 sets no bound."""

    opens_burst: int | None = None
    """How many of those may come at once."""

    max_unread: int | None = None
    """How many bytes of answers it may leave unread, on all connections."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthSettings:
    """Who may call: the `[server.auth]` table. Without it everybody may, and only on this machine."""

    tokens_file: str = ""
    """A file of bearer tokens, one line each: ``NAME SCOPE[,SCOPE] TOKEN``."""

    tokens_env: str = ""
    """A variable of muxsim's own environment that holds such lines."""

    oauth: OAuthSettings | None = None
    """The authorization server whose tokens are taken too."""
