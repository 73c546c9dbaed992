"""Who may start what, and when, as a table of cases: nothing here waits, times are numbers."""

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from muxsim.admission.admission import SLOW, UNASKED, Admission, Answer, Capacity, MemoryReading
from muxsim.observe.counters import Counters
from muxsim.observe.events import Events

GRANTED, QUEUED, REFUSED = Answer.GRANTED, Answer.QUEUED, Answer.REFUSED
MANY = 10**6


def admission(**bounds):
    usual = {"max_sessions": 10, "max_pending": 10, "queue_timeout": 30.0, "max_starting": MANY}
    return Admission(Capacity(**{**usual, **bounds}), Events(Counters()))


def reached(one):
    """How often each bound was met, by setting."""
    (counters,) = one.events.listeners
    return {setting: count for setting, count in counters.limits().items() if count}


def ask(one, env="game", client=None, now=0.0, **breaker):
    """Ask; the number, and what has become of it."""
    verdict, *_ = one.ask(env, client, now, **breaker)
    return verdict.number, verdict.answer


def refusal_of(one, env="game", client=None, now=0.0, **breaker):
    verdict, *_ = one.ask(env, client, now, **breaker)
    assert verdict.answer is REFUSED
    return verdict.refusal


def names(verdicts):
    return [(verdict.number, verdict.answer) for verdict in verdicts]


def test_bounds_of_clients_may_differ_by_name_and_be_changed():
    one = admission(max_sessions=MANY, max_sessions_per_client=1, opens_per_second=1, opens_burst=100)
    others = one.capacity
    lab = replace(others, max_sessions_per_client=3)
    guest = replace(others, opens_burst=1, max_sessions_per_client=0)
    one.use(replace(others, clients={"lab": lab, "guest": guest}), 0.0)
    assert [ask(one, client="lab")[1] for _ in range(4)] == [GRANTED] * 3 + [REFUSED]
    assert [ask(one, client="guest")[1] for _ in range(2)] == [GRANTED, REFUSED]
    assert [ask(one, client="other")[1] for _ in range(2)] == [GRANTED, REFUSED]
    assert "(server.clients.lab.max_sessions_per_client)" in refusal_of(one, client="lab").text
    assert "server.clients.guest.opens_per_second" in refusal_of(one, client="guest").text
    assert "(server.max_sessions_per_client)" in refusal_of(one, client="other").text
    one.use(others, 0.0)
    assert "(server.max_sessions_per_client)" in refusal_of(one, client="lab").text
    assert ask(one, client="guest")[1] is REFUSED


# ---- places and the queue


@pytest.mark.parametrize(
    ("max_sessions", "max_pending", "answers"),
    [
        (2, 1, [GRANTED, GRANTED, QUEUED, REFUSED]),
        (1, 0, [GRANTED, REFUSED, REFUSED, REFUSED]),
        (0, 1, [QUEUED, REFUSED, REFUSED, REFUSED]),
        (0, 0, [REFUSED, REFUSED, REFUSED, REFUSED]),
        (4, 0, [GRANTED, GRANTED, GRANTED, GRANTED]),
    ],
)
def test_leases_are_granted_up_to_the_limit_then_queued_then_refused(max_sessions, max_pending, answers):
    """L22."""
    one = admission(max_sessions=max_sessions, max_pending=max_pending)
    assert [ask(one)[1] for _ in answers] == answers


@pytest.mark.parametrize(
    ("asked", "bounds", "answer"),
    [
        (0, {}, GRANTED),
        (1, {"max_sessions": 2}, GRANTED),
        (2, {"max_sessions": 2}, QUEUED),
        (2, {"max_starting": 2}, QUEUED),
        (3, {"max_sessions": 2, "max_pending": 1}, REFUSED),
        (1, {"max_sessions_per_client": 1}, REFUSED),
    ],
)
def test_who_asks_and_does_not_wait_leaves_everything_as_it_was(asked, bounds, answer):
    one = admission(**bounds)
    for _ in range(asked):
        ask(one, client="x")
    before = one.statistics(0.0)
    number, given = ask(one, client="x")
    assert given == answer
    if given is QUEUED:
        one.give_up(number)
    if given is not GRANTED:
        assert one.statistics(0.0) == before


