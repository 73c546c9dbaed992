"""An environment that is not fit for rollouts: it throws a die that no seed decides."""

import gymnasium
from gymnasium import spaces

from muxsim.mcpgym import GymServer

SIDES = 1_000_000
LAST = 5


class HiddenDice(gymnasium.Env):
    """Starts alike for a seed; each step throws with randomness of the machine's own."""

    action_space = spaces.Discrete(2)
    observation_space = spaces.Discrete(SIDES)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return int(self.np_random.integers(SIDES)), {}

    def step(self, action):
        self.steps += 1
        return _thrown(), 0.0, self.steps == LAST, False, {}


def _thrown():
    # The kernel's: the kit seeds every generator that a program draws from.
    with open("/dev/urandom", "rb") as machine:
        return int.from_bytes(machine.read(8), "big") % SIDES


if __name__ == "__main__":
    GymServer("hidden_dice", lambda seed: HiddenDice()).run()
