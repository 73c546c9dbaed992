"""The client of eval-protocol, as it is published, on a muxsim as it is."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from own_environments import python_with

import muxsim

ACTIONS = ("DOWN", "NOWHERE", "DOWN", "RIGHT", "RIGHT", "DOWN", "RIGHT")
PLAYER = Path(__file__).with_name("eval_protocol_player.py")
LIMIT = 120


def played_by_the_client(url):
    """What came of its episodes, by seed."""
    python = python_with("eval-protocol", "eval-protocol==0.3.33", alone=True)
    # It would fetch a list of prices otherwise.
    environ = {**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    command = [str(python), str(PLAYER), f"{url}/envs/frozen_lake/mcp", "lake_move", *ACTIONS]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=LIMIT, env=environ)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Session termination failed" not in done.stderr
    lines = [line.removeprefix("EPISODE ") for line in done.stdout.splitlines() if line.startswith("EPISODE ")]
    return {episode["seed"]: episode for episode in map(json.loads, lines)}


async def played_by_muxsim(url, seed):
    """The first observation, the rewards and whether it terminated, of the same episode."""
    async with muxsim.connect(url) as pool:
        env = await pool.open("frozen_lake", seed)
        rewards = []
        for action in ACTIONS:
            result = await env.call("lake_move", {"action": action})
            rewards.append(0.0 if result.is_error else result.control.reward)
            if not result.is_error and result.control.terminated:
                break
        await env.close()
    return env.opened.initial_state["observation"], rewards, result.control.terminated


@pytest.mark.large
@pytest.mark.network
async def test_the_stock_client_gets_the_seeds_rewards_and_ends_of_muxsims_own_episodes(examples):
    episodes = played_by_the_client(examples.url)
    assert list(episodes) == [0, 1, 2, 3]
    for seed, episode in episodes.items():
        observation, rewards, terminated = await played_by_muxsim(examples.url, seed)
        told = episode["prompt"], episode["rewards"], episode["terminated"]
        assert told == (observation, rewards, terminated), seed
    assert 1.0 in {sum(episode["rewards"]) for episode in episodes.values()}
    examples.wait_empty()
