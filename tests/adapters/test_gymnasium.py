"""Gymnasium's own checks and environments beside muxsim's adapter of them, over real servers."""

import json
import sys
import warnings
from pathlib import Path

import anyio
import gymnasium
import numpy as np
import pytest
from gymnasium.envs.toy_text.frozen_lake import FrozenLakeEnv, generate_random_map
from gymnasium.utils.env_checker import check_env, data_equivalence
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from harness import SERVERS

import muxsim
from adapters.forks import raised_in_a_fork
from muxsim.adapters.actions import ActionError
from muxsim.adapters.dialogue import Terms, looked_at, open_dialogue
from muxsim.adapters.episodes import EpisodeError
from muxsim.adapters.gymnasium_env import make, make_vec, register
from muxsim.errors import MuxsimError

pytestmark = pytest.mark.children

SERVER = """
import gymnasium
from muxsim.mcpgym import GymServer

server = GymServer("wrapped", lambda seed: gymnasium.make({id!r}, **{options!r}))
server.run()
"""
# Ids with the options that make them: spaces, observations and infos of every kind that Gymnasium's own have.
WRAPPED = {
    "FrozenLake-v1": {"is_slippery": True},
    "CliffWalking-v1": {"is_slippery": True},
    "Taxi-v4": {},
    "Blackjack-v1": {},
    "CartPole-v1": {},
    "MountainCarContinuous-v0": {},
    "Pendulum-v1": {},
    "LunarLander-v3": {},
}
STEPS = 60


@pytest.fixture
def config(tmp_path):
    """A config with all of them, by their names in small letters."""
    tables = []
    for id, options in WRAPPED.items():
        file = tmp_path / f"{name_of(id)}.py"
        file.write_text(SERVER.format(id=id, options=options))
        tables.append(f'[environments.{name_of(id)}]\ncommand = "{sys.executable}"\nargs = ["{file}"]\n')
    path = tmp_path / "muxsim.toml"
    path.write_text("\n".join(tables))
    return path


@pytest.fixture
def unbegun(tmp_path):
    """A config of an environment with a control plane that has no initial state."""
    path = tmp_path / "muxsim.toml"
    args = ["-I", "-S", str(SERVERS / "scored.py"), "--counting", "--unbegun"]
    path.write_text(f'[environments.unbegun]\ncommand = "{sys.executable}"\nargs = {args}\n')
    return path


def name_of(id):
    return id.partition("-")[0].lower()


def assert_equal(theirs, ours):
    """The same values of the same types: Gymnasium's own word for bit for bit."""
    assert data_equivalence(theirs, ours, exact=True), (theirs, ours)


@pytest.mark.parametrize("id", WRAPPED)
def test_it_is_the_wrapped_environment_bit_for_bit(id, config, new):
    theirs, ours = new(gymnasium.make, id, **WRAPPED[id]).unwrapped, new(make, config, name_of(id))
    wrapped = new(gymnasium.make, id, **WRAPPED[id])
    assert ours.action_space == theirs.action_space
    assert ours.observation_space == theirs.observation_space
    actions = theirs.action_space
    actions.seed(1)
    for seed in (0, 7):
        assert_equal(wrapped.reset(seed=seed), ours.reset(seed=seed))
        for _ in range(STEPS):
            action = actions.sample()
            expected, found = wrapped.step(action), ours.step(action)
            assert_equal(expected[0], found[0])
            assert float(expected[1]) == float(found[1])
            assert expected[2:4] == found[2:4]
            assert_equal(expected[4], found[4])
            if expected[2] or expected[3]:
                break


