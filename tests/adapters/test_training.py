"""Stable-Baselines3 itself, Gymnasium's video recorder and the example of PPO, with environments of muxsim."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from harness import ROOT
from own_environments import for_training

pytestmark = [pytest.mark.children, pytest.mark.network, pytest.mark.large]

CHECKS = ("checker", "learners", "processes", "vector", "video")
LIMIT = 200
SERVER = (
    "import gymnasium\nfrom muxsim.mcpgym import GymServer\nGymServer('wrapped', lambda seed: {make}{options}).run()\n"
)
SERVERS = {
    "cartpole": SERVER.format(make="gymnasium.make('CartPole-v1')", options=""),
    "lake": SERVER.format(make="gymnasium.make('FrozenLake-v1', is_slippery=False, max_episode_steps=6)", options=""),
    "lander": SERVER.format(
        make="gymnasium.make('LunarLander-v3', render_mode='rgb_array')",
        options=", observation='text+image', frame_size=(160, 112)",
    ),
}


def run(python, *arguments):
    done = subprocess.run([python, *arguments], capture_output=True, text=True, timeout=LIMIT, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("training")
    tables = []
    for env, source in SERVERS.items():
        (folder / f"{env}.py").write_text(source)
        tables.append(f'[environments.{env}]\ncommand = "{sys.executable}"\nargs = ["{folder}/{env}.py"]\n')
    (folder / "muxsim.toml").write_text("\n".join(tables))
    checks = Path(__file__).with_name("training_checks.py")
    lines = run(for_training(), checks, folder / "muxsim.toml", folder / "videos").splitlines()
    return dict(json.loads(line) for line in lines if line.startswith('["'))


@pytest.mark.parametrize("name", CHECKS)
def test_stable_baselines_and_gymnasiums_recorder_take_an_environment_as_it_is(name, results):
    assert results[name] == "done"


def test_the_example_of_ppo_takes_its_updates_and_draws_its_curve(tmp_path):
    curve = tmp_path / "curve.svg"
    said = run(
        for_training(), ROOT / "examples/train_ppo/train.py", "--steps", "256", "--num-envs", "2", "--curve", curve
    )
    steps = int(said.splitlines()[-2].partition(" steps")[0].split()[-1])  # when the last episode ended
    assert 64 * 2 < steps <= 256
    assert "<polyline" in curve.read_text()
