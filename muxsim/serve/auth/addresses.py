"""What an address says of whoever calls from it. Pure."""

from __future__ import annotations

import ipaddress
from typing import Final

# Whoever has one address of IPv6 usually has all of a /64.
_IPV6_NETWORK: Final = 64


def network_of(peer: str) -> str:
    """Whom an address stands for: itself, or all of a network of IPv6 that one party usually has."""
    if ":" not in peer:
        return peer
    try:
        return str(ipaddress.ip_network((peer.partition("%")[0], _IPV6_NETWORK), strict=False))
    except ValueError:
        return peer


def is_loopback(address: str) -> bool:
    """Whether only this machine can reach an address."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    # Python 3.13 looks into addresses that wrap one of IPv4, older ones do not: the stricter answer, everywhere.
    return parsed.is_loopback and getattr(parsed, "ipv4_mapped", None) is None
