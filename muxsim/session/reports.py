"""What one session reports: its events, each with the session's name on it."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from muxsim.observe.events import Event, Events, SessionCrashed, SessionLimit


class Reports:
    """Emits the events of one session. ``pid`` gives its backend's process id at the time."""

    def __init__(self, events: Events, session: str, env: str, seed: int, pid: Callable[[], int | None]) -> None:
        self.events = events
        self._session = session
        self._env = env
        self._seed = seed
        self._pid = pid
        self._met: frozenset[str] = frozenset()
        self.traffic = None if events.traffics is None else events.traffics.of(env)
        """Where its calls are counted; None where nobody wants to know."""

    def who(self) -> tuple[str, str, int, int | None]:
        """Whom an event is about."""
        return self._session, self._env, self._seed, self._pid()

    def emit(self, event: Event) -> None:
        """Tell of something that happened to the session."""
        self.events.emit(event)

    def meet(self, limit: str, text: str | None = None) -> None:
        """Tell of a bound that was met. It may be met with every message, so all but the first are for counters."""
        again = limit in self._met or None
        self._met |= {limit}
        self.emit(SessionLimit(*self.who(), limit=limit, text=text, again=again))

    @contextmanager
    def of_bugs(self) -> Iterator[None]:
        """Go on after a bug in the block: it must neither take the other sessions with it, nor leave this one open."""
        try:
            yield
        except Exception:  # whatever it is, it is ours, and the log has it
            self.emit(SessionCrashed(*self.who(), traceback=traceback.format_exc()))
