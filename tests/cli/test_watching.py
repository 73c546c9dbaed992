"""What the commands that show runs refuse before anything is shown."""

import pytest
from typer.testing import CliRunner

from muxsim.cli.main import app


def refused(*words):
    """What a command says when it does not do it."""
    done = CliRunner().invoke(app, words)
    assert done.exit_code != 0
    return done.output


@pytest.mark.parametrize("more", [("--serve",), ("other",)])
def test_a_place_is_named_for_the_page_of_one_run_only(more):
    assert "--output is for the page of one run" in refused("view", "run", *more, "--output", "page.html")


def test_a_port_is_for_a_page_that_is_served():
    assert "--port goes with --serve" in refused("view", "run", "--port", "8123")


@pytest.mark.parametrize("option", [("--stay",), ("--watch-port", "8123")])
def test_what_a_watched_run_is_told_goes_with_watching_it(option):
    assert "go with --watch" in refused("rollout", "--url", "http://127.0.0.1:1", *option)


def test_a_folder_without_a_run_is_not_served(tmp_path):
    assert "holds no run" in refused("view", str(tmp_path), "--serve")
