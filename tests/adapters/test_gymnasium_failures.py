"""Nothing that has failed becomes a step: who it was is told, and the others go on."""

import base64
import sys
import threading

import numpy as np
import pytest
from gymnasium import spaces
from harness import ROOT
from hypothesis import given
from hypothesis import strategies as st
from servers import painter

from adapters.forks import raised_in_a_fork
from muxsim.adapters.actions import ActionError
from muxsim.adapters.episodes import EpisodeError, SomeFailed
from muxsim.adapters.gymnasium_env import make, make_vec
from muxsim.adapters.pictures import NoPicture, picture_of
from muxsim.adapters.trl_environment import environment
from muxsim.errors import ConfigError, MuxsimError
from muxsim.rollouts.environments.environment import EnvironmentGone

SAME, LARGER, TORN, NONE, WORDS, DIE, REFUSE, UNKNOWN, WAIT, END = range(len(painter.WAYS))


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "muxsim.toml"
    path.write_text(
        f'[environments.painter]\ncommand = "{sys.executable}"\nargs = ["{ROOT}/tests/servers/painter.py"]\n'
    )
    return path


@pytest.mark.children
def test_images_of_another_server_are_observations_and_what_is_none_is_an_error(config, new):
    env = new(make, config, "painter", render_mode="rgb_array")
    assert env.observation_space == spaces.Box(0, 255, (*painter.SIZE, 3), np.uint8)
    first, _ = env.reset(seed=1)
    assert first in env.observation_space
    seen, reward, *_ = env.step(SAME)
    np.testing.assert_array_equal(seen, first)
    np.testing.assert_array_equal(env.render(), first)
    assert reward == 0.5
    for way, said in ((LARGER, "no image of the shape"), (TORN, "cannot be read"), (NONE, "no image of the shape")):
        env.reset(seed=1)
        with pytest.raises(EpisodeError, match=said):
            env.step(way)
        with pytest.raises(EpisodeError, match="a step has failed"):  # its reward is lost, and so its sum
            env.step(SAME)


@pytest.mark.children
def test_a_vector_says_how_many_actions_it_wants_and_begins_none(config, new):
    envs = new(make_vec, config, "painter", num_envs=2)
    envs.reset(seed=1)
    for actions in ([SAME], [SAME] * 3):
        with pytest.raises(ActionError, match=f"2 actions are wanted, one for each environment, not {len(actions)}"):
            envs.step(actions)
    with pytest.raises(ActionError, match="1 actions are wanted"):
        envs.send([SAME, SAME], [0])
    assert envs.step([SAME, SAME])[1].tolist() == [0.5, 0.5]


@pytest.mark.parametrize("many", [0, -1, 1.5, True, "2", None])
def test_how_many_there_are_is_a_whole_number(config, many):
    with pytest.raises(ValueError, match="num_envs must be 1 or more, not "):
        make_vec(config, "painter", num_envs=many)


@pytest.mark.children
def test_a_user_says_the_space_of_images_beside_which_there_is_text(config, new):
    space = spaces.Box(0, 255, (*painter.SIZE, 3), np.uint8)
    env = new(make, config, "painter", observation_space=space)
    env.reset(seed=1)
    assert env.step(WORDS)[0] in space
    for other in (spaces.Discrete(3), spaces.Box(0, 1, (4, 6, 3)), spaces.Box(0, 255, (4, 6), np.uint8)):
        with pytest.raises(ValueError, match="needs observe"):
            make(config, "painter", observation_space=other)


@pytest.mark.parametrize("bound", ["call_timeout", "start_timeout"])
@pytest.mark.parametrize("seconds", [0, -1, float("nan"), "soon"])
def test_a_time_that_nobody_can_mean_is_refused_before_anything_starts(bound, seconds, config):
    for made in (make, make_vec):
        with pytest.raises(ConfigError, match=f"{bound} = .*must be a number of seconds"):
            made(config, "painter", **{bound: seconds})
    with pytest.raises(ConfigError, match=f"{bound} = "):
        environment(config, "painter", **{bound: seconds})


@pytest.mark.children
def test_a_call_that_is_refused_is_no_step_and_the_episode_goes_on(config, new):
    env = new(make, config, "painter")
    env.reset(seed=1)
    with pytest.raises(EpisodeError, match="not that way"):
        env.step(REFUSE)
    assert env.step(SAME)[1] == 0.5


