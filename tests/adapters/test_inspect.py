"""inspect-ai itself plays muxsim's environments with a scripted model: on both loops, and by its command."""

import json
import os
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
import trio
from harness import ROOT, muxsim_serve
from own_environments import python_with
from serve.machine import gone

pytestmark = [pytest.mark.children, pytest.mark.network, pytest.mark.large]

EVALS = Path(__file__).with_name("inspect_evals.py")
HOWS = ("whole", "refuse", "is-error", "crash", "nan", "no-start", "foreign")
LIMIT = 200
LOOPS = pytest.mark.parametrize("loop", ["asyncio", "trio"])


@pytest.fixture(scope="module")
def python():
    return python_with("inspect", "inspect-ai==0.3.285", extras=("inspect",))


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """A frozen lake, and the games that break in one way each."""
    path = tmp_path_factory.mktemp("inspect") / "muxsim.toml"
    servers = {"lake": [f"{ROOT}/examples/frozen_lake/server.py"]}
    servers |= {how: [f"{ROOT}/tests/servers/broken_environment.py", how] for how in HOWS}
    tables = [f'[environments.{env}]\ncommand = "{sys.executable}"\nargs = {args!r}\n' for env, args in servers.items()]
    path.write_text("\n".join(tables))
    return path


@pytest.fixture(scope="module")
def logs(python, config):
    """What each of the evals has logged, by its name."""
    return played(python, config, "asyncio")


def played(python, config, loop, *names, folder=None):
    folder = folder or config.parent
    done = subprocess.run(
        [python, EVALS, config, folder / loop, *names],
        env={**os.environ, "INSPECT_ASYNC_BACKEND": loop},
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr
    told = [line for line in done.stdout.splitlines() if line.startswith('["')]  # beside what Inspect shows
    return {name: (status, samples) for name, status, samples in map(json.loads, told)}


def only(logs, name):
    _, (sample,) = logs[name]
    return sample


def scored(sample):
    return sample["score"]["value"], sample["score"]["metadata"]["end_reason"], sample["score"]["metadata"]["steps"]


def test_each_sample_plays_its_own_seed_to_the_end_of_its_episode(logs):
    status, (goal, hole) = logs["lake"]
    assert status == "success"
    assert scored(goal) == ("1.0", "terminated", 6)
    assert scored(hole) == ("0.0", "terminated", 1)
    assert [sample["score"]["metadata"]["seed"] for sample in (goal, hole)] == [1, 0]
    assert goal["messages"][-1][0] == "tool"  # the model is asked no more


def test_a_row_is_shown_as_in_a_rollout(logs):
    _, (goal, hole) = logs["lake"]
    (system, instructions, _), (user, asked, _) = goal["messages"][:2]
    assert (system, user) == ("system", "user")
    assert instructions.startswith("You are on a frozen lake.")
    assert asked.startswith("Lake 4 of {size}:\n[S]")
    assert asked.endswith("on the start.")
    assert hole["messages"][1][1].endswith("on the start.\nWhere to?")
    assert hole["metadata"]["info"] == {"k": 1}


def test_the_loop_ends_with_the_episode_and_calls_behind_the_end_are_not_made(logs):
    assert scored(only(logs, "whole")) == ("2.0", "terminated", 4)
    more = only(logs, "more calls than there is to play")
    assert scored(more) == ("2.0", "terminated", 4)
    over = "not called: the episode had ended"
    assert [error for role, _, error in more["messages"] if role == "tool"] == [None] * 4 + [over] * 2
    assert scored(only(logs, "by hand")) == ("2.0", "terminated", 4)


def test_what_ends_before_the_episode_is_scored_by_what_it_has_earned(logs):
    assert scored(only(logs, "max_steps")) == ("1.5", "max_steps", 3)
    assert scored(only(logs, "message_limit")) == ("1.0", "max_steps", 2)
    assert scored(only(logs, "gives up")) == ("0.5", "no_tool_call", 1)


def test_a_call_that_inspect_refuses_itself_counts_as_one_so_that_no_model_plays_on_for_ever(logs):
    assert scored(only(logs, "no such tool")) == ("0.0", "max_steps", 3)
    assert scored(only(logs, "unfit arguments")) == ("0.5", "max_steps", 3)
    assert scored(only(logs, "one made, one refused")) == ("2.0", "terminated", 7)


def test_an_error_of_the_environments_own_is_the_models_to_read(logs):
    for name, said in (("refuse", "not that way"), ("is-error", "no such door")):
        sample = only(logs, name)
        assert scored(sample) == ("2.0", "terminated", 5)
        assert [error for _, _, error in sample["messages"] if error] == [said]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("crash", "Segmentation fault"),
        ("swallowed", "Segmentation fault"),
        ("nan", "reward"),
        ("no-start", "no world today"),
        ("no such seed", "a seed is a whole number"),
        ("no such env", "did you mean whole?"),
        ("asks for more", "asks for {observation}"),
    ],
)
def test_what_breaks_is_an_error_of_the_sample_and_has_no_score(name, said, logs):
    sample = only(logs, name)
    assert said in "".join(sample["error"])
    assert sample["score"] is None


