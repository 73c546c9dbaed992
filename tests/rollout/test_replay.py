"""Replay: the recorded actions once more, and the first difference of each episode."""

from __future__ import annotations

from dataclasses import replace

import anyio.lowlevel
import msgspec
import pytest
import trio
from cli.terminal import muxsim

from muxsim.errors import StartError
from muxsim.rollouts.data.images import reference, with_references
from muxsim.rollouts.data.run_folder import RunFolder
from muxsim.rollouts.data.trajectory import Control, EndReason, Step, Trajectory
from muxsim.rollouts.environments.environment import CallTimeout, EnvironmentGone, Opened, Tool, ToolResult
from muxsim.rollouts.play.replay import Divergence, replay

from .runs import dice, played, told, treasure
from .samples import image_block, png, text_block

LIMIT = 300  # s, on a machine that is busy with others
TOOL = Tool("step", "Go on.", {"type": "object"})
STATE = {"observation": "a lake"}
CONTROL = Control(reward=0.5, step=1, info={"at": [1, 2]})
RESULT = ToolResult([text_block("ice")], is_error=False, control=CONTROL, structured={"tile": "ice"})


class Pool:
    """One environment, which gives ``results`` and raises those that are exceptions."""

    environments = ("lake",)

    def __init__(self, *results, opened=None, fault=None):
        self.results = results
        self.opened = opened or Opened(tools=(TOOL,), initial_state=STATE)
        self.fault = fault
        self.calls = []
        self.closed = 0
        self.id, self.env, self.seed = "again", "lake", 0

    async def open(self, env, seed, *, start_timeout=None):
        await anyio.lowlevel.checkpoint()
        if self.fault is not None:
            raise self.fault
        self.seed = seed
        return self

    async def call(self, tool, arguments, *, timeout=None):
        await anyio.lowlevel.checkpoint()
        given = self.results[len(self.calls)]
        self.calls.append((tool, arguments))
        if isinstance(given, Exception):
            raise given
        return given

    async def close(self):
        await anyio.lowlevel.checkpoint()
        self.closed += 1


def recorded(*results, **changes):
    """The trajectory of an episode that got these results."""
    steps = [
        Step(
            index=index,
            tool="step",
            arguments={"number": index},
            call_id=f"call_{index}",
            content=with_references(result.content, reference),
            is_error=result.is_error,
            control=result.control,
            structured=result.structured,
        )
        for index, result in enumerate(results)
    ]
    given = {
        "id": "lake-0",
        "row": "lake-0",
        "sample": 0,
        "env": "lake",
        "seed": 4,
        "end_reason": EndReason.MAX_STEPS,
        "valid": True,
        "tools": [TOOL.for_chat()],
        "initial_state": STATE,
        "steps": steps,
    }
    return Trajectory(**{**given, **changes})


async def play_again(pool, *trajectories):
    with trio.fail_after(LIMIT):
        return await replay(pool, trajectories, content_of=lambda block: with_references(block, reference))


async def difference(trajectory, pool):
    (replayed,) = await play_again(pool, trajectory)
    assert replayed.divergence is not None
    return replayed.divergence


async def test_an_environment_that_says_the_same_does_not_differ():
    pool = Pool(RESULT, RESULT)
    (replayed,) = await play_again(pool, recorded(RESULT, RESULT))
    assert (replayed.divergence, replayed.steps) == (None, 2)
    assert pool.calls == [("step", {"number": 0}), ("step", {"number": 1})]
    assert (pool.seed, pool.closed) == (4, 1)


async def test_a_call_that_was_not_made_is_not_made_again():
    refused = ToolResult([text_block("the arguments are not JSON")], is_error=True, control=None)
    trajectory = recorded(RESULT, refused, RESULT)
    trajectory.steps[1].called = False
    pool = Pool(RESULT, RESULT)
    (replayed,) = await play_again(pool, trajectory)
    assert (replayed.divergence, replayed.steps) == (None, 2)
    assert [arguments["number"] for _, arguments in pool.calls] == [0, 2]


@pytest.mark.parametrize(
    ("changed", "what", "expected", "got"),
    [
        ({"content": [text_block("hole")]}, "the observation", [text_block("ice")], [text_block("hole")]),
        ({"is_error": True}, "isError", False, True),
        ({"structured": {"tile": "hole"}}, "the structured content", {"tile": "ice"}, {"tile": "hole"}),
        ({"control": msgspec.structs.replace(CONTROL, reward=1.0)}, "reward", 0.5, 1.0),
        ({"control": msgspec.structs.replace(CONTROL, terminated=True)}, "terminated", False, True),
        ({"control": msgspec.structs.replace(CONTROL, truncated=True)}, "truncated", False, True),
        ({"control": msgspec.structs.replace(CONTROL, step=2)}, "step", 1, 2),
        ({"control": msgspec.structs.replace(CONTROL, info={})}, "info", {"at": [1, 2]}, {}),
        ({"control": None}, "the control plane", msgspec.to_builtins(CONTROL), None),
    ],
)
async def test_each_part_of_a_result_is_compared(changed, what, expected, got):
    found = await difference(recorded(RESULT, RESULT), Pool(RESULT, replace(RESULT, **changed)))
    assert found == Divergence("lake-0", 1, what, expected, got)


