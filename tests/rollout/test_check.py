"""`muxsim check`: what it finds in environments that are fit, and in those that are not."""

from __future__ import annotations

import json
import re
import shutil

import pytest
from cli.terminal import muxsim
from harness import SERVERS

from muxsim.cli.check import show
from muxsim.rollouts.play.check import Finding
from muxsim.rollouts.play.differences import first_difference

from .runs import EXAMPLES, config, dice

pytestmark = pytest.mark.children

NAMES = [
    "starts",
    "plays",
    "no tool call failed",
    "tools are stable",
    "control plane",
    "same seed, same episode",
    "different seeds differ",
    "interleaved sessions are independent",
    "writes nothing outside",
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


def test_one_that_ends_by_itself_exits_on_eof_however_soon_a_server_would_end_it(tmp_path):
    server = tmp_path / "slow.py"
    hold = "import atexit, threading\natexit.register(threading.Event().wait, 0.2)\n"
    server.write_text(hold + (SERVERS / "scored.py").read_text())
    file = config(tmp_path, slow=server)
    file.write_text(file.read_text() + "eof_timeout = 0.001\n")
    finished = muxsim(tmp_path, "check", "slow", "--config", str(file), "--json", "--steps", "1")
    assert findings(finished)["exits on EOF"][0] is True


def test_a_hidden_random_number_is_found(tmp_path):
    finished = muxsim(tmp_path, "check", "hidden_dice", "--config", str(dice(tmp_path)), "--json", "--steps", "2")
    found = findings(finished)
    assert (finished.status, json.loads(finished.stdout)["fit"]) == (1, False)
    assert found["same seed, same episode"][0] is False
    assert found["same seed, same episode"][1].startswith("step 0 of seed 0 differs at content[0].text: ")
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


def test_without_a_config_or_with_another_the_advice_is_the_option_that_names_one(tmp_path):
    finished = muxsim(tmp_path, "check", "lake")
    assert (finished.status, "name a config with --config" in finished.complaint) == (2, True)
    file = dice(tmp_path)
    finished = muxsim(tmp_path, "check", "lake")
    assert (finished.status, "another config is named with --config" in finished.complaint) == (2, True)
    finished = muxsim(tmp_path, "check", file.name)
    assert (finished.status, f"muxsim check ENV --config {file.name}" in finished.complaint) == (2, True)


DIES = """
import gymnasium
from gymnasium import spaces
from muxsim.mcpgym import GymServer

class Dies(gymnasium.Env):
    action_space, observation_space = spaces.Discrete(2), spaces.Discrete(9)
    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return 0, {}
    def step(self, action):
        self.steps += 1
        if self.steps == 4:
            raise ConnectionError("the simulator is gone")
        return self.steps, 0.0, False, False, {}

GymServer("dies", lambda seed: Dies()).run()
"""

FAILS = """
import json, sys
calls = 0
for line in sys.stdin:
    message = json.loads(line)
    if "id" not in message:
        continue
    result, error = {}, None
    if message["method"] == "initialize":
        result = {"protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": {"name": "x", "version": "1"}}
    elif message["method"] == "tools/list":
        result = {"tools": [{"name": "go", "inputSchema": {"type": "object"}}]}
    elif message["method"] == "tools/call":
        calls += 1
        result = {"content": [{"type": "text", "text": f"call {calls}"}], "isError": calls > 1}
    else:
        error = {"code": -32601, "message": "no such method"}
    answer = {"error": error} if error else {"result": result}
    print(json.dumps({"jsonrpc": "2.0", "id": message["id"], **answer}), flush=True)
"""


def test_an_environment_that_starts_and_does_not_play_dies_where_it_does(tmp_path):
    (tmp_path / "dies.py").write_text(DIES)
    finished = muxsim(tmp_path, "check", "dies", "--config", str(config(tmp_path, dies=tmp_path / "dies.py")), "--json")
    found = findings(finished)
    assert (finished.status, found["starts"][0], found["plays"][0]) == (1, True, False)
    assert found["plays"][1].startswith("died at step 3 of seed 0, in step: the environment failed in step 4")
    assert found["plays"][1].endswith("ConnectionError: the simulator is gone")
    assert "interleaved sessions are independent" not in found


def test_calls_that_failed_are_counted_and_the_first_is_shown(tmp_path):
    (tmp_path / "fails.py").write_text(FAILS)
    file = config(tmp_path, fails=tmp_path / "fails.py")
    finished = muxsim(tmp_path, "check", "fails", "--config", str(file), "--json", "--steps", "2")
    found = findings(finished)
    assert (finished.status, found["plays"][0], found["no tool call failed"][0]) == (1, True, False)
    assert found["no tool call failed"][1] == "5 of 10, the first at step 1 of seed 0: go {} says 'call 2'"
    assert found["different seeds differ"] == (
        None,
        "seeds 0, 1, 2, 3 start alike and go alike with the same actions; fine if that is meant",
    )


def test_one_that_counts_otherwise_than_its_results_say_is_not_fit(tmp_path):
    file = tmp_path / "muxsim.toml"
    file.write_text(f'[environments.game]\ncommand = "{SERVERS / "broken_environment.py"}"\nargs = ["own-lies"]\n')
    found = findings(muxsim(tmp_path, "check", "game", "--config", str(file), "--json", "--steps", "3"))
    words = "the rewards of its results come to 11, and control://status says 1.5"
    assert found["control plane"] == (False, words)


@pytest.mark.parametrize(
    ("one", "other", "said"),
    [
        ({"a": [1, 2]}, {"a": [1, 2]}, None),
        ({"a": [1, 2]}, {"a": [1, 3]}, "at a[1]: 2 and 3"),
        ({"a": 1}, {}, "at a: 1 and nothing"),
        ([1], [1, None], "at [1]: nothing and null"),
        (1, 1.5, "1 and 1.5"),
        (True, 1, "true and 1"),
        ("x" * 50 + "1" + "y" * 50, "x" * 50 + "2" + "y" * 50, f"…{'x' * 30}1{'y' * 29}… and …{'x' * 30}2{'y' * 29}…"),
    ],
)
def test_a_difference_is_shown_with_its_surroundings(one, other, said):
    assert first_difference(one, other) == said


def test_an_environment_whose_tools_cannot_be_tried_is_not_called_fit(tmp_path):
    server = """
import json, sys
SCHEMA = {"type": "object", "properties": {"day": {"type": "string", "format": "date"}}, "required": ["day"]}
for line in sys.stdin:
    message = json.loads(line)
    result = {"tools": [{"name": "book", "inputSchema": SCHEMA}]}
    if message["method"] == "initialize":
        version = message["params"]["protocolVersion"]
        info = {"name": "inn", "version": "1"}
        result = {"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": info}
    if "id" in message:
        known = message["method"] in ("initialize", "tools/list")
        said = {"result": result} if known else {"error": {"code": -32601, "message": "no such method"}}
        print(json.dumps({"jsonrpc": "2.0", "id": message["id"], **said}), flush=True)
"""
    (tmp_path / "inn.py").write_text(server)
    file = config(tmp_path, inn=tmp_path / "inn.py")
    finished = muxsim(tmp_path, "check", "inn", "--config", file.name, "--json")
    found = findings(finished)
    assert (finished.status, found["starts"][0], found["plays"][0]) == (1, True, False)
    assert "the tool book: day: a text with the format 'date' needs examples" in found["plays"][1]


def scribbler(folder, *args):
    """A config of the scribbler, in a folder of a project."""
    project = folder / "project"
    project.mkdir()
    shutil.copy(SERVERS / "scribbler.py", project)
    file = folder / "muxsim.toml"
    file.write_text(f'[environments.scribbler]\ncommand = "project/scribbler.py"\nargs = {json.dumps(args)}\n')
    return file


def test_a_file_that_sessions_write_beside_their_code_is_named_with_the_setting_that_keeps_it_apart(tmp_path):
    finished = muxsim(
        *(
            tmp_path,
            "check",
            "scribbler",
            "--config",
            str(scribbler(tmp_path, "calm", "always")),
            "--json",
            "--steps",
            "1",
        ),
        env={"HOME": str(tmp_path)},
    )
    memory = tmp_path / "project" / "memory.json"
    ok, detail = findings(finished)["writes nothing outside"]
    assert ok is False
    assert detail == (
        f'wrote {memory} (4 sessions wrote it): private = ["{memory.parent}"] gives each session its own view'
    )
    (finding,) = [one for one in json.loads(finished.stdout)["findings"] if one["name"] == "writes nothing outside"]
    assert finding["files"] == [str(memory)]
    assert finished.status == 1


def test_one_that_writes_only_into_its_workspace_writes_nothing_outside(tmp_path):
    command = ("check", "scribbler", "--config", str(scribbler(tmp_path, "calm")), "--json", "--steps", "2")
    found = findings(muxsim(tmp_path, *command, env={"HOME": str(tmp_path)}))
    assert found["writes nothing outside"] == (True, "of its workspace, that could be seen")


def test_what_was_found_is_printed_whole_and_as_it_is(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    path = "/cache/" + "x" * 100 + "/[bold]a[/b].json"
    show("one", [Finding("writes nothing outside", False, f"wrote {path}")], False)
    assert path in re.sub(r"\s", "", capsys.readouterr().out)
