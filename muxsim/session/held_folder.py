"""A session's folder, which outlives the session for those who still have to look into it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import trio


class HeldFolder:
    """Whether a session's folder may be removed, and whether it has been. Calls are plain ones, from either loop."""

    def __init__(self) -> None:
        self.path: Path | None = None
        """Where it is; None before its session has one."""
        self._holders = 0
        self._changed = trio.Event()
        self._gone = trio.Event()

    def hold(self) -> Callable[[], None]:
        """Keep it until what this returns is called, once or more often."""
        self._holders += 1
        holds = True

        def let_go() -> None:
            nonlocal holds
            if holds:
                holds = False
                self._holders -= 1
                self._changed.set()

        return let_go

    def let_all_go(self) -> None:
        """Have nobody keep it any longer."""
        self._holders = 0
        self._changed.set()

    async def wait_free(self) -> None:
        """Wait until nobody keeps it."""
        while self._holders > 0:
            self._changed = trio.Event()
            await self._changed.wait()

    def removed(self) -> None:
        """It is not there any more."""
        self._gone.set()

    async def wait_removed(self) -> None:
        """Wait until then."""
        await self._gone.wait()
