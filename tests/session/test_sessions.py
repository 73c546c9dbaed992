"""All sessions of one muxsim, on a pool that starts nothing. Rows are those of the table of faults."""

from __future__ import annotations

import gc
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from muxsim.admission.pool import Lease
from muxsim.errors import Busy, SessionExists, StartError, TooMuch, UnknownEnvironment
from muxsim.observe.events import Events, SessionOpenFailed, SessionOpening, SessionStarted
from muxsim.placement.backend import BackendExit
from muxsim.runtime.soon import begin, may_wait
from muxsim.session.attachment import Attachment
from muxsim.session.registry import SEED_LIMIT, open_sessions
from muxsim.spec import EnvSpec, Limits
from transports.memory import MemoryTransport

SPECS = {
    "game": EnvSpec(name="game", command="game"),
    "common": EnvSpec(name="common", command="common", shared=True, limits=Limits(idle_timeout=1)),
}


class Backend:
    """One that lives until it is ended, or told to die."""

    pid = 1
    congested = False
    way = "fresh"

    def __init__(self):
        self.dead = trio.Event()
        self.ended = False

    async def run(self):
        await self.dead.wait()
        return BackendExit("gone", 1, ())

    async def end(self):
        with trio.CancelScope(shield=True):
            await trio.lowlevel.checkpoint()
        self.ended = True
        return 0

    def send(self, message):
        """Nobody reads it."""


class Pool:
    """Counts what it has given; a start takes a second, or fails. Of `waiting` processes each can be had at once."""

    def __init__(self):
        self.waiting = 0
        self.refusals = []
        self.held = set()
        self.given = 0
        self.started = []
        self.failures = []
        self.failed_starts = []

    async def acquire(self, spec, client=None, session=None):
        if self.refusals:
            raise self.refusals.pop()
        if not self.waiting:
            await may_wait()
            await trio.lowlevel.checkpoint()
        self.given += 1
        self.held.add(self.given)
        return Lease(self.given, spec, None)

    async def start(self, lease, *, seed, session, listener):
        if self.waiting:
            self.waiting -= 1
        else:
            await may_wait()
            await trio.sleep(1)
        if self.failures:
            raise self.failures.pop()
        self.started.append((lease.spec.name, seed, session))
        return Backend()

    def failed(self, lease):
        self.failed_starts.append(lease.spec.name)

    async def release(self, lease):
        with trio.CancelScope(shield=True):
            await trio.lowlevel.checkpoint()
        self.held.remove(lease.number)


class Here:
    """Open sessions, with the pool below and the events above them."""

    def __init__(self, sessions, pool, reported):
        self.sessions = sessions
        self.pool = pool
        self.reported = reported


@asynccontextmanager
async def here():
    events, reported, pool = Events(), [], Pool()
    events.subscribe(reported.append)
    async with open_sessions(pool, SPECS, events) as sessions:
        yield Here(sessions, pool, reported)
    assert pool.held == set()
    assert sessions.all() == []


async def test_a_process_that_is_ready_is_a_session_at_once(autojump_clock):
    async with here() as one:
        one.pool.waiting = 1
        session = begin(one.sessions.open("game", seed=5, id="mine", owner="me")).value
        assert (session.id, session.seed, session.owner) == ("mine", 5, "me")
        assert one.pool.started == [("game", 5, "mine")]
        assert one.sessions.get("mine") is session
        assert [type(event) for event in one.reported] == [SessionOpening, SessionStarted]
        with pytest.raises(SessionExists):
            _ = begin(one.sessions.open("game", id="mine")).value
        session.end("deleted", "bye")
        await session.wait_ended()


async def test_a_session_that_is_not_there_at_once_is_the_same_when_it_is(autojump_clock):
    async with here() as one:
        opening = begin(one.sessions.open("game", seed=5, id="mine"))
        assert (opening.ready, one.sessions.all()) == (False, [])
        with pytest.raises(SessionExists):
            await one.sessions.open("game", id="mine")
        session = await opening
        assert (session.id, session.seed) == ("mine", 5)
        assert [type(event) for event in one.reported] == [SessionOpening, SessionStarted]


async def test_an_opening_that_nobody_waits_for_leaves_neither_id_nor_place_taken(autojump_clock):
    async with here() as one:
        opening = begin(one.sessions.open("game", id="mine"))
        assert not opening.ready
        del opening
        gc.collect()
        assert one.pool.held == set()
        one.pool.waiting = 1
        assert begin(one.sessions.open("game", id="mine")).ready


async def test_a_refusal_at_once_is_told_as_any_other(autojump_clock):
    async with here() as one:
        one.pool.refusals = [TooMuch("slower", 1.0)]
        refused = begin(one.sessions.open("game"))
        assert refused.ready
        with pytest.raises(TooMuch, match="slower"):
            _ = refused.value
        assert [type(event) for event in one.reported] == [SessionOpening, SessionOpenFailed]


