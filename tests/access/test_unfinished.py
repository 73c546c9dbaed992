"""How much of what is not complete there may be for one client, and who of them waits."""

from __future__ import annotations

from contextlib import ExitStack

from hypothesis import given
from hypothesis import strategies as st

from muxsim.observe.counters import Counters
from muxsim.observe.events import Events
from muxsim.serve.http.unfinished import Unfinished

SMALL = 64 * 1024
MOST = 100 * 1024


def world():
    events = Events()
    counters = Counters()
    events.subscribe(counters)
    return Unfinished(MOST, events), counters


def test_past_the_bound_only_the_oldest_of_a_clients_goes_on_and_others_clients_do():
    unfinished, counters = world()
    first, second = unfinished.begin("ada"), unfinished.begin("ada")
    of_bob = unfinished.begin("bob")
    for one in (first, second, of_bob):
        one.add(SMALL)
    assert [one.may_go_on for one in (first, second, of_bob)] == [True, False, True]
    assert counters.limits()["max_unfinished"] == 1
    told = []
    second.on_room = lambda: told.append(second.may_go_on)
    first.add(MOST)
    first.end()
    assert told == [True]


def test_one_body_may_be_as_large_as_it_likes():
    unfinished, _ = world()
    one = unfinished.begin("ada")
    one.add(10 * MOST)
    assert one.may_go_on
    one.end()
    one.end()
    one.add(5)
    assert unfinished.bytes == 0


def test_what_waits_for_a_backend_counts_too_and_what_is_small_is_read_all_the_same():
    unfinished, counters = world()
    with ExitStack() as waiting:
        waiting.enter_context(unfinished.waiting("ada", 2 * MOST))
        first, small, of_bob = unfinished.begin("ada"), unfinished.begin("ada"), unfinished.begin("bob")
        first.add(SMALL)
        of_bob.add(SMALL)
        assert [one.may_go_on for one in (first, small, of_bob)] == [False, True, True]
        assert counters.limits()["max_unfinished"] == 1
        told = []
        first.on_room = lambda: told.append(first.may_go_on)
    assert told == [True]
    for one in (first, small, of_bob):
        one.end()
    assert repr(unfinished) == "<Unfinished 0 bytes of 0 clients>"


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, SMALL), st.booleans()), max_size=60))
def test_some_body_of_each_client_can_always_go_on_and_what_is_complete_leaves_nothing(steps):
    unfinished, _ = world()
    bodies = {number: unfinished.begin("ab"[number % 2]) for number in range(6)}
    waiting = dict(bodies)
    for number, size, ends in steps:
        body = bodies[number]
        if number in waiting and body.may_go_on:
            body.add(size)
            if ends:
                body.end()
                del waiting[number]
        for share in "ab":
            mine = [one for one in waiting.values() if one.share == share]
            assert not mine or any(one.may_go_on for one in mine)
            assert sum(one.size for one in mine[1:]) <= MOST + len(mine) * 2 * SMALL
    for body in waiting.values():
        body.end()
    assert unfinished.bytes == 0
