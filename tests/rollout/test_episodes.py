"""`episodes`: a rollout whose trajectories are taken one by one, on both loops, and left at any moment."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections import Counter
from contextlib import aclosing

import anyio
import anyio.lowlevel
import pytest
import trio
import trio.testing

from muxsim.errors import Busy
from muxsim.rollouts.data.dataset import Episode
from muxsim.rollouts.data.rows import DatasetError, Row
from muxsim.rollouts.data.trajectory import EndReason, Trajectory
from muxsim.rollouts.play.player import Player
from muxsim.rollouts.play.runner import episodes, rollout
from muxsim.rollouts.policy.protocol import Reply

from .samples import text_block
from .test_runner import Decides, FakePool, calls, result

LIMIT = 120
ENDS = result(reward=1.0, terminated=True)


class Ended:
    """A watcher that keeps how each episode ended."""

    def __init__(self):
        self.reasons = {}

    def started(self, trajectory):
        pass

    def stepped(self, trajectory):
        pass

    def ended(self, trajectory):
        self.reasons[trajectory.seed] = trajectory.end_reason


def rows(count):
    return [{"env": "lake", "seed": seed} for seed in range(count)]


class Slow(Decides):
    """Answers the episodes of some seeds only."""

    def __init__(self, answered):
        super().__init__()
        self.answered = answered
        self.asked = set()

    async def next_message(self, conversation, tools, seed):
        self.asked.add(seed)
        if len(self.asked) > self.answered:
            await anyio.sleep_forever()
        return await super().next_message(conversation, tools, seed)


async def on_both(check):
    """Run ``check`` on trio, where this test is, and on an asyncio loop of its own."""
    with trio.fail_after(LIMIT):
        await check()
        await trio.to_thread.run_sync(lambda: asyncio.run(asyncio.wait_for(check(), LIMIT)))


async def test_each_trajectory_comes_when_its_episode_ends():
    async def check():
        pool, seen = FakePool(ENDS), []
        async for trajectory in episodes(pool, rows(7), policy=Decides(), max_concurrent=2):
            seen.append(trajectory.seed)
            # Those under way wait for whoever takes them: nothing piles up.
            assert len(pool.opened) <= len(seen) + 2
        assert sorted(seen) == list(range(7))
        assert sorted(pool.closed) == list(range(7))

    await on_both(check)


class Block(dict):
    """A content block that can be watched: dicts and the structs of trajectories cannot."""


async def test_no_trajectory_is_kept_once_it_was_taken():
    async def check():
        blocks = []

        async def observed():
            block = Block(text_block("you see a lake"))
            blocks.append(weakref.ref(block))
            return result(block, terminated=True)

        async for trajectory in episodes(FakePool(observed), rows(8), policy=Decides(), max_concurrent=2):
            assert trajectory.steps
            gc.collect()
            assert sum(block() is not None for block in blocks) <= 4

    await on_both(check)


async def test_leaving_the_loop_ends_the_episodes_under_way_before_its_block_is_left():
    async def check():
        pool, ended = FakePool(ENDS), Ended()
        played = episodes(pool, rows(9), policy=Slow(answered=1), watchers=[ended], max_concurrent=3)
        async with aclosing(played):
            async for _ in played:
                break
        reasons = list(ended.reasons.values())
        assert reasons.count(EndReason.TERMINATED) == 1
        assert set(reasons) == {EndReason.TERMINATED, EndReason.CANCELLED}
        assert len(pool.closed) == len(pool.opened)

    await on_both(check)


@pytest.mark.filterwarnings("ignore:Async generator:ResourceWarning")
async def test_a_loop_that_is_left_without_a_block_ends_its_episodes_when_it_is_collected():
    async def check():
        pool, ended = FakePool(ENDS), Ended()
        async for _ in episodes(pool, rows(9), policy=Slow(answered=1), watchers=[ended], max_concurrent=3):
            break
        gc.collect()
        while len(pool.closed) < len(pool.opened):
            await anyio.lowlevel.checkpoint()
        assert set(ended.reasons.values()) == {EndReason.TERMINATED, EndReason.CANCELLED}

    await on_both(check)


async def test_cancelling_whoever_iterates_ends_the_episodes_first():
    async def check():
        pool, ended = FakePool(ENDS), Ended()
        policy = Slow(answered=0)
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as group:

                async def iterate():
                    async for _ in episodes(pool, rows(4), policy=policy, watchers=[ended], max_concurrent=4):
                        pass

                group.start_soon(iterate)
                while len(policy.asked) < 4:
                    await anyio.lowlevel.checkpoint()
                scope.cancel()
        while len(pool.closed) < 4:
            await anyio.lowlevel.checkpoint()
        assert set(ended.reasons.values()) == {EndReason.CANCELLED}

    await on_both(check)


async def test_an_error_of_the_loops_body_comes_out_as_itself():
    async def check():
        pool = FakePool(ENDS)

        async def fail_at_the_first():
            async with aclosing(episodes(pool, rows(5), policy=Decides(), max_concurrent=2)) as played:
                async for _ in played:
                    raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await fail_at_the_first()
        assert len(pool.closed) == len(pool.opened)

    await on_both(check)


async def test_a_dataset_that_is_wrong_is_an_error_of_the_loop():
    async def check():
        with pytest.raises(DatasetError, match="seed"):
            async for _ in episodes(FakePool(ENDS), [{"env": "lake", "seed": "x"}], policy=Decides()):
                pass

    await on_both(check)


async def test_waiting_for_a_full_pool_is_queueing_and_no_part_of_an_episodes_time(autojump_clock):
    pool = FakePool(ENDS, starts=[Busy("full", 40.0), None])
    (trajectory,) = [
        one async for one in episodes(pool, rows(1), policy=Decides(lambda _: calls("on")), episode_timeout=5)
    ]
    assert trajectory.end_reason is EndReason.TERMINATED
    assert trajectory.seconds >= 0
    assert trajectory.seconds + trajectory.times.queue > trajectory.times.queue


# Rows that come while others are played.


async def all_blocked():
    """Let everybody go as far as they can."""
    for _ in range(50):
        await anyio.lowlevel.checkpoint()


class Coming:
    """Rows without an end, one at a time; counts how many were asked for."""

    def __init__(self, count=10**9, wrong_at=None):
        self.count, self.wrong_at = count, wrong_at
        self.given = 0
        self.closed = False

    def row(self):
        if self.given == self.wrong_at:
            raise ZeroDivisionError
        self.given += 1
        return {"env": "lake", "seed": self.given - 1}

    def __iter__(self):
        while self.given < self.count:
            yield self.row()

    async def __aiter__(self):
        try:
            while self.given < self.count:
                await anyio.lowlevel.checkpoint()
                yield self.row()
        finally:
            self.closed = True


def as_they_come(coming, kind):
    return coming.__aiter__() if kind == "async" else iter(coming)


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_rows_are_asked_for_as_episodes_are_played_and_a_slow_loop_holds_them_back(kind):
    async def check():
        coming, pool, taken = Coming(), FakePool(ENDS), 0
        played = episodes(pool, as_they_come(coming, kind), policy=Decides(), max_concurrent=3)
        async with aclosing(played):
            async for trajectory in played:
                taken += 1
                await all_blocked()
                assert trajectory.id == f"row-{trajectory.seed}"
                assert coming.given <= taken + 3
                if taken == 20:
                    break
        assert len(pool.closed) == len(pool.opened) == coming.given
        assert coming.closed == (kind == "async")

    await on_both(check)


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_rows_that_come_are_grouped_and_skipped_as_others_are(kind):
    async def check():
        played = episodes(
            FakePool(ENDS),
            as_they_come(Coming(3), kind),
            policy=Decides(),
            rollouts_per_row=2,
            skip=frozenset({"row-0#1", "row-1#0", "row-1#1"}),
        )
        assert sorted([one.id async for one in played]) == ["row-0#0", "row-2#0", "row-2#1"]

    await on_both(check)


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_what_raises_while_rows_come_is_raised_once_and_ends_all(kind):
    async def check():
        coming, pool, ended = Coming(wrong_at=4), FakePool(ENDS), Ended()
        with pytest.raises(ZeroDivisionError):
            async for _ in episodes(
                pool, as_they_come(coming, kind), policy=Decides(), watchers=[ended], max_concurrent=3
            ):
                pass
        assert len(pool.closed) == len(pool.opened)
        assert len(ended.reasons) == 4

    await on_both(check)


async def test_a_wrong_row_is_named_by_its_place_when_its_turn_comes():
    async def check():
        given = iter([{"env": "lake"}, {"env": "lakes"}, {"env": "lake"}])
        with pytest.raises(DatasetError, match=r'row 1: env = "lakes": no such environment; did you mean lake'):
            async for _ in episodes(FakePool(ENDS), given, policy=Decides(), max_concurrent=1):
                pass

    await on_both(check)


async def test_an_iterator_that_goes_on_raising_is_asked_once():
    class Broken:
        asked = 0

        def __iter__(self):
            return self

        def __next__(self):
            self.asked += 1
            raise ZeroDivisionError

    async def check():
        broken = Broken()
        with pytest.raises(ZeroDivisionError):
            await rollout(FakePool(ENDS), broken, policy=Decides(), max_concurrent=8)
        assert broken.asked == 1

    await on_both(check)


class Forgetful(FakePool):
    """Counts its environments and keeps none."""

    def __init__(self):
        super().__init__(ENDS)
        self.count = 0

    async def open(self, env, seed, *, start_timeout=None):
        environment = await super().open(env, seed, start_timeout=start_timeout)
        for kept in (self.opened, self.asked, self.closed, self.finished):
            kept.clear()
        self.count += 1
        return environment


class Quick:
    """A policy that remembers nothing."""

    async def next_message(self, conversation, tools, seed):
        return Reply(calls("on"))


def alive():
    """How many there are of what a rollout is made of; other tests of this process may have left some."""
    gc.collect()
    return Counter(type(one) for one in gc.get_objects() if isinstance(one, (Trajectory, Episode, Row, Player)))


async def test_nothing_is_kept_of_many_rows_but_what_is_being_played():
    rows = ({"env": "lake", "seed": seed, "info": {"text": str(seed)}} for seed in range(3000))
    pool, before = Forgetful(), alive()
    async for trajectory in episodes(pool, rows, policy=Quick(), max_concurrent=4):
        if trajectory.seed % 500 == 0:
            kept = alive() - before
            assert kept[Trajectory] >= 1
            assert max(kept.values()) <= 4 + 1, kept
    assert pool.count == 3000
