"""The published TRL with this adapter, in an environment of its own: real steps of GRPO on the CPU."""

import json
import math
import os
import subprocess
from pathlib import Path

import pytest
from harness import ROOT
from own_environments import for_training

pytestmark = [pytest.mark.large, pytest.mark.network, pytest.mark.children]

EXAMPLE = ROOT / "examples" / "train_grpo"
# Two cores are enough for so small a model, and threads that wait for each other are slower.
QUIET = {"TRL_EXPERIMENTAL_SILENCE": "1", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


@pytest.fixture(scope="module")
def run():
    python = for_training()

    def run(*arguments):
        env = {**os.environ, **QUIET, "PYTHONPATH": str(EXAMPLE)}
        done = subprocess.run(
            [python, *map(str, arguments)], capture_output=True, text=True, check=False, cwd=ROOT, env=env
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_two_environments_are_trained_in_one_run_and_a_broken_episode_is_left_out(run, tmp_path):
    told = json.loads(
        run(Path(__file__).parent / "own" / "trl_plays.py", EXAMPLE.parent / "muxsim.toml", tmp_path).splitlines()[-1]
    )
    lake, cards = (schema["function"] for schema in told["schemas"])
    assert lake["name"] == "lake_move"
    assert lake["parameters"]["properties"]["action"]["enum"] == ["LEFT", "DOWN", "RIGHT", "UP"]
    assert cards["parameters"]["properties"]["action"]["enum"] == ["STICK", "HIT"]
    began, moved, reward = told["elsewhere"]
    assert began.startswith("\n\nYou are on a frozen lake.")
    assert "You are at row 1, column 0" in moved
    assert reward == 0
    steps = [entry for entry in told["steps"]["logged"] if "reward" in entry]
    assert len(steps) == 2
    assert told["steps"]["changed"]
    broken, *rewards = told["steps"]["rewards"]
    assert broken is None
    assert set(rewards) <= {-1.0, 0.0, 1.0}
    # Of the four episodes of the first step the broken one counts for nothing, and not for 0.
    assert math.isclose(float(steps[0]["rewards/blackjack/mean"]), sum(rewards[:3]) / 3, abs_tol=1e-6)


def test_the_example_trains_a_tiny_model(run, tmp_path):
    output = run(EXAMPLE / "train.py", "--steps", 2, "--generations", 8, "--output", tmp_path)
    logged = [line for line in output.splitlines() if "'reward'" in line]
    assert len(logged) == 2
    assert any(float(line.partition("'grad_norm': '")[2].partition("'")[0]) > 0 for line in logged)
    assert (tmp_path / "model.safetensors").exists()
