"""The one stream of what happens to sessions. Log, metrics and dashboard listen to it; nobody else reports."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final

# Failures of listeners that the log shows.
_MOST_COMPLAINTS: Final = 10

_log = logging.getLogger(__name__)


class What(Enum):
    """What can happen to a session, in the order in which it does."""

    OPENING = "session.opening"
    STARTED = "session.started"
    READY = "session.ready"
    ATTACHED = "session.attached"
    DETACHED = "session.detached"
    STDERR = "backend.stderr"
    REJECTED = "backend.rejected"
    LIMIT = "session.limit"
    OPEN_FAILED = "session.open_failed"
    CRASHED = "session.crashed"
    ENDED = "session.ended"


@dataclass(frozen=True, slots=True)
class SessionEvent:
    """One thing that happened to one session; ``details`` hold JSON values, ``pid`` is None without a backend."""

    what: What
    session: str
    env: str
    seed: int
    pid: int | None = None
    details: Mapping[str, Any] = field(default_factory=dict)


Listener = Callable[[SessionEvent], None]


class Events:
    """Hands each event to every listener, at once and in order. Listeners must not block.

    One that raises is missed by nobody: neither the session that it is told of nor the other listeners notice.
    """

    def __init__(self) -> None:
        self._listeners: list[Listener] = []
        self._failures = 0

    def subscribe(self, listener: Listener) -> None:
        """Call ``listener`` with every event from now on."""
        self._listeners.append(listener)

    def emit(self, event: SessionEvent) -> None:
        """Tell every listener."""
        for listener in self._listeners:
            try:
                listener(event)
            except Exception:  # it may be the user's own, and is told of every event
                self._failures += 1
                if self._failures <= _MOST_COMPLAINTS:
                    _log.exception("a listener failed at %s of session %s", event.what.value, event.session[:8])
