"""Which idle sessions are ended when memory is short, and when somebody looks."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

import trio

from muxsim.admission.admission import MemoryReading
from muxsim.admission.pool import Pool
from muxsim.observe.events import Events
from muxsim.runtime.boundary import open_boundary
from muxsim.session.registry import Sessions
from muxsim.session.session import Session

CAUSE: Final = "spare_idle"
"""The cause of such an end."""

# Seconds between two looks while there are sessions; a session that is refused for want of memory brings one on.
_LOOK: Final = 10.0
# Seconds between two rounds of ending: what the first one frees has to show.
_SETTLE: Final = 2.0


def to_end(idle: Sequence[tuple[float, Session]], reading: MemoryReading, sessions: int) -> list[Session]:
    """Of the sessions that may be ended, with the times since which they are idle, those that are: the longest idle.

    As many as the excess takes if each of ``sessions`` has the same share of what is in use, and at least one.
    """
    if not reading.over:
        return []
    share = max(1, reading.used // max(1, sessions))
    count = max(1, math.ceil((reading.used - reading.limit) / share))
    return [session for _, session in sorted(idle, key=lambda one: one[0])[:count]]


async def relieve(sessions: Sessions, pool: Pool, patience: float) -> None:
    """End sessions that have been idle for ``patience`` seconds whenever memory is short. Runs until cancelled."""
    while True:
        await sessions.wait_for_any()
        with trio.move_on_after(_LOOK):
            await pool.wait_short_of_memory()
        if (reading := await pool.measure()) is not None and reading.over:
            latest = trio.current_time() - patience
            since = [(one.idle_since, one) for one in sessions.all()]
            idle = [(time, one) for time, one in since if time is not None and time <= latest]
            for session in to_end(idle, reading, len(sessions)):
                text = f"memory is short ({reading}; server.memory_limit)"
                session.end(CAUSE, f"{text}, and nothing happened here for {patience:g} s (server.spare_idle)")
            await trio.sleep(_SETTLE)


@asynccontextmanager
async def relieving(sessions: Sessions, pool: Pool, patience: float | None, events: Events) -> AsyncIterator[None]:
    """`relieve` for the length of a block; a ``patience`` of None ends no session."""
    async with open_boundary(events.part_failed) as boundary:
        if patience is not None:
            boundary.part("relief of memory").start_soon(relieve, sessions, pool, patience)
        yield
