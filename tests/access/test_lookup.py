"""What a request names, and what a refusal gives away of it."""

import sys
from types import SimpleNamespace

import pytest

from muxsim.observe.events import Events
from muxsim.serve.auth.callers import Caller, Scope
from muxsim.serve.routes.guard import _CALLER
from muxsim.serve.routes.lookup import Lookup
from muxsim.session.endings import past_of
from muxsim.session.session import Session
from muxsim.spec import EnvSpec
from transports.asgi import Call
from transports.http_rules import HTTPRefusal

# Calls of a function: whether the session lives, who asks, and whether that may see it.
FEW = 5
BOB = Caller("bob", Scope.TRAINER)


class Sessions:
    """Those that live, and no others that did."""

    def __init__(self, *live):
        self.live = {session.id: session for session in live}

    def get(self, id):
        return self.live.get(id)

    def past(self, id):
        session = self.live.get(id)
        return None if session is None else past_of(session, 0.0)


def refused(lookup, id):
    """How a session is refused to Bob, and how many functions were called for that."""
    called = []
    call = Call({"headers": [], "client": ("127.0.0.1", 1), _CALLER: BOB}, None, None)
    sys.setprofile(lambda frame, event, _: called.append(frame.f_code.co_qualname) if event == "call" else None)
    try:
        with pytest.raises(HTTPRefusal) as refusal:
            lookup.session(call, id)
    finally:
        sys.setprofile(None)
    return vars(refusal.value), len(called)


@pytest.mark.parametrize("tries", [5, 50], ids=["at once", "slowed"])
async def test_somebody_elses_session_is_refused_as_one_that_never_was_and_for_hardly_more_work(tries):
    """L14, L16: what a clock could tell apart is what is done, and nothing waits in a function that is not async."""
    session = Session("a" * 32, EnvSpec(name="game", command="game"), 7, Events(), owner="ada")
    lookup = Lookup(Sessions(session), SimpleNamespace(), max_failures=20)
    differences = []
    for _ in range(tries):
        (theirs, more), (never, work) = refused(lookup, session.id), refused(lookup, "f" * 32)
        differences.append(more - work)
    assert theirs == never
    assert bool(never["delay"]) == (tries > 20)
    # The least of them: what is done once in a process, and what a collector finds to do, counts as a call too.
    assert min(differences) <= FEW
