"""All that the dashboard's feeds are made of. It may fail alone."""

from __future__ import annotations

import time
from collections.abc import Callable

from muxsim.admission.pool import Pool
from muxsim.observe.counters import Counters
from muxsim.observe.events import Events
from muxsim.observe.news import News
from muxsim.runtime.boundary import Boundary
from muxsim.serve.watch.board import Board
from muxsim.serve.watch.history import History
from muxsim.serve.watch.records import Records
from muxsim.serve.watch.server_feed import ServerFeed
from muxsim.serve.watch.session_feed import SessionFeeds
from muxsim.session.registry import Sessions
from muxsim.session.sampler import Sampler
from transports.http_rules import HTTPRefusal


class Dashboard:
    """Hears of all that happens, and hands feeds out."""

    def __init__(
        self,
        sessions: Sessions,
        pool: Pool,
        sampler: Sampler,
        counters: Counters,
        events: Events,
        recent: News,
        boundary: Boundary,
        default_env: Callable[[], str | None],
        *,
        history: int,
    ) -> None:
        """``history`` is of how many calls each session's record knows while nobody looks."""
        now = time.time
        board = Board(sessions, pool, sampler, recent, counters, default_env, now)
        self.records = Records(sessions, history, now)
        part = boundary.part("dashboard", self.records.let_all_go)
        self.records.use(part)
        self._history = History(sessions, pool, sampler, counters, events.traffics, recent, now)
        self._part = part
        self.server = ServerFeed(board, self._history, part, now)
        self.sessions = SessionFeeds(self.records, pool.placement.processes_of, part, now)
        for listener in (board, self.records):
            events.subscribe(listener)

    def check(self) -> None:
        """Raise a 503 where there is no more to be had from it."""
        if self._part.is_off:
            raise HTTPRefusal(503, "the dashboard has failed and is switched off; see muxsim's log")

    async def keep_history(self) -> None:
        """Go on until cancelled."""
        with self._part.alone():
            await self._history.run()

    def keep(self, history: int) -> None:
        """Have the record of each new session know of so many calls while nobody looks."""
        if not self._part.is_off:
            self.records.keep(history)

    def doubt(self) -> None:
        """End all feeds: with their next request their readers show who they are now."""
        self.server.doubt()
        self.sessions.readers.doubt()