def test_who_is_turned_away_is_not_let_in_at_once():
    one = admission()
    one.turn_away("closing")
    assert ask(one)[1] is REFUSED


def test_a_refusal_names_the_settings_and_says_when_to_come_back():
    """L22."""
    one = admission(max_sessions=1, max_pending=0)
    ask(one)
    refusal = refusal_of(one)
    assert (refusal.setting, refusal.excessive) == ("max_pending", False)
    assert "server.max_sessions, server.max_pending" in refusal.text
    assert refusal.retry_after > 0
    assert reached(one) == {"max_pending": 1}


def test_every_wish_has_a_number_of_its_own():
    one = admission(max_sessions=2, max_pending=2)
    assert len({ask(one)[0] for _ in range(10)}) == 10


def test_a_lease_given_back_goes_to_who_waits_longest():
    one = admission(max_sessions=1)
    holder, first, second = (ask(one)[0] for _ in range(3))
    assert names(one.release(holder, 1)) == [(first, GRANTED)]
    assert names(one.release(first, 2)) == [(second, GRANTED)]
    assert one.release(second, 3) == []
    assert (one.statistics(3).held, one.statistics(3).waiting) == (0, 0)


def test_giving_back_twice_gives_no_second_lease_away():
    one = admission(max_sessions=2)
    holder, _, first, _ = (ask(one)[0] for _ in range(4))
    assert names(one.release(holder, 1)) == [(first, GRANTED)]
    assert one.release(holder, 1) == []
    assert one.statistics(1).held == 2


def test_whoever_gives_up_waiting_leaves_the_queue():
    one = admission(max_sessions=1)
    holder, impatient, patient = (ask(one)[0] for _ in range(3))
    one.give_up(impatient)
    one.give_up(impatient)
    assert one.statistics(0).waiting == 1
    assert names(one.release(holder, 1)) == [(patient, GRANTED)]
    one.give_up(patient)
    assert one.statistics(1).held == 1


def test_bounds_can_change_while_some_wait_and_others_hold_more_than_they_leave():
    one = admission(max_sessions=2, max_pending=2, opens_per_second=1, opens_burst=3)
    numbers = [ask(one, client="a")[0] for _ in range(3)]
    more = Capacity(max_sessions=3, max_pending=2, queue_timeout=30, max_starting=9)
    assert names(one.use(more, 0)) == [(numbers[2], GRANTED)]
    fewer = Capacity(max_sessions=1, max_pending=1, queue_timeout=30, max_starting=9)
    assert one.use(fewer, 0) == []
    assert [ask(one, client="a")[1] for _ in range(2)] == [QUEUED, REFUSED]
    assert [one.release(number, 1) for number in numbers[:2]] == [[], []]
    assert len(one.release(numbers[2], 1)) == 1


def test_at_the_end_everybody_is_turned_away_and_no_place_that_becomes_free_is_given_to_anybody():
    """H6."""
    one = admission(max_sessions=1)
    holder, *waiting = (ask(one)[0] for _ in range(3))
    turned_away = one.turn_away("closing")
    assert names(turned_away) == [(number, REFUSED) for number in waiting]
    assert {verdict.refusal.text for verdict in turned_away} == {"closing"}
    assert one.release(holder, 1) == []
    assert refusal_of(one).text == "closing"
    assert reached(one) == {"max_sessions": 2}


# ---- turns


def grants(one, holder, count):
    """Give one place back again and again; the wishes that get it, in order."""
    order = []
    for _ in range(count):
        ((holder, answer),) = names(one.release(holder, 0))
        assert answer is GRANTED
        order.append(holder)
    return order


