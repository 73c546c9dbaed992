"""Opens eight sessions at once through one muxsim, plays each to its end, and shows how it went."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import re
import signal
import sys
import time
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from mcp import StdioServerParameters
from mcp.client import Client
from mcp.client.sse import sse_client
from rich import box
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
MUXSIM = str(ROOT / ".venv" / "bin" / "muxsim")
CONFIG = str(ROOT / "examples" / "muxsim.toml")
START_LIMIT = 60
PLAY_LIMIT = 60
STOP_LIMIT = 10

TRANSPORTS = ("streamable HTTP", "SSE", "stdio")


@dataclass(frozen=True)
class Game:
    """What the demo has to know to play an environment: its tool, its moves, and how its map is drawn."""

    tool: str
    argument: str
    moves: dict[str, tuple[int, int]]
    player: str
    goal: str
    blocked: str


GAMES = {
    "frozen_lake": Game(
        "lake_move", "action", {"LEFT": (0, -1), "DOWN": (1, 0), "RIGHT": (0, 1), "UP": (-1, 0)}, "@", "G", "H"
    ),
    "treasure_grid": Game(
        "move", "direction", {"left": (0, -1), "down": (1, 0), "right": (0, 1), "up": (-1, 0)}, "@", "T", "#^"
    ),
}


@dataclass
class Episode:
    """One row of the table."""

    env: str
    transport: str
    seed: int
    steps: int = 0
    ended: str = ""
    reward: float = 0.0
    seconds: float = 0.0


def grid(text: str) -> list[str]:
    """The rows of a map in an observation, one character a field; the player's own field is ``@``."""
    rows = [re.sub(r"\[.\]", " @ ", line) for line in text.partition("\n\n")[0].splitlines()]
    return ["".join(row.split()) for row in rows if re.fullmatch(r"[\s@A-Z#^.]+", row)]


def way(rows: list[str], game: Game) -> list[str]:
    """The shortest moves from the player to the goal."""
    start = next((r, c) for r, row in enumerate(rows) for c, field in enumerate(row) if field == game.player)
    seen, queue = {start}, deque([(start, [])])
    while queue:
        (r, c), moves = queue.popleft()
        if rows[r][c] == game.goal:
            return moves
        for name, (down, right) in game.moves.items():
            there = (r + down, c + right)
            inside = 0 <= there[0] < len(rows) and 0 <= there[1] < len(rows[r])
            if inside and there not in seen and rows[there[0]][there[1]] not in game.blocked:
                seen.add(there)
                queue.append((there, [*moves, name]))
    raise ValueError("this map has no way to its goal")


def connect(episode: Episode, url: str) -> Client:
    """A client of the episode's own session, over its transport."""
    query = f"env={episode.env}&seed={episode.seed}"
    if episode.transport == "stdio":
        arguments = ["stdio", CONFIG, "--env", episode.env, "--seed", str(episode.seed), "--log-level", "warning"]
        return Client(StdioServerParameters(command=MUXSIM, args=arguments))
    if episode.transport == "SSE":
        return Client(sse_client(f"{url}/sse?{query}"))
    return Client(f"{url}/mcp?{query}")


async def play(episode: Episode, url: str) -> None:
    """Play one session to its end."""
    began, game = time.perf_counter(), GAMES[episode.env]
    async with asyncio.timeout(PLAY_LIMIT), connect(episode, url) as client:
        start = (await read(client, "control://initial_state"))["observation"]
        for move in way(grid(start), game):
            result = await client.call_tool(game.tool, {game.argument: move})
            if result.is_error:
                raise RuntimeError(f"{episode.env}: {result.content}")
            episode.steps += 1
        status = await read(client, "control://status")
        ends = [name for name in ("terminated", "truncated") if status[name]]
        episode.ended, episode.reward = " and ".join(ends) or "still running", status["total_reward"]
    episode.seconds = time.perf_counter() - began


async def read(client: Client, uri: str) -> Any:
    """The JSON of a control plane resource."""
    contents = (await client.read_resource(uri)).contents
    return msgspec.json.decode(contents[0].text)


@asynccontextmanager
async def serving() -> AsyncIterator[str]:
    """A muxsim on a free port; its URL."""
    process = await asyncio.create_subprocess_exec(
        MUXSIM, "serve", CONFIG, "--port", "0", "--log-level", "warning", stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(START_LIMIT):
            line = (await process.stdout.readline()).decode()
        found = re.search(r"http://\S+", line)
        if found is None:
            raise RuntimeError("muxsim serve did not start; its error is above")
        yield found[0]
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(STOP_LIMIT):
            await process.wait()


def episodes() -> Iterator[Episode]:
    """Eight sessions: both environments, every transport, seeds of their own."""
    pairs = itertools.cycle([(env, transport) for transport in TRANSPORTS for env in GAMES])
    for seed, (env, transport) in zip(range(8), pairs, strict=False):
        yield Episode(env, transport, seed)


def table(played: list[Episode]) -> Table:
    """The table a person looks at."""
    shown = Table(
        title="Eight isolated, seeded sessions through one muxsim",
        title_justify="left",
        box=box.SIMPLE,
        padding=(0, 1),
        pad_edge=False,
    )
    for name in ("environment", "transport", "ended"):
        shown.add_column(name, no_wrap=True)
    for name in ("seed", "steps", "reward", "time"):
        shown.add_column(name, no_wrap=True, justify="right")
    for one in played:
        numbers = (str(one.seed), str(one.steps), f"{one.reward:g}", f"{one.seconds:.2f} s")
        shown.add_row(one.env, one.transport, one.ended, *numbers)
    return shown


def descendants() -> list[int]:
    """The processes below this one, which all began in this demo."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
    family = {os.getpid()}
    while new := {pid for pid, parent in parents.items() if parent in family} - family:
        family |= new
    return sorted(family - {os.getpid()})


async def main() -> None:
    """Play, show, and check that nothing is left."""
    console, played, began = Console(), list(episodes()), time.perf_counter()
    async with serving() as url, asyncio.TaskGroup() as group:
        for episode in played:
            group.create_task(play(episode, url))
    console.print(table(played))
    left = descendants()
    console.print(
        f"{len(played)} episodes in {time.perf_counter() - began:.1f} s, start and stop included; "
        f"processes left: {len(left) or 'none'}."
    )
    if left:
        sys.exit(1)


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
