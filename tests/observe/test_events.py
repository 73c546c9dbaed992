"""The stream of what happens to sessions."""

from __future__ import annotations

from muxsim.observe import events as module
from muxsim.observe.events import Events, SessionEvent, What


def test_a_listener_that_raises_is_logged_and_nobody_else_notices(caplog):
    events, heard = Events(), []

    def fail(event):
        raise ZeroDivisionError("a bug of a listener")

    events.subscribe(fail)
    events.subscribe(heard.append)
    happened = [SessionEvent(What.READY, "s" * 32, "env", seed) for seed in range(100)]
    for event in happened:
        events.emit(event)
    assert heard == happened
    shown = [record for record in caplog.records if "a bug of a listener" in (record.exc_text or "")]
    assert len(shown) == module._MOST_COMPLAINTS
    assert "s" * 9 not in caplog.text  # the rest of an id would open the session's URLs
