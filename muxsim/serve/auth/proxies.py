"""Who a proxy says that it calls for. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from typing import Final

from muxsim.values import UNIX_PEERS

_FORWARDED_FOR: Final = b"x-forwarded-for"
_UNIX_PEER: Final = "uid "


def unix_peer(user: int) -> str:
    """What stands for the address of whoever calls over a unix socket, who has none: the user."""
    return f"{_UNIX_PEER}{user}"


class TrustedProxies:
    """Peers that are believed when they say for whom they call; nobody else is. Without any it is false."""

    def __init__(self, named: Iterable[str] = ()) -> None:
        names = set(named)
        self._unix = UNIX_PEERS in names
        self._networks = [ipaddress.ip_network(name) for name in names - {UNIX_PEERS}]

    def __bool__(self) -> bool:
        return self._unix or bool(self._networks)

    def __contains__(self, peer: str) -> bool:
        if peer.startswith(_UNIX_PEER):
            return self._unix
        try:
            address = ipaddress.ip_address(peer.partition("%")[0])
        except ValueError:
            return False
        return any(address in network for network in self._networks)

    def client_of(self, peer: str, headers: Sequence[tuple[bytes, bytes]]) -> str:
        """For whom a peer calls: the last address in its ``X-Forwarded-For`` that is no trusted proxy's.

        Each proxy adds whom it was called by, so that the last is what a trusted one has seen; what stands before it, a
        client may have made up.
        """
        said = b",".join(value for name, value in headers if name == _FORWARDED_FOR).decode("latin-1")
        named = [word.strip() for word in said.split(",")] if said else []
        while named and peer in self:
            address = _address(named.pop())
            if address is None:
                break  # nobody's, so nobody can be held to it
            peer = address
        return peer


def _address(word: str) -> str | None:
    """An address as some proxies write it, with a port or in brackets; None if it is none."""
    if word.startswith("["):
        word = word[1:].partition("]")[0]
    elif word.count(":") == 1:
        word = word.partition(":")[0]
    try:
        return str(ipaddress.ip_address(word))
    except ValueError:
        return None
