"""What an address says of whoever calls from it. Pure."""

from __future__ import annotations

import ipaddress


def is_loopback(address: str) -> bool:
    """Whether only this machine can reach an address."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    # Python 3.13 looks into addresses that wrap one of IPv4, older ones do not: the stricter answer, everywhere.
    return parsed.is_loopback and getattr(parsed, "ipv4_mapped", None) is None