def test_gymnasiums_checker_has_nothing_to_say(config, monkeypatch, new):
    ids = register(config)
    assert "muxsim/frozenlake" in ids
    for id in ("muxsim/frozenlake", "muxsim/blackjack"):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            env = new(gymnasium.make, id)
            check_env(env.unwrapped)
    monkeypatch.chdir(config.parent)
    del gymnasium.registry["muxsim/taxi"]
    sys.modules.pop("muxsim.adapters.gymnasium_env")
    env = new(gymnasium.make, "muxsim.adapters.gymnasium_env:muxsim/taxi")
    env.reset(seed=1)


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_a_vector_is_many_single_ones_in_each_mode_of_resetting(mode, config, new):
    makers = [lambda: make(config, "blackjack")] * 3
    theirs = new(SyncVectorEnv, makers, autoreset_mode=mode)
    ours = new(make_vec, config, "blackjack", num_envs=3, autoreset_mode=mode)
    assert ours.action_space == theirs.action_space
    assert ours.observation_space == theirs.observation_space
    assert ours.metadata["autoreset_mode"] is mode
    assert_same_batch(theirs.reset(seed=5), ours.reset(seed=5))
    generator = np.random.default_rng(2)
    for _ in range(12):
        actions = generator.integers(0, 2, size=3)
        expected, found = theirs.step(actions), ours.step(actions)
        assert_same_batch(expected, found)
        ended = expected[2] | expected[3]
        if mode is AutoresetMode.DISABLED and ended.any():
            with pytest.raises(EpisodeError, match="have ended"):
                ours.step(actions)
            options = [{"reset_mask": ended.copy()} for _ in range(2)]
            assert_same_batch(theirs.reset(options=options[0]), ours.reset(options=options[1]))


def assert_same_batch(expected, found):
    for theirs, ours in zip(expected, found, strict=True):
        if isinstance(theirs, dict):
            assert theirs.keys() == ours.keys()
            for key, value in theirs.items():
                np.testing.assert_equal(np.asarray(ours[key]), np.asarray(value))
        else:
            np.testing.assert_equal(ours, theirs)


def test_who_has_finished_is_received_first_and_everybody_once(config, new):
    vector = new(make_vec, config, "cartpole", num_envs=4)
    vector.reset(seed=1)
    vector.send(np.zeros(4, dtype=np.int64))
    for again in ([2], [3, 0]):
        with pytest.raises(EpisodeError, match="under way"):
            vector.send(np.zeros(len(again), dtype=np.int64), again)
    seen = []
    while len(seen) < 4:
        observations, rewards, *_, infos = vector.recv()
        assert len(observations) == len(rewards) == len(infos["env_id"])
        seen += infos["env_id"].tolist()
    assert sorted(seen) == [0, 1, 2, 3]
    vector.send(np.ones(2, dtype=np.int64), [1, 3])
    assert sorted(vector.recv(2)[4]["env_id"].tolist()) == [1, 3]
    with pytest.raises(EpisodeError, match="0 are under way"):
        vector.recv()
    for wrong in ([0, 0], [-1], [4], [1, -3]):  # -1 is another name of the last one, and busy when that is
        with pytest.raises(ValueError, match="env_ids are different numbers from 0 to 3"):
            vector.send(np.zeros(len(wrong), dtype=np.int64), wrong)
    with pytest.raises(EpisodeError, match="0 are under way"):
        vector.recv()


def test_infos_have_a_row_for_each_that_is_received_and_masks_are_as_long_as_what_they_mask(config, new):
    vector = new(make_vec, config, "frozenlake", num_envs=4, autoreset_mode="SameStep")
    vector.reset(seed=1)
    ended = 0
    while not ended:
        vector.send(np.ones(2, dtype=np.int64), [3, 1])
        observations, *_, infos = vector.recv(2)
        assert {len(one) for name, one in infos.items() if not isinstance(one, dict)} == {2}
        assert observations[infos["_prob"]].tolist() == observations.tolist()
        ended = len(observations[infos["_final_obs"]]) if "_final_obs" in infos else 0
    assert len(infos["final_info"]["prob"]) == 2


WAITING = """
import os, select
import gymnasium
from muxsim.mcpgym import GymServer

class Waits(gymnasium.Wrapper):
    "Whoever has the action 0 waits at the gate; with 1 and the gate open it breaks."
    def step(self, action):
        if action == 0:
            select.select([os.open({gate!r}, os.O_RDONLY)], [], [])
        elif os.environ.get("BREAKS"):
            raise RuntimeError("torn")
        return self.env.step(action)

GymServer("waits", lambda seed: Waits(gymnasium.make("CartPole-v1"))).run()
"""


def waiting(tmp_path, gate, breaks=""):
    (tmp_path / "waits.py").write_text(WAITING.format(gate=gate.path))
    path = tmp_path / "waits.toml"
    path.write_text(
        f'[environments.waits]\ncommand = "{sys.executable}"\nargs = ["{tmp_path}/waits.py"]\n'
        f'env = {{ BREAKS = "{breaks}" }}\n'
    )
    return path


