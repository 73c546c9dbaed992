"""The records of all sessions: there while somebody looks at one, or always with ``[server] history``."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import trio

from muxsim.observe.events import BackendStderr, Event, SessionEnded
from muxsim.runtime.boundary import Part
from muxsim.serve.watch.record import Record
from muxsim.session.registry import Sessions
from muxsim.session.session import Session

# Of sessions that have ended, with ``history``.
_MOST_PAST: Final = 256
_MOST_PAST_BYTES: Final = 64 * 2**20


@dataclass(frozen=True, slots=True)
class Watched:
    """A session, and what is known of its conversation."""

    session: Session
    record: Record
    opened: float
    """When the session was made, in seconds since 1970."""


class Records:
    """Has sessions overheard. A listener for `muxsim.observe.events.Events`.

    ``history`` is of how many calls each session's record knows while nobody looks; 0 has no such record.
    """

    def __init__(self, sessions: Sessions, history: int, now: Callable[[], float]) -> None:
        self._sessions = sessions
        self._history = history
        self._now = now
        self._live: dict[str, Watched] = {}
        self._past: OrderedDict[str, Watched] = OrderedDict()
        self._last: dict[str, tuple[int, int]] = {}
        self._part: Part

    def __repr__(self) -> str:
        return f"<Records of {len(self._live)} live sessions, {len(self._past)} past ones>"

    def use(self, part: Part) -> None:
        """Be this part; called once, before anything else."""
        self._part = part
        self.keep(self._history)

    def keep(self, history: int) -> None:
        """Know of so many calls of each session that is made from now on; those that are recorded stay as they are."""
        self._history = history
        self._sessions.on_begun = self._begun if history else None

    def _begun(self, session: Session) -> None:
        self._part.attempt(self._attach, session)

    def __call__(self, event: Event) -> None:
        """Take note of stderr, and of ends."""
        if isinstance(event, BackendStderr):
            watched = self._live.get(event.session)
            if watched is not None:
                watched.record.stderr(event.line)
        elif isinstance(event, SessionEnded):
            self._last.pop(event.session, None)
            watched = self._live.pop(event.session, None)
            if watched is not None:
                watched.record.ended = round(self._now(), 3)
                if watched.record.keeps:
                    self._keep(watched)

    def past(self, id: str) -> Watched | None:
        """A session that has ended, if it is remembered."""
        return None if self._sessions.get(id) is not None else self._past.get(id)

    def of(self, id: str) -> Watched | None:
        """A session that is being recorded, or was."""
        return self._live.get(id) or self.past(id)

    def watch(self, session: Session) -> Watched:
        """Begin to look at a session; `leave` it again."""
        known = self._live.get(session.id)
        watched = known or self._attach(session)
        watched.record.readers += 1
        if known is None:
            watched.record.begin()
        return watched

    def leave(self, watched: Watched) -> None:
        """Look no more. The last one that does has it recorded no longer than it is anyway."""
        watched.record.readers -= 1
        if watched.record.readers:
            return
        if watched.record.keeps:
            watched.record.quieten()
        elif self._live.pop(watched.session.id, None) is not None:
            self._last[watched.session.id] = watched.record.last
            _detach(watched)

    def let_all_go(self) -> None:
        """Overhear nobody any more."""
        self._sessions.on_begun = None
        for watched in self._live.values():
            _detach(watched)
        self._live.clear()
        self._last.clear()
        self._past.clear()

    def _attach(self, session: Session) -> Watched:
        conversation = session.conversation
        record = Record(
            conversation.router,
            self._part,
            self._now,
            self._history,
            whole=not conversation.calls_made,
            last=self._last.pop(session.id, (0, 0)),
        )
        opened = round(self._now() - (trio.current_time() - session.created), 3)
        watched = self._live[session.id] = Watched(session, record, opened)
        session.seam.overhear(record)
        session.control.on_scored = record.scored
        return watched

    def _keep(self, watched: Watched) -> None:
        watched.record.quieten()
        self._past[watched.session.id] = watched
        # Counted anew each time: a record gets smaller when the last one that reads it leaves.
        while len(self._past) > _MOST_PAST or sum(one.record.size for one in self._past.values()) > _MOST_PAST_BYTES:
            self._past.popitem(last=False)


def _detach(watched: Watched) -> None:
    watched.session.seam.overhear(None)
    watched.session.control.on_scored = None
