"""Programs that fork, spawn and are killed: each process has sessions of its own, and leaves none."""

import os
import signal
import subprocess
import sys
import warnings
from contextlib import closing

import numpy as np
import pytest
import trio
from harness import ROOT, alive
from serve.machine import gone

from muxsim.adapters.gymnasium_env import make

pytestmark = pytest.mark.children

# A painter that says which process it is.
SERVER = """
import os, sys
sys.path.insert(0, {tests!r})
with open({pids!r}, "a") as file:
    print(os.getpid(), file=file)
from servers import painter
painter.main()
"""
PROGRAMS = {
    "one": "env = make(CONFIG, 'painter')",
    "a vector": "env = make_vec(CONFIG, 'painter', num_envs=2)",
    "workers": "env = gymnasium.vector.AsyncVectorEnv([partial(make, CONFIG, 'painter')] * 2, shared_memory=False)",
    "a fork": ("if pid := os.fork():\n    os.waitpid(pid, 0)\n    os._exit(0)\nenv = make(CONFIG, 'painter')"),
}
PROGRAM = """
import os, sys
from functools import partial
import gymnasium
from muxsim.adapters.gymnasium_env import make, make_vec

CONFIG = {config!r}
if __name__ == "__main__":
    {begin}
    env.reset(seed=1)
    print("begun", os.getpid(), flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def pids(tmp_path):
    """Where each session has written its process."""
    return tmp_path / "pids"


@pytest.fixture
def config(tmp_path, pids):
    (tmp_path / "server.py").write_text(SERVER.format(tests=str(ROOT / "tests"), pids=str(pids)))
    path = tmp_path / "muxsim.toml"
    path.write_text(f'[environments.painter]\ncommand = "{sys.executable}"\nargs = ["{tmp_path}/server.py"]\n')
    return path


def sessions(pids):
    return [int(line) for line in pids.read_text().split()]


@pytest.mark.parametrize("how", PROGRAMS)
def test_the_sessions_of_a_program_that_is_killed_end(how, config, pids, tmp_path):
    begin = PROGRAMS[how].replace("\n", "\n    ")
    (tmp_path / "program.py").write_text(PROGRAM.format(config=str(config), begin=begin))
    with subprocess.Popen(
        [sys.executable, tmp_path / "program.py"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as program:
        words = program.stdout.readline().split()
        assert words[:1] == ["begun"]
        assert any(alive(pid) for pid in sessions(pids))
        os.kill(int(words[1]), signal.SIGKILL)
        trio.run(gone, *sessions(pids))


def test_sessions_of_a_fork_are_its_own_and_those_of_its_parent_go_on(config):
    with closing(make(config, "painter")) as env:
        first, _ = env.reset(seed=1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that other threads are running, which is what this is about
            child = os.fork()
        if not child:
            code = 1
            try:
                other = make(config, "painter")
                code = int(not np.array_equal(other.reset(seed=1)[0], first))
                other.close()
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert env.step(0)[1] == 0.5


WORKERS = """
from functools import partial
import gymnasium
import numpy as np
from muxsim.adapters.gymnasium_env import make

if __name__ == "__main__":
    maker = partial(make, {config!r}, "painter")
    envs = gymnasium.vector.AsyncVectorEnv([maker] * 2, context={context!r}, shared_memory={shared})
    observations, _ = envs.reset(seed=3)
    env = maker()
    np.testing.assert_array_equal(observations[1], env.reset(seed=4)[0])
    observations, rewards, *_ = envs.step(np.array([0, 0]))
    assert rewards.tolist() == [0.5, 0.5]
    np.testing.assert_array_equal(observations[0], env.step(0)[0])
    envs.close()
    env.close()
"""


@pytest.mark.parametrize("context", ["fork", "spawn"])
@pytest.mark.parametrize("shared", [False, True])
def test_workers_of_an_async_vector_play_what_one_plays(context, shared, config, pids, tmp_path):
    # In a program of its own: Python has a process for what workers share, which stays until the program ends.
    (tmp_path / "workers.py").write_text(WORKERS.format(config=str(config), context=context, shared=shared))
    done = subprocess.run([sys.executable, tmp_path / "workers.py"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    trio.run(gone, *sessions(pids))
