"""What is remembered of sessions that have failed."""

from types import SimpleNamespace

import pytest

from muxsim.placement.backend import BackendExit
from muxsim.session.endings import Endings
from muxsim.session.states import Ending


def over(id, cause="backend_exited", stderr=()):
    ending = Ending(cause, f"{id} ended", BackendExit("it exited", 3, tuple(stderr)))
    return SimpleNamespace(id=id, owner="ada", shared=False, ending=ending)


def test_only_the_newest_failures_are_remembered_and_of_each_only_so_many_words():
    endings = Endings()
    for number in range(10_000):
        endings.remember(over(str(number), stderr=[*"abc", "x" * 4000, *["y" * 100] * 20]))
    assert len(endings) == 128
    assert endings.of("0") is None
    past = endings.of("9999")
    assert (past.owner, past.ending.text) == ("ada", "9999 ended")
    assert past.ending.exit.stderr == ("y" * 100,) * 20


@pytest.mark.parametrize("cause", ["deleted", "client_gone", "ttl", "shutdown", None])
def test_an_end_that_somebody_wished_for_is_not_remembered(cause):
    endings, session = Endings(), over("one", cause)
    if cause is None:
        session.ending = None
    endings.remember(session)
    assert endings.of("one") is None
