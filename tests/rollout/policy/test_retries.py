"""When to ask again, as a table."""

import pytest

from muxsim.rollouts.policy.failures import Cause, Failure
from muxsim.rollouts.policy.retries import Retries, RetryRule

REFUSED = Failure("too many requests", status=429, cause=Cause.RATE_LIMIT)
BROKEN = Failure("oops", status=500)


def low():
    return 0.0


def high():
    return 1.0


def test_waits_double_up_to_the_longest():
    retries = Retries(RetryRule(attempts=7, first_delay=1, longest_delay=8), high)
    assert [retries.delay_after(BROKEN) for _ in range(6)] == [1, 2, 4, 8, 8, 8]


def test_the_dice_take_up_to_half_of_a_wait():
    assert Retries(RetryRule(first_delay=1), low).delay_after(BROKEN) == 0.5


@pytest.mark.parametrize(("dice", "delay"), [(low, 4.0), (high, 5.0)])
def test_a_wait_that_was_asked_for_is_never_cut_short(dice, delay):
    asked = Failure("", status=429, cause=Cause.RATE_LIMIT, retry_after=4)
    assert Retries(RetryRule(), dice).delay_after(asked) == delay


def test_a_wait_of_nothing_is_no_hot_loop():
    assert (
        Retries(RetryRule(first_delay=0.5), low).delay_after(
            Failure("", status=429, cause=Cause.RATE_LIMIT, retry_after=0)
        )
        == 0.5
    )


def test_failures_are_retried_until_the_attempts_are_used_up():
    retries = Retries(RetryRule(attempts=3), low)
    assert [retries.delay_after(BROKEN) is None for _ in range(3)] == [False, False, True]
    assert retries.calls == 3


def test_refusals_use_up_patience_and_no_attempts():
    retries = Retries(RetryRule(attempts=2, patience=10), low)
    asked = Failure("", status=429, cause=Cause.RATE_LIMIT, retry_after=3)
    assert [retries.delay_after(asked) for _ in range(4)] == [3, 3, 3, None]
    assert retries.waited == 9


def test_a_wait_longer_than_the_patience_is_not_begun():
    retries = Retries(RetryRule(patience=10), low)
    assert retries.delay_after(Failure("", status=429, cause=Cause.RATE_LIMIT, retry_after=3600)) is None
    assert retries.waited == 0


def test_refusals_do_not_shorten_what_failures_have():
    retries = Retries(RetryRule(attempts=2), low)
    assert all(retries.delay_after(REFUSED) is not None for _ in range(5))
    assert retries.delay_after(BROKEN) is not None
    assert retries.delay_after(BROKEN) is None


def test_a_failure_that_stays_is_not_retried():
    assert Retries(RetryRule(), low).delay_after(Failure("no such model", status=404, passing=False)) is None


def test_a_thousand_refusals_do_not_overflow():
    retries = Retries(RetryRule(patience=1e9, longest_delay=2), high)
    assert [retries.delay_after(REFUSED) for _ in range(2000)][-1] == 2
