import pytest

from muxsim.admission.rates import TokenBuckets


@pytest.mark.parametrize(
    ("times", "waits"),
    [
        ([0, 0, 0], [0, 0, 0.5]),
        ([0, 0, 0.25, 0.5, 0.5], [0, 0, 0.25, 0, 0.5]),
        ([0, 0, 100, 100, 100], [0, 0, 0, 0, 0.5]),
        ([5, 4, 3, 5.5], [0, 0, 0.5, 0]),
    ],
)
def test_a_bucket_of_two_tokens_fills_at_two_per_second(times, waits):
    buckets = TokenBuckets(rate=2, burst=2)
    assert [buckets.take("one", now) for now in times] == waits


def test_everybody_has_a_bucket_of_their_own():
    buckets = TokenBuckets(rate=1, burst=1)
    assert [buckets.take(name, 0) for name in ("a", "b", "a", "b")] == [0, 0, 1, 1]


def test_a_rate_of_zero_is_no_bound():
    buckets = TokenBuckets(rate=0, burst=1)
    assert {buckets.take("one", 0) for _ in range(1000)} == {0}


def test_names_that_come_once_take_no_memory_for_ever_and_do_not_free_who_floods():
    buckets = TokenBuckets(rate=1, burst=1)
    for second in range(20_000):
        buckets.take(f"peer {second}", second / 1000)
        if second % 100 == 0:
            buckets.take("flood", second / 1000)
    assert len(buckets._buckets) <= 4096
    assert buckets.take("flood", 19.95) > 0


def test_a_name_may_have_a_rate_of_its_own():
    buckets = TokenBuckets(rate=1, burst=1, own={"fast": (4, 2), "free": (0, 1)})
    assert [buckets.take("fast", 0) for _ in range(3)] == [0, 0, 0.25]
    assert {buckets.take("free", 0) for _ in range(100)} == {0}
    assert [buckets.take("other", 0) for _ in range(2)] == [0, 1]