@pytest.mark.children
def test_a_child_that_dies_says_its_last_words(config, new):
    env = new(make, config, "painter")
    env.reset(seed=1)
    with pytest.raises(EnvironmentGone) as raised:
        env.step(DIE)
    assert "the brush broke" in raised.value.__notes__
    env.reset(seed=1)
    assert env.step(SAME)[1] == 0.5


@pytest.mark.children
@pytest.mark.parametrize("mode", ["NextStep", "SameStep", "Disabled"])
def test_who_has_failed_is_told_of_many_and_the_others_have_stepped(mode, config, new):
    envs = new(make_vec, config, "painter", num_envs=4, autoreset_mode=mode)
    envs.reset(seed=1)
    with pytest.raises(SomeFailed) as raised:
        envs.step(np.array([SAME, DIE, UNKNOWN, SAME]))
    assert raised.value.failures.keys() == {1, 2}
    assert "environment 1: " in str(raised.value)
    assert "the brush broke" in str(raised.value)
    assert "environment 2: the reward is not known" in str(raised.value)
    with pytest.raises(SomeFailed, match=r"environment 1: .*reset the environment"):
        envs.step(np.full(4, SAME))
    observations, _ = envs.reset(options={"reset_mask": np.array([False, True, True, False])})
    assert observations in envs.observation_space
    assert envs.step(np.full(4, SAME))[1].tolist() == [0.5] * 4


@pytest.mark.children
def test_who_has_failed_is_told_of_those_that_are_received_too(config, new):
    envs = new(make_vec, config, "painter", num_envs=3)
    envs.reset(seed=1)
    envs.send(np.array([SAME, DIE]), [2, 0])
    with pytest.raises(EpisodeError, match="under way"):
        envs.step(np.full(3, SAME))
    with pytest.raises(EpisodeError, match="under way"):
        envs.reset()
    whose, said = [], []
    for _ in range(2):
        try:
            whose += envs.recv()[4]["env_id"].tolist()
        except SomeFailed as failed:
            whose += failed.failures
            said.append(str(failed))
    assert sorted(whose) == [0, 2]
    assert "the brush broke" in said[0]


@pytest.mark.children
def test_nobody_waits_in_a_fork_for_what_was_sent_before_it(config, new):
    envs = new(make_vec, config, "painter", num_envs=1)
    envs.reset(seed=1)
    envs.send(np.array([WAIT]))
    assert "before this process was forked" in raised_in_a_fork(envs.recv)


class Interrupting:
    """A queue, and somebody who presses Ctrl-C when the second is waited for."""

    def __init__(self, queue):
        self.queue, self.gets = queue, 0

    def get(self):
        self.gets += 1
        if self.gets == 2:
            raise KeyboardInterrupt
        return self.queue.get()

    def __getattr__(self, name):
        return getattr(self.queue, name)


@pytest.mark.children
def test_what_has_come_is_received_behind_an_interruption(config, new):
    envs = new(make_vec, config, "painter", num_envs=2)
    envs.reset(seed=1)
    envs._finished = Interrupting(envs._finished)
    envs.send(np.array([SAME, SAME]))
    with pytest.raises(KeyboardInterrupt):
        envs.recv(2)
    assert sorted(envs.recv(2)[4]["env_id"].tolist()) == [0, 1]
    envs.reset(seed=1)


TELLING = """
import gymnasium
import numpy as np
from muxsim.mcpgym import GymServer

SAID = [1, "a word", {"deep": 2}, np.zeros(3), np.zeros(2)]


class Telling(gymnasium.Env):
    action_space = observation_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        self.said = {"what": SAID[seed % 5], "in": {"it": SAID[seed % 2]}, "kind": seed % 5}
        return 0, self.said

    def step(self, action):
        return action, 1.0, bool(action), False, self.said


GymServer("telling", lambda seed: Telling()).run()
"""


