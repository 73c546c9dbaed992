"""How often somebody may be wrong: a bound on guesses from one address. Pure: the time is an argument."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from muxsim.access import network_of
from transports.http_rules import HTTPRefusal

WINDOW: Final = 60.0
"""Seconds in which the limit counts."""

# Addresses that are remembered; past these the one whose window began first is forgotten.
_MOST_PEERS: Final = 4096


@dataclass(slots=True)
class _Window:
    began: float
    failures: int = 0


class FailureLimit:
    """Counts the failures of each peer in windows of `WINDOW` seconds."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._windows: dict[str, _Window] = {}

    def __repr__(self) -> str:
        return f"<FailureLimit {self.limit} failures, {len(self._windows)} peers>"

    def failed(self, peer: str, now: float) -> int:
        """Note a failure; which one of its window it is."""
        name = network_of(peer)
        window = self._windows.get(name)
        if window is None or now >= window.began + WINDOW:
            self._windows.pop(name, None)
            if len(self._windows) >= _MOST_PEERS:
                del self._windows[next(iter(self._windows))]
            window = self._windows[name] = _Window(now)
        window.failures += 1
        return window.failures

    def wait_of(self, peer: str, now: float) -> float:
        """The seconds until this peer may fail again; 0 if it still may."""
        window = self._windows.get(network_of(peer))
        if window is None or window.failures < self.limit:
            return 0.0
        return max(0.0, window.began + WINDOW - now)


def too_many_failures(wait: float) -> HTTPRefusal:
    """The 429 of an address past its limit."""
    text = f"too many wrong tokens came from this address (server.max_failures); wait {math.ceil(wait)} s"
    return HTTPRefusal(429, text, headers=[(b"retry-after", b"%d" % math.ceil(wait))], limit="max_failures")
