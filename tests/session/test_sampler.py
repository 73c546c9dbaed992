"""What sessions use is sampled while somebody looks, and else nothing is done for it."""

from types import SimpleNamespace

import pytest
import trio

from muxsim.observe.events import Events, PartFailed
from muxsim.placement.placement import Usage
from muxsim.session.sampler import EnvironmentUsage, open_sampler


class Sessions:
    def __init__(self, *pids):
        self.pids = list(pids)

    def all(self):
        return [SimpleNamespace(pid=pid, spec=SimpleNamespace(name=name)) for name, pid in self.pids]


class Pool:
    """Tells what the test wants at each step, and then nothing."""

    def __init__(self, steps):
        self.steps = steps

    async def usages(self, pids):
        return self.steps.pop(0)(pids) if self.steps else {}


@pytest.fixture
def steps():
    """What each step is to tell; how many there were is its length less than before."""
    return []


async def test_nothing_is_sampled_until_somebody_looks_and_some_minutes_after(steps, autojump_clock):
    count = []
    steps += [lambda roots: count.append(roots) or {}] * 1000
    async with open_sampler(Sessions(("game", 7)), Pool(steps), Events()) as sampler:
        await trio.sleep(1000)
        assert count == []
        sampler.look()
        await trio.sleep(1000)
        assert 100 < len(count) < 200
        assert count[0] == [7]


async def test_memory_of_an_environment_is_that_of_its_sessions_and_cpu_also_that_of_those_that_are_over(
    steps, autojump_clock
):
    sessions = Sessions(("game", 7), ("game", 8), ("other", 9))
    steps += [
        lambda roots: {7: Usage(100, 2.0, 1), 9: Usage(None, 1.0, 1)},
        lambda roots: {7: Usage(110, 3.0, 2)},
    ]
    async with open_sampler(sessions, Pool(steps), Events()) as sampler:
        assert sampler.of(7) is None
        sampler.look()
        await trio.sleep(0.5)
        assert sampler.of(7) == Usage(100, 2.0, 1)
        assert sampler.by_environment() == {
            "game": EnvironmentUsage(200, 2.0, 1),
            "other": EnvironmentUsage(None, 1.0, 1),
        }
        await trio.sleep(1)
        sessions.pids = [("other", 9)]
        await trio.sleep(1)
        assert sampler.by_environment()["game"] == EnvironmentUsage(0, 3.0, 0)
        assert sampler.of(7) is None


async def test_a_sampler_that_fails_is_told_of_and_missed_by_nobody(steps, autojump_clock):
    told = []
    steps.append(lambda roots: 1 / 0)
    async with open_sampler(Sessions(("game", 7)), Pool(steps), Events(told.append)) as sampler:
        sampler.look()
        await trio.sleep(10)
        sampler.look()
        assert sampler.by_environment() == {"game": EnvironmentUsage(None, 0.0, 0)}
    assert [(type(one), one.part) for one in told] == [(PartFailed, "the sampler of memory and CPU")]
