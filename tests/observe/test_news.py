"""What is known of an environment's last starts and failures."""

from __future__ import annotations

import pytest

from muxsim.observe.events import (
    BreakerOpened,
    InstallFailed,
    InstallStarted,
    SessionEnded,
    SessionOpenFailed,
    SessionReady,
    SessionStarted,
)
from muxsim.observe.news import STARTS_KEPT, News

WHO = ("s" * 32, "game", 1, 7)


def news_of(*happened):
    news = News(lambda: 1000.0)
    for event in happened:
        news(event)
    return news.of("game")


def started(seconds, way="fork"):
    return SessionReady(*WHO, seconds=seconds, way=way, start=seconds)


def test_of_each_way_the_last_starts_are_told_in_numbers():
    news = news_of(*(started(number / 100) for number in range(1, 101)), started(9.0, "fresh"))
    assert (news.median("fork"), news.quantile("fork", 0.99)) == (0.505, 0.99)
    assert (news.median("fresh"), news.quantile("fresh", 0.99)) == (9.0, 9.0)
    assert news.median("slot") is None


def test_what_was_long_ago_counts_no_more():
    news = news_of(*[started(9.0)] * STARTS_KEPT, *[started(0.1)] * STARTS_KEPT)
    assert (len(news.starts["fork"]), news.median("fork"), news.quantile("fork", 0.99)) == (STARTS_KEPT, 0.1, 0.1)


FAILED = SessionOpenFailed(*WHO, error="no such program")
CRASHED = SessionEnded(*WHO, "backend_exited", "it exited", 3, ("Traceback", "KeyError"), 1.0)


@pytest.mark.parametrize(
    ("happened", "broken", "state"),
    [
        ([], False, "ok"),
        ([FAILED], False, "failed"),
        ([CRASHED], False, "failed"),
        ([FAILED, SessionStarted(*WHO)], False, "ok"),
        ([SessionEnded(*WHO, "deleted", "it was deleted", 0, None, 1.0)], False, "ok"),
        ([FAILED, BreakerOpened("game", 30.0)], True, "broken"),
        ([FAILED, InstallStarted("game", "here", ["six"])], False, "installing"),
        ([InstallStarted("game", "here", ["six"]), InstallFailed("game", "no network"), FAILED], False, "failed"),
    ],
)
def test_an_environment_is_in_the_state_of_its_last_start(happened, broken, state):
    assert news_of(*happened).state(broken=broken) == state


def test_the_last_failure_is_told_in_full_and_when_it_was():
    failure = news_of(FAILED, CRASHED, SessionStarted(*WHO)).last_failure
    assert (failure.time, failure.text, failure.stderr) == (1000.0, "it exited", ("Traceback", "KeyError"))