@pytest.mark.parametrize(
    ("wishes", "order"),
    [
        ("A1 A1 A1 B2 B2", "A1 B2 A1 B2 A1"),
        ("A1 A1 A1 A1 B1", "A1 B1 A1 A1 A1"),
        ("A1 A1 A1 A2 A2", "A1 A2 A1 A2 A1"),
        ("A1 A2 A3 B1 A1", "A1 B1 A2 A3 A1"),
        ("A1 B1 C1 A1 B1 C1", "A1 B1 C1 A1 B1 C1"),
    ],
)
def test_environments_take_turns_and_so_do_clients_within_one(wishes, order):
    one = admission(max_sessions=1)
    holder, _ = ask(one)
    asked = {}
    for wish in wishes.split():
        asked[ask(one, env=wish[0], client=wish[1])[0]] = wish
    assert [asked[number] for number in grants(one, holder, len(asked))] == order.split()


def test_a_full_queue_loses_the_last_of_its_longest_line_for_one_who_has_a_shorter():
    one = admission(max_sessions=0, max_pending=3)
    greedy = [ask(one, client="greedy")[0] for _ in range(3)]
    mine, displaced = one.ask("game", "modest", 0)
    assert mine.answer is QUEUED
    assert (displaced.number, displaced.answer, displaced.refusal.setting) == (greedy[-1], REFUSED, "max_pending")
    assert ask(one, client="greedy")[1] is REFUSED
    assert one.statistics(0).waiting == 3


def test_among_lines_of_one_length_the_newcomer_is_refused():
    one = admission(max_sessions=0, max_pending=2)
    ask(one, client="a")
    ask(one, client="b")
    assert ask(one, client="c")[1] is REFUSED
    assert ask(one, env="other")[1] is REFUSED


# ---- starts


def test_no_more_start_at_once_than_may_and_the_next_does_when_one_has_answered():
    one = admission(max_starting=2)
    first, second, third = (ask(one)[0] for _ in range(3))
    assert (one.statistics(0).starting, one.statistics(0).waiting) == (2, 1)
    one.asked(first, 0.5)
    assert names(one.answered(first, 1)) == [(third, GRANTED)]
    assert names(one.release(second, 1)) == []
    assert one.statistics(1).starting == 1


def test_who_waits_only_for_others_to_have_started_has_a_place_and_is_not_refused():
    one = admission(max_sessions=5, max_pending=1, max_starting=2)
    assert [ask(one)[1] for _ in range(7)] == [GRANTED] * 2 + [QUEUED] * 4 + [REFUSED]


@pytest.mark.parametrize(("asked", "counts_until"), [(False, UNASKED), (True, 1 + SLOW)])
def test_a_start_that_says_nothing_counts_for_a_while_only(asked, counts_until):
    """C5: one that hangs does not keep others waiting."""
    one = admission(max_starting=1)
    silent, waiting = ask(one)[0], ask(one)[0]
    if asked:
        one.asked(silent, 1.0)
    assert one.next_change() == counts_until
    assert one.advance(counts_until - 0.1) == []
    assert names(one.advance(counts_until)) == [(waiting, GRANTED)]


def test_nothing_changes_by_time_alone_when_nothing_starts():
    assert admission().next_change() == float("inf")


def test_there_is_a_spare_start_while_nobody_waits_and_not_all_starts_are_taken():
    one = admission(max_starting=2)
    for _ in range(2):
        assert one.has_spare_start
        one.asked(ask(one)[0], 0)
    assert not one.has_spare_start


# ---- starts that wait for their client


def test_a_start_that_waits_for_its_client_holds_no_turn_of_others():
    """L22: streams and sessions that somebody opens and does not go on with."""
    one = admission(max_sessions=100, max_pending=100, max_starting=2)
    assert [ask(one, client="idle")[1] for _ in range(5)] == [GRANTED] * 2 + [QUEUED] * 3
    assert one.has_spare_start
    assert ask(one, client="busy")[1] is GRANTED
    number, answer = ask(one, client="busy")
    assert answer is GRANTED
    one.asked(number, 0.0)
    assert ask(one, client="third")[1] is GRANTED
    assert ask(one, client="busy")[1] is QUEUED


