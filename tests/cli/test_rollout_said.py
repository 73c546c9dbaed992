"""What the command says of a run that has ended, whatever has gone wrong in it."""

import pytest
from typer.testing import CliRunner

from muxsim.cli import rollout
from muxsim.cli.main import app
from muxsim.rollouts.data.metrics import Metrics

UNSCORED = "2 of 2 valid episodes could not be scored"
OTHER = "the stderr of session a could not be written: no space"


@pytest.mark.parametrize(
    ("problem", "complete", "lines"),
    [
        (f"{UNSCORED}: it returned nan", True, [f"{UNSCORED}: it returned nan"]),
        (OTHER, True, [UNSCORED, OTHER]),
        (OTHER, False, [UNSCORED, f"{OTHER}; --resume plays them"]),
        (f"{UNSCORED}: nan", False, [f"{UNSCORED}: nan", "some episodes are missing; --resume plays them"]),
    ],
)
def test_that_no_episode_is_scored_is_a_line_of_its_own_beside_any_other_problem(monkeypatch, problem, complete, lines):
    counts = {"episodes": 2, "valid": 2, "scored": 0, "unscored": 2}
    metrics = Metrics(**counts, complete=complete, problem=problem)
    monkeypatch.setattr(rollout, "run", lambda *_: metrics)
    done = CliRunner().invoke(app, ["rollout", "muxsim.toml"])
    assert done.stderr.splitlines() == [f"muxsim: {line}" for line in lines]
    assert done.exit_code == 1
