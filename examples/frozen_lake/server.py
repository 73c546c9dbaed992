"""Gymnasium's FrozenLake over MCP: cross the ice from the start to the goal, and keep out of the holes."""

from typing import Any, Literal, TypeAlias

import gymnasium
from gymnasium.envs.toy_text.frozen_lake import generate_random_map

from muxsim.mcpgym import Content, GymServer

Move: TypeAlias = Literal["LEFT", "DOWN", "RIGHT", "UP"]

# In the order of Gymnasium's action space.
MOVES: tuple[Move, ...] = ("LEFT", "DOWN", "RIGHT", "UP")
TILES = {"S": "the start", "F": "ice", "H": "a hole", "G": "the goal"}

# Gymnasium's own odds for a tile to be ice. Its map always has a way to the goal.
ICE = 0.8

INSTRUCTIONS = """\
You are on a frozen lake. Walk from the start to the goal, one tile at a time, and do not fall into a hole.
S is the start, F is ice, H is a hole, G is the goal, and your own tile is in brackets.

{observation}"""


def make(seed: int) -> gymnasium.Env[Any, Any]:
    lake = generate_random_map(size=server.options.size, p=ICE, seed=seed)
    return gymnasium.make("FrozenLake-v1", desc=lake, is_slippery=server.options.slippery)


def describe(observation: Any, env: gymnasium.Env[Any, Any]) -> str:
    """The grid, with brackets around the player's tile, and the position in words."""
    lake: Any = env.unwrapped
    row, column = divmod(int(observation), int(lake.ncol))
    grid = [[tile.decode() for tile in tiles] for tiles in lake.desc]
    tile = TILES[grid[row][column]]
    lines = [
        "".join(f"[{name}]" if (row, column) == (y, x) else f" {name} " for x, name in enumerate(names))
        for y, names in enumerate(grid)
    ]
    return "\n".join([*(line.rstrip() for line in lines), f"You are at row {row}, column {column}, on {tile}."])


server = GymServer("frozen_lake", make, describe=describe, title="Frozen Lake", instructions=INSTRUCTIONS)
server.parser.add_argument("--slippery", action="store_true", help="the ice may take you to the side")
server.parser.add_argument(
    "--size", type=int, default=4, choices=range(2, 33), metavar="N", help="tiles on each side (default: 4)"
)


@server.tool()
def lake_move(action: Move) -> Content:
    """Move one tile on the ice. Moving off the edge of the lake leaves you where you are."""
    return server.step(MOVES.index(action))


if __name__ == "__main__":
    server.run()
