"""What an adapter costs: steps per second of each beside the bare session, in one run.

Sessions of FrozenLake go against the wall at its start, so that no episode ends. Windows of the bare sessions and of
the adapter take turns, never at the same time, since they share the cores. What is not installed is left out, and why
is said.
"""

import argparse
import gc
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import anyio
import trio
from processes import Server
from report import machine, table
from rollouts import config

from muxsim.adapters.running import running
from muxsim.rollouts.environments.environment import Environment, EnvironmentPool

ENV = "frozen_lake"
WINDOWS = 5
WARM_UP = 0.5  # seconds of stepping before anything is counted
# The tool of the lake, and the move that stays where it is.
TOOL, MOVE = "lake_move", {"action": "LEFT"}
LEFT = 0
RESETS = 20
TURN = 0.2  # seconds that a model takes for a turn, in which a warm slot is filled again
ROOT = Path(__file__).resolve().parent.parent
OPENENV = "openenv==0.10.0"

Window = Callable[[float], float]
"""Steps for so many seconds; how many there were in one."""


class Missing(Exception):
    """A row cannot be measured here, and why."""


@dataclass
class Row:
    """An adapter beside what it is compared with. ``rates`` are steps per second, one for each window."""

    name: str
    beside: str
    aim: float | None = None
    rates: list[float] = field(default_factory=list)
    ratios: list[float] = field(default_factory=list)
    missing: str = ""


class Bare:
    """So many sessions of a pool, each with one call in flight, on the pool's own loop and in its thread."""

    def __init__(self, source: str, sessions: int) -> None:
        self._running = running(source)
        self._sessions: list[Environment] = self._running.call(self._open, sessions)

    async def _open(self, pool: EnvironmentPool, sessions: int) -> list[Environment]:
        return [await pool.open(ENV, seed) for seed in range(sessions)]

    def window(self, seconds: float) -> float:
        return self._running.call(self._steps, seconds)

    async def _steps(self, pool: EnvironmentPool, seconds: float) -> float:
        steps, begun = 0, time.perf_counter()

        async def play(session: Environment) -> None:
            nonlocal steps
            while time.perf_counter() - begun < seconds:
                await session.call(TOOL, MOVE)
                steps += 1

        async with anyio.create_task_group() as tasks:
            for session in self._sessions:
                tasks.start_soon(play, session)
        return steps / (time.perf_counter() - begun)

    def close(self) -> None:
        async def close(pool: EnvironmentPool) -> None:
            for session in self._sessions:
                await session.close()

        self._running.call(close)
        self._running.release()


def stepping(step: Callable[[], int]) -> Window:
    """A window of a program that is not asynchronous; ``step`` returns how many steps it has made."""

    def window(seconds: float) -> float:
        steps, begun = 0, time.perf_counter()
        while time.perf_counter() - begun < seconds:
            steps += step()
        return steps / (time.perf_counter() - begun)

    return window


@contextmanager
def gymnasium_single(source: str) -> Iterator[Window]:
    from muxsim.adapters.gymnasium_env import make  # noqa: PLC0415

    env = make(source, ENV)
    env.reset(seed=0)

    def step() -> int:
        env.step(LEFT)
        return 1

    yield stepping(step)
    env.close()


@contextmanager
def gymnasium_vector(source: str, sessions: int = 8) -> Iterator[Window]:
    import numpy as np  # noqa: PLC0415

    from muxsim.adapters.gymnasium_env import make_vec  # noqa: PLC0415

    envs = make_vec(source, ENV, num_envs=sessions)
    envs.reset(seed=0)
    moves = np.full(sessions, LEFT)

    def step() -> int:
        envs.step(moves)
        return sessions

    yield stepping(step)
    envs.close()


@contextmanager
def gymnasium_received(source: str, sessions: int = 8) -> Iterator[Window]:
    """Each has its next move as soon as it is received."""
    import numpy as np  # noqa: PLC0415

    from muxsim.adapters.gymnasium_env import make_vec  # noqa: PLC0415

    envs = make_vec(source, ENV, num_envs=sessions)
    envs.reset(seed=0)
    moves = np.full(sessions, LEFT)
    ready = list(range(sessions))

    def step() -> int:
        nonlocal ready
        envs.send(moves[: len(ready)], ready)
        ready = envs.recv()[4]["env_id"].tolist()
        return len(ready)

    yield stepping(step)
    envs.close()


