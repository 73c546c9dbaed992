"""What a rollout costs: environment steps per second through muxsim, beside the same servers on bare pipes.

Each row plays FrozenLake with the same script in the same number of sessions: against the wall at the start, so that no
episode ends. The pipes are driven by an epoll loop that does nothing else. Windows of pipes and of muxsim take turns,
never at the same time, since they share the cores; each has its own servers.
"""

import argparse
import contextlib
import gc
import json
import os
import select
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import trio
from drivers import ANSWER_TIMEOUT, INITIALIZED, BrokenRun, PipeLane, converse, initialize
from processes import Server
from report import machine, table

import muxsim
from muxsim.rollouts.data.trajectory import Trajectory
from muxsim.rollouts.environments.environment import EnvironmentPool
from muxsim.rollouts.policy.scripted import ScriptedPolicy

LAKE = Path(__file__).resolve().parent / "backends" / "endless_lake.py"
# Off the edge of the lake at its start: the player stays, the episode never ends.
MOVES = ("LEFT", "UP")
# Steps of an episode as they are in practice. A conversation that only grows would be what is measured.
MOST_STEPS = 50
WINDOWS = 3
START_LIMIT = 600.0
WARM_UP = 0.5  # seconds of stepping before anything is counted
AIMS = {"local": 0.8, "http": 0.5}
WHAT = {
    "pipe": "the same servers on bare pipes, driven by epoll",
    "local": "muxsim.open_pool and muxsim.rollout, in this process",
    "http": "muxsim serve, with muxsim.connect and muxsim.rollout",
}


@dataclass
class Row:
    """One way to drive so many sessions. ``steps`` are those of a second, one number for each window."""

    way: str
    sessions: int
    ready: float = 0.0
    steps: list[float] = field(default_factory=list)
    client_us: list[float] = field(default_factory=list)
    ratios: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        return statistics.median(self.steps)

    @property
    def ratio(self) -> float:
        return statistics.median(self.ratios)


def command(seed: int) -> list[str]:
    return [sys.executable, str(LAKE), "--seed", str(seed)]


