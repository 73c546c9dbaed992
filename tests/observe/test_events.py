"""The stream of what happens."""

from __future__ import annotations

from typing import get_args

import pytest

from muxsim.observe.events import Event, Events, SessionReady, StoodStill

ALL = get_args(Event)


def ready(seed=1):
    return SessionReady("s" * 32, "env", seed, 7, 0.1)


def test_a_listener_that_raises_is_logged_and_told_nothing_more_and_nobody_else_notices(caplog):
    heard, told = [], []

    def fail(event):
        told.append(event)
        raise ZeroDivisionError("a bug of a listener")

    events = Events(fail)
    events.subscribe(heard.append)
    happened = [ready(seed) for seed in range(100)]
    for event in happened:
        events.emit(event)
    assert heard == happened
    assert told == happened[:1]
    assert [record.exc_text.splitlines()[-1] for record in caplog.records] == ["ZeroDivisionError: a bug of a listener"]
    assert "session.ready" in caplog.text
    assert "s" * 9 not in caplog.text  # the rest of an id would open the session's URLs


def test_a_listener_may_tell_of_something_itself_or_bring_another():
    events, heard = Events(), []

    def tell(event):
        if isinstance(event, StoodStill):
            events.subscribe(heard.append)
            events.emit(ready())

    events.subscribe(tell)
    events.emit(StoodStill(2.0))
    assert heard == [ready()]


def test_who_is_told_cannot_change_what_the_others_are_told():
    with pytest.raises(AttributeError):
        ready().seed = 2


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_each_kind_of_event_has_a_name_of_its_own_and_says_what_it_means(kind):
    assert [other.name for other in ALL].count(kind.name) == 1
    assert kind.__doc__.endswith(".")
