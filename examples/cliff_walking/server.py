"""Gymnasium's CliffWalking over MCP: walk along the cliff to the goal, and do not step over its edge."""

from typing import Any

import gymnasium

from muxsim.mcpgym import GymServer

# Gymnasium has no limit here. The way is 13 steps, and a random walk gets nowhere in any number of them.
LONGEST_WALK = 200

INSTRUCTIONS = """\
You are x on the map. Walk to T by the fewest steps. C is a cliff: who steps over it starts again.

{observation}"""


def make(seed: int) -> gymnasium.Env[Any, Any]:
    return gymnasium.make(
        "CliffWalking-v1",
        is_slippery=server.options.slippery,
        render_mode="ansi",
        max_episode_steps=LONGEST_WALK,
    )


def describe(observation: Any, env: gymnasium.Env[Any, Any]) -> str:
    """Gymnasium's own map in letters."""
    return str(env.render()).rstrip()


server = GymServer(
    "cliff_walking",
    make,
    describe=describe,
    actions=["UP", "RIGHT", "DOWN", "LEFT"],
    title="Cliff Walking",
    instructions=INSTRUCTIONS,
)
server.parser.add_argument("--slippery", action="store_true", help="the ground may take you to the side")

if __name__ == "__main__":
    server.run()
