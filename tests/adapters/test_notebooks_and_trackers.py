"""The real trackers, read back, and a real notebook's kernel: each in one environment that has all of them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from harness import ROOT
from own_environments import python_with

pytestmark = [pytest.mark.children, pytest.mark.network, pytest.mark.large]

LIMIT = 200
TRACKERS = ("wandb", "trackio", "mlflow", "tensorboard")
PACKAGES = (
    "wandb==0.31.0",
    "trackio==0.43.0",
    "mlflow-skinny==3.17.2",
    "tensorboard==2.21.0",
    "ipykernel==7.4.0",
    "nbclient==0.11.0",
)


@pytest.fixture(scope="module")
def python():
    return python_with("notebooks", *PACKAGES, extras=("gymnasium", "examples"))


@pytest.fixture
def variables(tmp_path):
    """Each tracker writes below this test's folder, and asks nobody."""
    return {
        **os.environ,
        "TRACKED": str(tmp_path),
        "WANDB_MODE": "offline",
        "WANDB_SILENT": "true",
        "WANDB_DIR": str(tmp_path),
        "WANDB_PROJECT": "lakes",
        "TRACKIO_DIR": str(tmp_path / "trackio"),
        "TRACKIO_PROJECT": "lakes",
        "MLFLOW_ALLOW_FILE_STORE": "true",
        "MLFLOW_TRACKING_URI": f"file:{tmp_path / 'mlflow'}",
        "MLFLOW_EXPERIMENT_NAME": "lakes",
        "HF_HUB_OFFLINE": "1",
    }


@pytest.fixture
def config(tmp_path, python):
    """Environments for which these packages need not be there."""
    lake, lander = (f"{ROOT}/examples/{name}/server.py" for name in ("frozen_lake", "lunar_lander"))
    path = tmp_path / "muxsim.toml"
    tables = {"frozen_lake": lake, "lunar_lander": lander}
    path.write_text(
        "".join(
            f'[environments.{env}]\ncommand = "{python}"\nargs = ["{server}", "--seed", "{{seed}}"]\n'
            for env, server in tables.items()
        )
    )
    return path


def ran(variables, *command):
    done = subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
        env=variables,
        cwd=variables["TRACKED"],
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "a tracker has lost" not in done.stderr, done.stderr
    return done.stdout


def read_back(text):
    told = json.loads(text.splitlines()[-1])
    assert set(told) == set(TRACKERS)
    return told


def steps(series):
    return [step for step, _ in series]


def test_a_rollout_on_the_command_line_is_in_each_tracker_with_its_config(python, variables, config):
    options = ("--env", "frozen_lake", "--rollouts", "3", "--max-steps", "3", "--output", "run")
    trackers = [part for name in TRACKERS for part in ("--track", name)]
    printed = ran(variables, python, "-m", "muxsim", "rollout", config, *options, *trackers)
    assert printed == "run: 3 episodes, 3 valid; look at them with: muxsim view run\n"
    tracked = Path(__file__).with_name("tracked.py")
    for name, (told, configured) in read_back(ran(variables, python, tracked, "read")).items():
        assert steps(told["rollout/steps"]) == [1, 2, 3], name
        assert told["rollout/run/episodes"] == [[3, 3.0]], name
        assert all(isinstance(value, int | float) for series in told.values() for _, value in series), name
        if name != "tensorboard":
            assert any("max_steps" in key or key == "options" for key in configured), (name, configured)


def test_from_python_entries_go_to_the_runs_that_the_program_has_opened(python, variables, config):
    tracked = Path(__file__).with_name("tracked.py")
    for name, (told, configured) in read_back(ran(variables, python, tracked, "track", config)).items():
        assert steps(told["rollout/valid"]) == [1, 2, 3], name
        assert name == "tensorboard" or "mine" in configured, (name, configured)


CELLS = """
import muxsim
from muxsim.rollouts import RandomPolicy
rows = [{"env": "lunar_lander", "seed": seed} for seed in range(2)]
async with muxsim.open_pool("muxsim.toml") as pool:
    played = await muxsim.rollout(pool, rows, policy=RandomPolicy(), max_steps=3)
assert all(one.valid for one in played), played
played[0]
----
async with muxsim.open_pool("muxsim.toml") as pool:
    async for one in muxsim.episodes(pool, rows, policy=RandomPolicy(), max_steps=2):
        print(one)
----
from muxsim.adapters.gymnasium_env import make, make_vec
env = make("muxsim.toml", "frozen_lake")
print(env.reset(seed=3)[0], env.step(env.action_space.sample())[1:4])
env.close()
envs = make_vec("muxsim.toml", "frozen_lake", num_envs=2)
print(envs.reset(seed=1)[0])
envs.close()
----
muxsim.compare(played, played).differences[0].figures["reward"].same
"""

PLAY = """
import json, sys
import nbformat
from nbclient import NotebookClient

cells = [nbformat.v4.new_code_cell(one.strip()) for one in open("cells").read().split("----")]
notebook = nbformat.v4.new_notebook(cells=cells)
NotebookClient(notebook, timeout=150, kernel_name="python3").execute()
print(json.dumps([cell.outputs for cell in notebook.cells]))
"""


def test_everything_works_in_the_running_loop_of_a_notebook_which_shows_frames(python, variables, config, tmp_path):
    (tmp_path / "cells").write_text(CELLS)
    variables |= {"IPYTHONDIR": str(tmp_path / "ipython"), "JUPYTER_CONFIG_DIR": str(tmp_path / "jupyter")}
    variables["PATH"] = f"{python.parent}:{variables['PATH']}"
    played, streamed, gym, compared = json.loads(ran(variables, python, "-c", PLAY).splitlines()[-1])
    [shown] = [output["data"] for output in played if output["output_type"] == "execute_result"]
    assert shown["text/html"].count("<img ") == 4
    assert "lunar_lander, seed 0: 3 steps, max steps" in shown["text/html"]
    assert shown["text/plain"].startswith("<Trajectory 'row-")
    said = "".join(output["text"] for output in streamed)
    assert said.count("<Trajectory") == 2
    assert len(gym) >= 1, sys.version
    assert compared[0]["data"]["text/plain"] == "2"