async def test_nothing_is_opened_while_this_is_drained(autojump_clock):
    async with here() as one:
        one.pool.waiting, one.sessions.draining = 1, True
        with pytest.raises(Busy, match="drained"):
            _ = begin(one.sessions.open("game")).value
        assert (one.pool.waiting, one.reported) == (1, [])


async def test_a_session_can_be_found_while_it_lives_and_its_place_is_given_back(autojump_clock):
    async with here() as one:
        session = await one.sessions.open("game", seed=5)
        assert one.sessions.get(session.id) is session
        assert one.sessions.all() == [session]
        assert one.pool.started == [("game", 5, session.id)]
        session.end("deleted", "bye")
        await session.wait_ended()
        await trio.testing.wait_all_tasks_blocked()
        assert one.sessions.get(session.id) is None
        assert one.pool.held == set()


async def test_ids_and_seeds_that_nobody_chose_are_drawn_anew_each_time(autojump_clock):
    """L15: 128 random bits. Seeds fit into 31."""
    async with here() as one:
        ids = {one.sessions._new_id(None) for _ in range(10_000)}
        assert len(ids) == 10_000
        assert {len(bytes.fromhex(id)) for id in ids} == {16}
        drawn = [(await one.sessions.open("game")).seed for _ in range(20)]
        assert len(set(drawn)) == 20
        assert all(0 <= seed < SEED_LIMIT for seed in drawn)


async def test_seed_zero_is_a_seed(autojump_clock):
    async with here() as one:
        assert (await one.sessions.open("game", seed=0)).seed == 0


@pytest.mark.parametrize("id", ["", "a b", "a/b", "ä", "x" * 65, "a\n", "a%"])
async def test_an_id_that_does_not_fit_into_a_url_is_refused(autojump_clock, id):
    async with here() as one:
        with pytest.raises(ValueError, match="must be 1 to 64"):
            await one.sessions.open("game", id=id)
        assert one.pool.given == 0


async def test_an_unknown_environment_is_an_error_that_lists_the_known(autojump_clock):
    async with here() as one:
        with pytest.raises(UnknownEnvironment, match="'gmae'; there are common, game"):
            await one.sessions.open("gmae")
        assert one.pool.given == 0


async def test_an_id_is_taken_from_the_first_moment_of_a_start_to_its_end(autojump_clock):
    async with here() as one, trio.open_nursery() as nursery:

        async def open_mine():
            await one.sessions.open("game", id="mine")

        nursery.start_soon(open_mine)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(SessionExists, match="mine"):
            await one.sessions.open("game", id="mine")
        await trio.sleep(2)
        with pytest.raises(SessionExists, match="mine"):
            await one.sessions.open("game", id="mine")
        session = one.sessions.get("mine")
        session.end("deleted", "bye")
        await session.wait_ended()
        await trio.testing.wait_all_tasks_blocked()
        assert (await one.sessions.open("game", id="mine")).id == "mine"


async def test_a_failed_start_is_told_and_leaves_neither_id_nor_place_taken(autojump_clock):
    """C3, H3."""
    async with here() as one:
        one.pool.failures = [StartError("it does not want to")]
        with pytest.raises(StartError, match="does not want"):
            await one.sessions.open("game", id="mine")
        assert one.pool.held == set()
        assert [type(event) for event in one.reported] == [SessionOpening, SessionOpenFailed]
        assert one.reported[-1].error == "it does not want to"
        assert (await one.sessions.open("game", id="mine")).id == "mine"


async def test_a_start_that_is_given_up_leaves_neither_id_nor_place_taken(autojump_clock):
    """L18."""
    async with here() as one:
        with trio.move_on_after(0.5):
            await one.sessions.open("game", id="mine")
        assert one.pool.held == set()
        assert (await one.sessions.open("game", id="mine")).id == "mine"


async def test_starts_do_not_wait_for_each_other(autojump_clock):
    async with here() as one:
        begun = trio.current_time()
        async with trio.open_nursery() as nursery:
            for _ in range(50):
                nursery.start_soon(one.sessions.open, "game")
        assert trio.current_time() - begun == pytest.approx(1, abs=0.01)
        assert len(one.sessions) == 50


async def test_a_shared_environment_is_started_once_for_all_who_come(autojump_clock):
    async with here() as one:
        found = []

        async def find():
            found.append(await one.sessions.shared("common"))

        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(find)
        assert len(set(found)) == 1
        assert len(one.pool.started) == 1
        await trio.sleep(100)
        assert found[0].live, "a lasting session is never idle"


async def test_a_shared_environment_that_died_or_failed_is_started_for_the_next_who_comes(autojump_clock):
    async with here() as one:
        one.pool.failures = [StartError("not yet")]
        with pytest.raises(StartError):
            await one.sessions.shared("common")
        first = await one.sessions.shared("common")
        first.end("backend_exited", "it died")
        second = await one.sessions.shared("common")
        assert second is not first
        assert second.live