def step(number: int) -> bytes:
    """The call that muxsim makes too: with the control plane in the same trip."""
    params = {
        "name": "lake_move",
        "arguments": {"action": MOVES[number % len(MOVES)]},
        "_meta": {"muxsim/control": True},
    }
    return json.dumps({"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params}).encode()


class Pipes:
    """Servers on bare pipes, one call in flight in each."""

    def __init__(self, sessions: int) -> None:
        begun = time.perf_counter()
        self.lanes = [PipeLane(command(seed)) for seed in range(sessions)]
        for lane in self.lanes:
            self._open(lane)
        self.ready = time.perf_counter() - begun
        self._number = 0

    def _open(self, lane: PipeLane) -> None:
        os.write(lane.write_fd, lane.request(initialize()))
        self._await(lane)
        os.write(lane.write_fd, lane.request(INITIALIZED))
        for number, method in enumerate(("tools/list", "resources/read"), 1):
            params = {"uri": "control://initial_state"} if method == "resources/read" else {}
            body = json.dumps({"jsonrpc": "2.0", "id": number, "method": method, "params": params}).encode()
            converse(lane, body)

    def _await(self, lane: PipeLane) -> None:
        poll = select.poll()
        poll.register(lane.read_fd, select.POLLIN)
        answer = None
        while answer is None:
            if not poll.poll(START_LIMIT * 1000):
                raise BrokenRun(f"a server did not answer in {START_LIMIT:.0f} s")
            answer = lane.receive()

    def window(self, seconds: float) -> tuple[float, float]:
        """Steps per second, and this process's CPU for a step in microseconds."""
        with poller(self.lanes) as poll:
            by_fd = {lane.read_fd: lane for lane in self.lanes}
            cpu, begun = time.process_time(), time.perf_counter()
            for lane in self.lanes:
                self._send(lane)
            steps, flying = 0, len(self.lanes)
            while flying:
                ready = poll.poll(ANSWER_TIMEOUT)
                if not ready:
                    raise BrokenRun(f"no answer in {ANSWER_TIMEOUT:.0f} s")
                for fd, _ in ready:
                    answer = by_fd[fd].receive()
                    if answer is None:
                        continue
                    if b'"muxsim/control"' not in answer:
                        raise BrokenRun(f"no control plane in {answer[:200]!r}")
                    steps += 1
                    if time.perf_counter() - begun < seconds:
                        self._send(by_fd[fd])
                    else:
                        flying -= 1
            return measured(steps, time.perf_counter() - begun, time.process_time() - cpu)

    def _send(self, lane: PipeLane) -> None:
        self._number += 1
        os.write(lane.write_fd, lane.request(step(self._number)))

    def close(self) -> None:
        for lane in self.lanes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                lane.close()


@contextmanager
def poller(lanes: Sequence[PipeLane]) -> Iterator[select.epoll]:
    poll = select.epoll()
    for lane in lanes:
        poll.register(lane.read_fd, select.EPOLLIN)
    try:
        yield poll
    finally:
        poll.close()


def measured(steps: int, seconds: float, cpu: float) -> tuple[float, float]:
    if not steps:
        raise BrokenRun(f"no step in {seconds:.1f} s")
    return steps / seconds, cpu / steps * 1e6


class Endless:
    """The script: the moves, again and again."""

    def __len__(self) -> int:
        return sys.maxsize

    def __getitem__(self, turn: int) -> str:
        return MOVES[turn % len(MOVES)]


class Gate:
    """A watcher that counts steps, and a policy that plays the script while the gate is open."""

    def __init__(self, sessions: int) -> None:
        self.sessions = sessions
        self.steps = 0
        self.begun = 0
        self.flying = 0
        self.all_ready = trio.Event()
        self.still = trio.Event()
        self.failed: str | None = None
        self._open = trio.Event()
        self._shut = True
        script: Any = Endless()
        self._script = ScriptedPolicy(lambda seed: script)

    def open(self) -> None:
        self._shut, self.still = False, trio.Event()
        self._open.set()

    def shut(self) -> None:
        self._shut, self._open = True, trio.Event()

    async def next_message(
        self, conversation: Sequence[dict[str, Any]], tools: Sequence[dict[str, Any]], seed: int
    ) -> Any:
        if self._shut:
            await self._wait()
        return await self._script.next_message(conversation, tools, seed)

    async def _wait(self) -> None:
        self.flying -= 1
        if not self.flying:
            self.still.set()
        await self._open.wait()
        self.flying += 1

    def started(self, trajectory: Trajectory) -> None:
        self.begun += 1
        self.flying += 1
        if self.begun == self.sessions:
            self.all_ready.set()

    def stepped(self, trajectory: Trajectory) -> None:
        self.steps += 1
        if len(trajectory.steps) >= MOST_STEPS:
            del trajectory.steps[:], trajectory.messages[2:], trajectory.tokens[:]

    def ended(self, trajectory: Trajectory) -> None:
        if trajectory.end_reason.value != "cancelled":
            self.failed = f"{trajectory.id}: {trajectory.end_reason.value}: {trajectory.error}"
            self.all_ready.set()
            self.still.set()


@asynccontextmanager
async def playing(pool: EnvironmentPool, sessions: int) -> AsyncIterator[tuple[Gate, float]]:
    """So many episodes under way; the seconds are those until all of them were ready."""
    gate = Gate(sessions)
    rows = [{"id": f"lake-{seed}", "env": "frozen_lake", "seed": seed} for seed in range(sessions)]
    begun = time.perf_counter()

    async def play() -> None:
        await muxsim.rollout(
            pool,
            rows,
            policy=gate,
            watchers=[gate],
            max_steps=10**7,
            max_concurrent=sessions,
            start_timeout=START_LIMIT,
        )

    async with trio.open_nursery() as nursery:
        nursery.start_soon(play)
        await gate.all_ready.wait()
        check(gate)
        yield gate, time.perf_counter() - begun
        nursery.cancel_scope.cancel()


def check(gate: Gate) -> None:
    if gate.failed is not None:
        raise BrokenRun(gate.failed)


async def window(gate: Gate, seconds: float) -> tuple[float, float]:
    steps, cpu, begun = gate.steps, time.process_time(), time.perf_counter()
    gate.open()
    await trio.sleep(seconds)
    gate.shut()
    with trio.fail_after(ANSWER_TIMEOUT):
        await gate.still.wait()
    check(gate)
    return measured(gate.steps - steps, time.perf_counter() - begun, time.process_time() - cpu)


def config(folder: Path, sessions: int) -> Path:
    file = folder / "muxsim.toml"
    command, *arguments = (json.dumps(str(LAKE)), '"--seed"', '"{seed}"')
    file.write_text(
        f"[server]\nmax_sessions = {sessions}\n\n[environments.frozen_lake]\ncommand = {command}\n"
        f"args = [{', '.join(arguments)}]\nstart_timeout = {START_LIMIT:.0f}\n"
    )
    return file


def local(file: Path) -> AbstractAsyncContextManager[EnvironmentPool]:
    return muxsim.open_pool(file)


@asynccontextmanager
async def http(file: Path) -> AsyncIterator[EnvironmentPool]:
    server = Server([sys.executable, "-m", "muxsim", "serve", str(file), "--port", "0", "--log-level", "warning"], 0)
    try:
        await trio.to_thread.run_sync(server.wait_ready)
        async with muxsim.connect(f"http://127.0.0.1:{server.port}") as pool:
            yield pool
    finally:
        server.end()


async def run_beside(pipes: Pipes, row: Row, base: Row, file: Path, seconds: float) -> None:
    """Windows of the pipes and of the row in turn; each window's ratio is to the pipes' just before it."""
    opened = local(file) if row.way == "local" else http(file)
    async with opened as pool, playing(pool, row.sessions) as (gate, ready):
        row.ready = ready
        await window(gate, WARM_UP)
        pipes.window(WARM_UP)
        for _ in range(WINDOWS):
            gc.collect()
            pipe, pipe_us = pipes.window(seconds)
            rate, client_us = await window(gate, seconds)
            base.steps.append(pipe)
            base.client_us.append(pipe_us)
            row.steps.append(rate)
            row.client_us.append(client_us)
            row.ratios.append(rate / pipe)


def measure(sessions: int, ways: Sequence[str], seconds: float) -> list[Row]:
    base, rows = Row("pipe", sessions), [Row(way, sessions) for way in ways]
    pipes = Pipes(sessions)
    base.ready = pipes.ready
    try:
        with tempfile.TemporaryDirectory() as folder:
            for row in rows:
                trio.run(run_beside, pipes, row, base, config(Path(folder), sessions), seconds)
    finally:
        pipes.close()
    return [base, *rows]


def shown(rows: Sequence[Row]) -> str:
    head = ["", "steps/s", "of the pipes", "aim", "", "ready s", "own us/step"]
    lines = []
    for row in rows:
        aim = AIMS.get(row.way)
        judged = (
            ["1", "", ""] if aim is None else [f"{row.ratio:.2f}", f"{aim:g}", "met" if row.ratio >= aim else "missed"]
        )
        own = statistics.median(row.client_us)
        lines.append([row.way, f"{row.rate:,.0f}", *judged, f"{row.ready:.2f}", f"{own:.0f}"])
    plural = "" if rows[0].sessions == 1 else "s"
    return f"{rows[0].sessions} session{plural}\n{table(head, lines)}"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sessions", default="1,8,32", help="numbers of sessions; 128 needs some 9 GiB (1,8,32)")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each window (2)")
    parser.add_argument("--only", default="local,http", help="local, http (both)")
    parser.add_argument("--json", type=Path, help="write everything measured to this file")
    return parser.parse_args()


def main() -> None:
    options = arguments()
    ways = options.only.split(",")
    print(machine())
    for way in ("pipe", *ways):
        print(f"{way:6} {WHAT[way]}")
    measured_rows: list[Row] = []
    for sessions in map(int, options.sessions.split(",")):
        rows = measure(sessions, ways, options.seconds)
        measured_rows += rows
        print(f"\n{shown(rows)}", flush=True)
    if options.json is not None:
        record = {"machine": machine(), "seconds": options.seconds, "rows": [asdict(row) for row in measured_rows]}
        options.json.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
