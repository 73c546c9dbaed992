"""The limit as a table: what happened, and how many calls are allowed then."""

import pytest

from muxsim.rollouts.policy.adaptive import AdaptiveLimit

# An event is ("refused", started, now) or ("succeeded", started), or a number of such successes.
CASES = {
    "it starts at its maximum": ([], 16),
    "a refusal halves it": ([("refused", 0, 1)], 8),
    "calls of one crowd halve it once": ([("refused", 0, 1), ("refused", 0.5, 1.1), ("refused", 0.9, 1.2)], 8),
    "a call begun after the cut halves it again": ([("refused", 0, 1), ("refused", 1.5, 2)], 4),
    "a call begun at the cut counts as after it": ([("refused", 0, 1), ("refused", 1, 2)], 4),
    "it stays at one": ([("refused", start, start) for start in range(10)], 1),
    "a success does not grow it past its maximum": ([("succeeded", 0)] * 100, 16),
    "a success from before the cut does not grow it": ([("refused", 0, 1), *[("succeeded", 0.5)] * 100], 8),
    "fewer successes than it allows are not enough": ([("refused", 0, 1), *[("succeeded", 1)] * 8], 8),
    "one round of successes grows it by one": ([("refused", 0, 1), *[("succeeded", 1)] * 9], 9),
    "it comes back up": ([("refused", 0, 1), *[("succeeded", 1)] * 200], 16),
    "it grows from one": ([*[("refused", start, start) for start in range(10)], ("succeeded", 20)], 2),
}


@pytest.mark.parametrize(("events", "allowed"), CASES.values(), ids=CASES.keys())
def test_the_limit_follows_what_happened(events, allowed):
    limit = AdaptiveLimit(16)
    for name, *times in events:
        getattr(limit, name)(*times)
    assert limit.allowed == allowed


def test_an_odd_limit_is_halved_downwards():
    limit = AdaptiveLimit(5)
    limit.refused(0, 1)
    assert limit.allowed == 2


def test_a_limit_of_none_is_refused():
    with pytest.raises(ValueError, match="at least 1, not 0"):
        AdaptiveLimit(0)
