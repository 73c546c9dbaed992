"""Gymnasium's FrozenLake on its own map, which is the same in each episode: something that PPO can learn by heart."""

import gymnasium

from muxsim.mcpgym import GymServer

server = GymServer("frozen_lake", lambda seed: gymnasium.make("FrozenLake-v1", is_slippery=False))

if __name__ == "__main__":
    server.run()
