"""Numbers on the command line."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from muxsim.cli.main import app

# Commands with an option that is a number, and what else they have to be given.
OPTIONS = {
    "serve": ["--port"],
    "stdio": ["--seed"],
    "rollout": [
        *("--call-timeout", "--episode-timeout", "--start-timeout", "--model-timeout", "--temperature", "--top-p"),
        *("--success-reward", "--max-steps", "--max-concurrent", "--rollouts", "--rollouts-per-row", "--seed"),
    ],
    "check lake": ["--steps"],
    "envs clean": ["--older-than"],
}


@pytest.mark.parametrize(
    ("command", "option"), [(command, option) for command, options in OPTIONS.items() for option in options]
)
def test_no_option_takes_a_number_that_is_none_or_has_no_end(command, option):
    for absurd in ("nan", "inf", "-inf", "1e400", "", "9" * 5000):
        ended = CliRunner().invoke(app, [*command.split(), option, absurd])
        assert ended.exit_code == 2, absurd[:10]
        assert "Invalid value" in ended.stderr
