"""Draws from every generator that there is, and shows what it drew."""

import random

import gymnasium
import numpy as np
from gymnasium import spaces

from muxsim.mcpgym import GymServer


class Dice(gymnasium.Env):
    action_space = spaces.Discrete(6)
    observation_space = spaces.Box(0, 1, (5,))

    def __init__(self):
        self.at_creation = random.random()

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self._throw(0), {}

    def step(self, action):
        thrown = self._throw(int(action))
        return thrown, thrown[1], thrown[2] > 0.95, False, {"global": random.random()}

    def _throw(self, action):
        sample = int(self.action_space.sample())
        return [self.at_creation, random.random(), np.random.random(), self.np_random.random(), sample, action]


server = GymServer("dice", lambda seed: Dice())

if __name__ == "__main__":
    server.run()
