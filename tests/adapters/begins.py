# ruff: noqa: PLC0415 - each kind has packages of its own
"""A trainer of each kind in the middle of an episode: `python begins.py KIND SOURCE`. It forks, says so, and hangs.

What stands in for packages that are not here is that of the adapters' own tests.
"""

import asyncio
import atexit
import functools
import gc
import os
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import pytest

from muxsim.adapters import running
from muxsim.compat.reward_kit import places
from muxsim.rollouts.environments.remote import connect

ENV, LEASE = "scored", 10.0
PROMPT = [{"role": "user", "content": "Step."}]


def trl(source):
    from muxsim.adapters.trl_environment import environment

    played = environment(source, ENV)()
    played.reset(seed=7)
    in_the_middle()


def skyrl(source):
    from types import ModuleType

    names = ("skyrl_gym", "skyrl_gym.envs", "skyrl_gym.envs.base_text_env")
    sys.modules.update({name: ModuleType(name) for name in names})
    vars(sys.modules[names[-1]]).update(BaseTextEnv=object, BaseTextEnvStepOutput=dict, ConversationType=list)
    from muxsim.adapters.skyrl_text_env import MuxsimTextEnv

    played = MuxsimTextEnv({"source": source, "env": ENV}, {"seed": 7})
    played.init(PROMPT)
    in_the_middle()


def verl(source):
    from adapters import test_verl

    class Hangs(test_verl.Base):
        async def generate(self, **_asked):
            in_the_middle()

    test_verl.Base = Hangs
    adapter = test_verl.verl.__wrapped__(pytest.MonkeyPatch())
    loop = adapter.MuxsimAgentLoop(replies=(), source=source, env=ENV)
    asyncio.run(loop.run({}, raw_prompt=PROMPT, extra_info={"seed": 7}))


def nemo(source):
    from types import SimpleNamespace

    from pydantic import BaseModel

    from adapters.fakes import stand_in

    server = type("Server", (BaseModel,), {"__annotations__": {"config": BaseModel}})
    adapter = stand_in(
        pytest.MonkeyPatch(),
        "muxsim.adapters.nemo_server",
        nemo_gym__base_resources_server={"BaseResourcesServerConfig": BaseModel},
        nemo_gym__openai_utils={"NeMoGymResponse": SimpleNamespace},
        nemo_gym__server_utils={"SESSION_ID_KEY": "session_id"},
        resources_servers__gymnasium={"GymnasiumServer": server},
    )
    played = adapter.MuxsimServer(config=adapter.MuxsimServerConfig(source=source, env=ENV))
    asyncio.run(played.reset({"seed": 7}, "a"))
    in_the_middle()


def rllm(source):
    from adapters import test_rllm

    adapter = test_rllm.rllm.__wrapped__(pytest.MonkeyPatch())
    flow = adapter.Flow(source, ENV, policy=lambda config: Hangs())
    flow.run(test_rllm.task(instruction="", seed=7), test_rllm.CONFIG)


def gymnasium(source):
    from muxsim.adapters.gymnasium_env import make

    played = make(source, ENV)
    played.reset(seed=7)
    in_the_middle()


def reward_kit(source):
    import muxsim.compat.reward_kit as rk

    spec = f"{source}/envs/{ENV}/mcp" if source.startswith("http") else f"{source}#{ENV}"
    asyncio.run(rk.rollout(rk.make(spec, n=1, seeds=[7]), Hangs()))


def reward_kit_by_hand(source):
    import muxsim.compat.reward_kit as rk

    spec = f"{source}/envs/{ENV}/mcp" if source.startswith("http") else f"{source}#{ENV}"

    async def main():
        envs = rk.make(spec, n=1, seeds=[7])
        await envs.reset()
        in_the_middle()

    asyncio.run(main())


def inspect(source):
    from inspect_ai import Task, eval
    from inspect_ai.dataset import Sample

    from muxsim.adapters.inspect_solver import play

    async def hangs(state, generate):
        in_the_middle()

    sample = Sample(input="Step.", id="one", metadata={"seed": 7})
    eval(Task(dataset=[sample], solver=play(source, ENV, player=hangs)), model="mockllm/model", display="none")


class Hangs:
    """A policy whose model never answers."""

    async def next_message(self, conversation, tools, seed):
        in_the_middle()


def in_the_middle():
    """Fork as a data loader does, whose child ends in good order; then hang, with the loop of whoever waits."""
    child = os.fork()
    if not child:
        try:
            gc.collect()
            atexit._run_exitfuncs()
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    print("in the middle", flush=True)
    signal.pause()


if __name__ == "__main__":
    soon = functools.partial(connect, lease=LEASE)
    running.connect = places.connect = soon
    {name: one for name, one in globals().items() if callable(one)}[sys.argv[1]](sys.argv[2])
