"""A lake in the form of reward-kit's first servers: FastMCP, and the control plane as resources of its own."""

import argparse
import json
from typing import Literal

from gymnasium.envs.toy_text.frozen_lake import FrozenLakeEnv, generate_random_map
from mcp.server.fastmcp import Context, FastMCP

MOVES = ["LEFT", "DOWN", "RIGHT", "UP"]


class ResourceLake:
    def __init__(self, seed):
        self.env = FrozenLakeEnv(
            desc=generate_random_map(size=4, p=0.8, seed=seed), is_slippery=False, render_mode="ansi"
        )
        self.obs, _ = self.env.reset(seed=seed)
        self.control = {"reward": 0.0, "terminated": False, "truncated": False, "step_count": 0, "total_reward": 0.0}
        self.mcp = FastMCP("Resource-Lake", host="0.0.0.0", port=8000)

        @self.mcp.resource("control://reward")
        def reward() -> str:
            return json.dumps({"reward": self.control["reward"], "step_count": self.control["step_count"]})

        @self.mcp.resource("control://status")
        def status() -> str:
            return json.dumps({name: value for name, value in self.control.items() if name != "reward"})

        @self.mcp.resource("game://initial_state")
        def initial_state() -> str:
            return json.dumps({"position": int(self.obs), "grid": self.env.render()})

        @self.mcp.tool(name="lake_move", description="Move on the lake: LEFT, DOWN, RIGHT, UP.")
        def lake_move(action: Literal["LEFT", "DOWN", "RIGHT", "UP"], ctx: Context) -> dict:
            self.obs, reward, terminated, truncated, _ = self.env.step(MOVES.index(action))
            self.control.update(reward=reward, terminated=terminated, truncated=truncated)
            self.control["step_count"] += 1
            self.control["total_reward"] += reward
            return {"position": int(self.obs), "grid": self.env.render()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int)
    ResourceLake(parser.parse_args().seed).mcp.run(transport="streamable-http")
