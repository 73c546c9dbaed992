"""What a run is exported as, read by the published packages of those who train, each in an environment of its own."""

import json
import os
import subprocess
from pathlib import Path

import pytest
from own_environments import for_training, python_with

from muxsim.rollouts.data.run_folder import RunFolder
from muxsim.rollouts.view.export import export_traces
from muxsim.rollouts.view.token_rows import token_rows

from .samples import config, failure, trajectory

pytestmark = [pytest.mark.large, pytest.mark.network]


def with_verifiers():
    """The same as in the tests of OpenEnv's wire."""
    return python_with("verifiers", "verifiers[openenv]==0.4.0", alone=True)


OWN = Path(__file__).parent / "own"
QUIET = {"TRL_EXPERIMENTAL_SILENCE": "1", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
FIRST = {"prompt_token_ids": [1, 2], "token_ids": [3, 4], "logprobs": [-0.5, -0.25]}
SECOND = {"prompt_token_ids": [1, 2, 3, 4, 9], "token_ids": [5], "logprobs": [-1.0]}
ELSEWHERE = {"prompt_token_ids": [1, 8], "token_ids": [5], "logprobs": None}


@pytest.fixture
def run(tmp_path):
    described = config(policy={"kind": "openai", "model": "small", "temperature": 0.5}, rollouts_per_row=2)
    with RunFolder.create(tmp_path / "run", described) as writer:
        writer.append(trajectory("a#0", tokens=[FIRST, SECOND], scores={"style": 0.5}))
        writer.append(trajectory("a#1", sample=1, tokens=[FIRST, ELSEWHERE]))
        writer.append(trajectory("b#0", total_reward=None))
        writer.append(failure("b#1"))
    return RunFolder(tmp_path / "run")


def told_by(python, script, *arguments):
    """The last line of what a script says, in an environment of its own."""
    done = subprocess.run(
        [str(part) for part in (python, OWN / script, *arguments)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **QUIET},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_trl_trains_with_what_was_sampled_and_datasets_go_in_and_out(run, tmp_path):
    # The same as in the tests of the adapter for TRL.
    told = told_by(for_training(), "trl_reads.py", run.path, tmp_path)
    labels = {tuple(ids): row for ids, row in told["sft"]["rows"]}
    assert labels[1, 2, 3, 4, 9, 5] == [-100, -100, 3, 4, -100, 5]
    assert labels[1, 8, 5, 0, 0, 0] == [-100, -100, 5, -100, -100, -100]
    assert told["sft"]["loss"] > 0
    assert told["grpo"]["completion_ids"][0] == [3, 4, 9, 5]
    assert told["grpo"]["tool_mask"][0] == [1, 1, 0, 1]
    assert told["grpo"]["changed"]
    (row, *_) = token_rows(run.trajectories(), "trl")
    assert {name: value for name, value in told["folders"]["trl"].items() if name in row and name != "scores"} == {
        name: value for name, value in row.items() if name != "scores"
    }
    assert told["none"] == [0, True]
    turn, _ = told["folders"]["chat"]["tokens"]
    assert (turn["token_ids"], turn["loss_mask"]) == ([3, 4], [0, 0, 1, 1])
    unchosen, unknown, nowhere = told["rows"].pop("faults")
    assert unchosen.endswith("saved: has the splits train, test: choose one with --split")
    assert unknown.endswith("saved: split = dev: no such split; there are: train, test")
    assert "nowhere: cannot be loaded: " in nowhere
    both = [[name, [{"role": "user", "content": "Go."}], {"n": 1}] for name in ("a", "b")]
    assert told["rows"] == dict.fromkeys(("split", "saved", "hub", "object"), both)


def test_verifiers_reads_traces_with_their_tokens_rewards_and_errors(run, tmp_path):
    export_traces(run, tmp_path / "out", include_invalid=True)
    python = with_verifiers()
    whole, torn, unscored, broken = told_by(python, "verifiers_reads.py", tmp_path / "out")
    assert whole["branches"] == [
        [[1, 2, 3, 4, 9, 5], [False, False, True, True, False, True], [0.0, 0.0, -0.5, -0.25, 0.0, -1.0]]
    ]
    assert [branch[:2] for branch in torn["branches"]] == [
        [[1, 2, 3, 4], [False, False, True, True]],
        [[1, 8, 5], [False, False, True]],
    ]
    assert [(one["ok"], one["rewards"]) for one in (whole, torn, unscored, broken)] == [
        *((True, [1.0]), (True, [1.0]), (True, [None]), (False, [None]))
    ]
    assert (whole["turns"], torn["turns"], whole["group"], whole["metrics"]) == (2, 2, "a", {"style": 0.5})
    assert (broken["stop"], broken["error"]) == ("env_crashed", "env_crashed")


def test_a_row_is_what_verls_agent_loop_puts_out(run, tmp_path):
    rows = list(token_rows(run.trajectories(), "verl"))
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    told = told_by(for_training(), "verl_reads.py", tmp_path / "rows.json")
    assert len(told["rows"]) == len(rows) == 3
    for row, one in zip(rows, told["rows"], strict=True):
        assert {name: one[name] for name in row if name in one and name != "metrics"} == {
            name: value for name, value in row.items() if name in one and name != "metrics"
        }
        assert row["metrics"].items() <= one["metrics"].items()
    # verl gives the reward to the last token.
    assert told["scores"] == [[0.0] * (len(row["response_ids"]) - 1) + [row["reward_score"]] for row in rows]
