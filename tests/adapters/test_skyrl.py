"""What SkyRL sees of an environment. A stand-in has SkyRL's interface; its own gym is a test of its own."""

import importlib
import json
import subprocess
import sys
from types import ModuleType

import anyio
import pytest
from harness import ROOT
from own_environments import python_with

from adapters.fakes import FakePool, said, text_block
from muxsim.rollouts.environments.environment import EnvironmentGone, ToolResult

PROMPT = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Cross it."}]
LEFT = '<tool_call>\n{"name": "move", "arguments": {"direction": "left"}}\n</tool_call>'


@pytest.fixture
def skyrl(monkeypatch):
    """The adapter over a stand-in for skyrl_gym, and what has been registered."""
    registered = {}
    package, envs, base = (
        ModuleType("skyrl_gym"),
        ModuleType("skyrl_gym.envs"),
        ModuleType("skyrl_gym.envs.base_text_env"),
    )
    package.register = lambda id, entry_point: registered.update({id: entry_point})
    base.BaseTextEnv = type("BaseTextEnv", (), {})
    base.BaseTextEnvStepOutput = dict
    base.ConversationType = list
    for module in (package, envs, base):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.delitem(sys.modules, "muxsim.adapters.skyrl_text_env", raising=False)
    module = importlib.import_module("muxsim.adapters.skyrl_text_env")
    module.registered = registered
    yield module
    del sys.modules["muxsim.adapters.skyrl_text_env"]


async def in_thread(function, *args):
    with anyio.fail_after(60):
        return await anyio.to_thread.run_sync(function, *args)


async def test_an_episode_has_the_rows_seed_its_tools_in_the_prompt_and_the_rewards_of_the_control_plane(skyrl):
    def play(pool):
        skyrl.register("lake", pool)
        env = skyrl.registered["lake"](env_config={}, extras={"max_turns": 9, "extra_info": {"seed": 7}})
        messages, metadata = env.init(PROMPT)
        assert metadata == {"seed": 7}
        system, user = messages
        assert system["content"].startswith("Be brief.\n\nWalk.\n\n# Tools")
        assert '"name":"move"' in system["content"]
        assert user["content"] == "Cross it.\n\nGo."
        assert PROMPT[1]["content"] == "Cross it."
        step = env.step(f"I go.\n{LEFT}\n{LEFT}")
        assert step["observations"] == [
            {
                "role": "user",
                "content": "<tool_response>\nOne.\n</tool_response>\n<tool_response>\nTwo.\n</tool_response>",
            }
        ]
        assert (step["reward"], step["done"]) == (1.5, False)
        assert env.step("<tool_call>{")["observations"][0]["content"].startswith("<tool_response>\nthis is no JSON")
        last = env.step(LEFT)
        assert (last["observations"], last["reward"], last["done"]) == ([], 2.0, True)
        assert env.get_metrics() == {"turns": 3, "total_reward": 3.5, "terminated": 1.0}
        env.close()
        env.close()
        assert pool.sessions[0].closed

    await in_thread(play, FakePool(said("One.", 0.5), said("Two.", 1.0), said("Three.", 2.0, terminated=True)))


async def test_a_reply_without_a_call_and_the_last_turn_end_the_episode(skyrl):
    def play(pool):
        skyrl.register("lake", pool)
        for reply, turns in (("I am there.", 9), (LEFT, 1)):
            env = skyrl.registered["lake"](extras={"max_turns": turns})
            env.init(PROMPT)
            step = env.step(reply)
            assert (step["done"], step["observations"]) == (True, [])
            env.close()

    await in_thread(play, FakePool(said("One.", 0.0)))


async def test_what_has_broken_and_what_nobody_scores_is_no_reward(skyrl):
    def play(pool):
        skyrl.register("lake", pool)
        env = skyrl.registered["lake"](extras={"max_turns": 9})
        env.init(PROMPT)
        with pytest.raises(skyrl.BrokenEpisode, match="torn"):
            env.step(LEFT)
        env.close()

    await in_thread(play, FakePool(EnvironmentGone("torn")))

    def refuse(pool):
        skyrl.register("lake", pool)
        env = skyrl.registered["lake"](extras={"max_turns": 9})
        with pytest.raises(ValueError, match="no control plane: give score="):
            env.init(PROMPT)
        assert pool.sessions[0].closed
        skyrl.register("lake", pool, score=lambda _: (1.0, False, False))
        env = skyrl.registered["lake"](extras={"max_turns": 9})
        env.init(PROMPT)
        assert env.step(LEFT)["reward"] == 1.0
        env.close()

    await in_thread(refuse, FakePool(ToolResult(text_block("on"), is_error=False, control=None), published=False))


async def test_a_row_whose_seed_is_none_and_a_config_without_a_source_are_said(skyrl):
    def play(pool):
        skyrl.register("lake", pool)
        env = skyrl.registered["lake"](extras={"seed": "seven"})
        with pytest.raises(ValueError, match="a seed is a whole number"):
            env.init(PROMPT)
        with pytest.raises(ValueError, match="source"):
            skyrl.MuxsimTextEnv(env_config={"env": "lake"})

    await in_thread(play, FakePool())


SCRIPT = """
import json, sys
import skyrl_gym
from muxsim.adapters.skyrl_text_env import register
register("frozen_lake", sys.argv[1])
env = skyrl_gym.make("frozen_lake", env_config={}, extras={"seed": 3, "max_turns": 4})
messages, _ = env.init([{"role": "user", "content": "Cross it."}])
steps = [env.step('<tool_call>{"name": "lake_move", "arguments": {"action": "DOWN"}}</tool_call>') for _ in range(4)]
print(json.dumps({"messages": messages, "steps": steps, "metrics": type(env).aggregate_metrics([env.get_metrics()])}))
env.close()
"""


@pytest.mark.large
@pytest.mark.network
@pytest.mark.children
def test_skyrls_own_gym_makes_and_plays_it(tmp_path):
    python = python_with("skyrl", "skyrl-gym==0.4.0", extras=("examples",))
    command = [python, "-c", SCRIPT, str(ROOT / "examples" / "muxsim.toml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert "lake_move" in told["messages"][0]["content"]
    assert "You are at row" in told["messages"][-1]["content"]
    assert [step["done"] for step in told["steps"]][-1]
    assert told["metrics"]["total_reward"] == sum(step["reward"] for step in told["steps"])
