"""What is remembered of sessions that have ended."""

from __future__ import annotations

from dataclasses import replace

import pytest

from muxsim.observe.events import Events
from muxsim.placement.backend import BackendExit
from muxsim.session.endings import KEPT, Endings, Past, past_of
from muxsim.session.session import Session
from muxsim.session.states import Ending
from muxsim.spec import EnvSpec


def over(id, cause="backend_exited", at=0.0):
    return Past(id, 1, "game", 7, "ada", None, False, Ending(cause, f"{id} ended"), 0.0, at)


async def test_of_a_session_that_has_ended_only_so_many_words_are_kept():
    session = Session("a" * 32, EnvSpec(name="game", command="game"), 7, Events(), owner="ada")
    assert past_of(session, 1.0) is None
    session.end("backend_exited", "it exited", BackendExit("it exited", 3, (*"abc", "x" * 4000, *["y" * 100] * 20)))
    past = past_of(session, 1.0)
    assert (past.id, past.env, past.seed, past.owner, past.ended) == ("a" * 32, "game", 7, "ada", 1.0)
    assert past.ending.text == "it exited"
    assert past.ending.exit.stderr == ("y" * 100,) * 20


@pytest.mark.parametrize("cause", ["backend_exited", "deleted", "client_gone", "idle_timeout", "spare_idle"])
def test_every_end_is_remembered_for_some_minutes(cause):
    endings = Endings()
    endings.remember(over("one", cause))
    assert endings.of("one", KEPT - 1).ending.cause == cause
    assert [past.id for past in endings.all(KEPT - 1)] == ["one"]
    assert endings.of("one", KEPT) is None
    assert list(endings.all(KEPT)) == []


def test_only_the_newest_are_remembered_and_no_failure_is_forgotten_for_ends_that_were_wished_for():
    endings = Endings()
    for number in range(200):
        endings.remember(over(f"failed {number}", at=number / 100))
    for number in range(10_000):
        endings.remember(over(str(number), "deleted", at=3 + number / 1000))
    assert len(endings) == 128 + 4096
    assert endings.of("failed 0", 13.0) is None
    assert endings.of("failed 199", 13.0).ending.text == "failed 199 ended"
    assert endings.of("0", 13.0) is None
    assert [past.id for past in endings.all(13.0)][-1] == "9999"


def test_of_ids_that_urls_have_named_so_many_are_known_to_be_over_however_long_ago():
    endings = Endings()
    for number in range(10_000):
        endings.remember(over(str(number), at=number), named=True)
    endings.remember(replace(over("never began"), began=False), named=True)
    assert endings.of("1900", 10_000) is None
    assert endings.named("1900").ending.cause == "backend_exited"
    assert endings.named("1900").ending.text == "the session ended some time ago (backend_exited)"
    assert endings.named("never began") is endings.named("1800") is None
    endings.remember(over("1900", at=10_001))
    assert endings.named("1900") is None


def test_what_is_too_old_makes_room_and_an_id_that_was_used_again_is_the_newest():
    endings = Endings()
    for number in range(100):
        endings.remember(over(str(number), at=number))
    endings.remember(over("again", "deleted", at=KEPT))
    endings.remember(over("again", at=KEPT + 50))
    assert len(endings) == 50
    assert endings.of("again", KEPT + 50).ending.cause == "backend_exited"