def test_a_fork_that_waits_for_its_client_holds_no_turn_until_it_is_asked():
    """Its imports are behind it: who opens a hundred before speaking to any waits for no clock."""
    one = admission(max_sessions=100, max_pending=100, max_starting=1)
    first, waiting, last = (ask(one, client="trainer")[0] for _ in range(3))
    assert names(one.forked(first, 0.0)) == [(waiting, GRANTED)]
    one.asked(first, 0.0)
    assert names(one.forked(waiting, 0.0)) == []
    assert names(one.answered(first, 0.0)) == [(last, GRANTED)]


def test_a_fork_that_waits_for_its_client_may_still_fail():
    one = admission(max_sessions=100, max_pending=100)
    forks = [ask(one, **BREAKER)[0] for _ in range(4)]
    assert [verdict for number in forks[:3] for verdict in one.forked(number, 0.0)] == []
    assert one.next_change() == UNASKED
    assert names(one.advance(UNASKED)) == [(forks[3], GRANTED)]


def test_a_start_that_its_client_asks_for_holds_a_turn_of_everybody():
    one = admission(max_starting=2)
    for number in [ask(one, client="busy")[0] for _ in range(2)]:
        one.asked(number, 0.0)
    assert ask(one, client="other")[1] is QUEUED
    assert ask(one, client="third")[1] is QUEUED
    assert not one.has_spare_start


def test_a_start_that_waits_for_its_client_takes_nobody_elses_chance_to_fail():
    one = admission(max_sessions=100, max_pending=100)
    assert [ask(one, client="idle", **BREAKER)[1] for _ in range(4)] == [GRANTED] * 3 + [QUEUED]
    assert ask(one, client="other", **BREAKER)[1] is GRANTED


def test_one_that_others_do_not_wait_for_goes_before_them_and_one_that_they_do_does_not():
    one = admission(max_starting=1)
    ask(one, client="idle")
    ask(one, client="idle")
    assert ask(one, client="other")[1] is GRANTED
    assert [ask(one, client="other")[1] for _ in range(2)] == [QUEUED] * 2


# ---- clients


def test_a_client_has_no_more_sessions_than_it_may_and_others_go_on():
    """L23."""
    one = admission(max_sessions=3, max_sessions_per_client=2)
    mine = [ask(one, client="greedy") for _ in range(2)]
    refusal = refusal_of(one, client="greedy")
    assert (refusal.setting, refusal.excessive) == ("max_sessions_per_client", True)
    assert "server.max_sessions_per_client" in refusal.text
    assert ask(one, client="modest")[1] is GRANTED
    one.release(mine[0][0], 1)
    assert ask(one, client="greedy")[1] is GRANTED


def test_those_a_client_waits_for_count_too():
    """L23."""
    one = admission(max_sessions=0, max_sessions_per_client=1)
    waiting, _ = ask(one, client="one")
    assert ask(one, client="one")[1] is REFUSED
    one.give_up(waiting)
    assert ask(one, client="one")[1] is QUEUED


def test_a_client_opens_at_most_so_many_per_second():
    """L23."""
    one = admission(max_sessions=MANY, opens_per_second=10, opens_burst=20)
    assert Counter(ask(one, client="flood")[1] for _ in range(500)) == {GRANTED: 20, REFUSED: 480}
    refusal = refusal_of(one, client="flood")
    assert (refusal.setting, refusal.excessive) == ("opens_per_second", True)
    assert "server.opens_per_second" in refusal.text
    assert refusal.retry_after == pytest.approx(0.1)
    assert ask(one, client="other")[1] is GRANTED
    assert Counter(ask(one, client="flood", now=1)[1] for _ in range(500)) == {GRANTED: 10, REFUSED: 490}
    assert reached(one)["opens_per_second"] == 480 + 1 + 490


def test_this_program_itself_is_no_client():
    one = admission(max_sessions=MANY, max_sessions_per_client=1, opens_per_second=1, opens_burst=1)
    assert {ask(one)[1] for _ in range(100)} == {GRANTED}


# ---- an environment that does not start

BREAKER = {"failures": 3, "window": 30.0}


