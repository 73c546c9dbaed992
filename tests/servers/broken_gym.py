"""Environments of the author kit, each with a mistake that authors make; named on the command line."""

import sys

import gymnasium
from gymnasium import spaces

from muxsim.mcpgym import GymServer

AT = 2
ENDLESS = {}
ENDLESS["again"] = ENDLESS

STEPS = {
    "no-tuple": lambda: None,
    "four-members": lambda: (0, 0.0, False, {}),
    "nan-reward": lambda: (0, float("nan"), False, False, {}),
    "none-reward": lambda: (0, None, False, False, {}),
    "inf-reward": lambda: (0, float("inf"), False, False, {}),
    "text-reward": lambda: (0, "1.0", False, False, {}),
    "odd-terminated": lambda: (0, 0.0, "no", False, {}),
    "odd-info": lambda: (0, 0.0, False, False, None),
    "endless-info": lambda: (0, 0.0, False, False, ENDLESS),
}


class Broken(gymnasium.Env):
    action_space = spaces.Discrete(2)
    observation_space = spaces.Discrete(9)

    def __init__(self, how):
        self.how = how

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        if self.how == "reset-raises":
            raise ConnectionError("no simulator at port 7")
        if self.how == "reset-alone":
            return 0
        if self.how == "reset-odd-info":
            return 0, None
        self.steps = 0
        return 0, {}

    def step(self, action):
        self.steps += 1
        if self.steps < AT:
            return self.steps, 1.0, False, False, {}
        if self.how == "step-raises":
            raise ConnectionError("the simulator does not answer")
        return STEPS.get(self.how, lambda: (0, 1.0, False, False, {}))()


def described(observation, env):
    if env.how == "describe-raises" and env.steps >= AT:
        raise KeyError("nowhere")
    if env.how == "describes-nothing":
        return None
    return f"at {observation}"


how = sys.argv.pop(1)
GymServer("broken", lambda seed: Broken(how), describe=described).run()
