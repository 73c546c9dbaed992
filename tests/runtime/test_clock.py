"""The clock of the supervisor."""

from __future__ import annotations

import pytest
import trio

from muxsim.runtime.clock import STOOD_STILL, SteadyClock


class Hands:
    def __init__(self):
        self.time = 1000.0

    def __call__(self):
        return self.time


@pytest.fixture
def hands():
    return Hands()


def test_without_beats_every_second_counts(hands):
    clock = SteadyClock(monotonic=hands)
    begun = clock.current_time()
    hands.time += 3600
    assert clock.current_time() - begun == 3600


def test_a_standstill_between_beats_is_no_time_to_a_deadline_H8(hands):
    """H8."""
    told = []
    clock = SteadyClock(told.append, hands)
    clock.beat()
    deadline = clock.current_time() + 5
    hands.time += 0.5
    assert clock.deadline_to_sleep_time(deadline) == pytest.approx(4.5)
    hands.time += 30
    assert clock.deadline_to_sleep_time(deadline) == pytest.approx(4.5)
    assert told == [pytest.approx(30)]
    hands.time += 0.5
    assert clock.deadline_to_sleep_time(deadline) == pytest.approx(4)


@pytest.mark.parametrize("gap", [0.1, STOOD_STILL])
def test_to_be_late_a_little_is_no_standstill(hands, gap):
    clock = SteadyClock(monotonic=hands)
    clock.beat()
    begun = clock.current_time()
    hands.time += gap
    clock.beat()
    assert clock.current_time() - begun == pytest.approx(gap)


def test_after_the_last_beat_silence_is_usual_again(hands):
    clock = SteadyClock(monotonic=hands)
    clock.beat()
    clock.rest()
    begun = clock.current_time()
    hands.time += 60
    assert clock.current_time() - begun == 60


def test_time_never_goes_back(hands):
    clock = SteadyClock(monotonic=hands)
    clock.beat()
    last = clock.current_time()
    for step in (0.3, 40, 0.2, 1.5, 0.0, 3):
        hands.time += step
        assert clock.current_time() >= last
        last = clock.current_time()


def test_trio_runs_by_it():
    """An hour of its clock is over as soon as that says so."""

    class Strides(Hands):
        def __call__(self):
            self.time += 4000
            return self.time

    async def main():
        begun = trio.current_time()
        with trio.fail_after(10**9):
            await trio.sleep(3600)
        return trio.current_time() - begun

    assert trio.run(main, clock=SteadyClock(monotonic=Strides())) >= 3600
