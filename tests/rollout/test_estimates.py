"""What some episodes tell, and how surely."""

import random
from itertools import combinations
from math import comb, isclose
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muxsim.rollouts.data.estimates import estimate, mean, pass_at

REWARDS = st.floats(-100, 100)
ROWS = st.lists(st.lists(REWARDS, max_size=5), max_size=6)


@given(st.lists(st.booleans(), min_size=1, max_size=8), st.data())
def test_pass_at_k_is_the_share_of_choices_of_k_episodes_with_a_success(outcomes, data):
    k = data.draw(st.integers(1, len(outcomes)))
    share = sum(map(any, combinations(outcomes, k))) / comb(len(outcomes), k)
    assert isclose(pass_at(k, len(outcomes), sum(outcomes)), share, abs_tol=1e-12)


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=5))
def test_a_mean_lies_among_its_numbers_however_large_their_sum_is(rewards):
    slack = 1e-12 * max(map(abs, rewards)) / 2
    assert min(rewards) / 2 - slack <= mean(rewards) / 2 <= max(rewards) / 2 + slack
    for rows in ([rewards], [[reward] for reward in rewards]):
        told = estimate(rows)
        intervals = [told.mean_interval, told.success_interval]
        assert all(abs(end) <= 1.8e308 for interval in intervals if interval for end in interval)


@given(ROWS)
def test_estimates_lie_within_what_was_seen_and_their_intervals_around_them(rows):
    told = estimate(rows)
    rewards = [reward for row in rows for reward in row]
    if not rewards:
        assert told.success_rate is None
        return
    assert 0 <= told.success_rate <= 1
    for interval, low, high in ((told.mean_interval, min(rewards), max(rewards)), (told.success_interval, 0, 1)):
        if interval is not None:
            assert low - 1e-9 <= interval[0] <= interval[1] <= high + 1e-9
    values = [one.value for one in told.pass_at_k.values() if one.rows == len(list(filter(None, rows)))]
    assert values == sorted(values)
    assert all(0 <= one.value <= 1 and one.rows > 0 for one in told.pass_at_k.values())


@given(ROWS)
def test_the_same_rewards_give_the_same_intervals(rows):
    assert estimate(rows) == estimate([list(row) for row in rows])


def test_an_interval_holds_the_truth_in_most_runs():
    dice, held, runs = random.Random(1), 0, 30
    for _ in range(runs):
        rows = []
        for _ in range(40):
            chance = dice.choice([0.2, 0.6])  # rows differ: their episodes are not independent
            rows.append([float(dice.random() < chance) for _ in range(4)])
        low, high = estimate(rows).success_interval
        held += low <= 0.4 <= high
    assert held / runs > 0.85


def test_rows_are_drawn_as_wholes():
    # Each row is all or nothing: ten rows say no more than ten episodes would, however often they are played.
    often = estimate([[float(row % 2)] * 50 for row in range(10)]).mean_interval
    once = estimate([[float(row % 2)] for row in range(10)]).mean_interval
    assert often == once


def test_one_row_has_its_interval_from_its_episodes_and_one_episode_has_none():
    rewards = [0.0, 1.0, 1.0, 0.0, 1.0]
    low, high = estimate([rewards]).mean_interval
    assert low < fmean(rewards) < high
    assert estimate([[1.0]]).mean_interval is None


def test_pass_at_k_is_over_the_rows_that_have_k_episodes():
    told = estimate([[1.0, 0.0, 0.0, 0.0], [0.0, 0.0], [1.0]]).pass_at_k
    assert {k: (one.value, one.rows) for k, one in told.items()} == {
        "1": ((0.25 + 0 + 1) / 3, 3),
        "2": (0.25, 2),
        "4": (1.0, 1),
    }


@pytest.mark.parametrize(("threshold", "rate"), [(None, 0.5), (0.0, 0.75), (2.0, 0.25), (3.0, 0.0)])
def test_a_success_is_a_reward_above_0_or_from_a_threshold_on(threshold, rate):
    assert estimate([[-1.0], [0.0], [1.0], [2.0]], threshold).success_rate == rate


def test_the_order_in_which_episodes_have_ended_is_no_matter():
    rows = [[0.1, 0.7, 1.0], [0.0], [0.3, 0.2], [1.0, 0.0, 0.0, 0.4]]
    assert estimate(rows) == estimate([row[::-1] for row in reversed(rows)])
    assert estimate(rows[:1]) == estimate([rows[0][::-1]])
