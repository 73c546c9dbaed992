"""A script of reward-kit's users, its import changed, on real environments: here, and behind a muxsim that serves."""

import asyncio
import json
import sys
import urllib.request

import pytest
from harness import ROOT, muxsim_serve

from .scripts import frozen_lake

pytestmark = [pytest.mark.children, pytest.mark.filterwarnings("ignore:.*reward-kit:DeprecationWarning")]

OLD_LAKE = ROOT / "tests" / "mcpgym" / "servers" / "old_lake" / "server.py"


def check(told):
    recorded, played_back = told["recorded"], told["played_back"]
    assert [one["seed"] for one in recorded] == [42, 123]
    assert all(one["terminated"] and one["observations"] == one["steps"] + 1 for one in recorded)
    assert played_back == recorded
    assert all(one["reward"] == sum(one["rewards"]) for one in recorded)
    assert {line["metadata"]["seed"] for line in told["log"]} == {42, 123}
    assert "FrozenLake" in told["log"][0]["messages"][0]["content"]
    return recorded


def test_a_script_plays_an_environment_of_a_config():
    check(asyncio.run(frozen_lake.main(f"{ROOT / 'examples' / 'muxsim.toml'}#frozen_lake")))


def test_a_script_plays_a_server_of_reward_kits_behind_muxsim(tmp_path):
    """Both sides of what their users have, and nothing is left of it."""
    arguments = json.dumps(["-m", "muxsim.mcpgym.reward_kit", str(OLD_LAKE), "--seed", "{seed}"])
    config = f"[environments.lake]\ncommand = {json.dumps(sys.executable)}\nargs = {arguments}\n"
    with muxsim_serve(tmp_path, config) as server:
        told = asyncio.run(frozen_lake.main(f"{server.url}/envs/lake/mcp"))
        check(told)
        first = told["log"][0]["messages"][1]["content"]
        assert "'position': 0" in first
        with urllib.request.urlopen(f"{server.url}/sessions", timeout=60) as answer:
            assert json.load(answer)["sessions"] == []