def fail(one, count, now=0.0):
    for _ in range(count):
        number, answer = ask(one, now=now, **BREAKER)
        assert answer is GRANTED
        one.failed(number, now)
        one.release(number, now)


def test_after_so_many_failed_starts_an_environment_is_left_alone_and_others_are_not():
    """C4."""
    one = admission()
    fail(one, 3)
    refusal = refusal_of(one, now=10, **BREAKER)
    assert (refusal.setting, refusal.retry_after, refusal.excessive) == ("max_failed_starts", 20, False)
    assert "'game'" in refusal.text
    assert "max_failed_starts" in refusal.text
    assert ask(one, env="other", now=10, **BREAKER)[1] is GRANTED
    assert one.statistics(10).breakers_open == ("game",)


def test_exactly_one_probe_is_started_after_the_window_and_its_outcome_decides():
    """C4."""
    one = admission()
    fail(one, 3)
    probe, answer = ask(one, now=30, **BREAKER)
    assert answer is GRANTED
    assert [ask(one, now=30, **BREAKER)[1] for _ in range(10)] == [REFUSED] * 10
    one.failed(probe, 31)
    one.release(probe, 31)
    assert refusal_of(one, now=40, **BREAKER).retry_after == 21
    probe, answer = ask(one, now=61, **BREAKER)
    assert answer is GRANTED
    one.answered(probe, 62)
    assert [ask(one, now=62, **BREAKER)[1] for _ in range(5)] == [GRANTED] * 5
    assert one.events.listeners[0].total("breakers_opened") == 2


def test_a_probe_that_was_given_up_makes_way_for_the_next():
    """C4."""
    one = admission()
    fail(one, 3)
    probe, _ = ask(one, now=30, **BREAKER)
    one.release(probe, 30)
    assert ask(one, now=30, **BREAKER)[1] is GRANTED


def test_a_probe_that_has_to_wait_is_still_the_only_one():
    """C4."""
    one = admission(max_sessions=1)
    fail(one, 3)
    ask(one, env="other")
    assert [ask(one, now=30, **BREAKER)[1] for _ in range(3)] == [QUEUED, REFUSED, REFUSED]


def test_of_an_environment_that_never_started_no_more_start_at_once_than_may_fail():
    """C4: twenty opens at once start no more than the limit."""
    one = admission(max_sessions=30, max_pending=30)
    numbers = [ask(one, **BREAKER) for _ in range(20)]
    started = [number for number, answer in numbers if answer is GRANTED]
    assert len(started) == 3
    assert one.failed(started[0], 0.5) == one.failed(started[1], 0.5) == []
    refused = one.failed(started[2], 0.5)
    assert {verdict.answer for verdict in refused} == {REFUSED}
    assert len(refused) == 17
    assert {verdict.refusal.retry_after for verdict in refused} == {30}
    assert one.statistics(1).waiting == 0


def test_a_herd_that_waits_for_the_first_start_of_a_new_environment_has_met_no_bound():
    """Nothing has failed: a count of max_failed_starts would send an operator after a fault that is not there."""
    one = admission(max_sessions=200, max_pending=200)
    first, *others = (ask(one, **BREAKER)[0] for _ in range(160))
    assert one.statistics(0).waiting == 157
    assert reached(one) == {}
    assert one.events.listeners[0].total("opens_queued", "game") == 157
    assert "none of its starts has succeeded yet" in one.time_out(others[-1]).text
    assert len(one.answered(first, 1)) == 156
    assert reached(one) == {"queue_timeout": 1}


def test_who_waits_since_starts_have_failed_has_met_their_bound():
    one = admission()
    fail(one, 2)
    ask(one, **BREAKER)
    waiting, answer = ask(one, **BREAKER)
    assert (answer, reached(one)) == (QUEUED, {"max_failed_starts": 1})
    assert "max_failed_starts" in one.time_out(waiting).text


def test_once_one_start_has_succeeded_all_may_start_at_once():
    one = admission(max_sessions=30, max_pending=30)
    first, *_ = (ask(one, **BREAKER)[0] for _ in range(20))
    assert len(one.answered(first, 1)) == 17


