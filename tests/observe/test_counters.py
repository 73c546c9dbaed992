"""What is counted of what happens."""

from __future__ import annotations

from typing import get_args

from muxsim import limits
from muxsim.observe import events as all_events
from muxsim.observe.counters import COUNTERS, TALLIES, Counters
from muxsim.observe.events import (
    DrainTimeout,
    Event,
    Events,
    HTTPLimit,
    LogLinesLeftOut,
    NoRequest,
    OpenQueued,
    OpenRefused,
    SessionEnded,
    SessionLimit,
    SessionOpening,
    SessionStarted,
)

WHO = ("s" * 32, "env", 1, None)


def ended(cause):
    return SessionEnded(*WHO, cause, "text", 0, None, 1.0)


def counted(*happened):
    counters = Counters()
    events = Events(counters)
    for event in happened:
        events.emit(event)
    return counters


def test_every_bound_is_counted_by_its_setting_wherever_it_is_met():
    counters = counted(
        SessionOpening(*WHO),
        ended("idle_timeout"),
        ended("deleted"),
        SessionLimit(*WHO, limit="call_timeout"),
        SessionLimit(*WHO, limit="call_timeout", again=True),
        OpenQueued("env", "max_sessions"),
        OpenRefused("env", "queue_timeout"),
        HTTPLimit("max_body"),
        DrainTimeout(3),
        LogLinesLeftOut(5),
    )
    met = {name: count for name, count in counters.limits().items() if count}
    assert met == {
        "idle_timeout": 1,
        "call_timeout": 2,
        "max_sessions": 1,
        "queue_timeout": 1,
        "max_body": 1,
        "drain_timeout": 1,
        "log_buffer": 5,
    }


def test_bounds_that_nobody_has_met_are_there_with_a_zero():
    bounds = {*limits.CONNECTIONS, *limits.OPENS, *limits.SERVER, *limits.SESSIONS, *limits.PROCESSES}
    assert counted().limits() == dict.fromkeys(bounds, 0)


def test_a_counter_is_told_as_a_whole_and_by_kind():
    counters = counted(ended("deleted"), ended("deleted"), ended("ttl"), SessionStarted(*WHO))
    assert (counters.total("sessions_ended"), counters.total("sessions_ended", "ttl")) == (3, 1)
    assert counters.total("sessions_ended", "deleted") == 2
    assert counters.total("sessions_opened") == counters.total("sessions_opened", "env") == 1
    assert counters.total("sessions_ended", "never") == counters.total("nothing") == 0


def test_every_counter_says_what_it_counts():
    assert {tally.counter for tallies in TALLIES.values() for tally in tallies} - {"limits"} == COUNTERS.keys()


def test_what_is_counted_of_an_event_is_among_its_fields():
    assert TALLIES.keys() <= set(get_args(Event))
    for kind, tallies in TALLIES.items():
        for tally in tallies:
            assert {*tally.by.split(), tally.number} - {""} <= set(kind.__struct_fields__), kind
            assert not (tally.by and tally.kind)


def test_each_kind_that_the_module_has_is_one_of_the_union():
    kinds = {one for one in vars(all_events).values() if isinstance(one, type) and issubclass(one, all_events.Named)}
    assert kinds - {all_events.Named, all_events.SessionEvent, all_events.Caused} == set(get_args(Event))


def test_every_counter_says_what_it_is_and_by_what_it_is_counted():
    told = {}
    for tallies in TALLIES.values():
        for tally in tallies:
            if tally.counter != "limits":
                told.setdefault(tally.counter, set()).add(tuple(tally.by.split()) or (("?",) if tally.kind else ()))
    assert {name: {one.labels} for name, one in COUNTERS.items() if name != "starts"} == {
        name: labels for name, labels in told.items() if name != "starts"
    }
    assert COUNTERS["starts"].labels == ("way",)
    assert all(one.help.endswith(".") for one in COUNTERS.values())


def test_a_counter_with_several_labels_is_told_by_all_of_them_and_by_any():
    counters = counted(OpenRefused("a", "max_pending"), OpenRefused("b", "max_pending"), OpenRefused("b", "ttl"))
    assert counters.by_kind("opens_refused") == {("a", "max_pending"): 1, ("b", "max_pending"): 1, ("b", "ttl"): 1}
    assert (counters.total("opens_refused", "b"), counters.total("opens_refused", "max_pending")) == (2, 2)
    assert counters.by_kind("no_requests") == {}
    assert counted(NoRequest()).by_kind("no_requests") == {(): 1}
