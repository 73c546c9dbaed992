"""All sessions as rows: what a reader is told, and what each may see."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace

import pytest

from muxsim.admission.admission import LeaseStatistics
from muxsim.observe.counters import Counters
from muxsim.observe.events import Events, SessionEnded, SessionLimit, SessionOpenFailed, SessionOpening, SessionStarted
from muxsim.observe.news import News
from muxsim.serve.auth.callers import ANYONE, Caller, Scope
from muxsim.serve.watch import feed
from muxsim.serve.watch.board import Board, kind_of
from muxsim.session.states import State
from muxsim.spec import EnvSpec

ADA, MONITOR = Caller("ada", Scope.TRAINER), Caller("eve", Scope.MONITOR)


class Pool:
    """Of which nothing is wanted but numbers."""

    def under_way(self):
        return Counter({"lake": 3}), Counter()

    def statistics(self):
        return SimpleNamespace(leases=LeaseStatistics(0, 0, 0, ()), placement=SimpleNamespace(warm={}))


class Sampler:
    def look(self):
        pass

    def by_environment(self):
        return {"lake": SimpleNamespace(memory=7)}


class House:
    """A board, and the sessions that it is of; time stands still unless a test moves it."""

    def __init__(self):
        self.live = {}
        self.time = 1000.0
        self.events, self.counters, recent = Events(), Counters(), News(lambda: self.time)
        sessions = SimpleNamespace(
            all=lambda: list(self.live.values()), get=self.live.get, specs=lambda: [EnvSpec(name="lake", command="x")]
        )
        self.board = Board(sessions, Pool(), Sampler(), recent, self.counters, lambda: "lake", lambda: self.time)
        for listener in (self.counters, recent, self.board):
            self.events.subscribe(listener)

    def session(self, id, owner=None, **fields):
        conversation = SimpleNamespace(calls_made=0, in_flight=0, router=SimpleNamespace(in_flight=0))
        session = SimpleNamespace(
            id=id, owner=owner, shared=False, seed=1, created=0.0, state=State.READY, spec=SimpleNamespace(name="lake"),
            conversation=conversation, **fields,
        )  # fmt: skip
        self.live[id] = session
        return session

    def looks(self, times=4):
        """Some looks: enough for what is looked at seldom."""
        for _ in range(times):
            self.board.look()


@pytest.fixture
async def house():
    return House()


async def test_a_reader_is_told_what_has_changed_since_and_nothing_twice(house):
    session = house.session("a")
    house.session("b")
    house.looks()
    version = house.board.version
    assert {row.id for row in house.board.snapshot(ANYONE, []).sessions} == {"a", "b"}
    assert house.board.changes(ANYONE, version) is None
    session.conversation.calls_made = 5
    house.looks()
    change = house.board.changes(ANYONE, version)
    assert [(row.id, row.calls) for row in change.sessions] == [("a", 5)]
    assert house.board.changes(ANYONE, house.board.version) is None
    before = house.board.version
    house.looks()
    assert house.board.version == before


async def test_one_that_opens_is_there_from_when_it_was_asked_for_and_one_that_has_ended_for_some_minutes(house):
    house.events.emit(SessionOpening("a", "lake", 1, None))
    house.looks()
    assert [row.state for row in house.board.snapshot(ANYONE, []).sessions] == ["opening"]
    session = house.session("a")
    house.events.emit(SessionStarted("a", "lake", 1, 7))
    house.looks()
    assert [row.state for row in house.board.snapshot(ANYONE, []).sessions] == ["ready"]
    house.events.emit(SessionEnded("a", "lake", 1, 7, "backend_exited", "it died", 1, ("boom",), 2.0))
    del house.live[session.id]
    house.looks()
    (row,) = house.board.snapshot(ANYONE, []).sessions
    assert (row.state, row.end, row.failed) == ("ended", "backend_exited", True)
    version = house.board.version
    house.time += 3600
    house.looks()
    assert house.board.snapshot(ANYONE, []).sessions == []
    assert house.board.changes(ANYONE, version).gone == ["a"]


async def test_each_sees_their_own_and_a_monitor_all_under_ids_that_open_nothing(house):
    house.session("a" * 32, "ada")
    house.session("b" * 32, "bob")
    house.looks()
    assert [row.owner for row in house.board.snapshot(ADA, []).sessions] == ["ada"]
    rows = house.board.snapshot(MONITOR, []).sessions
    assert {row.owner for row in rows} == {"ada", "bob"}
    assert not {row.id for row in rows} & set(house.live)
    version = house.board.version
    house.live.clear()
    house.looks()
    assert set(house.board.changes(MONITOR, version).gone) == {row.id for row in rows}
    assert house.board.changes(ADA, version).gone == ["a" * 32]


async def test_too_many_sessions_are_counted_and_listed_again_when_there_are_fewer(house):
    for number in range(2 * feed.MOST_ROWS):
        house.session(str(number), "ada" if number % 2 else "bob")
    house.looks()
    told = house.board.snapshot(ANYONE, [])
    assert told.sessions == []
    assert told.counts == [feed.Count(env="lake", state="ready", end=None, sessions=2 * feed.MOST_ROWS)]
    assert [count.sessions for count in house.board.snapshot(ADA, []).counts] == [feed.MOST_ROWS]
    version = house.board.version
    house.live.pop("0")
    house.looks()
    assert house.board.since <= version
    assert [count.sessions for count in house.board.changes(ANYONE, version).counts] == [2 * feed.MOST_ROWS - 1]
    for number in range(1, 2 * feed.MOST_ROWS - 10):
        del house.live[str(number)]
    house.looks()
    assert house.board.since > version, "a reader has to begin anew"
    assert len(house.board.snapshot(ANYONE, []).sessions) == 10
    assert house.board.snapshot(ANYONE, []).counts is None


async def test_an_environment_has_its_numbers_and_its_last_failure_with_stderr_for_whoever_sees_all(house):
    house.session("a")
    house.events.emit(SessionOpenFailed("b", "lake", 1, None, "no room", refused=True))
    house.looks()
    (lake,) = house.board.snapshot(ANYONE, []).environments
    assert (lake.live, lake.waiting, lake.memory, lake.default, lake.state) == (1, 3, 7, True, "ok")
    assert (lake.failures, lake.error) == (0, None)
    house.events.emit(SessionEnded("a", "lake", 1, 7, "backend_exited", "it died", 1, ("secret",), 2.0))
    house.looks()
    (lake,) = house.board.snapshot(ANYONE, []).environments
    assert (lake.state, lake.error.text, lake.error.stderr) == ("failed", "it died", ["secret"])
    for caller in (ADA, MONITOR):
        (lake,) = house.board.snapshot(caller, []).environments
        assert (lake.error.text, lake.error.stderr) == ("it died", [])


async def test_who_begins_to_look_again_gets_everything_at_once(house):
    house.session("a")
    for _ in range(3):
        house.looks(2)
        assert [one.name for one in house.board.snapshot(ANYONE, []).environments] == ["lake"]
        house.board.rest()


async def test_bounds_that_were_met_are_told_with_how_often(house):
    house.looks()
    assert house.board.snapshot(ANYONE, []).bounds == []
    version = house.board.version
    house.events.emit(SessionLimit("a", "lake", 1, 7, "max_in_flight"))
    house.looks()
    (bound,) = house.board.changes(ANYONE, version).bounds
    assert (bound.setting, bound.met, bound.last) == ("max_in_flight", 1, 1000.0)


@pytest.mark.parametrize(
    ("command", "kind"),
    [
        ("/usr/bin/python3.11", "python"),
        ("server.py", "python"),
        ("node", "node"),
        ("dist/index.mjs", "node"),
        ("npx", "npx"),
        ("uvx", "uvx"),
        ("./search-server", "program"),
    ],
)
async def test_the_kind_of_a_command_is_told_by_its_name(command, kind):
    assert kind_of(EnvSpec(name="x", command=command)) == kind
