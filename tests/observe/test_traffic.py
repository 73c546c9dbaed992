"""What is said in sessions is counted by environment and method, of which there are few."""

from muxsim.observe.distribution import Distribution
from muxsim.observe.durations import START, WAIT, Durations
from muxsim.observe.events import OpenWaited, SessionEnded, SessionReady
from muxsim.observe.traffic import CALL_SECONDS, OTHER, Traffic, Traffics


def test_a_distribution_counts_up_to_and_with_each_bound():
    one = Distribution((0.1, 1.0))
    for seconds in (0.0, 0.1, 0.2, 1.0, 5.0):
        one.add(seconds)
    assert (one.counts, one.count) == ([2, 2, 1], 5)
    assert repr(one) == "<Distribution of 5: 6.300 s>"


def test_calls_are_counted_by_method_with_their_seconds_and_bytes():
    traffic = Traffic()
    traffic.answered("tools/call", 0.004, 100, 1000)
    traffic.answered("tools/call", 1000.0, 1, 1)
    calls = traffic.calls["tools/call"]
    assert (calls.count, calls.requests, calls.answers) == (2, 101, 1001)
    assert calls.counts[CALL_SECONDS.index(0.005)] == calls.counts[-1] == 1
    assert calls.sum == 1000.004


def test_whatever_a_client_calls_its_methods_they_are_one():
    traffic = Traffic()
    for number in range(1000):
        traffic.answered(f"made/up/{number}", 0.1, 1, 1)
    assert traffic.calls.keys() == {OTHER}
    assert traffic.calls[OTHER].count == 1000


def test_traffic_of_an_environment_is_one_for_all_its_sessions():
    traffics = Traffics()
    traffics.of("a").failed("busy")
    traffics.of("a").wrote(7)
    assert traffics.of("a") is traffics.of("a") is not traffics.of("b")
    assert [(name, dict(one.errors), one.stderr_bytes) for name, one in traffics.all()] == [
        ("a", {"busy": 1}, 7),
        ("b", {}, 0),
    ]


def test_starts_and_waits_are_timed_by_their_labels():
    durations = Durations()
    for way in ("fork", "slot", "fork"):
        durations(SessionReady("s", "game", 7, 1, seconds=9.0, way=way, start=0.5))
    durations(OpenWaited("game", 2.0, admitted=False))
    durations(SessionEnded("s", "game", 7, 1, "ttl", "text", 0, None, 1.0))
    assert {labels: one.count for labels, one in durations.of(START).items()} == {
        ("game", "fork"): 2,
        ("game", "slot"): 1,
    }
    assert durations.of(START)["game", "slot"].sum == 0.5
    assert durations.of(WAIT)[("game",)].sum == 2
    assert durations.of("nothing") == {}
