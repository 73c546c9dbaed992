"""How often what has happened: every number of `/health`, `/metrics` and `muxsim ctl` that counts since the start."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import Any, Final, NamedTuple

from muxsim import limits
from muxsim.observe import events
from muxsim.observe.events import Event


class Tally(NamedTuple):
    """What an event adds to: the counter; the kind, or the fields with it; the field with the number, if it is not 1.

    Several fields have a space between them.
    """

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
    events.BackendExited: (Tally("backend_exits", "env cause"),),
    events.SessionCrashed: (Tally("sessions_crashed", "env"),),
    events.SessionEnded: (Tally("sessions_ended", "env cause"), Tally(_LIMITS, "cause")),
    events.OpenRefused: (Tally(_LIMITS, "limit"), Tally("opens_refused", "env limit")),
    events.OpenQueued: (Tally(_LIMITS, "limit"), Tally("opens_queued", "env limit")),
    events.BreakerOpened: (Tally("breakers_opened", "env"),),
    events.MachineExhausted: (Tally("machine_exhausted", "env"),),
    events.GuardianStarted: (Tally("guardians_started"),),
    events.GuardianDied: (Tally("guardians_died"), Tally("processes_lost", number="processes")),
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
    events.InstallFinished: (Tally("installs", "env"), Tally("install_bytes", "env", "bytes")),
    events.InstallFailed: (Tally("installs_failed", "env"),),
    events.CacheNotWritten: (Tally("cache_not_written"),),
    events.TokenRefused: (Tally("tokens_refused", "reason"),),
    events.HTTPLimit: (Tally(_LIMITS, "limit"),),
    events.NoRequest: (Tally("no_requests"),),
    events.DrainTimeout: (Tally(_LIMITS, kind="drain_timeout"),),
    events.StoodStill: (Tally("stood_still"),),
    events.DescriptorsShort: (Tally("descriptors_short"),),
    events.LogLinesLeftOut: (Tally(_LIMITS, "setting", "lines"),),
    events.PartFailed: (Tally("parts_failed", "part"),),
}
"""What is counted; other events are not."""


class Counted(NamedTuple):
    """What the kinds of a counter are, if it has any, and what it says to people."""

    labels: tuple[str, ...]
    help: str


_ENV: Final = ("env",)
COUNTERS: Final[Mapping[str, Counted]] = {
    "sessions_opened": Counted(_ENV, "Sessions that have got a backend."),
    "sessions_not_opened": Counted(_ENV, "Sessions that were asked for and could not be had, whatever the reason."),
    "sessions_ended": Counted(("env", "cause"), "Sessions that are over."),
    "sessions_crashed": Counted(_ENV, "Bugs of muxsim's that ended a session."),
    "opens_refused": Counted(("env", "limit"), "Opens refused because of a bound, at once or after having waited."),
    "opens_queued": Counted(("env", "limit"), "Opens that had to wait because of a bound."),
    "breakers_opened": Counted(_ENV, "Times that an environment was left alone for a while since its starts failed."),
    "machine_exhausted": Counted(_ENV, "Starts that failed for want of descriptors, processes, memory or disk."),
    "backend_exits": Counted(("env", "cause"), "Backends that ended by themselves, or did what muxsim does not bear."),
    "lines_rejected": Counted(_ENV, "Lines on a backend's stdout that were no message, and were skipped."),
    "starts": Counted(("way",), "Starts of Python environments with a zygote, those kept ready included."),
    "zygotes_started": Counted(_ENV, "Zygotes that were started."),
    "zygotes_failed": Counted(_ENV, "Zygotes that died, or could not be made."),
    "slots_used": Counted(_ENV, "Sessions that got a process that was kept ready."),
    "slots_missed": Counted(_ENV, "Sessions that found none ready of the processes that are kept."),
    "slots_died": Counted(_ENV, "Processes kept ready that ended by themselves, or could not be had."),
    "slots_replaced": Counted(_ENV, "Processes kept ready that were replaced for their age, or for what has changed."),
    "guardians_started": Counted((), "Processes that start all others; more than one since the first has died."),
    "guardians_died": Counted((), "Of these, those that ended unasked."),
    "processes_lost": Counted((), "Processes that ended with their guardian, when that ended unasked."),
    "processes_started": Counted((), "Processes that were started: backends, those kept ready, zygotes, installers."),
    "processes_not_started": Counted(("stage",), "Processes that could not be started."),
    "processes_ended": Counted((), "Processes that have ended."),
    "processes_swept": Counted((), "Of these, those of which nothing was left afterwards."),
    "leftovers_killed": Counted((), "Processes killed that others had left behind."),
    "installs": Counted(_ENV, "Installs that were made."),
    "install_bytes": Counted(_ENV, "Bytes that installs have put on the disk."),
    "installs_failed": Counted(_ENV, "Installs that failed."),
    "cache_not_written": Counted((), "Times that muxsim's own cache could not be written."),
    "tokens_refused": Counted(("reason",), "Requests refused for their token: unknown here, or short of scope."),
    "descriptors_short": Counted((), "Times that almost all files that muxsim may open were open."),
    "no_requests": Counted((), "Connections whose bytes were no HTTP request."),
    "stood_still": Counted((), "Times that muxsim, or the machine, did nothing for seconds."),
    "parts_failed": Counted(("part",), "Optional parts of muxsim that have failed and are switched off."),
}
"""What each counter says; how often bounds were met is told apart (`Counters.limits`)."""

_KINDS: Final[Mapping[type[Event], tuple[tuple[str, Callable[[Any], Any] | None, Tally], ...]]] = {
    event: tuple((one.counter, attrgetter(*one.by.split()) if one.by else None, one) for one in tallies)
    for event, tallies in TALLIES.items()
}


class Counters:
    """A listener for `muxsim.observe.events.Events`, which counts."""

    def __init__(self) -> None:
        # By counter and kind, a text; where that has several fields, by all of them.
        self._counts: defaultdict[str, Counter[Any]] = defaultdict(Counter)

    def __repr__(self) -> str:
        return f"<Counters {dict(self._counts)}>"

    def __call__(self, event: Event) -> None:
        """Count it."""
        for counter, kind_of, tally in _KINDS.get(type(event), ()):
            kind = tally.kind if kind_of is None else kind_of(event)
            self._counts[counter][kind] += getattr(event, tally.number) if tally.number else 1

    def total(self, counter: str, kind: str | None = None) -> int:
        """Of this counter: all, or those of one kind, where that has several fields by any of them."""
        counts = self._counts[counter]
        if kind is None:
            return sum(counts.values())
        if kind in counts:
            return counts[kind]
        return sum(count for one, count in counts.items() if isinstance(one, tuple) and kind in one)

    def by_kind(self, counter: str) -> dict[tuple[str, ...], int]:
        """Of this counter: those of each kind, by its labels."""
        counts = list(self._counts[counter].items())
        return {one if isinstance(one, tuple) else (one,) if one else (): count for one, count in counts}

    def limits(self) -> dict[str, int]:
        """How often each bound was reached, by setting, for all of them."""
        met = self._counts[_LIMITS]
        return {setting: met[setting] for setting in _BOUNDS}
