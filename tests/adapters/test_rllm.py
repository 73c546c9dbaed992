"""What rLLM sees of an environment: an AgentFlow and an Evaluator. A stand-in has rLLM's types."""

from types import SimpleNamespace

import anyio
import pytest

from adapters.fakes import FakePool, said, stand_in
from muxsim.rollouts.environments.environment import EnvironmentGone
from muxsim.rollouts.policy.messages import assistant_calls
from muxsim.rollouts.policy.protocol import Reply

CONFIG = SimpleNamespace(base_url="http://127.0.0.1:1/v1", model="any", session_uid="s", metadata={})


class Lefty:
    """Goes left for ever, and keeps what it was told."""

    def __init__(self, config):
        assert config is CONFIG
        self.closed = False

    async def next_message(self, messages, tools, seed):
        Lefty.told = messages
        return Reply(assistant_calls([("move", {"direction": "left"})], turn=len(messages)))

    async def aclose(self):
        self.closed = True


@pytest.fixture
def rllm(monkeypatch):
    types = dict.fromkeys(("AgentConfig", "Episode", "Task", "Trajectory"), SimpleNamespace)
    scores = {"EvalOutput": SimpleNamespace, "Signal": SimpleNamespace}
    return stand_in(monkeypatch, "muxsim.adapters.rllm_flow", rllm__types=types, rllm__eval__types=scores)


def task(instruction="Cross it.", **metadata):
    return SimpleNamespace(id=3, instruction=instruction, metadata=metadata)


async def test_a_flow_plays_an_episode_of_the_tasks_seed_and_the_evaluator_reads_what_it_earned(rllm):
    pool = FakePool(said("One.", 0.5), said("The goal.", 1.0, terminated=True))
    flow = rllm.Flow(pool, "lake", policy=Lefty)
    with anyio.fail_after(60):
        episode = await flow.arun(task(seed=7), CONFIG)
    assert [(session.seed, session.closed) for session in pool.sessions] == [(7, 1)]
    assert Lefty.told[1]["content"] == "Cross it.\n\nGo."
    [trajectory] = episode.trajectories
    assert (trajectory.name, trajectory.reward) == ("muxsim", 1.5)
    scored = rllm.Earned(success=2.0).evaluate(task(), episode)
    assert (scored.reward, scored.is_correct, scored.signals[0].value) == (1.5, False, 2.0)
    with pytest.raises(rllm.NotPlayed, match="not played by"):
        rllm.Earned().evaluate(task(), SimpleNamespace(artifacts={}))


async def test_what_has_broken_is_raised_so_that_rllm_tries_again(rllm):
    for pool in (FakePool(EnvironmentGone("torn")), FakePool(said("One."), published=False)):
        with anyio.fail_after(60), pytest.raises(rllm.NotPlayed):
            await rllm.Flow(pool, "lake", policy=Lefty, max_steps=1).arun(task(seed=1, instruction=""), CONFIG)
