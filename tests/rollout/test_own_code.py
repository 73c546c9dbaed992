"""Code of a user's inside a rollout, which raises what no task may raise by itself: its episode fails, and no other."""

from __future__ import annotations

import asyncio

import anyio
import anyio.lowlevel
import pytest

from muxsim.errors import MuxsimError
from muxsim.rollouts.data.trajectory import EndReason
from muxsim.rollouts.play.runner import episodes, rollout

from .test_runner import Decides, Diary, FakePool, calls, result, rows

LOOPS = ["trio", "asyncio"]
# What a task ends with whose own work was cancelled below it, as engines and clients of models do it.
STRAYS = [
    asyncio.CancelledError(),
    SystemExit(3),
    BaseExceptionGroup("both", [asyncio.CancelledError(), ValueError("x")]),
]


def pool():
    return FakePool(result(), result(terminated=True))


def play(loop, policy, watchers=(), dataset=(), **options):
    async def main():
        return await rollout(pool(), dataset or rows(0, 1, 2), policy=policy, watchers=watchers, **options)

    return anyio.run(main, backend=loop)


class RaisesOnce(Decides):
    """Raises in the episode that comes second, behind its first call."""

    def __init__(self, error):
        super().__init__()
        self.error, self.begun = error, 0

    async def next_message(self, conversation, tools, seed):
        await anyio.lowlevel.checkpoint()
        self.begun += not any(message["role"] == "assistant" for message in conversation)
        if self.begun == 2:
            self.begun += 1
            raise self.error
        return await super().next_message(conversation, tools, seed)


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("error", STRAYS, ids=lambda error: type(error).__name__)
def test_whatever_a_policy_raises_ends_its_episode_alone(loop, error):
    trajectories = play(loop, RaisesOnce(error), max_concurrent=1)
    assert [one.end_reason for one in trajectories] == [
        EndReason.TERMINATED,
        EndReason.POLICY_ERROR,
        EndReason.TERMINATED,
    ]
    assert trajectories[1].error.startswith(type(error).__name__)
    assert not trajectories[1].error.endswith(": ")
    assert "next_message" in trajectories[1].traceback


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("error", STRAYS, ids=lambda error: type(error).__name__)
def test_whatever_a_reward_function_raises_leaves_its_episode_unscored(loop, error):
    async def reward(trajectory):
        await anyio.lowlevel.checkpoint()
        if trajectory.row == "row-1":
            raise error
        return 1.0

    trajectories = play(loop, Decides(), reward=reward, max_concurrent=2)
    assert [(one.valid, one.total_reward) for one in trajectories] == [(True, 1.0), (True, None), (True, 1.0)]
    assert type(error).__name__ in trajectories[1].error


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("error", STRAYS, ids=lambda error: type(error).__name__)
def test_whatever_a_watcher_raises_harms_nothing(loop, error):
    class Raises(Diary):
        def stepped(self, trajectory):
            raise error

    good = Diary()
    trajectories = play(loop, Decides(), watchers=[Raises(), good])
    assert [one.end_reason for one in trajectories] == [EndReason.TERMINATED] * 3
    assert [told[0] for told in good.told].count("ended") == 3


@pytest.mark.parametrize("loop", LOOPS)
def test_rows_that_break_off_by_a_cancellation_of_their_own_are_an_error_and_no_shorter_run(loop):
    async def broken():
        yield rows(0)[0]
        raise asyncio.CancelledError

    with pytest.raises(MuxsimError, match="CancelledError"):
        play(loop, Decides(), dataset=broken())


@pytest.mark.parametrize("loop", LOOPS)
def test_a_cancellation_from_outside_stays_one(loop):
    async def main():
        with anyio.CancelScope() as scope:
            policy = Decides(lambda conversation: scope.cancel() or calls("on"))
            await rollout(pool(), rows(0), policy=policy, watchers=[diary])
        assert scope.cancelled_caught

    diary = Diary()
    anyio.run(main, backend=loop)
    assert [told[0] for told in diary.told].count("ended") == 1


def test_a_keyboard_interrupt_reaches_whoever_takes_the_episodes():
    async def main():
        async for _ in episodes(pool(), rows(0), policy=RaisesOnce(KeyboardInterrupt()), rollouts_per_row=3):
            pass

    with pytest.raises((KeyboardInterrupt, BaseExceptionGroup)) as caught:
        anyio.run(main, backend="trio")
    assert "KeyboardInterrupt" in repr(caught.value)
