"""Plays the rows of verifiers' OpenEnv taskset with its own code, and a player that is a list of moves; prints JSON.

python stock_verifiers.py URL [ARGUMENTS as JSON]
"""

import asyncio
import json
import sys
from contextlib import asynccontextmanager
from types import SimpleNamespace

from verifiers.v1.tasksets.openenv.taskset import OpenEnvConfig, OpenEnvEnv, OpenEnvTaskset


class Player:
    """Stands in for verifiers' agents: what it is shown, and what is recorded of it."""

    def __init__(self, tool, moves):
        self.replies = [json.dumps({"tool_name": tool, "arguments": {"action": move}}) for move in moves]
        self.shown, self.rewards = [], {}
        self.player = self
        self.trace = self

    @asynccontextmanager
    async def interaction(self, task):
        yield self

    async def turn(self, shown):
        self.shown.append(shown)
        return SimpleNamespace(terminated=not self.replies, last_reply=self.replies.pop(0) if self.replies else "")

    def record_reward(self, name, value):
        self.rewards[name] = value


async def play(url, seed, tool, moves):
    found = []
    for task in OpenEnvTaskset(OpenEnvConfig(base_url=url, resets=[{"seed": seed}, {"seed": seed + 1}])).load():
        player = Player(tool, moves)
        await OpenEnvEnv.run(None, task, player)
        found.append({"rewards": player.rewards, "shown": player.shown, "reset": task.data.reset})
    return found


if __name__ == "__main__":
    print(json.dumps(asyncio.run(play(sys.argv[1], **json.loads(sys.argv[2])))))
