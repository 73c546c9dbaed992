"""trio's clock for a program that may be stopped: time in which it could not act is no time to anybody's deadline."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Final

import trio

STOOD_STILL: Final = 1.0
"""Seconds between two looks at the clock past which this process has not been running, or not been let."""


class SteadyClock(trio.abc.Clock):
    """A monotonic clock that leaves out what passes while the whole process is stopped (SIGSTOP, a debugger, a swap).

    It can tell only while something calls `beat` all the time: without that, long silence is nothing unusual. Answers
    that came meanwhile are then read before anybody's time is over. ``stood_still`` is told how long it was.
    """

    def __init__(
        self, stood_still: Callable[[float], None] = lambda _: None, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._monotonic = monotonic
        self._stood_still = stood_still
        self._seen = monotonic()
        self._left_out = 0.0
        self._patience = math.inf

    def __repr__(self) -> str:
        return f"<SteadyClock, {self._left_out:g} s left out>"

    def beat(self) -> None:
        """Look at the clock; to be called several times per `STOOD_STILL`."""
        self.current_time()
        self._patience = STOOD_STILL

    def rest(self) -> None:
        """Expect no more beats."""
        self.current_time()
        self._patience = math.inf

    def start_clock(self) -> None:
        """Nothing: it is running."""

    def current_time(self) -> float:
        """Seconds, since nobody knows when."""
        now = self._monotonic()
        gap = now - self._seen
        self._seen = now
        if gap > self._patience:
            self._left_out += gap
            self._stood_still(gap)
        return now - self._left_out

    def deadline_to_sleep_time(self, deadline: float) -> float:
        """How long to sleep until a deadline."""
        return deadline - self.current_time()
