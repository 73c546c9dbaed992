"""The feed of the whole server: what is, and then what changes, to each reader as far as they may see it."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, Callable
from typing import Final

from muxsim import __version__
from muxsim.runtime.boundary import Part
from muxsim.serve.auth.callers import Caller, Scope
from muxsim.serve.watch import feed
from muxsim.serve.watch.board import Board
from muxsim.serve.watch.history import History
from muxsim.serve.watch.readers import Readers, Reading
from muxsim.serve.watch.told import told

# Seconds between two looks.
_TICK: Final = 0.25
# Each costs the server some of a core while much goes on.
_MOST_READERS: Final = 64


class ServerFeed:
    """Looks at the board while there are readers. Runs on asyncio; ``now`` gives the seconds since 1970."""

    def __init__(self, board: Board, history: History, part: Part, now: Callable[[], float]) -> None:
        self._board = board
        self.history = history
        self._part = part
        self._now = now
        self.readers = Readers("feeds of the server", _MOST_READERS, now)
        self._looking: asyncio.Task[None] | None = None
        self._looked = asyncio.Event()
        self._reading = 0

    def __repr__(self) -> str:
        return f"<ServerFeed of {self._board!r}, {self._reading} readers>"

    def doubt(self) -> None:
        """End all readers' streams: with their next request they show who they are now."""
        self.readers.doubt()
        self._wake()

    async def events(self, reading: Reading) -> AsyncGenerator[bytes, None]:
        """Encoded events for one of the readers."""
        self._reading += 1
        caller, board = reading.caller, self._board
        try:
            if self._looking is None:
                self._board.look()
                self._looking = asyncio.ensure_future(self._look_again())
            version, taken = board.version, self.history.taken
            yield self._hello(caller)
            yield told("snapshot", board.snapshot(caller, list(self.history.samples)))
            while await self._next_look(reading) and reading.goes_on and not self._part.is_off:
                if board.since > version:
                    version = board.version
                    yield told("snapshot", board.snapshot(caller, list(self.history.samples)))
                elif board.version > version:
                    change, version = board.changes(caller, version), board.version
                    if change is not None:
                        yield told("change", change)
                for sample in self.history.since(taken):
                    yield told("sample", sample)
                taken = self.history.taken
        finally:
            self._reading -= 1
            if not self._reading:
                self._rest()

    def _hello(self, caller: Caller) -> bytes:
        scope = caller.scope
        hello = feed.Hello(
            name="muxsim",
            version=__version__,
            scope=scope.words,
            principal=caller.name,
            controls=caller.controls,
            opens=Scope.TRAINER in scope,
            ends_all=scope is Scope.ADMIN,
            now=self._now(),
        )
        return told("hello", hello)

    async def _next_look(self, reading: Reading) -> bool:
        """Wait for something new; False once the reader's token has expired."""
        left = reading.left
        try:
            async with asyncio.timeout(None if left == math.inf else max(0.0, left)):
                await self._looked.wait()
        except TimeoutError:
            return False
        return True

    async def _look_again(self) -> None:
        with self._part.alone():
            while not self._part.is_off:
                await asyncio.sleep(_TICK)
                before = self._board.version, self.history.taken
                self._board.look()
                if before != (self._board.version, self.history.taken):
                    self._wake()
        self._wake()

    def _wake(self) -> None:
        looked, self._looked = self._looked, asyncio.Event()
        looked.set()

    def _rest(self) -> None:
        if self._looking is not None:
            self._looking.cancel()
        self._looking = None
        self._board.rest()
