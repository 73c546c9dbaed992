"""The last hour of a server in samples."""

from types import SimpleNamespace

import pytest

from muxsim.observe.counters import Counters
from muxsim.observe.events import Events, SessionEnded, SessionOpenFailed, SessionReady, SessionStarted
from muxsim.observe.news import News
from muxsim.observe.traffic import Traffics
from muxsim.serve.watch import feed
from muxsim.serve.watch.history import History, quantile

LAKE = ("a", "lake", 1, 7)


def house(*, traffics=None, memory=None):
    """A history, and the events that it is of."""
    counters, recent, events = Counters(), News(lambda: 0.0), Events()
    for listener in (counters, recent):
        events.subscribe(listener)
    pool = SimpleNamespace(statistics=lambda: SimpleNamespace(leases=SimpleNamespace(waiting=2)))
    sampler = SimpleNamespace(by_environment=lambda: {"lake": SimpleNamespace(memory=memory)})
    return History([1, 2, 3], pool, sampler, counters, traffics, recent, lambda: 5.0), events


async def test_a_sample_has_what_happened_since_the_last_and_what_is_now():
    traffics = Traffics()
    history, events = house(traffics=traffics, memory=4096)
    for seconds in (0.2, 0.4):
        events.emit(SessionStarted(*LAKE))
        events.emit(SessionReady(*LAKE, seconds=9.0, start=seconds))
    for _ in range(50):
        traffics.of("lake").answered("tools/call", 0.003, 1, 1)
        traffics.of("lake").answered("ping", 0.003, 1, 1)
    events.emit(SessionOpenFailed(*LAKE, "it is broken"))
    events.emit(SessionEnded(*LAKE, "backend_exited", "it died", 1, (), 1.0))
    events.emit(SessionEnded(*LAKE, "deleted", "it was deleted", None, None, 1.0))
    history.take()
    (sample,) = history.samples
    assert (sample.sessions, sample.queue, sample.memory) == (3, 2, 4096)
    assert (sample.opens, sample.calls, sample.errors) == (0.2, 5.0, 0.2)
    assert (sample.start_p50, sample.start_p99) == (0.4, 0.4)
    assert 0.001 < sample.call_p50 < sample.call_p99 <= 0.005
    history.take()
    later = history.samples[-1]
    assert (later.opens, later.calls, later.errors, later.start_p50, later.call_p50) == (0, 0, 0, None, None)


async def test_what_nobody_counts_or_reads_is_not_known_and_never_nothing():
    history, _ = house()
    history.take()
    assert (history.samples[0].calls, history.samples[0].memory) == (None, None)


async def test_an_hour_is_kept_and_a_reader_gets_what_it_has_not_had():
    history, _ = house()
    for _ in range(feed.SAMPLES + 5):
        history.take()
    assert len(history.samples) == feed.SAMPLES
    assert len(history.since(history.taken - 2)) == 2
    assert len(history.since(0)) == feed.SAMPLES
    assert history.since(history.taken) == []


@pytest.mark.parametrize(
    ("counts", "part", "value"),
    [
        ((0, 0, 0), 0.5, None),
        ((10, 0, 0), 0.5, 0.5),
        ((0, 10, 0), 0.5, 5.5),
        ((0, 0, 10), 0.5, 10.0),
        ((5, 5, 0), 0.5, 1.0),
        ((99, 1, 0), 0.99, 1.0),
    ],
)
async def test_a_part_of_what_was_counted_lies_where_its_counts_say(counts, part, value):
    assert quantile((1.0, 10.0), counts, part) == value
