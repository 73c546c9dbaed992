"""Small environments for the tests: each does one thing that a kit has to cope with."""

import gymnasium
import numpy as np
from gymnasium import spaces

LAST = 3


class Counter(gymnasium.Env):
    """Counts the steps. The reward is the action's number, and the third step ends the episode."""

    def __init__(self, action_space=None, render_mode=None):
        self.action_space = action_space or spaces.Discrete(4)
        self.observation_space = spaces.Box(0, np.inf, (2,), np.float32)
        self.render_mode = render_mode
        self.count = 0
        self.actions = []

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.count = 0
        return self._observation(), {"seed": seed}

    def step(self, action):
        self.count += 1
        self.actions.append(action)
        reward = float(np.sum(action)) if not isinstance(action, dict) else 1.0
        return (
            self._observation(),
            np.float64(reward),
            np.bool_(self.count == LAST),
            False,
            {"at": np.int64(self.count)},
        )

    def render(self):
        return np.full((2, 3, 3), self.count, dtype=np.uint8)

    def _observation(self):
        return np.array([self.count, 0.1], dtype=np.float32)


class Scripted(Counter):
    """Returns from `step` what it was given, one after the other; exceptions it raises."""

    def __init__(self, *returns):
        super().__init__()
        self.returns = list(returns)

    def step(self, action):
        returned = self.returns.pop(0)
        if isinstance(returned, Exception):
            raise returned
        return returned
