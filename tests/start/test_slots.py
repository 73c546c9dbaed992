"""What is filled, used and given up: tables of cases, without processes or clock."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from muxsim.start.slots.policy import (
    AFTER_AN_OPEN,
    CALM,
    DEATHS_IN_A_ROW,
    FIRST_PAUSE,
    LONGEST_PAUSE,
    MAX_AGE,
    MOST_UNASKED,
    NOT_YET,
    SHORTAGE,
    STARTS_AT_ONCE,
    STARVED,
    UNASKED,
    Slots,
    SlotStatistics,
    Step,
)

NOW = 1000.0


def filled(*, ready=0, starting=0, wanted=None, at=NOW):
    """Slots of one environment, `lake`, in these states since a time."""
    slots = Slots()
    slots.want("lake", ready + starting if wanted is None else wanted)
    numbers = [slots.begin("lake", at) for _ in range(ready + starting)]
    for number in numbers[:ready]:
        slots.ready(number, at)
    return slots, numbers


def after(change, **fields):
    slots, numbers = filled(**fields)
    change(slots, numbers)
    return slots


LATER = NOW + 10

CASES = {
    "nothing is wanted": (Slots(), {}, Step()),
    "an empty shelf is filled by a few at once": (filled(wanted=5)[0], {}, Step(fill=("lake",) * STARTS_AT_ONCE)),
    "no more than are wanted": (filled(wanted=1)[0], {}, Step(fill=("lake",))),
    "while a few start the rest waits for them": (filled(starting=STARTS_AT_ONCE, wanted=5)[0], {}, Step()),
    "a full shelf waits for its oldest slot's age": (filled(ready=2)[0], {}, Step(again=NOW + MAX_AGE)),
    "sessions that are being opened go first": (
        filled(starting=1, wanted=3)[0],
        {"opening": True, "now": NOW + 0.1},
        Step(again=NOW + 0.1 + STARVED),
    ),
    "but not for ever": (
        after(lambda slots, _: slots.next(NOW, opening=True), ready=1, wanted=3),
        {"opening": True, "now": NOW + STARVED},
        Step(fill=("lake",), again=NOW + MAX_AGE),
    ),
    "not for ever is one at a time": (
        after(lambda slots, _: slots.next(NOW, opening=True), starting=1, wanted=3),
        {"opening": True, "now": NOW + STARVED},
        Step(),
    ),
    "a session just opened still has the machine": (
        after(lambda slots, _: slots.opened(LATER), ready=1, wanted=2, at=LATER),
        {"now": LATER},
        Step(again=LATER + AFTER_AN_OPEN),
    ),
    "what has been missing for a moment only is not starved, however long ago the last was filled": (
        after(lambda slots, _: (slots.used(1), slots.opened(LATER)), ready=1),
        {"now": LATER},
        Step(again=LATER + AFTER_AN_OPEN),
    ),
    "one that died waits a little": (
        after(lambda slots, numbers: slots.died(numbers[0], LATER), ready=1),
        {"now": LATER},
        Step(again=LATER + FIRST_PAUSE),
    ),
    "one that died is replaced after that": (
        after(lambda slots, numbers: slots.died(numbers[0], LATER), ready=1),
        {"now": LATER + FIRST_PAUSE},
        Step(fill=("lake",)),
    ),
    "what cannot start yet is tried again, and was no death": (
        after(lambda slots, numbers: slots.postponed(numbers[0], LATER + NOT_YET), starting=1),
        {"now": LATER},
        Step(again=LATER + NOT_YET),
    ),
    "what waits to be told is not tried before": (
        after(lambda slots, numbers: slots.postponed(numbers[0], math.inf), starting=1),
        {"now": LATER},
        Step(),
    ),
    "what waits to be told is tried when it is": (
        after(lambda slots, numbers: (slots.postponed(numbers[0], math.inf), slots.resume("lake")), starting=1),
        {"now": LATER},
        Step(fill=("lake",)),
    ),
    "an aged one is replaced by one that is filled first": (
        filled(ready=2)[0],
        {"now": NOW + MAX_AGE},
        Step(fill=("lake",)),
    ),
    "one too many is ended": (
        after(lambda slots, _: slots.want("lake", 1), ready=2),
        {},
        Step(end=(1,), again=NOW + MAX_AGE),
    ),
    "none is wanted any more": (after(lambda slots, _: slots.want("lake", 0), ready=2), {}, Step(end=(1, 2))),
    "after a shortage nothing is filled": (
        after(lambda slots, _: slots.give_up(LATER), ready=2),
        {"now": LATER},
        Step(again=LATER + SHORTAGE),
    ),
    "and then it is again": (
        after(lambda slots, _: slots.give_up(LATER), ready=2),
        {"now": LATER + SHORTAGE},
        Step(fill=("lake", "lake")),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_what_to_do_next(case):
    slots, when, step = CASES[case]
    assert slots.next(when.get("now", NOW), opening=when.get("opening", False)) == step


def test_the_emptiest_environment_is_filled_first():
    slots, _ = filled(ready=3, wanted=10)
    slots.want("moon", 1)
    assert slots.next(NOW + 1, opening=False).fill == ("moon", "lake")


def take(slots):
    """Use a slot, if there is one."""
    number = slots.oldest("lake")
    if number is not None:
        slots.used(number)
    return number


def test_each_slot_is_used_once_the_oldest_first_and_then_there_is_none():
    slots, (first, second) = filled(ready=2)
    assert [take(slots) for _ in range(3)] == [first, second, None]
    assert slots.statistics()["lake"] == SlotStatistics(wanted=2, starting=0, ready=0)


def test_a_slot_that_is_still_starting_is_a_miss():
    slots, _ = filled(starting=1)
    assert take(slots) is None
    assert slots.wants("lake"), "which makes it one"


def test_who_wants_no_slots_misses_none():
    slots = Slots()
    assert take(slots) is None
    assert not slots.wants("lake")
    slots.want("lake", 0)
    assert not slots.wants("lake")
    assert slots.statistics() == {}


def test_a_slot_found_dead_when_it_is_to_be_used_makes_room_for_the_next():
    slots, (first, second) = filled(ready=2)
    assert slots.oldest("lake") == first
    slots.died(first, NOW)
    assert take(slots) == second
    assert slots.statistics()["lake"] == SlotStatistics(wanted=2, starting=0, ready=0)


def test_a_use_forgives_the_deaths_before_it():
    slots, (first, second) = filled(ready=2)
    slots.died(first, NOW)
    slots.used(second)
    assert not any(slots.died(slots.begin("lake", NOW), NOW) for _ in range(DEATHS_IN_A_ROW - 1))
    assert slots.died(slots.begin("lake", NOW), NOW)


def test_slots_that_keep_dying_are_told_once_and_tried_ever_more_seldom():
    slots = Slots()
    slots.want("lake", 1)
    now, told, pauses = NOW, [], []
    for _ in range(10):
        told.append(slots.died(slots.begin("lake", now), now))
        again = slots.next(now, opening=False).again
        pauses.append(again - now)
        now = again
    assert told.index(True) == DEATHS_IN_A_ROW - 1
    assert told.count(True) == 1
    assert pauses[:3] == [FIRST_PAUSE, 2 * FIRST_PAUSE, 4 * FIRST_PAUSE]
    assert pauses[-1] == LONGEST_PAUSE


def test_a_change_ends_every_slot_and_forgives_what_failed():
    slots, numbers = filled(ready=1, starting=1)
    slots.died(slots.begin("lake", NOW), NOW)
    assert slots.outdated("lake") == tuple(numbers)
    assert slots.outdated("moon") == ()
    assert slots.next(NOW, opening=False).fill == ("lake", "lake")


def test_an_aged_slot_goes_when_its_heir_is_ready():
    slots, (old,) = filled(ready=1)
    now = NOW + MAX_AGE
    heir = slots.begin("lake", now)
    assert slots.next(now, opening=False) == Step()
    slots.ready(heir, now)
    assert slots.next(now, opening=False) == Step(end=(old,), aged=("lake",), again=now + MAX_AGE)


def test_a_slot_withdrawn_is_filled_again_at_once():
    slots, (number,) = filled(starting=1)
    slots.withdrawn(number)
    assert slots.next(NOW, opening=False).fill == ("lake",)


def test_a_shortage_gives_up_what_is_ready_and_lets_a_start_finish():
    slots, (ready, starting) = filled(ready=1, starting=1)
    assert slots.give_up(NOW) == (ready,)
    slots.ready(starting, NOW)
    assert take(slots) == starting


# ---- slots of those who do not say how many


def asked(sessions, *, most=MOST_UNASKED):
    """Slots of one environment that says nothing, after a slot was used, and so many sessions found none."""
    slots = Slots()
    slots.want("lake", UNASKED, most)
    slots.ready(slots.begin("lake", NOW), NOW)
    for _ in range(1 + sessions):
        take(slots)
    slots.next(NOW, opening=True)
    return slots


def wanted(slots):
    return slots.statistics()["lake"].wanted


def fill_up(slots, now):
    """Fill what is wanted, as far as that is allowed."""
    while fill := slots.next(now, opening=False).fill:
        for name in fill:
            slots.ready(slots.begin(name, now), now)


@given(sessions=st.integers(0, 100), most=st.integers(UNASKED, 40))
def test_each_session_that_finds_none_has_one_more_kept_within_the_bound(sessions, most):
    assert wanted(asked(sessions, most=most)) == min(UNASKED + sessions, most)


@given(number=st.integers(0, 10), sessions=st.integers(0, 100))
def test_whoever_says_how_many_gets_exactly_these(number, sessions):
    slots = Slots()
    slots.want("lake", number)
    fill_up(slots, NOW)
    for _ in range(sessions):
        take(slots)
        slots.next(NOW, opening=True)
    fill_up(slots, NOW + 1)
    assert slots.next(NOW + 2 * CALM, opening=False).end == ()
    assert number == 0 or wanted(slots) == slots.statistics()["lake"].ready == number


def test_sessions_that_come_one_at_a_time_find_one_and_want_no_more():
    slots = asked(0)
    for at in range(100):
        fill_up(slots, NOW + at)
        take(slots)
    assert wanted(slots) == UNASKED


@pytest.mark.parametrize("event", ["starting", "postponed", "died", "changed"])
def test_a_session_that_finds_none_for_another_reason_than_that_they_are_too_few_wants_no_more(event):
    slots = Slots()
    slots.want("lake", UNASKED, MOST_UNASKED)
    number = slots.begin("lake", NOW)
    if event != "starting":
        slots.ready(number, NOW)
        slots.used(number)
        number = slots.begin("lake", NOW)
    match event:
        case "postponed":
            slots.postponed(number, math.inf)
        case "died":
            slots.died(number, NOW)
        case "changed":
            slots.outdated("lake")
    take(slots)
    slots.next(NOW, opening=True)
    assert wanted(slots) == UNASKED


def test_more_are_filled_one_at_a_time_while_sessions_go_on_being_opened():
    slots = asked(3)
    assert slots.next(NOW, opening=True).fill == ("lake",)
    slots.begin("lake", NOW)
    assert slots.next(NOW, opening=True).fill == ()
    assert slots.next(NOW + AFTER_AN_OPEN, opening=False).fill == ("lake",) * (STARTS_AT_ONCE - 1)


@given(sessions=st.integers(1, 30))
def test_those_that_nobody_needed_for_a_while_go(sessions):
    slots = asked(sessions)
    fill_up(slots, NOW + 1)
    kept = slots.next(NOW + CALM - 1, opening=False)
    assert (kept.end, kept.again) == ((), NOW + CALM)
    assert len(slots.next(NOW + CALM, opening=False).end) == min(sessions, MOST_UNASKED - UNASKED)
    assert slots.next(NOW + CALM, opening=False) == Step(again=NOW + 1 + MAX_AGE)
    assert wanted(slots) == UNASKED


@given(sessions=st.integers(1, MOST_UNASKED - UNASKED), used=st.integers(0, MOST_UNASKED))
def test_as_many_stay_as_the_largest_run_of_sessions_has_used_meanwhile(sessions, used):
    slots = asked(sessions)
    fill_up(slots, NOW + 1)
    used = min(used, UNASKED + sessions)
    for _ in range(used):
        take(slots)
    fill_up(slots, NOW + 2)
    slots.next(NOW + CALM, opening=False)
    assert wanted(slots) == max(UNASKED, used)
    slots.next(NOW + 2 * CALM, opening=False)
    assert wanted(slots) == UNASKED


def test_a_machine_that_is_short_of_something_fills_none_of_them_and_forgets_who_wanted_them():
    slots = asked(5)
    fill_up(slots, NOW + 1)
    assert len(slots.give_up(NOW + 2)) == 6
    for seconds in (0, 1, SHORTAGE - 1):
        take(slots)
        assert slots.next(NOW + 2 + seconds, opening=False).fill == ()
    fill_up(slots, NOW + 2 + SHORTAGE)
    assert wanted(slots) == UNASKED


class AnyLife(RuleBasedStateMachine):
    """Whatever happens, in any order."""

    def __init__(self):
        super().__init__()
        self.slots, self.now = Slots(), 0.0
        self.starting, self.ready, self.gone = [], [], set()
        self.slots.want("lake", 3)
        self.bound = 3, 3

    @rule(seconds=st.sampled_from([0.0, 0.01, 0.6, 5.0, 100.0, 1000.0]), opening=st.booleans())
    def go_on(self, seconds, opening):
        self.now += seconds
        step = self.slots.next(self.now, opening=opening)
        assert step.again > self.now
        self.starting += [self.slots.begin(name, self.now) for name in step.fill]
        assert len(self.starting) <= STARTS_AT_ONCE
        self.forget(step.end)

    @rule(count=st.integers(0, 4))
    def want(self, count):
        self.slots.want("lake", count)
        self.bound = count, count

    @rule(least=st.integers(0, 2), more=st.integers(0, 4))
    def want_as_many_as_are_asked_for(self, least, more):
        self.slots.want("lake", least, least + more)
        self.bound = least, least + more

    @rule()
    def open_a_session(self):
        self.slots.opened(self.now)
        taken = take(self.slots)
        if taken is not None:
            self.forget([taken])

    @precondition(lambda self: self.starting)
    @rule(how=st.sampled_from(["ready", "died", "withdrawn", "postponed"]))
    def end_a_start(self, how):
        number = self.starting.pop()
        if how == "ready":
            self.slots.ready(number, self.now)
            self.ready.append(number)
        elif how == "postponed":
            self.slots.postponed(number, self.now + NOT_YET)
        elif how == "died":
            self.slots.died(number, self.now)
        else:
            self.slots.withdrawn(number)

    @rule()
    def run_short(self):
        self.forget(self.slots.give_up(self.now))

    @rule()
    def change(self):
        self.forget(self.slots.outdated("lake"))

    def forget(self, numbers):
        """None is ever given out or ended twice."""
        assert not self.gone & set(numbers)
        self.gone |= set(numbers)
        self.starting = [number for number in self.starting if number not in numbers]
        self.ready = [number for number in self.ready if number not in numbers]

    @invariant()
    def counts_are_right(self):
        found = self.slots.statistics().get("lake")
        assert (found.starting, found.ready) == (len(self.starting), len(self.ready))
        assert self.bound[0] <= found.wanted <= self.bound[1]


TestAnyLife = AnyLife.TestCase
TestAnyLife.settings = settings(max_examples=100, stateful_step_count=30)