def whose(name):
    return lambda owner: owner == name


async def named(one, id="mine", owner="ada", **wanted):
    return await one.sessions.named(id, SPECS["game"], whose(owner), {"owner": owner, **wanted})


async def test_a_session_that_a_url_names_is_made_once_for_all_who_come(autojump_clock):
    async with here() as one:
        found = []

        async def find():
            found.append(await named(one))

        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(find)
        assert len(set(found)) == len(one.pool.started) == 1
        assert await named(one, seed=found[0].seed) is found[0]
        assert one.sessions._naming == {}


async def test_whoever_gives_up_on_such_a_session_does_not_spoil_it_for_others(autojump_clock):
    async with here() as one, trio.open_nursery() as nursery:
        found = []

        async def find():
            found.append(await named(one))

        with trio.move_on_after(0.5):
            nursery.start_soon(find)
            await named(one)
        await trio.sleep(5)
        assert [session.live for session in found] == [True]


async def test_where_an_episode_of_a_url_has_ended_it_stays_so_and_a_start_that_failed_was_none(autojump_clock):
    async with here() as one:
        one.pool.failures = [StartError("not yet")]
        with pytest.raises(StartError):
            await named(one)
        failed = await named(one)
        failed.end("backend_exited", "it died", BackendExit("it died", 1, ()))
        begun = await named(one)  # at once, while the first is still ending
        assert begun is not failed
        begun.end("deleted", "somebody did", by="ada")
        for hours in (0, 1, 100):
            await trio.sleep(hours * 3600)
            past = await named(one)
            assert (past.ending.cause, past.owner) == ("deleted", "ada")
        assert past.ending.by is None, "what was said of it is kept for some minutes"
        others = await named(one, owner="bob")
        assert others.live, "of what was ada's bob knows nothing"
        assert (await named(one)).ending.cause == "deleted"
        with pytest.raises(SessionExists):
            await named(one, owner="carol")


CHANGED = EnvSpec(name="common", command="other", shared=True, limits=Limits(idle_timeout=1))


def client_of(session):
    client = Attachment(session, "memory")
    client.connect(MemoryTransport())
    session.attach(client)
    return client


@pytest.mark.parametrize("changed", [{}, {"common": EnvSpec(name="common", command="other")}])
async def test_the_session_of_a_shared_environment_that_is_removed_ends_with_the_reload(autojump_clock, changed):
    async with here() as one:
        session = await one.sessions.shared("common")
        client_of(session)
        one.sessions.use({spec.name: spec for spec in one.sessions.specs()})
        assert session.live
        one.sessions.use(changed)
        assert (session.live, session.ending.cause) == (False, "reloaded")
        await session.wait_ended()


@pytest.mark.parametrize("end", ["goes", "is nobody"])
async def test_the_session_of_a_changed_environment_lasts_as_long_as_it_has_clients(autojump_clock, end):
    async with here() as one:
        session = await one.sessions.shared("common")
        client = None if end == "is nobody" else client_of(session)
        one.sessions.use({"common": CHANGED})
        assert session.live is (client is not None)
        new = await one.sessions.shared("common")
        assert (new is session, new.spec, session.shared) == (False, CHANGED, True)
        if end == "goes":
            client.disconnected()
        await session.wait_ended()
        assert new.live


async def test_a_shared_start_that_a_reload_overtakes_does_not_stay(autojump_clock):
    async with here() as one, trio.open_nursery() as nursery:
        found = []

        async def find():
            found.append(await one.sessions.shared("common"))

        nursery.start_soon(find)
        await trio.testing.wait_all_tasks_blocked()
        one.sessions.use({"common": CHANGED})
        await trio.sleep(5)
        assert not found[0].live


async def test_whoever_gives_up_on_a_shared_start_does_not_spoil_it_for_others(autojump_clock):
    async with here() as one, trio.open_nursery() as nursery:
        found = []

        async def find():
            found.append(await one.sessions.shared("common"))

        with trio.move_on_after(0.5):
            nursery.start_soon(find)
            await one.sessions.shared("common")
        await trio.sleep(5)
        assert len(found) == 1
        assert found[0].live


async def test_the_end_of_the_block_ends_every_session(autojump_clock):
    async with here() as one:
        sessions = [await one.sessions.open("game") for _ in range(5)]
    assert [session.ending.cause for session in sessions] == ["shutdown"] * 5
    assert all(session._life.backend.ended for session in sessions)


async def test_an_error_in_the_block_comes_out_as_it_is(autojump_clock):
    """A caller catches `StartError`, not a group that has one."""

    async def fail():
        async with here() as one:
            await one.sessions.open("game")
            raise StartError("mine")

    with pytest.raises(StartError, match="mine"):
        await fail()