def test_a_start_that_is_not_asked_anything_keeps_no_other_from_starting():
    one = admission()
    for _ in range(3):
        ask(one, **BREAKER)
    waiting, answer = ask(one, **BREAKER)
    assert answer is QUEUED
    assert names(one.advance(UNASKED)) == [(waiting, GRANTED)]
    assert [ask(one, now=UNASKED, **BREAKER)[1] for _ in range(5)] == [GRANTED] * 5


def test_a_success_forgets_the_failures_and_so_does_the_window():
    one = admission()
    fail(one, 2)
    number, _ = ask(one, **BREAKER)
    one.answered(number, 1)
    fail(one, 2, now=2)
    fail(one, 2, now=32)
    assert one.events.listeners[0].total("breakers_opened") == 0


def test_an_environment_whose_bound_is_zero_is_never_left_alone():
    one = admission()
    for _ in range(50):
        number, answer = ask(one)
        assert answer is GRANTED
        one.failed(number, 0)
        one.release(number, 0)


# ---- whether a start has a chance


@pytest.mark.parametrize(
    ("asked", "bounds", "reason"),
    [
        (1, {}, None),
        (1, {"max_sessions": 1}, None),
        (1, {"max_sessions": 1, "max_pending": 0}, "max_pending"),
        (2, {"max_sessions": 1, "max_pending": 1}, "max_pending"),
        (3, {"max_starting": 1, "max_pending": 0, "max_sessions": 2}, "max_pending"),
        (1, {"max_starting": 1, "max_pending": 0}, None),
    ],
)
def test_nobody_has_a_chance_when_and_only_when_the_next_one_who_asks_is_refused(asked, bounds, reason):
    one = admission(**bounds)
    for _ in range(asked):
        ask(one)
    refusal = one.refusing("game", 0.0)
    assert (refusal and refusal.setting) == reason
    if refusal is None:
        assert ask(one)[1] is not REFUSED
    else:
        assert refusal_of(one) == refusal


def test_nobody_has_a_chance_without_memory_nor_while_the_environment_is_left_alone_nor_after_the_end():
    one = admission()
    one.measured(MemoryReading(2, 1, "here"))
    assert one.refusing(None, 0.0).setting == "memory_limit"
    one.measured(MemoryReading(0, 1, "here"))
    assert one.refusing("game", 0.0) is None
    number, _ = ask(one, failures=1, window=10.0)
    one.failed(number, 0.0)
    assert one.refusing("game", 1.0).setting == "max_failed_starts"
    assert one.refusing("other", 1.0) is None
    assert one.refusing("game", 11.0) is None, "one start is tried again"
    one.turn_away("over")
    assert one.refusing("other", 11.0).text == "over"


# ---- memory

OVER = MemoryReading(used=95, limit=90, what="on this machine")
UNDER = MemoryReading(used=80, limit=90, what="on this machine")


def test_past_the_memory_limit_opens_are_refused_at_once():
    """H12."""
    one = admission()
    one.measured(OVER)
    refusal = refusal_of(one)
    assert refusal.setting == "memory_limit"
    assert "server.memory_limit" in refusal.text
    assert not one.has_spare_start
    one.measured(UNDER)
    assert ask(one)[1] is GRANTED
    one.measured(None)
    assert ask(one)[1] is GRANTED


def test_who_waits_already_gets_no_place_until_there_is_memory_and_is_told_why():
    """H12."""
    one = admission(max_sessions=1)
    holder, waiting, other = (ask(one)[0] for _ in range(3))
    one.measured(OVER)
    assert one.release(holder, 1) == []
    assert "server.memory_limit" in one.time_out(other).text
    one.measured(UNDER)
    assert names(one.advance(2)) == [(waiting, GRANTED)]


