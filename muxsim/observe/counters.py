"""How often what has happened: every number of `/health` and `muxsim ctl` that counts since the start."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Final, NamedTuple

from muxsim import limits
from muxsim.observe import events
from muxsim.observe.events import Event


class Tally(NamedTuple):
    """What an event adds to: the counter; the kind, or the field with it; the field with the number, if it is not 1."""

    counter: str
    by: str = ""
    number: str = ""
    kind: str = ""


# The bounds, each counted under its setting's name.
_BOUNDS: Final = (*limits.CONNECTIONS, *limits.OPENS, *limits.SERVER, *limits.SESSIONS, *limits.PROCESSES)
_LIMITS: Final = "limits"

TALLIES: Final[Mapping[type[Event], tuple[Tally, ...]]] = {
    events.SessionOpenFailed: (Tally("sessions_not_opened", "env"),),
    events.SessionStarted: (Tally("sessions_opened", "env"),),
    events.BackendRejected: (Tally("lines_rejected", "env"),),
    events.SessionLimit: (Tally(_LIMITS, "limit"),),
    events.SessionCrashed: (Tally("sessions_crashed", "env"),),
    events.SessionEnded: (Tally("sessions_ended", "cause"), Tally(_LIMITS, "cause")),
    events.OpenRefused: (Tally(_LIMITS, "limit"), Tally("opens_refused", "env")),
    events.OpenQueued: (Tally(_LIMITS, "limit"), Tally("opens_queued", "env")),
    events.BreakerOpened: (Tally("breakers_opened", "env"),),
    events.MachineExhausted: (Tally("machine_exhausted", "env"),),
    events.GuardianStarted: (Tally("guardians_started"),),
    events.ProcessStarted: (Tally("processes_started"),),
    events.ProcessNotStarted: (Tally("processes_not_started", "stage"),),
    events.ProcessEnded: (Tally("processes_ended"), Tally("processes_swept", number="swept")),
    events.LeftoversKilled: (Tally("leftovers_killed", number="processes"),),
    events.StartedFresh: (Tally("starts", kind="fresh"),),
    events.StartedLearning: (Tally("starts", kind="learner"),),
    events.Forked: (Tally("starts", kind="fork"),),
    events.ZygoteStarted: (Tally("zygotes_started", "env"),),
    events.ZygoteFailed: (Tally("zygotes_failed", "env"),),
    events.SlotUsed: (Tally("slots_used", "env"),),
    events.SlotMissed: (Tally("slots_missed", "env"),),
    events.SlotDied: (Tally("slots_died", "env"),),
    events.SlotsReplaced: (Tally("slots_replaced", "env", "slots"),),
    events.InstallFinished: (Tally("installs", "env"),),
    events.InstallFailed: (Tally("installs_failed", "env"),),
    events.HTTPLimit: (Tally(_LIMITS, "limit"),),
    events.NoRequest: (Tally("no_requests"),),
    events.DrainTimeout: (Tally(_LIMITS, kind="drain_timeout"),),
    events.StoodStill: (Tally("stood_still"),),
    events.LogLinesLeftOut: (Tally(_LIMITS, "setting", "lines"),),
    events.PartFailed: (Tally("parts_failed", "part"),),
}
"""What is counted; other events are not."""


class Counters:
    """A listener for `muxsim.observe.events.Events`, which counts."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, str]] = Counter()

    def __repr__(self) -> str:
        return f"<Counters {dict(self._counts)}>"

    def __call__(self, event: Event) -> None:
        """Count it."""
        for counter, by, number, kind in TALLIES.get(type(event), ()):
            self._counts[counter, getattr(event, by) if by else kind] += getattr(event, number) if number else 1

    def total(self, counter: str, kind: str | None = None) -> int:
        """Of this counter: all, or those of one kind."""
        if kind is not None:
            return self._counts[counter, kind]
        return sum(count for (name, _), count in self._counts.items() if name == counter)

    def limits(self) -> dict[str, int]:
        """How often each bound was reached, by setting, for all of them."""
        return {setting: self._counts[_LIMITS, setting] for setting in _BOUNDS}
