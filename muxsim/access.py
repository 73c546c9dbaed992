"""The settings that say who may call, and how much: the `[server.auth]` and `[server.clients]` tables of the config."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Final

from muxsim.values import CLIENT_KEYS, check_numbers

TOKEN_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@-]{0,63}")
"""What a name in a file of tokens may be."""

# Whoever has one address of IPv6 usually has all of a /64.
_IPV6_NETWORK: Final = 64
_UNIX_PEER: Final = re.compile(r"uid (0|[1-9][0-9]{0,9})")


def network_of(peer: str) -> str:
    """Whom an address stands for: itself, or all of a network of IPv6 that one party usually has."""
    if ":" not in peer:
        return peer
    try:
        return str(ipaddress.ip_network((peer.partition("%")[0], _IPV6_NETWORK), strict=False))
    except ValueError:
        return peer


def is_address(name: str) -> bool:
    """Whether whoever calls without a token may be called so: by an address, its network, or its user."""
    if _UNIX_PEER.fullmatch(name):
        return True
    try:
        return name == network_of(str(ipaddress.ip_interface(name).ip))
    except ValueError:
        return False


def fault_of_client(name: str, issuer: str | None) -> str:
    """Why nobody can be called so, whose bounds a config has, and what to write instead; "" if somebody can.

    ``issuer`` is whose access tokens are taken, if they are.
    """
    if TOKEN_NAME.fullmatch(name) or is_address(name) or (issuer is not None and name.startswith(f"{issuer} ")):
        return ""
    try:
        address = str(ipaddress.ip_interface(name.partition("%")[0]).ip)
    except ValueError:
        issued = 'an issuer and a subject ("ISSUER SUBJECT")' if issuer is None else f'"{issuer} SUBJECT"'
        return f"can be nobody: write the name of a token, {issued}, an address, or a user (uid 1000)"
    if ":" in address:
        return f'can be nobody, for addresses of IPv6 count by networks of 64 bits: write "{network_of(address)}"'
    return f"can be nobody, for addresses of IPv4 count one by one: write one, such as {address}"


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

    def __post_init__(self) -> None:
        check_numbers(self, CLIENT_KEYS)


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthSettings:
    """Who may call: the `[server.auth]` table. Without it everybody may, and only on this machine."""

    tokens_file: str = ""
    """A file of bearer tokens, one line each: ``NAME SCOPE[,SCOPE] TOKEN``."""

    tokens_env: str = ""
    """A variable of muxsim's own environment that holds such lines."""

    oauth: OAuthSettings | None = None
    """The authorization server whose tokens are taken too."""
