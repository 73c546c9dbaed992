"""The two environments of the examples, each with a game that is won, and how a client plays it."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, replace

from harness import ROOT
from mcp import Client, StdioServerParameters

EXAMPLES = ROOT / "examples" / "muxsim.toml"
CONTROL = "muxsim/control"


@dataclass(frozen=True)
class Game:
    """One seed of an environment, and moves that win it."""

    env: str
    server: tuple[str, ...]
    tool: str
    argument: str
    moves: tuple[str, ...]
    seed: int

    @property
    def calls(self):
        """The arguments of each call: the winning moves, and one more that comes too late."""
        return [{self.argument: move} for move in (*self.moves, self.moves[-1])]

    @property
    def command(self):
        """What starts its server with no muxsim between."""
        return [*self.server, "--seed", str(self.seed)]

    def with_seed(self, seed):
        """The same moves with another seed, where they lead somewhere else."""
        return replace(self, seed=seed)


LAKE = Game(
    env="frozen_lake",
    server=(sys.executable, str(ROOT / "examples" / "frozen_lake" / "server.py")),
    tool="lake_move",
    argument="action",
    moves=("DOWN", "DOWN", "DOWN", "RIGHT", "RIGHT", "RIGHT"),
    seed=7,
)
GRID = Game(
    env="treasure_grid",
    server=("node", str(ROOT / "js_servers" / "treasure-grid" / "server.js")),
    tool="move",
    argument="direction",
    moves=("left", "left", "left", "left", "up", "left", "left", "up", "left", "up"),
    seed=7,
)
GAMES = (LAKE, GRID)


async def play(client, game, *, ask=True):
    """Play to the end and one step further; a transcript in the form of the TypeScript clients.

    ``{"tools", "before", "steps", "after"}``; ``before`` and ``after`` are the control plane. With ``ask`` each
    call asks for its own part of that too.
    """
    tools = [tool.name for tool in (await client.list_tools()).tools]
    before = await read_control(client)
    steps = []
    for arguments in game.calls:
        meta = {CONTROL: True} if ask else None
        steps.append(_step(await client.call_tool(game.tool, arguments, meta=meta)))
    return {"tools": tools, "before": before, "steps": steps, "after": await read_control(client)}


async def read_control(client):
    """Every ``control://`` resource that is listed, by its name: ``{"reward": {"reward": 0.0, "step": 0}, …}``."""
    control = {}
    for resource in (await client.list_resources()).resources:
        if resource.uri.startswith("control://"):
            (content,) = (await client.read_resource(resource.uri)).contents
            control[resource.uri.removeprefix("control://")] = json.loads(content.text)
    return control


def _step(result):
    step = {
        "text": "\n".join(block.text for block in result.content if block.type == "text"),
        "others": [
            {"type": block.type, "mimeType": block.mime_type} for block in result.content if block.type != "text"
        ],
        "is_error": bool(result.is_error),
    }
    if result.structured_content is not None:
        step["structured"] = result.structured_content
    if CONTROL in (result.meta or {}):
        step["control"] = result.meta[CONTROL]
    return step


def unasked(transcript):
    """What a transcript would be if no call had asked for the control plane."""
    steps = [{name: value for name, value in step.items() if name != "control"} for step in transcript["steps"]]
    return {**transcript, "steps": steps}


async def play_directly(game):
    """The transcript of a client that starts the game's server itself."""
    command, *arguments = game.command
    async with Client(StdioServerParameters(command=command, args=arguments), mode="legacy") as client:
        return await play(client, game)
