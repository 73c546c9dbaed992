"""Who is calling, and what that caller may do. Pure: headers, paths and lines of text in, decisions out."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from muxsim.serve.auth.addresses import network_of
from transports.http_rules import HTTPRefusal, RawHeaders

# RFC 6750's alphabet, and long enough that nobody guesses one: 22 characters of base64 are 128 bits.
_TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/-]+=*")
_LEAST_TOKEN: Final = 22
# A signed token with many claims has some kilobytes.
_MOST_TOKEN: Final = 16 * 1024
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@-]{0,63}")
_BEARER: Final = re.compile(rb"[Bb][Ee][Aa][Rr][Ee][Rr] +([^ ]+) *")


class Scope(IntEnum):
    """What a token is good for; each includes those before it."""

    NONE = 0
    AGENT = 1
    TRAINER = 2
    ADMIN = 3


_SCOPES: Final = {scope.name.lower(): scope for scope in (Scope.AGENT, Scope.TRAINER, Scope.ADMIN)}


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sent a request: the principal's ``name``, to whom sessions belong, and what the token is good for.

    ``expires`` is in seconds since 1970. The name is None where no authentication is configured.
    """

    name: str | None
    scope: Scope
    expires: float = math.inf

    @property
    def controls(self) -> bool:
        """Whether the caller may see the control plane."""
        return self.scope >= Scope.TRAINER

    def share(self, peer: str) -> str:
        """Whose share of the pool its sessions count for: the principal's, or the address's where nobody has a name."""
        return self.name or network_of(peer)

    def sees(self, owner: str | None, *, shared: bool = False) -> bool:
        """Whether a session of ``owner`` is there for this caller; a shared one is there for everybody."""
        return self.scope is Scope.ADMIN or shared or (owner is not None and owner == self.name)

    def may_end(self, owner: str | None) -> bool:
        """Whether this caller may end a session of ``owner``; a shared one, which has none, is the admin's."""
        return self.scope is Scope.ADMIN or (owner is not None and owner == self.name)


ANYONE: Final = Caller(None, Scope.ADMIN)
"""Every caller where no authentication is configured."""

NOBODY: Final = Caller(None, Scope.NONE)
"""A caller without a valid token, on the few paths that are open."""

# ---- what a path needs

_OPEN: Final = frozenset({"/health", "/ready"})
_WELL_KNOWN: Final = "/.well-known/"
_AGENTS: Final = re.compile(
    r"/|/mcp|/sse|/messages|/envs|/envs/[^/]+/(mcp|sse|messages)|/s/[^/]+/((agent/)?mcp|sse|messages)"
)
_TRAINERS: Final = re.compile(r"/sessions(/.*)?|/control/[^/]+|/envs/[^/]+")


def needed_scope(path: str) -> Scope:
    """The least scope that a path is open to; what nobody has thought of is the admin's."""
    if path in _OPEN or path.startswith(_WELL_KNOWN):
        return Scope.NONE
    if _AGENTS.fullmatch(path):
        return Scope.AGENT
    if _TRAINERS.fullmatch(path):
        return Scope.TRAINER
    return Scope.ADMIN


# ---- tokens


class TokenFault(Exception):
    """A line of tokens is wrong; the message has the line's number and never its text."""


@dataclass(frozen=True, slots=True)
class NamedToken:
    """One line of a tokens file."""

    name: str
    scope: Scope
    token: str

    def __repr__(self) -> str:
        return f"<NamedToken {self.name} {self.scope.name.lower()}>"


def parse_tokens(text: str) -> list[NamedToken]:
    """The tokens of ``NAME SCOPE[,SCOPE] TOKEN`` lines; ``#`` begins a comment line. Raises `TokenFault`.

    Several lines may have one name: the tokens of one principal, with different scopes, or an old and a new one.
    """
    found: list[NamedToken] = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip() and not line.lstrip().startswith("#"):
            found.append(_parse_line(number, line))
            if len({one.token for one in found}) < len(found):
                raise TokenFault(f"line {number}: this token stands in an earlier line too: make a new one")
    return found


def _parse_line(number: int, line: str) -> NamedToken:
    words = line.split()
    if len(words) != 3:
        raise TokenFault(f"line {number}: must be NAME SCOPE[,SCOPE] TOKEN, and has {len(words)} words")
    name, scopes, token = words
    if not _NAME.fullmatch(name):
        raise TokenFault(f"line {number}: the name must be 1 to 64 of A-Z, a-z, 0-9, '_', '.', '@' and '-'")
    if not set(scopes.split(",")) <= _SCOPES.keys():
        raise TokenFault(f"line {number}: the scope must be {', '.join(_SCOPES)}, or several with commas between")
    if not _LEAST_TOKEN <= len(token) <= _MOST_TOKEN or not _TOKEN.fullmatch(token):
        raise TokenFault(
            f"line {number}: a token must be at least {_LEAST_TOKEN} characters of A-Z, a-z, 0-9, '.', '_', '~', '+', "
            "'/' and '-'; this makes one: openssl rand -hex 32"
        )
    return NamedToken(name, highest(scopes.split(",")), token)


def highest(names: Iterable[str]) -> Scope:
    """The scope that includes all of these; words that are none of muxsim's scopes count for nothing."""
    return max((_SCOPES[name] for name in names if name in _SCOPES), default=Scope.NONE)


# ---- headers


def bearer_token(headers: RawHeaders) -> bytes | None:
    """The token of the one Authorization header; None if there is no header. Raises a 401 for anything else."""
    values = [value for name, value in headers if name == b"authorization"]
    if not values:
        return None
    found = _BEARER.fullmatch(values[0]) if len(values) == 1 else None
    if found is None or len(found[1]) > _MOST_TOKEN:
        raise unauthorized("invalid_request", "send one header: Authorization: Bearer TOKEN")
    return found[1]


def unauthorized(error: str, text: str, metadata_url: str = "") -> HTTPRefusal:
    """The 401 of a request without a valid token; without an ``error`` it had none at all (RFC 6750)."""
    fields = ['realm="muxsim"']
    if error:
        fields += [f'error="{error}"', f'error_description="{text}"']
    if metadata_url:
        fields.append(f'resource_metadata="{metadata_url}"')
    return HTTPRefusal(401, text, headers=[_challenge(fields)])


def forbidden(needed: Scope, prefix: str = "") -> HTTPRefusal:
    """The 403 of a request whose token is good for less; ``prefix`` is what an issuer has before its scopes."""
    name = needed.name.lower()
    fields = ['realm="muxsim"', 'error="insufficient_scope"', f'scope="{prefix}{name}"']
    return HTTPRefusal(403, f"this needs a token with the scope {name}", headers=[_challenge(fields)])


def _challenge(fields: list[str]) -> tuple[bytes, bytes]:
    return b"www-authenticate", f"Bearer {', '.join(fields)}".encode("ascii", "replace")