@pytest.mark.parametrize(
    ("bounds", "reason"),
    [({"max_sessions": 1}, "server.max_sessions"), ({"max_starting": 1}, "server.max_starting")],
)
def test_who_waited_in_vain_is_told_for_what(bounds, reason):
    one = admission(**bounds)
    ask(one)
    number, _ = ask(one)
    refusal = one.time_out(number)
    assert refusal.setting == "queue_timeout"
    assert "30 s (server.queue_timeout)" in refusal.text
    assert reason in refusal.text
    assert one.statistics(0).waiting == 0
    assert reached(one) == {reason.removeprefix("server."): 1, "queue_timeout": 1}


def test_who_is_let_in_past_one_who_waits_for_starts_leaves_no_more_waiting_than_may():
    one = admission(max_sessions=2, max_pending=0, max_starting=1)
    assert ask(one, client="y")[1] is GRANTED
    waits, answer = ask(one, client="y")
    assert answer is QUEUED
    mine, *others = one.ask("game", "x", 0.0)
    assert mine.answer is GRANTED
    assert names(others) == [(waits, REFUSED)]
    assert one.statistics(0.0).waiting == 0


class AnyOrder(RuleBasedStateMachine):
    """Whatever clients and backends do, the bounds hold, no room is left while one waits, and the counters agree."""

    @initialize(limit=st.integers(0, 3), pending=st.integers(0, 3), starting=st.integers(1, 3))
    def open(self, limit, pending, starting):
        self.bounds = Capacity(
            max_sessions=limit, max_pending=pending, queue_timeout=1, max_starting=starting, max_sessions_per_client=3
        )
        self.one = Admission(self.bounds)
        self.now = 0.0
        self.held, self.waiting, self.client = set(), set(), {}

    def note(self, verdicts):
        for number, answer, _ in verdicts:
            assert number in self.waiting
            self.waiting.remove(number)
            if answer is GRANTED:
                self.grant(number)

    def grant(self, number):
        """Whoever is let in counts no more than may start at once, the new one included."""
        self.held.add(number)
        assert self.one._starting.for_client(self.client[number]) <= self.bounds.max_starting

    @rule(env=st.sampled_from("AB"), client=st.sampled_from(["x", "y", None]))
    def ask(self, env, client):
        mine, *others = self.one.ask(env, client, self.now, failures=2, window=5)
        self.client[mine.number] = client
        if mine.answer is not REFUSED:
            assert self.one._next_one(self.now) is None  # nobody who waits could have had it
            self.waiting.add(mine.number)
        self.note([mine] if mine.answer is GRANTED else [])
        self.note(others)

    @rule(seconds=st.sampled_from([0.5, 2.0, 10.0]))
    def pass_time(self, seconds):
        self.now += seconds
        self.note(self.one.advance(self.now))

    @precondition(lambda self: self.held)
    @rule(data=st.data(), what=st.sampled_from(["forked", "asked", "answered", "failed", "release"]))
    def go_on(self, data, what):
        number = data.draw(st.sampled_from(sorted(self.held)))
        if what == "release":
            self.held.remove(number)
        self.note(getattr(self.one, what)(number, self.now) or [])

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def give_up(self, data):
        number = data.draw(st.sampled_from(sorted(self.waiting)))
        self.waiting.remove(number)
        self.one.give_up(number)

    @rule(over=st.booleans())
    def measure(self, over):
        self.one.measured(OVER if over else UNDER)
        self.note(self.one.advance(self.now))

    @invariant()
    def the_bounds_hold(self):
        now = self.one.statistics(self.now)
        assert (now.held, now.waiting) == (len(self.held), len(self.waiting))
        assert now.held <= self.bounds.max_sessions
        assert now.waiting <= self.bounds.max_pending + self.bounds.max_sessions - now.held
        assert now.starting <= now.held
        shares = Counter(self.client[number] for number in self.held | self.waiting)
        assert max((shares["x"], shares["y"])) <= 3
        # What nobody has any more is forgotten.
        assert self.one._wishes.keys() == self.held | self.waiting
        assert not {*self.one._starting, *self.one._idle, *self.one._queue.environments()} or self.held or self.waiting


TestAnyOrder = AnyOrder.TestCase
