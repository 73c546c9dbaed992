"""LunarLander in a conda environment of its own, as examples/lunar_lander/isolated.toml has it."""

import json

import pytest
from cli.terminal import muxsim
from harness import ROOT

from muxsim.config import load

LIMIT = 600  # s; some forty packages are installed first

LANDER = ROOT / "examples" / "lunar_lander"
SESSIONS = 16


@pytest.fixture
def folder(tmp_path, conda_channel):
    """A config as the example's, but for where conda packages come from."""
    text = (LANDER / "isolated.toml").read_text()
    for file in ("server.py", "environment.yml"):
        text = text.replace(f'"{file}"', json.dumps(str(LANDER / file)))
    (tmp_path / "muxsim.toml").write_text(
        f'{text}channels = ["{conda_channel.url}"]\n[server]\nmax_sessions = {SESSIONS}\n'
    )
    return tmp_path


def test_the_example_is_what_muxsim_takes():
    (spec,) = load(LANDER / "isolated.toml").environments.values()
    assert spec.command == "python"
    assert spec.dependencies.conda_file == str(LANDER / "environment.yml")


@pytest.mark.children
@pytest.mark.network
def test_sixteen_landers_of_an_environment_yml_fly_at_once_and_again_without_divergence(folder):
    options = ("--rollouts", str(SESSIONS), "--max-concurrent", str(SESSIONS), "--max-steps", "4", "--output", "run")
    flown = muxsim(folder, "rollout", "muxsim.toml", "--policy", "random", *options, limit=LIMIT)
    assert flown.status == 0, flown.stderr
    assert f"run: {SESSIONS} episodes, {SESSIONS} valid" in flown.stdout
    again = muxsim(folder, "replay", "run", limit=LIMIT)
    assert again.status == 0, again.stderr
    assert f"{SESSIONS} of {SESSIONS} episodes are the same" in again.stdout
