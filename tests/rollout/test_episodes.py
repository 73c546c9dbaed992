"""`episodes`: a rollout whose trajectories are taken one by one, on both loops, and left at any moment."""

from __future__ import annotations

import asyncio
import gc
import weakref
from contextlib import aclosing

import anyio
import anyio.lowlevel
import pytest
import trio
import trio.testing

from muxsim.errors import Busy
from muxsim.rollouts.data.rows import DatasetError
from muxsim.rollouts.data.trajectory import EndReason
from muxsim.rollouts.play.runner import episodes

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
