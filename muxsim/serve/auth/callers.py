"""Who is calling, and what that caller may do. Pure: headers, paths and lines of text in, decisions out."""

from __future__ import annotations

import functools
import math
import operator
import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Flag
from typing import Final

from muxsim.access import TOKEN_NAME, network_of
from transports.http_rules import HTTPRefusal, RawHeaders

# RFC 6750's alphabet, and long enough that nobody guesses one: 22 characters of base64 are 128 bits.
_TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/-]+=*")
_LEAST_TOKEN: Final = 22
# A signed token with many claims has some kilobytes.
_MOST_TOKEN: Final = 16 * 1024
_BEARER: Final = re.compile(rb"[Bb][Ee][Aa][Rr][Ee][Rr] +([^ ]+) *")


class Scope(Flag):
    """What a token is good for: ``needed in scope`` tells. A trainer's includes an agent's, and an admin's all."""

    # They have no order, for a monitor's is neither more nor less than an agent's: it looks, and touches nothing.
    NONE = 0
    AGENT = 0b0001
    TRAINER = 0b0011
    MONITOR = 0b0100
    ADMIN = 0b1111

    @property
    def words(self) -> str:
        """As it is written in a tokens file."""
        held = [scope for scope in SCOPES.values() if scope in self]
        return ",".join(name for name, one in SCOPES.items() if [more for more in held if one in more] == [one])


SCOPES: Final = {
    "agent": Scope.AGENT,
    "trainer": Scope.TRAINER,
    "monitor": Scope.MONITOR,
    "admin": Scope.ADMIN,
}
"""Those that a token may have, by the word for each."""


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
        return Scope.TRAINER in self.scope

    def share(self, peer: str) -> str:
        """Whose share of the pool its sessions count for: the principal's, or the address's where nobody has a name."""
        return self.name or network_of(peer)

    def known_as(self, peer: str) -> str:
        """Who did what it asks for: the principal, or the address it came from where nobody has a name."""
        return self.name or peer

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
    r"/|/mcp|/sse|/messages|/envs|/envs/[^/]+/(mcp|sse|messages|openenv/[^/]+)|/s/[^/]+/((agent/)?mcp|sse|messages)"
    r"|/watch/sessions/[^/]+(/images/[^/]+)?"
)
_ADMINS: Final = re.compile(r"/sessions/[^/]+/logs")
_TRAINERS: Final = re.compile(
    r"/sessions(/.*)?|/leases|(/(s|envs)/[^/]+)?/control/[^/]+|/s/[^/]+/control|/envs/[^/]+|/watch"
)


# What a monitor may read; no path below one of these.
_MONITORED: Final = frozenset({"/", "/envs", "/sessions", "/watch", "/metrics"})
_READING: Final = frozenset({"GET", "HEAD"})


def needed_scopes(method: str, path: str) -> tuple[Scope, ...]:
    """The scopes of which any one is enough for a request; what nobody has thought of is the admin's."""
    least = _least_scope(path)
    if path not in _MONITORED or method not in _READING:
        return (least,)
    return (Scope.MONITOR,) if least is Scope.ADMIN else (least, Scope.MONITOR)


def _least_scope(path: str) -> Scope:
    if path in _OPEN or path.startswith(_WELL_KNOWN):
        return Scope.NONE
    if _AGENTS.fullmatch(path):
        return Scope.AGENT
    if _TRAINERS.fullmatch(path) and not _ADMINS.fullmatch(path):
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
        return f"<NamedToken {self.name} {self.scope.words}>"


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
    if not TOKEN_NAME.fullmatch(name):
        raise TokenFault(f"line {number}: the name must be 1 to 64 of A-Z, a-z, 0-9, '_', '.', '@' and '-'")
    if not set(scopes.split(",")) <= SCOPES.keys():
        raise TokenFault(f"line {number}: the scope must be {', '.join(SCOPES)}, or several with commas between")
    if not _LEAST_TOKEN <= len(token) <= _MOST_TOKEN or not _TOKEN.fullmatch(token):
        raise TokenFault(
            f"line {number}: a token must be at least {_LEAST_TOKEN} characters of A-Z, a-z, 0-9, '.', '_', '~', '+', "
            "'/' and '-'; this makes one: openssl rand -hex 32"
        )
    return NamedToken(name, scope_of(scopes.split(",")), token)


def scope_of(names: Iterable[str]) -> Scope:
    """What all of these are good for together; words that are none of muxsim's scopes count for nothing."""
    return functools.reduce(operator.or_, (SCOPES[name] for name in names if name in SCOPES), Scope.NONE)


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


def forbidden(*enough: Scope, prefix: str = "") -> HTTPRefusal:
    """The 403 of a request whose token is good for none of what is ``enough``.

    ``prefix`` is what an issuer has before its scopes.
    """
    # Those that include one of them would do as well, which nobody can be expected to know.
    *names, last = [name for name, scope in SCOPES.items() if any(one in scope for one in enough)]
    fields = ['realm="muxsim"', 'error="insufficient_scope"', f'scope="{prefix}{enough[0].words}"']
    text = f"this needs a token with the scope {' or '.join(filter(None, (', '.join(names), last)))}"
    return HTTPRefusal(403, text, headers=[_challenge(fields)])


def _challenge(fields: list[str]) -> tuple[bytes, bytes]:
    return b"www-authenticate", f"Bearer {', '.join(fields)}".encode("ascii", "replace")