def test_first_finished_is_first_served(tmp_path, gate, new):
    vector = new(make_vec, waiting(tmp_path, gate), "waits", num_envs=2)
    vector.reset(seed=1)
    vector.send(np.array([0, 1]))
    assert vector.recv()[4]["env_id"].tolist() == [1]
    gate.open()
    assert vector.recv()[4]["env_id"].tolist() == [0]


def test_one_that_breaks_takes_no_step_of_another_with_it(tmp_path, gate, new):
    vector = new(make_vec, waiting(tmp_path, gate, breaks="yes"), "waits", num_envs=2)
    vector.reset(seed=1)
    vector.send(np.array([0, 1]))
    with pytest.raises(MuxsimError, match="torn"):
        vector.recv()
    gate.open()
    assert vector.recv()[4]["env_id"].tolist() == [0]


def test_wrappers_of_gymnasium_work(config, new):
    register(config)
    env = new(gymnasium.make, "muxsim/cartpole", max_episode_steps=5)
    env = gymnasium.wrappers.RecordEpisodeStatistics(env)
    env.reset(seed=1)
    for _ in range(5):
        *_, terminated, truncated, info = env.step(env.action_space.sample())
    assert truncated or terminated
    assert info["episode"]["l"] == 5
    vector = new(gymnasium.make_vec, "muxsim/cartpole", num_envs=2)
    vector = gymnasium.wrappers.vector.RecordEpisodeStatistics(vector)
    vector.reset(seed=1)
    vector.step(np.array([0, 1]))


def test_workers_of_an_async_vector_have_sessions_of_their_own(config, new):
    vector = new(gymnasium.vector.AsyncVectorEnv, [Maker(str(config))] * 2, context="fork", shared_memory=False)
    observations, _ = vector.reset(seed=3)
    single = new(make, config, "cartpole")
    np.testing.assert_array_equal(observations[0], single.reset(seed=3)[0])
    vector.step(np.array([0, 1]))


class Maker:
    def __init__(self, config):
        self.config = config

    def __call__(self):
        return make(self.config, "cartpole")


def test_what_was_made_before_a_fork_says_so_after_it(config, new):
    env = new(make, config, "cartpole")
    env.reset(seed=1)
    assert "before this process was forked" in raised_in_a_fork(env.step, 0)
    env.step(0)


FOREIGN = """
from mcp.server import MCPServer
from typing import Literal

server = MCPServer("doors")

@server.tool()
def open_door(colour: Literal["red", "blue"], wide: bool) -> str:
    "Open one."
    return f"{colour} {wide}"

@server.tool()
def wait() -> str:
    "Do nothing."
    return "é"

server.run()
"""


@pytest.fixture
def doors(tmp_path):
    (tmp_path / "doors.py").write_text(FOREIGN)
    path = tmp_path / "doors.toml"
    path.write_text(f'[environments.doors]\ncommand = "{sys.executable}"\nargs = ["{tmp_path}/doors.py"]\n')
    return path


def test_another_servers_finite_tools_are_actions_in_their_order(doors, new):
    env = new(make, doors, "doors", score=lambda result: (1.0, "True" in str(result.content), False))
    assert env.action_space == gymnasium.spaces.Discrete(5)
    env.reset(seed=1)
    assert env.step(4)[0] == "é"
    observation, reward, terminated, truncated, info = env.step(1)
    assert (observation, reward, terminated, truncated, info) == ("red True", 1.0, True, False, {})
    assert observation in env.observation_space
    with pytest.raises(EpisodeError, match="over"):
        env.step(0)
    with pytest.raises(ActionError, match="not in the action space"):
        env.step(5)


def test_a_user_says_which_calls_are_actions_and_what_a_text_is(doors, new):
    env = new(
        make,
        doors,
        "doors",
        actions=["wait", ("open_door", {"colour": "blue", "wide": False})],
        observe=len,
        observation_space=gymnasium.spaces.Discrete(100),
        score=lambda _: (0.0, False, False),
    )
    assert env.action_space == gymnasium.spaces.Discrete(2)
    env.reset(seed=1)
    assert env.step(1)[0] == len("blue False")
    with pytest.raises(ActionError, match="no tool 'fly'"):
        new(make, doors, "doors", actions=["fly"], score=lambda _: (0.0, False, False))


def test_an_unknown_reward_is_no_number(doors, new):
    with pytest.raises(EpisodeError, match="no control plane"):
        new(make, doors, "doors")


