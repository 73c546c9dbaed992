"""How often somebody may be wrong. Rows are those of the table of faults."""

from __future__ import annotations

import pytest

from muxsim.serve.auth.failures import WINDOW, FailureLimit


def failed(limit, peer, times, now=0.0):
    for _ in range(times):
        limit.failed(peer, now)
    return limit


def test_a_peer_past_its_limit_waits_for_the_rest_of_the_window():
    """L15."""
    limit = FailureLimit(3)
    assert failed(limit, "10.0.0.1", 2).wait_of("10.0.0.1", 1) == 0
    assert failed(limit, "10.0.0.1", 1, now=1).wait_of("10.0.0.1", 10) == WINDOW - 10
    assert limit.wait_of("10.0.0.1", WINDOW) == 0
    assert failed(limit, "10.0.0.1", 1, now=WINDOW).wait_of("10.0.0.1", WINDOW) == 0


def test_peers_are_counted_apart():
    assert failed(FailureLimit(1), "10.0.0.1", 5).wait_of("10.0.0.2", 1) == 0


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8::1", "2001:db8::ffff", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("fe80::1%eth0", "fe80::2%eth0", True),
        ("not:an:address", "not:an:address", True),
        ("", "", True),
    ],
)
def test_who_has_a_network_of_ipv6_is_one_peer(one, other, same):
    assert (failed(FailureLimit(1), one, 1).wait_of(other, 1) > 0) is same


def test_many_peers_take_bounded_memory_and_the_oldest_is_forgotten():
    limit = FailureLimit(1)
    for number in range(5000):
        limit.failed(f"10.0.{number // 256}.{number % 256}", number / 5000)
    assert "4096 peers" in repr(limit)
    assert limit.wait_of("10.0.0.0", 1) == 0
    assert limit.wait_of("10.0.19.135", 1) > 0
