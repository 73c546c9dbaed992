"""The states of a session, and what leads from one to the next: the table that `Life` goes by and the docs show. Pure.

A session without a process, its state kept elsewhere ("paged out"), would be one more state, between READY and
RESTORING.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from muxsim.placement.backend import BackendExit
from transports.origin import Origin


class State(Enum):
    """Where a session is in its life. The values are what the API says."""

    STARTED = "started"
    READY = "ready"
    RESTORING = "restoring"
    ENDING = "ending"
    ENDED = "ended"


class Happening(Enum):
    """What leads from one state to another."""

    ANSWERED = "the backend answers its first request"
    REPLACED = "another backend is to take the place of this one"
    RESTORED = "the new backend has been told what the last one had been"
    ENDS = "the session is ended, by whatever cause"
    GONE = "the last process has gone"


MEANINGS: Final[Mapping[State, str]] = {
    State.STARTED: "There is a process, and it has not answered anything yet. It may still be importing.",
    State.READY: "The backend has answered; messages pass in both directions.",
    State.RESTORING: "One backend has been given up and another is not ready yet; what clients send waits.",
    State.ENDING: "Every request has been answered, with an error if need be; the processes are being ended.",
    State.ENDED: "Nothing is left of it: no process, no folder, no lease.",
}


@dataclass(frozen=True)
class Transition:
    """One way from a state to another, and what is done on it."""

    source: State
    happening: Happening
    target: State
    does: str


TRANSITIONS: Final = (
    Transition(State.STARTED, Happening.ANSWERED, State.READY, "the pool learns that a start is over"),
    Transition(State.STARTED, Happening.ENDS, State.ENDING, "requests in flight get an error, streams are closed"),
    Transition(State.READY, Happening.ENDS, State.ENDING, "requests in flight get an error, streams are closed"),
    Transition(
        State.READY,
        Happening.REPLACED,
        State.RESTORING,
        "requests in flight get an error, the process is ended, and another is started and told what this one had been",
    ),
    Transition(State.RESTORING, Happening.RESTORED, State.READY, "what clients have sent meanwhile goes to it"),
    Transition(State.RESTORING, Happening.ENDS, State.ENDING, "requests in flight get an error, streams are closed"),
    Transition(State.ENDING, Happening.GONE, State.ENDED, "its end is told, the lease goes back to the pool"),
)
FIRST: Final = State.STARTED
_NEXT: Final = {(one.source, one.happening): one.target for one in TRANSITIONS}


def after(state: State, happening: Happening) -> State:
    """The state that follows. Raises `RuntimeError` where the table has none: that is a bug of ours."""
    try:
        return _NEXT[state, happening]
    except KeyError:
        raise RuntimeError(f"a session that is {state.value} cannot have this happen: {happening.value}") from None


FAILED_STARTS: Final = frozenset({"backend_exited", "start_timeout"})
RESET: Final = "reset"
"""The cause of an end that a client wants which has nothing to end sessions with but a reset."""


@dataclass(frozen=True)
class Ending:
    """Why a session ended: one of a few words, a sentence, what the backend said last, and who has ended it by name."""

    cause: str
    text: str
    exit: BackendExit | None = None
    by: str | None = None
    origin: Origin | None = None
    """The request that has ended it."""

    @property
    def said(self) -> str:
        """The sentence, with who it was."""
        return self.text if self.by is None else f"{self.text} by {self.by}"

    def data(self) -> dict[str, Any]:
        """For the ``data`` of errors. Its cause is what tells muxsim's own from a server's of the same code."""
        by = {} if self.by is None else {"by": self.by}
        return {"cause": self.cause, **by, **(self.exit.data() if self.exit else {})}