def test_a_control_plane_that_tells_nothing_of_the_start_is_one(unbegun, new):
    env = new(make, unbegun, "unbegun")
    env.reset(seed=1)
    assert [env.step(0)[1:3] for _ in range(3)] == [(1.0, False), (2.0, False), (3.0, True)]


async def test_whoever_asks_whether_anything_is_earned_finds_such_a_control_plane_too(unbegun):
    async with muxsim.open_pool(unbegun) as pool:
        assert (await looked_at(pool, "unbegun", Terms()))[1]
        dialogue = await open_dialogue(pool, "unbegun", 1, Terms())
        assert dialogue.scored
        await dialogue.close()


def test_what_an_environment_draws_is_its_frame(new):
    env = new(
        make, "examples/muxsim.toml", "lunar_lander", actions=[("fire", {"engine": "MAIN"})], render_mode="rgb_array"
    )
    assert env.observation_space.shape == (8,)
    env.reset(seed=1)
    env.step(0)
    frame = env.render()
    assert (frame.dtype, frame.ndim, frame.shape[2]) == (np.dtype(np.uint8), 3, 3)


async def test_a_pool_that_is_open_is_used_from_a_worker_thread(config):
    with anyio.fail_after(120):
        async with muxsim.open_pool(config) as pool:
            assert await anyio.to_thread.run_sync(one_step, pool) == (4,)


def one_step(pool):
    env = make(pool, "cartpole")
    env.reset(seed=1)
    shape = env.step(0)[0].shape
    env.close()
    return shape


def test_a_session_that_fails_is_an_error_and_no_step(tmp_path, new):
    (tmp_path / "breaks.py").write_text(
        "import gymnasium\nfrom muxsim.mcpgym import GymServer\n"
        "class Breaks(gymnasium.Wrapper):\n    def step(self, action): raise RuntimeError('torn')\n"
        "GymServer('breaks', lambda seed: Breaks(gymnasium.make('CartPole-v1'))).run()\n"
    )
    path = tmp_path / "muxsim.toml"
    path.write_text(f'[environments.breaks]\ncommand = "{sys.executable}"\nargs = ["{tmp_path}/breaks.py"]\n')
    env = new(make, path, "breaks")
    env.reset(seed=1)
    with pytest.raises(MuxsimError, match="torn"):
        env.step(0)


def test_a_server_in_javascript_tells_its_space_and_its_observation(new):
    env = new(make, "examples/muxsim.toml", "treasure_grid")
    assert env.action_space == gymnasium.spaces.Discrete(5)
    assert env.observation_space == gymnasium.spaces.Box(0, 4, (9, 13), np.uint8)
    board, info = env.reset(seed=3)
    row, column = info["position"]
    assert board[row, column] == 4
    assert (board == 3).sum() == 1
    looked, reward, *_ = env.step(0)
    assert (looked.tolist(), reward) == (board.tolist(), 0)
    moved, _, _, _, info = env.step(1)
    assert moved[tuple(info["position"])] == 4
    assert moved.dtype == np.uint8


def test_examples_that_have_tools_of_their_own_have_the_wrapped_spaces(new):
    env = new(make, Path("examples/muxsim.toml"), "frozen_lake")
    assert (env.action_space, env.observation_space) == (gymnasium.spaces.Discrete(4), gymnasium.spaces.Discrete(16))


def test_a_server_written_for_reward_kit_is_the_environment_that_it_wraps(tmp_path, new):
    server = Path(__file__).parent.parent / "mcpgym" / "servers" / "old_lake" / "server.py"
    args = ["-m", "muxsim.mcpgym.reward_kit", str(server), "--seed", "{seed}"]
    config = tmp_path / "muxsim.toml"
    config.write_text(f'[environments.lake]\ncommand = "{sys.executable}"\nargs = {json.dumps(args)}\n')
    env = new(make, config, "lake")
    assert (env.action_space, env.observation_space) == (gymnasium.spaces.Discrete(4), gymnasium.spaces.Discrete(16))
    wrapped = FrozenLakeEnv(desc=generate_random_map(size=4, p=0.8, seed=3), is_slippery=False)
    assert env.reset(seed=3) == wrapped.reset(seed=3)
    for action in (1, 1, 2, 2, 1, 2):
        moved = wrapped.step(action)
        assert env.step(action) == moved
        if moved[2]:
            break