@contextmanager
def openenv_socket(url: str, *how: str) -> Iterator[Window]:
    """OpenEnv's client wants an mcp that muxsim does not take: it plays from an interpreter of its own."""
    script = Path(__file__).with_name("openenv_steps.py")
    command = [str(openenv_python()), str(script), f"{url}/envs/{ENV}/openenv", TOOL, json.dumps(MOVE), *how]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as player:
        assert player.stdin is not None
        assert player.stdout is not None

        def window(seconds: float) -> float:
            print(seconds, file=player.stdin, flush=True)
            return float(player.stdout.readline())

        yield window
        player.stdin.close()


def openenv_async(url: str) -> AbstractContextManager[Window]:
    return openenv_socket(url, "async")


def openenv_python() -> Path:
    """The interpreter of the tests, which is made where there is none. Raises `Missing`."""
    sys.path.append(str(ROOT / "tests"))
    from own_environments import python_with  # noqa: PLC0415

    try:
        return python_with("openenv", OPENENV, alone=True)
    except AssertionError as error:
        raise Missing(f"{OPENENV} cannot be installed: {str(error).splitlines()[-1]}") from None


def beside(row: Row, bare: Bare, window: Window, seconds: float) -> None:
    """Windows in turn; each one's ratio is to the bare sessions' just before it."""
    bare.window(WARM_UP)
    window(WARM_UP)
    for _ in range(WINDOWS):
        gc.collect()
        base = bare.window(seconds)
        row.rates.append(window(seconds))
        row.ratios.append(row.rates[-1] / base)


def trl_resets(source: str) -> list[float]:
    """Milliseconds of each reset of TRL's environment, with a warm pool: asked for its reward, an episode has ended."""
    from muxsim.adapters.trl_environment import environment  # noqa: PLC0415

    made: Any = environment(source, ENV)()
    times = []
    for seed in range(RESETS):
        time.sleep(TURN)
        begun = time.perf_counter()
        made.reset(seed=seed)
        times.append((time.perf_counter() - begun) * 1000)
        time.sleep(TURN)
        made.lake_move(action=MOVE["action"])
        made.get_reward()
    return times[1:]


def measure(name: str, source: str, sessions: int, adapter: Any, aim: float | None, seconds: float) -> Row:
    row = Row(name, f"{sessions} bare session{'s' * (sessions > 1)}", aim)
    bare = Bare(source, sessions)
    try:
        with adapter(source) as window:
            beside(row, bare, window, seconds)
    except Missing as missing:
        row.missing = str(missing)
    finally:
        bare.close()
    return row


def shown(rows: list[Row]) -> str:
    head = ["", "steps/s", "of", "ratio", "aim", ""]
    lines = []
    for row in rows:
        if row.missing:
            lines.append([row.name, "", row.missing, "", "", ""])
            continue
        ratio = statistics.median(row.ratios)
        judged = "" if row.aim is None else "met" if ratio >= row.aim else "missed"
        aim = "" if row.aim is None else f"{row.aim:g}"
        lines.append([row.name, f"{statistics.median(row.rates):,.0f}", row.beside, f"{ratio:.2f}", aim, judged])
    return table(head, lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each window (2)")
    parser.add_argument("--json", type=Path, help="write everything measured to this file")
    options = parser.parse_args()
    print(machine())
    with tempfile.TemporaryDirectory() as folder:
        file = config(Path(folder), 64)
        local = str(file)
        rows = [
            measure("Gymnasium, one", local, 1, gymnasium_single, None, options.seconds),
            measure("Gymnasium, a vector of 8", local, 8, gymnasium_vector, 0.8, options.seconds),
            measure("Gymnasium, send and recv of 8", local, 8, gymnasium_received, None, options.seconds),
        ]
        server = Server([sys.executable, "-m", "muxsim", "serve", local, "--port", "0", "--log-level", "warning"], 0)
        try:
            trio.run(trio.to_thread.run_sync, server.wait_ready)
            url = f"http://127.0.0.1:{server.port}"
            rows += [
                measure("OpenEnv, its own client", url, 1, openenv_socket, 0.9, options.seconds),
                measure("OpenEnv, its asynchronous client", url, 1, openenv_async, None, options.seconds),
                measure("Gymnasium behind a URL, one", url, 1, gymnasium_single, None, options.seconds),
            ]
        finally:
            server.end()
        print(f"\n{shown(rows)}", flush=True)
        file.write_text(file.read_text() + "warm = 4\n")
        resets = trl_resets(local)
        middle = statistics.median(resets)
        judged = "met" if middle < 10 else "missed"
        print(f"\nTRL, a reset with a warm pool: {middle:.1f} ms (worst {max(resets):.1f}), aim 10 ms: {judged}")
    if options.json is not None:
        record = {"machine": machine(), "rows": [asdict(row) for row in rows], "trl_reset_ms": resets}
        options.json.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
