"""The lines that are made of what happens."""

from __future__ import annotations

import logging
from typing import get_args

import pytest

from muxsim.observe import log
from muxsim.observe.events import (
    BackendRejected,
    CacheNotWritten,
    CommandFailed,
    Event,
    SessionEnded,
    SessionLimit,
    SessionOpening,
    TokenRefused,
)
from muxsim.observe.log import fields_of, level_of

# What structlog and its processors put into a line, or take as arguments.
NOT_FOR_FIELDS = {"level", "event", "timestamp", "exc_info", "stack_info"}
WHO = ("s" * 32, "env", 1, 7)


def test_every_kind_of_event_has_a_level():
    assert log._LEVELS.keys() == set(get_args(Event))


def test_no_field_of_an_event_has_a_name_that_a_line_needs_for_something_else():
    assert not [kind for kind in get_args(Event) if NOT_FOR_FIELDS & set(kind.__struct_fields__)]


@pytest.mark.parametrize(
    ("event", "level"),
    [
        (SessionEnded(*WHO, "deleted", "text", 0, None, 1.0), logging.INFO),
        (SessionEnded(*WHO, "backend_exited", "text", 0, None, 1.0), logging.WARNING),
        (SessionLimit(*WHO, limit="max_buffered"), logging.WARNING),
        (SessionLimit(*WHO, limit="max_buffered", again=True), logging.DEBUG),
        (TokenRefused("unknown", "10.0.0.1"), logging.WARNING),
        (TokenRefused("unknown", "10.0.0.1", again=True), logging.DEBUG),
        (CacheNotWritten("/cache", "it is read-only", again=True), logging.DEBUG),
        (BackendRejected(*WHO, line="noise", error="not JSON"), logging.WARNING),
        (BackendRejected(*WHO, line="noise", error="not JSON", again=True), logging.DEBUG),
    ],
)
def test_an_end_that_nobody_wished_for_is_a_warning_and_what_is_met_with_every_message_is_one_once(event, level):
    assert level_of(event) == level


def test_a_line_has_what_is_known_and_the_traceback_of_what_has_failed():
    assert fields_of(SessionOpening(*WHO)) == {"session": "s" * 32, "env": "env", "seed": 1, "pid": 7}
    bug = ValueError("a bug")
    assert fields_of(CommandFailed("status", bug)) == {"command": "status", "exc_info": bug}
