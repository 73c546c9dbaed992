"""OpenEnv's stock clients, and what plays through them, on a muxsim that they take for a server of their own."""

import json
import subprocess
import urllib.request
from pathlib import Path

import anyio
import pytest
import trio
from harness import ROOT, muxsim_serve
from own_environments import python_with
from serve.machine import eventually

import muxsim

pytestmark = [pytest.mark.children, pytest.mark.large, pytest.mark.network]

LIMIT = 600
CONFIG = ROOT / "examples" / "muxsim.toml"
SCRIPT = Path(__file__).parent / "stock_openenv.py"
WON = {"seed": 1, "tool": "lake_move", "moves": ["DOWN", "DOWN", "DOWN", "RIGHT", "RIGHT", "RIGHT"]}


@pytest.fixture(scope="module")
def python():
    return python_with("openenv", "openenv==0.10.0", alone=True)


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    with muxsim_serve(tmp_path_factory.mktemp("stock"), CONFIG) as running:
        yield running


@pytest.fixture
def url(served):
    """A muxsim whose sessions have ended when the test is over, whatever its clients did."""
    yield served.url
    trio.run(eventually, lambda: not sessions(served.url))


def sessions(url):
    with urllib.request.urlopen(f"{url}/sessions") as answer:
        return json.load(answer)["sessions"]


def play(python, scenario, url, env="frozen_lake", **arguments):
    command = [python, SCRIPT, scenario, f"{url}/envs/{env}/openenv", json.dumps(arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False)
    assert done.stdout, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def rewards_of(env, seed, tool, moves):
    """What muxsim itself says of these moves."""

    async def earn():
        async with muxsim.open_pool(CONFIG) as pool:
            session = await pool.open(env, seed)
            results = [await session.call(tool, {"action": move}) for move in moves]
            await session.close()
            return [(one.control.reward, one.control.terminated or one.control.truncated) for one in results]

    return anyio.run(earn)


def test_the_generic_client_plays_what_muxsim_plays_sync_and_async(python, url):
    expected = rewards_of("frozen_lake", **WON)
    for scenario in ("generic_sync", "generic_async"):
        found = play(python, scenario, url, **WON)
        first, *steps = found["told"]
        assert (first["reward"], first["done"], first["meta"]["seed"]) == (None, False, 1)
        assert [(one["reward"], one["done"]) for one in steps] == expected
        assert steps[-1]["meta"]["end_reason"] == "terminated"
        assert steps[-1]["meta"]["total_reward"] == 1
        assert found["state"]["step_count"] == len(expected)
        assert not any("reward" in json.dumps(one["observation"]) for one in found["told"])
        if scenario == "generic_sync":
            assert [tool["name"] for tool in found["tools"]] == ["lake_move"]
            assert found["state"]["episode_id"] == "mine"
            assert "VALIDATION_ERROR" in found["refusal"]
        else:
            assert found["beside"]["observation"] == first["observation"]


def test_the_tool_client_plays_on_one_session_from_both_sides(python, url):
    moves = {"seed": 3, "tool": "env_step", "moves": ["UP", "UP", "RIGHT"]}
    expected = rewards_of("cliff_walking", 3, "step", moves["moves"])
    found = play(python, "mcp_tools", url, "cliff_walking", **moves)
    assert [tool["name"] for tool in found["tools"]] == found["listed"] == ["env_step"]
    assert "\nx  C" in found["first"] or "x" in found["first"]
    assert found["rewards"] == [reward for reward, _ in expected[1:]]
    assert found["metadata"]["total_reward"] == sum(reward for reward, _ in expected)
    assert found["step_count"] == 3
    assert "env_step" in found["refusal"]


def test_openenvs_harness_makes_rollouts_of_it(python, url):
    found = play(python, "harness", url, **WON)
    assert found["rewards"] == [1, 1]
    assert [metrics["step_count"] for metrics in found["metrics"]] == [6, 6]
    assert found["tools"] == ["lake_move"]


def test_openenv_validates_it_as_a_server(python, url):
    validate = [python.parent / "openenv", "validate", "--url", f"{url}/envs/frozen_lake/openenv", "--json"]
    done = subprocess.run(validate, capture_output=True, text=True, timeout=LIMIT, check=False)
    report = json.loads(done.stdout)
    assert (report["passed"], report["mode"], report["summary"]["failed_criteria"]) == (True, "production", [])


def test_a_client_that_is_killed_in_an_episode_leaves_no_process(python, url):
    assert len(play(python, "killed", url, **WON)["sessions"]) == 1
    trio.run(eventually, lambda: not sessions(url))


def test_verifiers_scores_what_muxsim_scores_and_its_model_sees_no_reward(url):
    python = python_with("verifiers", "verifiers[openenv]==0.4.0", alone=True)
    script = Path(__file__).parent / "stock_verifiers.py"
    command = [python, script, f"{url}/envs/frozen_lake/openenv", json.dumps(WON)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False)
    assert done.stdout, done.stderr
    won, other = json.loads(done.stdout.splitlines()[-1])
    assert won["rewards"] == {"openenv_reward": 1}
    assert len(won["shown"]) == len(WON["moves"])
    assert other["reset"] == {"seed": 2}
    assert other["rewards"] == {"openenv_reward": other_reward()}
    for shown in (*won["shown"], *other["shown"]):
        assert "lake_move" in shown
        assert not [word for word in ("reward", "terminated", "muxsim/control") if word in shown]


def other_reward():
    earned = 0.0
    for reward, ended in rewards_of("frozen_lake", 2, WON["tool"], WON["moves"]):
        earned += reward or 0.0
        if ended:
            break
    return earned