def test_an_unknown_reward_is_no_number_and_counts_nowhere(logs):
    sample = only(logs, "foreign")
    assert sample["error"] is None
    assert sample["score"]["value"] == "nan"
    assert sample["score"]["reason"] == "no_reward"


def test_solvers_behind_it_have_their_turn_without_its_tools(logs):
    assert only(logs, "whole")["afterwards"] == [0, "terminated"]
    assert only(logs, "own prompt")["messages"][0][:2] == ["system", "Be bold."]


def test_it_runs_on_trio_as_well(python, config):
    logs = played(python, config, "trio", "lake", "crash", "message_limit")
    assert [scored(sample)[0] for sample in logs["lake"][1]] == ["1.0", "0.0"]
    assert scored(only(logs, "message_limit")) == ("1.0", "max_steps", 2)
    assert only(logs, "crash")["score"] is None


@LOOPS
def test_a_pool_that_is_open_is_played_on_its_own_loop(python, config, loop):
    status, samples = played(python, config, loop, "--pool")["lake"]
    assert status == "success"
    assert [scored(sample)[0] for sample in samples] == ["1.0", "0.0"]


@LOOPS
def test_a_muxsim_that_serves_is_played_by_its_url_and_keeps_no_session(python, config, loop, tmp_path):
    with muxsim_serve(tmp_path, config) as running:
        _, samples = played(python, running.url, loop, "lake", folder=tmp_path)["lake"]
        assert [scored(sample)[0] for sample in samples] == ["1.0", "0.0"]
        with urllib.request.urlopen(f"{running.url}/sessions") as answer:
            assert json.load(answer)["sessions"] == []


def test_a_fork_plays_on_a_pool_of_its_own(python, config):
    logs = played(python, config, "asyncio", "--fork")
    for name in ("before", "behind"):
        assert [scored(sample)[0] for sample in logs[name][1]] == ["1.0", "0.0"]


@LOOPS
def test_the_session_of_an_eval_that_is_killed_ends(python, config, loop, tmp_path):
    with subprocess.Popen(
        [python, EVALS, config, tmp_path, "--killed"],
        env={**os.environ, "INSPECT_ASYNC_BACKEND": loop},
        stdout=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
    ) as program:
        while (line := program.stdout.readline()) and line.strip() != "begun":
            pass
        assert line
        begun = descendants(program.pid)
        assert begun
        program.kill()
        trio.run(gone, *begun)


def descendants(pid):
    """All processes that one has started, and those that these have."""
    found = [
        int(one) for task in Path(f"/proc/{pid}/task").iterdir() for one in (task / "children").read_text().split()
    ]
    return found + [one for child in found for one in descendants(child)]


def test_its_own_command_plays_to_the_goal(python, config, tmp_path):
    done = subprocess.run(
        [python.with_name("inspect"), "eval", f"{EVALS}@frozen_lake", "--display", "plain", "--log-dir", tmp_path],
        env={**os.environ, "MUXSIM_CONFIG": str(config), "INSPECT_LOG_FORMAT": "json"},
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (log,) = tmp_path.glob("*.json")
    (score,) = json.loads(log.read_text())["results"]["scores"]
    assert score["metrics"]["mean"]["value"] == 0.5