async def test_the_start_is_compared_before_any_step():
    pool = Pool(RESULT, opened=Opened(tools=(TOOL,), initial_state={"observation": "a pond"}))
    found = await difference(recorded(RESULT), pool)
    assert (found.step, found.what, found.got) == (None, "its initial state", {"observation": "a pond"})
    assert (pool.calls, pool.closed) == ([], 1)


async def test_other_tools_are_a_difference():
    other = replace(TOOL, description="Stay.")
    found = await difference(recorded(RESULT), Pool(RESULT, opened=Opened(tools=(other,), initial_state=STATE)))
    assert (found.step, found.what, found.got) == (None, "its tools", [other.for_chat()])


async def test_images_are_compared_by_what_is_in_them():
    one, other = (replace(RESULT, content=[image_block(png(*colour))]) for colour in ((1, 2, 3), (3, 2, 1)))
    (same,) = await play_again(Pool(one), recorded(one))
    found = await difference(recorded(one), Pool(other))
    assert same.divergence is None
    assert (found.what, found.got[0]["path"][:7]) == ("the observation", "images/")


@pytest.mark.parametrize("fault", [EnvironmentGone("killed"), CallTimeout("no answer within 60 s")])
async def test_a_call_that_fails_is_a_difference_at_its_step(fault):
    pool = Pool(RESULT, fault)
    found = await difference(recorded(RESULT, RESULT), pool)
    assert (found.step, found.got) == (1, f"{type(fault).__name__}: {fault}")
    assert pool.closed == 1


async def test_an_environment_that_does_not_start_is_a_difference():
    found = await difference(recorded(RESULT), Pool(fault=StartError("no such file")))
    assert (found.step, found.got) == (None, "StartError: no such file")


async def test_a_difference_of_one_episode_says_nothing_of_the_others():
    class Both(Pool):
        async def open(self, env, seed, *, start_timeout=None):
            return Pool(RESULT if seed else replace(RESULT, is_error=True))

    first, second = recorded(RESULT, id="a", seed=0), recorded(RESULT, id="b", seed=1)
    replayed = await play_again(Both(), first, second)
    assert [(one.episode, one.divergence is None) for one in replayed] == [("a", False), ("b", True)]


def test_a_difference_names_episode_step_expected_and_got_in_one_line():
    divergence = Divergence("lake-0", 3, "reward", 0.5, 1.0)
    assert str(divergence) == "lake-0 differs at step 3, in reward: expected 0.5, got 1.0"
    assert "at its start" in str(replace(divergence, step=None))
    assert len(str(replace(divergence, expected="x" * 10_000))) < 500


# The command


@pytest.mark.children
def test_a_run_is_the_same_twice_and_replays_without_a_difference(tmp_path):
    treasure(tmp_path)
    options = ("muxsim.toml", "--policy", "random", "--rollouts", "4", "--max-steps", "12")
    first = muxsim(tmp_path, "rollout", *options, "--output", "one")
    second = muxsim(tmp_path, "rollout", *options, "--output", "two", "--max-concurrent", "2")
    again = muxsim(tmp_path, "replay", "one")
    assert [(run.status, "Traceback" in run.stderr) for run in (first, second, again)] == [(0, False)] * 3
    one, two = played(tmp_path / "one"), played(tmp_path / "two")
    assert {id: told(one[id]) for id in one} == {id: told(two[id]) for id in two}
    assert len(one) == 4
    steps = sum(len(trajectory.steps) for trajectory in one.values())
    assert again.stdout == f"4 of 4 episodes are the same, over {steps} steps\n"


@pytest.mark.children
def test_a_hidden_random_number_is_caught(tmp_path):
    dice(tmp_path)
    assert muxsim(tmp_path, "rollout", "muxsim.toml", "--rollouts", "1", "--output", "run").status == 0
    again = muxsim(tmp_path, "replay", "run")
    (trajectory,) = RunFolder(tmp_path / "run").trajectories()
    divergence, summary = again.stdout.splitlines()
    expected = trajectory.steps[0].content[0]["text"]
    assert again.status == 1
    assert divergence.startswith("hidden_dice-0 differs at step 0, in the observation: expected ")
    assert f'"{expected}"' in divergence.partition(", got ")[0]
    assert f'"{expected}"' not in divergence.partition(", got ")[2]
    assert summary == "0 of 1 episodes are the same, over 0 steps"
