"""Leases of sessions of a serving muxsim, renewed for as long as this process lives.

From a thread: a loop that is held up, by a training step of a minute or a breakpoint, loses no session by that. A
thread dies with its process, however that ends, and is not there in a fork.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from typing import Final, Protocol

import httpx2
import msgspec

from muxsim.rollouts.environments.wires import REFUSALS

# A renewal may fail this often, or be late, before anything ends.
_IN_A_LEASE: Final = 3
# Parts of a lease after which one that has failed is tried again, and for which one may take.
_RETRY: Final = 20
_PATIENCE: Final = 4
# Ids in one request, whose body muxsim takes up to 64 KiB of.
_MOST: Final = 800
# Seconds that the end of a pool waits for a renewal that is under way; it harms nobody afterwards.
_JOIN: Final = 0.2


class _Renewed(msgspec.Struct):
    gone: list[str] = []


class Ask(Protocol):
    """One renewal. Raises OSError or `httpx2.HTTPError`."""

    def __call__(self, ids: Sequence[str], timeout: float) -> Sequence[str]:
        """Which of these sessions are over."""


class Renewals:
    """Renews the leases, of so many seconds, of all sessions that are `held`. `stop` has to be called."""

    def __init__(self, lease: float, ask: Ask) -> None:
        self.lease = lease
        self._ask = ask
        self._held: dict[str, None] = {}
        self._pid = os.getpid()
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def __repr__(self) -> str:
        return f"<Renewals of {len(self._held)} leases of {self.lease:g} s>"

    @property
    def held(self) -> tuple[str, ...]:
        """The ids of those that are renewed."""
        return tuple(self._held)

    def hold(self, id: str) -> None:
        """Renew this one from now on; but not in a fork of the process that these renewals are of."""
        if self._pid != os.getpid():
            return
        self._held[id] = None
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="muxsim leases", daemon=True)
            self._thread.start()

    def let_go(self, id: str) -> None:
        """Renew it no more."""
        self._held.pop(id, None)

    def stop(self) -> None:
        """Renew nothing any more."""
        self._stopped.set()
        self._held.clear()
        if self._thread is not None and self._pid == os.getpid():
            self._thread.join(_JOIN)

    def _run(self) -> None:
        every = self.lease / _IN_A_LEASE
        wait = every
        while not self._stopped.wait(wait):
            wait = every if self._renew() else self.lease / _RETRY

    def _renew(self) -> bool:
        try:
            held = self.held
            for first in range(0, len(held), _MOST):
                for gone in self._ask(held[first : first + _MOST], self.lease / _PATIENCE):
                    self.let_go(gone)
        except (httpx2.HTTPError, OSError):  # the next call of a session tells if it could not be reached for too long
            return False
        return True


def over_http(url: str, socket: str, headers: dict[str, str]) -> Ask:
    """Renewals by ``POST /leases`` at a URL, or over a unix ``socket``."""

    def ask(ids: Sequence[str], timeout: float) -> Sequence[str]:
        # A connection of its own each time: between two renewals a server closes what is idle.
        over = httpx2.HTTPTransport(uds=socket) if socket else None
        with httpx2.Client(transport=over, headers=headers, timeout=timeout) as http:
            answer = http.post(url, json={"sessions": ids})
        if answer.status_code in REFUSALS:  # more of them would be taken for somebody who guesses
            return ()
        answer.raise_for_status()
        try:
            return msgspec.json.decode(answer.content, type=_Renewed).gone
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return ()

    return ask
