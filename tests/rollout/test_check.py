"""`muxsim check`: what it finds in environments that are fit, and in those that are not."""

from __future__ import annotations

import json

import pytest
from cli.terminal import muxsim

from .runs import EXAMPLES, config, dice

pytestmark = pytest.mark.children

NAMES = [
    "starts",
    "tools are stable",
    "control plane",
    "same seed, same episode",
    "different seeds differ",
    "interleaved sessions are independent",
    "exits on EOF",
    "stdout is clean",
    "memory",
]


def findings(finished):
    report = json.loads(finished.stdout)
    return {finding["name"]: (finding["ok"], finding["detail"]) for finding in report["findings"]}


def test_a_game_that_keeps_the_rules_is_fit(tmp_path):
    finished = muxsim(tmp_path, "check", "treasure_grid", "--config", str(EXAMPLES), "--json", "--steps", "5")
    found = findings(finished)
    assert (finished.status, json.loads(finished.stdout)["fit"]) == (0, True)
    assert list(found) == NAMES
    assert [name for name, (ok, _) in found.items() if ok is not True] == ["memory"]
    assert found["tools are stable"][1] == "look, move"


def test_a_hidden_random_number_is_found(tmp_path):
    finished = muxsim(tmp_path, "check", "hidden_dice", "--config", str(dice(tmp_path)), "--json", "--steps", "2")
    found = findings(finished)
    assert (finished.status, json.loads(finished.stdout)["fit"]) == (1, False)
    assert found["same seed, same episode"][0] is False
    assert found["same seed, same episode"][1].startswith("step 0 differs: ")
    assert found["control plane"][0] is True


def test_the_table_says_what_is_amiss(tmp_path):
    file = config(tmp_path, nothing=tmp_path / "nothing.py")
    (tmp_path / "nothing.py").write_text("raise SystemExit('no world today')\n")
    finished = muxsim(tmp_path, "check", "nothing", "--config", str(file), env={"COLUMNS": "200"})
    assert finished.status == 1
    assert finished.stdout.startswith("nothing is not fit for rollouts\n")
    assert "starts" in finished.stdout
    assert "no world today" in finished.stdout
    assert "Traceback" not in finished.stderr


def test_a_name_that_the_config_lacks_is_an_error_of_one_line(tmp_path):
    finished = muxsim(tmp_path, "check", "treasure", "--config", str(EXAMPLES))
    assert (finished.status, finished.stdout) == (2, "")
    assert finished.complaint.startswith('muxsim: no environment is called "treasure"')
