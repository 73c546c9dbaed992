import json
import math

import numpy as np
import pytest

from muxsim.mcpgym import EnvironmentFailed, EpisodeEnded
from muxsim.mcpgym.control import CONTROL_RESOURCES, ControlPlane


def fresh():
    return ControlPlane(seed=0, observation="start", info={"n": np.int64(1)})


def outcome(reward=0.0, terminated=False, truncated=False, info=None):
    return ("observation", reward, terminated, truncated, {} if info is None else info)


def read(control, name):
    return CONTROL_RESOURCES[f"control://{name}"].read(control)


def state(control):
    return {uri: json.dumps(resource.read(control)) for uri, resource in CONTROL_RESOURCES.items()}


def test_before_the_first_step_everything_is_at_its_start():
    control = fresh()
    assert read(control, "reward") == {"reward": 0.0, "step": 0}
    assert read(control, "status") == {"terminated": False, "truncated": False, "step": 0, "total_reward": 0.0}
    assert read(control, "info") == {"n": 1}
    assert read(control, "initial_state") == {"observation": "start", "info": {"n": 1}, "seed": 0}
    assert repr(control) == "<ControlPlane seed=0 step=0 total_reward=0.0 running>"


def test_a_step_is_recorded_with_numpy_values_as_plain_ones():
    control = fresh()
    control.record(outcome(np.float32(0.5), np.bool_(True), False, {"where": np.array([1, 2])}))
    assert read(control, "reward") == {"reward": 0.5, "step": 1}
    assert read(control, "status") == {"terminated": True, "truncated": False, "step": 1, "total_reward": 0.5}
    assert read(control, "info") == {"where": [1, 2]}
    assert repr(control) == "<ControlPlane seed=0 step=1 total_reward=0.5 terminated>"


def test_the_initial_state_stays_what_it_was():
    control = fresh()
    before = json.dumps(read(control, "initial_state"))
    control.record(outcome(1.0, info={"n": 2}))
    assert json.dumps(read(control, "initial_state")) == before


def test_the_info_is_a_copy_that_the_environment_cannot_change_later():
    control, info = fresh(), {"path": [1]}
    control.record(outcome(info=info))
    info["path"].append(2)
    assert read(control, "info") == {"path": [1]}


@pytest.mark.parametrize("end", ["terminated", "truncated"])
def test_after_the_end_no_step_is_possible_and_nothing_changes(end):
    control = fresh()
    control.require_running()
    control.record(outcome(1.0, **{end: True}))
    before = state(control)
    with pytest.raises(EpisodeEnded, match="the episode has ended"):
        control.require_running()
    assert state(control) == before


@pytest.mark.parametrize(
    "returned",
    [
        outcome(math.nan),
        outcome(math.inf),
        outcome(np.float32(-np.inf)),
        outcome(10**400),
        outcome("1.0"),
        outcome(None),
        outcome(np.array([1.0, 2.0])),
        outcome(terminated=1),
        outcome(truncated=None),
        outcome(info=["not a dict"]),
        ("observation", 0.0, False, {}),
        None,
    ],
    ids=repr,
)
def test_what_cannot_be_recorded_is_the_failure_of_the_environment_and_ends_the_possibility_to_step(returned):
    control = fresh()
    control.record(outcome(2.0))
    before = state(control)
    control.begin_call()
    with pytest.raises(EnvironmentFailed) as caught:
        control.record(returned)
    told = "what the environment returned from step 2 cannot be recorded"
    after = state(control)
    failed = json.loads(after.pop("control://status")).pop("failed")
    assert failed == control.of_call(failed=True)["failed"]
    assert failed.startswith(f"{told}: ")
    assert after == {uri: text for uri, text in before.items() if uri != "control://status"}
    assert control.of_call(failed=True)["reward"] is None
    # The message is for the agent; the reward is in the cause, for the log and the trainer.
    assert str(caught.value) == told
    assert caught.value.__cause__ is not None
    with pytest.raises(EnvironmentFailed, match="no further step is possible"):
        control.require_running()
    assert repr(control).endswith("failed>")


def test_a_total_that_is_not_finite_is_not_recorded():
    control = fresh()
    control.record(outcome(1.7e308))
    with pytest.raises(EnvironmentFailed):
        control.record(outcome(1.7e308))
    assert read(control, "status")["total_reward"] == 1.7e308


@pytest.mark.parametrize("reward", [1, True, np.int8(1), np.array(1.0), np.array([1.0]), np.bool_(True)], ids=repr)
def test_rewards_of_any_number_type_are_floats(reward):
    control = fresh()
    control.record(outcome(reward))
    assert type(control.reward) is float
    assert control.reward == 1.0


def test_an_info_that_has_no_json_form_does_not_hinder_the_step():
    control = fresh()
    control.record(outcome(1.0, info={"engine": object(), "speed": math.inf}))
    assert read(control, "info") == {"engine": "<object>", "speed": "Infinity"}


def test_the_rewards_of_all_calls_add_up_to_the_total():
    control = fresh()
    control.begin_call()
    control.record(outcome(1.0))
    control.record(outcome(0.5))
    assert control.of_call(failed=False) == {
        "reward": 1.5,
        "terminated": False,
        "truncated": False,
        "step": 2,
        "info": {},
    }
    control.begin_call()
    assert control.of_call(failed=False)["reward"] == 0.0
    control.begin_call()
    assert control.of_call(failed=True)["reward"] is None
    control.begin_call()
    control.record(outcome(2.0))
    assert control.of_call(failed=True)["reward"] == 2.0
    assert control.total_reward == 3.5
