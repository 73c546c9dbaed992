"""Checks of tests/adapters/test_training.py, run where torch is: `python training_checks.py CONFIG FOLDER`."""

import json
import sys
import traceback
import warnings
from functools import partial
from pathlib import Path

import gymnasium
import numpy as np
from stable_baselines3 import DQN, PPO
from stable_baselines3.common.env_checker import check_env
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecMonitor

from muxsim.adapters import sb3_vector
from muxsim.adapters.gymnasium_env import make, register


def checker(config, folder):
    """What Stable-Baselines3 finds wrong with an environment: nothing."""
    with warnings.catch_warnings(), make(config, "cartpole") as env:
        warnings.simplefilter("error")
        check_env(env)


def learners(config, folder):
    """Learners of both kinds take what `make` makes, in a vector that they make themselves."""
    envs = make_vec_env(partial(make, config, "cartpole"), n_envs=2, seed=1)
    PPO("MlpPolicy", envs, n_steps=16, batch_size=16, n_epochs=1).learn(32)
    envs.close()
    with make(config, "lake") as env:
        DQN("MlpPolicy", env, learning_starts=8, buffer_size=100, train_freq=4).learn(16)


def processes(config, folder):
    """Workers of a vector have sessions of their own."""
    envs = SubprocVecEnv([partial(make, config, "cartpole")] * 2)
    envs.seed(3)
    first = envs.reset()
    with make(config, "cartpole") as env:
        np.testing.assert_array_equal(first[1], env.reset(seed=4)[0])
    envs.step(np.array([0, 1]))
    envs.close()


def vector(config, folder):
    """All at once gives what one after the other gives, ends and what comes behind them included."""
    theirs = VecMonitor(DummyVecEnv([partial(make, config, "lake")] * 2))
    ours = VecMonitor(sb3_vector.make_vec(config, "lake", num_envs=2))
    assert (ours.observation_space, ours.action_space) == (theirs.observation_space, theirs.action_space)
    theirs.seed(1)
    ours.seed(1)
    np.testing.assert_array_equal(ours.reset(), theirs.reset())
    generator, ended = np.random.default_rng(0), 0
    while ended < 4:
        actions = generator.integers(0, 4, size=2)
        expected, found = theirs.step(actions), ours.step(actions)
        for one, other in zip(expected[:3], found[:3], strict=True):
            np.testing.assert_array_equal(other, one)
            assert other.dtype == one.dtype
        ended += int(expected[2].sum())
        for info in (*expected[3], *found[3]):
            info.get("episode", {}).pop("t", None)
        assert [plain(info) for info in found[3]] == [plain(info) for info in expected[3]]
    theirs.close()
    ours.close()


def plain(info):
    return {key: np.asarray(value).tolist() for key, value in info.items() if not key.startswith("_")}


def video(config, folder):
    """Gymnasium's recorder writes what the environment draws."""
    register(config)
    env = gymnasium.make("muxsim/lander", render_mode="rgb_array", max_episode_steps=3)
    env = gymnasium.wrappers.RecordVideo(env, folder, episode_trigger=lambda episode: True)
    env.reset(seed=1)
    for _ in range(3):
        env.step(0)
    env.close()
    (made,) = Path(folder).glob("*.mp4")
    assert made.stat().st_size > 1000


if __name__ == "__main__":
    for check in (checker, learners, processes, vector, video):
        try:
            check(*sys.argv[1:])
            said = "done"
        except BaseException:
            said = traceback.format_exc()
        print(json.dumps([check.__name__, said]), flush=True)
