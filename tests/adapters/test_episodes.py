"""Sessions of one environment that is reset by several at once, which nobody has begun but a test."""

import anyio
import pytest

from muxsim.adapters.actions import AnyText
from muxsim.adapters.episodes import EpisodeError, Looks, Play, Wishes, Words


class Session:
    """It begins when its gate is opened."""

    def __init__(self, seed):
        self.seed, self.asked, self.gate, self.closed = seed, anyio.Event(), anyio.Event(), 0

    async def close(self):
        await anyio.lowlevel.checkpoint()
        self.closed += 1


class Gated(Play):
    """Its sessions are told beforehand."""

    def __init__(self, sessions, aside):
        super().__init__("gated", Wishes(), aside)
        self.sessions = sessions

    async def _open(self, pool, seed):
        session = self.sessions[seed]
        session.asked.set()
        await session.gate.wait()
        return session

    async def _first(self, session):
        await anyio.lowlevel.checkpoint()
        return [{"type": "text", "text": f"{session.seed}"}], {}


async def test_of_resets_at_once_one_session_is_left_and_it_ends_with_the_environment():
    sessions = [Session(seed) for seed in range(4)]
    seen = []
    looks = Looks(None, Words(AnyText()), renders=False)

    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:

            async def aside(function, *args):
                tasks.start_soon(function, *args)

            async def reset(seed):
                seen.append((await play.reset(None, seed, looks)).observation)

            play = Gated(sessions, aside)
            for seed in range(3):
                tasks.start_soon(reset, seed)
            for session in sessions:
                session.gate.set()
        assert sorted(seen) == ["0", "1", "2"]
        assert sorted(session.closed for session in sessions[:3]) == [0, 1, 1]
        assert sessions[int(seen[-1])].closed == 0
        await play.close(None)
        assert [session.closed for session in sessions] == [1, 1, 1, 0]


async def test_a_reset_that_waits_for_another_begins_nothing_once_it_is_closed():
    sessions = [Session(0), Session(1)]
    failed = []

    async def reset(seed):
        with pytest.raises(EpisodeError, match="has been closed"):
            await play.reset(None, seed, None)
        failed.append(seed)

    play = Gated(sessions, None)
    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(reset, 0)
            await sessions[0].asked.wait()
            tasks.start_soon(reset, 1)
            await anyio.wait_all_tasks_blocked()
            await play.close(None)
            sessions[0].gate.set()
    assert failed == [0, 1]
    assert [session.closed for session in sessions] == [1, 0]
    assert not sessions[1].asked.is_set()
