"""H16: everything at once. `python tests/soak.py --minutes 10` is the long form."""

from __future__ import annotations

import random

import pytest
from soak import report, soak
from soaking.plan import draw_life, draw_weather

# As much as the whole suite has time for.
SESSIONS = 200
SECONDS = 60


def test_a_seed_draws_the_same_lives_and_the_same_weather_each_time():
    for slot in range(5):
        lives = [draw_life(7, slot, number) for number in range(20)]
        assert lives == [draw_life(7, slot, number) for number in range(20)]
        assert lives != [draw_life(8, slot, number) for number in range(20)]
    assert draw_weather(7, 60) == draw_weather(7, 60) != draw_weather(8, 60)


def test_no_two_lives_share_a_seed_by_which_their_messages_are_told_apart():
    seeds = [draw_life(7, slot, number).seed for slot in range(20) for number in range(20)]
    assert len(set(seeds)) == len(seeds)


@pytest.mark.children
@pytest.mark.fault("H16")
async def test_h16_every_request_of_many_sessions_gets_one_answer_of_its_own_whatever_happens(tmp_path):
    seed = random.randrange(2**31)
    record = await soak(tmp_path, seed, SESSIONS, SECONDS)
    told = "\n".join(report(record, seed, SECONDS))
    assert record.wrongs == [], f"python tests/soak.py --seed {seed} --sessions {SESSIONS}\n{told}"
    assert record.answers["result"] > SESSIONS, told
