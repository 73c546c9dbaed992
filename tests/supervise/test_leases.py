from collections import deque

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from muxsim.supervise.leases import Answer, Leases, LeaseStatistics


def asked(leases, count):
    """Ask so many times; the numbers and the answers."""
    return [leases.ask() for _ in range(count)]


def test_leases_are_granted_up_to_the_limit_then_queued_then_refused_L22():
    answers = [answer for _, answer in asked(Leases(limit=2, max_waiting=1), 4)]
    assert answers == [Answer.GRANTED, Answer.GRANTED, Answer.QUEUED, Answer.REFUSED]


def test_every_wish_has_a_number_of_its_own():
    numbers = [number for number, _ in asked(Leases(limit=2, max_waiting=2), 10)]
    assert len(set(numbers)) == 10


def test_a_lease_given_back_goes_to_who_waits_longest():
    leases = Leases(limit=1, max_waiting=3)
    (holder, _), (first, _), (second, _) = asked(leases, 3)
    assert leases.release(holder) == first
    assert leases.statistics() == LeaseStatistics(held=1, waiting=1, refused=0)
    assert leases.release(first) == second
    assert leases.release(second) is None
    assert leases.statistics() == LeaseStatistics(held=0, waiting=0, refused=0)


def test_nobody_overtakes_the_queue():
    leases = Leases(limit=1, max_waiting=3)
    (holder, _), (first, _) = asked(leases, 2)
    assert leases.release(holder) == first
    assert leases.ask()[1] is Answer.QUEUED


def test_whoever_gives_up_waiting_leaves_the_queue_and_counts_as_refused():
    leases = Leases(limit=1, max_waiting=2)
    (holder, _), (impatient, _), (patient, _) = asked(leases, 3)
    leases.give_up(impatient)
    assert leases.statistics() == LeaseStatistics(held=1, waiting=1, refused=1)
    assert leases.release(holder) == patient


def test_giving_up_without_waiting_changes_nothing():
    leases = Leases(limit=1, max_waiting=1)
    (holder, _), (waiting, _), (refused, _) = asked(leases, 3)
    before = leases.statistics()
    for number in (holder, refused, 999):
        leases.give_up(number)
    assert leases.statistics() == before
    assert leases.release(holder) == waiting


def test_giving_back_twice_gives_no_second_lease_away():
    leases = Leases(limit=2, max_waiting=3)
    (holder, _), _, (first, _), _ = asked(leases, 4)
    assert leases.release(holder) == first
    assert leases.release(holder) is None
    assert leases.statistics() == LeaseStatistics(held=2, waiting=1, refused=0)


@pytest.mark.parametrize(("limit", "max_waiting", "answer"), [(0, 1, Answer.QUEUED), (0, 0, Answer.REFUSED)])
def test_without_any_lease_nobody_is_granted_one(limit, max_waiting, answer):
    assert Leases(limit, max_waiting).ask()[1] is answer


class AnyOrder(RuleBasedStateMachine):
    """Whatever clients do, leases are bounded, the queue is in order, and no place is free while one waits."""

    @initialize(limit=st.integers(1, 3), max_waiting=st.integers(0, 3))
    def open(self, limit, max_waiting):
        self.leases = Leases(limit, max_waiting)
        self.limit, self.max_waiting = limit, max_waiting
        self.held, self.queue, self.refused = set(), deque(), 0

    @rule()
    def ask(self):
        number, answer = self.leases.ask()
        assert number not in self.held | set(self.queue)
        if len(self.held) < self.limit:
            assert answer is Answer.GRANTED
            self.held.add(number)
        elif len(self.queue) < self.max_waiting:
            assert answer is Answer.QUEUED
            self.queue.append(number)
        else:
            assert answer is Answer.REFUSED
            self.refused += 1

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def release(self, data):
        number = data.draw(st.sampled_from(sorted(self.held)))
        self.held.remove(number)
        heir = self.queue.popleft() if self.queue else None
        assert self.leases.release(number) == heir
        if heir is not None:
            self.held.add(heir)

    @precondition(lambda self: self.queue)
    @rule(data=st.data())
    def give_up(self, data):
        number = data.draw(st.sampled_from(list(self.queue)))
        self.queue.remove(number)
        self.leases.give_up(number)
        self.refused += 1

    @invariant()
    def the_counters_agree(self):
        assert self.leases.statistics() == LeaseStatistics(len(self.held), len(self.queue), self.refused)
        assert not (self.queue and len(self.held) < self.limit)


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(deadline=None)