@pytest.mark.children
@pytest.mark.parametrize("mode", ["NextStep", "SameStep"])
def test_infos_that_fit_into_no_array_take_no_step_away(mode, config, tmp_path, new):
    (tmp_path / "telling.py").write_text(TELLING)
    config.write_text(f'[environments.telling]\ncommand = "{sys.executable}"\nargs = ["{tmp_path}/telling.py"]\n')
    envs = new(make_vec, config, "telling", num_envs=5, autoreset_mode=mode)
    _, infos = envs.reset(seed=0)
    assert infos["kind"].dtype == np.int64
    for said in (infos, envs.step(np.zeros(5, dtype=np.int64))[4]):
        assert [type(one) for one in said["what"]] == [int, str, dict, np.ndarray, np.ndarray]
        assert said["in"]["it"].tolist() == [1, "a word", 1, "a word", 1]
        assert said["_what"].all()
        assert said["kind"].tolist() == [0, 1, 2, 3, 4]
    _, rewards, terminated, _, infos = envs.step(np.ones(5, dtype=np.int64))
    assert rewards.tolist() == [1.0] * 5
    assert terminated.all()
    if mode == "SameStep":
        assert infos["final_info"]["what"][1] == "a word"
    assert not envs.step(np.zeros(5, dtype=np.int64))[2].any()


@pytest.mark.children
def test_an_action_that_is_none_makes_no_step_of_another(config, new):
    envs = new(make_vec, config, "painter", num_envs=2)
    envs.reset(seed=1)
    with pytest.raises(MuxsimError, match="not in the action space"):
        envs.step(np.array([END, 99]))
    assert not envs.step(np.array([SAME, SAME]))[2].any()


@pytest.mark.children
@pytest.mark.parametrize("vector", [False, True])
def test_what_is_closed_during_a_step_is_an_error_and_no_session_is_left(vector, config, new):
    env = new(make_vec, config, "painter", num_envs=2) if vector else new(make, config, "painter")
    env.reset(seed=1)
    raised, begun = [], threading.Event()

    def step():
        begun.set()
        try:
            env.step(np.array([SAME, WAIT]) if vector else WAIT)
        except MuxsimError as error:
            raised.append(error)

    other = threading.Thread(target=step)
    other.start()
    begun.wait()
    env.close()
    other.join(60)
    assert len(raised) == 1
    with pytest.raises(MuxsimError):
        env.reset()


@pytest.mark.children
def test_steps_that_were_sent_are_no_steps_when_it_has_been_closed(config, new):
    envs = new(make_vec, config, "painter", num_envs=2)
    envs.reset(seed=1)
    envs.send(np.array([WAIT, WAIT]))
    envs.close()
    with pytest.raises(SomeFailed):
        envs.recv(2)


@pytest.mark.children
def test_options_that_nobody_takes_are_refused(config, new):
    env, envs = new(make, config, "painter"), new(make_vec, config, "painter", num_envs=2)
    for one in (env, envs):
        with pytest.raises(ValueError, match="takes no options at its reset, low"):
            one.reset(options={"low": 1})
        one.reset(options={})


@pytest.mark.children
def test_a_vector_says_who_has_not_begun(config, new):
    envs = new(make_vec, config, "painter", num_envs=2)
    with pytest.raises(SomeFailed, match=r"environment 0: .*none has begun"):
        envs.step(np.array([SAME, SAME]))
    with pytest.raises(EpisodeError, match=r"have not begun, reset them too: \[1\]"):
        envs.reset(options={"reset_mask": np.array([True, False])})


WHOLE = painter.png(*painter.SIZE)


@given(st.integers(0, len(WHOLE) - 1))
def test_a_picture_that_was_cut_off_is_the_picture_or_none(cut):
    assert_whole_or_none(WHOLE[:cut])


@given(st.integers(0, len(WHOLE) - 1), st.integers(1, 255))
def test_a_picture_with_a_wrong_byte_is_the_picture_or_none(place, change):
    assert_whole_or_none(WHOLE[:place] + bytes([WHOLE[place] ^ change]) + WHOLE[place + 1 :])


def assert_whole_or_none(data):
    try:
        found = picture_of(base64.b64encode(data).decode())
    except NoPicture:
        return
    assert found.tobytes() == picture_of(base64.b64encode(WHOLE).decode()).tobytes()


@given(st.none() | st.integers() | st.text() | st.lists(st.integers()))
def test_what_is_no_base64_is_no_picture(data):
    with pytest.raises(NoPicture):
        picture_of(data)
