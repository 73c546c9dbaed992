"""Says back what it is told, and what of its process a wire could spoil."""

import asyncio
import threading

import gymnasium
from gymnasium import spaces

from muxsim.mcpgym import GymServer


class Still(gymnasium.Env):
    action_space = observation_space = spaces.Discrete(1)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return 0, {}


server = GymServer("mirror", lambda seed: Still())


@server.tool()
def say(text: str) -> str:
    return text


@server.tool()
def count_threads() -> str:
    return str(threading.active_count())


@server.tool()
async def wait() -> str:
    await asyncio.sleep(600)
    return "waited"


if __name__ == "__main__":
    server.run()
