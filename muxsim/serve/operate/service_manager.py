"""The service manager that has started muxsim, if one has: told when it serves, reloads and stops, and that it lives.

sd_notify(3): lines such as ``READY=1``, in a datagram to the socket that a variable names. Runs on asyncio.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextlib import contextmanager
from typing import Final

from muxsim.runtime.guest import GuestEnded

# Seconds between two tellings of how it stands, where no watchdog wants to hear sooner.
_STATUS_INTERVAL: Final = 10.0
# A watchdog that wants to hear sooner than this would have muxsim do little else.
_LEAST_INTERVAL: Final = 0.05
# Of microseconds: three centuries.
_MOST_DIGITS: Final = 16
# systemd has no other limit for the end than its own, and each session's processes have their time too.
_END_LIMIT: Final = 60.0


class ServiceManager:
    """Whoever listens at ``address``, or nobody; ``watchdog`` is after how many seconds of silence it acts."""

    def __init__(self, address: str = "", watchdog: float | None = None) -> None:
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        wanted = _STATUS_INTERVAL if watchdog is None else min(_STATUS_INTERVAL, watchdog / 2)
        self.interval = max(_LEAST_INTERVAL, wanted)
        """Seconds between two tellings."""
        self._is_watched = watchdog is not None
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) if address.startswith(("/", "@")) else None
        if self._socket is not None:
            self._socket.setblocking(False)

    def __repr__(self) -> str:
        return f"<ServiceManager {self._address or 'nobody'}>"

    @classmethod
    def of(cls, environ: MutableMapping[str, str]) -> ServiceManager:
        """The one that ``environ`` names, out of which it is taken: it is not for children to speak to."""
        address = environ.pop("NOTIFY_SOCKET", "")
        microseconds, pid = environ.pop("WATCHDOG_USEC", ""), environ.pop("WATCHDOG_PID", "")
        sensible = microseconds.isdecimal() and len(microseconds) <= _MOST_DIGITS
        watched = sensible and int(microseconds) > 0 and pid in ("", str(os.getpid()))
        return cls(address, int(microseconds) / 1e6 if watched else None)

    def close(self) -> None:
        """Tell nothing any more."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def ready(self) -> None:
        """It serves."""
        self._tell("READY=1")

    @contextmanager
    def reloading(self) -> Iterator[None]:
        """The config is read again, for the length of a block."""
        self._tell("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")
        try:
            yield
        finally:
            self.ready()

    def stopping(self, drain_timeout: float) -> None:
        """It stops, which may take as long as calls may still take, and a while."""
        self._tell("STOPPING=1", f"EXTEND_TIMEOUT_USEC={int((drain_timeout + _END_LIMIT) * 1e6)}")

    async def keep_telling(self, status: Callable[[], str], turn: Callable[[], Awaitable[object]]) -> None:
        """Tell how it stands, and that it lives, as often as the watchdog wants, until cancelled.

        ``turn`` returns when all that has to live has had a turn: while it does not, the watchdog hears nothing.
        """
        with contextlib.suppress(GuestEnded):  # of which `stopping` tells
            while self._socket is not None:
                await turn()
                self._tell(f"STATUS={status()}", *(["WATCHDOG=1"] if self._is_watched else []))
                await asyncio.sleep(self.interval)

    def _tell(self, *lines: str) -> None:
        if self._socket is not None:
            with contextlib.suppress(OSError):  # it is gone, or does not keep up: it hears the next one
                self._socket.sendto("\n".join(lines).encode(), self._address)
