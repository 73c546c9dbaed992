"""Opens and closes sessions by the thousand, and tells what each leaves behind (row H11 of the table of faults).

    python tests/churn.py --opens 10000             children are Python objects behind real pipes, all in this process
    python tests/churn.py --opens 10000 --real      a real muxsim serve, real children, each open and close over HTTP
    python tests/churn.py --real --env python       the same, with children of a zygote
    python tests/churn.py --idle 500                what so many sessions more cost a real muxsim that has as many

Ends with status 1 if the memory grows by a KiB per session, or descriptors, tasks, threads or
objects of muxsim's own at all.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import os
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

import trio

sys.path.insert(0, str(Path(__file__).resolve().parent))

from harness import SERVERS, Collector, muxsim_serve, ours
from serve.machine import descendants, descriptors, memory
from serve.wire import BOTH, connect, initialize

from muxsim.admission.admission import Capacity
from muxsim.admission.pool import open_pool
from muxsim.observe.events import Events
from muxsim.placement import local
from muxsim.processes.bounds import cpu_seconds
from muxsim.processes.launcher import Launcher
from muxsim.serve.routes import clients
from muxsim.serve.watch import board
from muxsim.session import endings
from muxsim.session.control.own_client import OwnClient
from muxsim.session.registry import open_sessions
from muxsim.spec import EnvSpec

ALLOWED_PER_SESSION = 1024
"""Bytes."""

ALLOWED_NOISE = 1024 * 1024
"""Bytes that one look at the memory may differ from another by chance; in a short run it matters."""

WARM_UP = 0.25
"""The share of the run before the first look, in which caches fill and memory is had from the kernel."""

LIMIT = 120  # s, for one answer, on a machine that is busy with others
LOOKS = 16
SIDE_BY_SIDE = 8
VARIES = {"threads": SIDE_BY_SIDE}
"""Each end of a session may need a thread to remove its folder; idle ones are kept for some seconds."""

PASSING = ("muxsim.admission.pool.Lease", "muxsim.serve.http.connection.Connection")
"""What is the last to go of a session, and of a client."""

PASSING_OBJECTS = 8
# What is kept for some minutes of sessions that are over, with the most that there may be of it.
_ENDS, _ROWS = endings._MOST_OTHERS + endings._MOST_FAILURES, 2 * board._MOST_ENDED + board._GONE_KEPT
REMEMBERED = {
    **dict.fromkeys(("muxsim.session.endings.Past", "muxsim.session.states.Ending"), _ENDS + 100),
    "muxsim.serve.routes.clients.GoneClient": clients._MOST_GONE,
    **dict.fromkeys(("muxsim.serve.watch.board._Line", "muxsim.serve.watch.feed.SessionRow"), _ROWS),
}
"""Of one type, what there may be more at one look than at another because something else goes on just then."""

MINIMAL = SERVERS / "minimal.sh"


@dataclass(frozen=True)
class Look:
    """What is there after so many sessions have come and gone."""

    sessions: int
    memory: int
    counts: dict[str, int]
    objects: Counter[str]
    """Of each type of ours."""


@dataclass
class Report:
    """The looks of one run, and what follows from them."""

    opens: int
    seconds: float = 0.0
    looks: list[Look] = field(default_factory=list)

    @property
    def slope(self) -> float:
        """Bytes per session: the median over all pairs of looks, which a lucky or unlucky look does not move."""
        pairs = combinations(self.looks, 2)
        return statistics.median((b.memory - a.memory) / (b.sessions - a.sessions) for a, b in pairs)

    def faults(self) -> list[str]:
        """What has grown."""
        first, last = self.looks[0], self.looks[-1]
        sessions = last.sessions - first.sessions
        found = [
            f"{name}: {count}, then {last.counts[name]}"
            for name, count in first.counts.items()
            if last.counts[name] > count + VARIES.get(name, 0)
        ]
        more = last.objects - first.objects
        found += [
            f"{name}: {number} more"
            for name, number in more.items()
            if number > PASSING_OBJECTS and last.objects[name] > REMEMBERED.get(name, 0)
        ]
        if self.slope * sessions > ALLOWED_PER_SESSION * sessions + ALLOWED_NOISE * (sessions < 5000):
            found.append(f"memory: {self.slope:.0f} bytes per session")
        return found

    def __str__(self) -> str:
        last = self.looks[-1]
        return (
            f"{self.opens} sessions in {self.seconds:.1f} s, {self.seconds / self.opens * 1000:.2f} ms each: "
            f"{self.slope:.0f} bytes per session, {last.memory / 2**20:.1f} MiB, {last.counts}"
        )


async def churn(opens, open_and_close, look) -> Report:
    """Open and close so many sessions, some side by side, and look at what there is from time to time."""
    report, began = Report(opens), time.monotonic()
    per_round = int(opens * (1 - WARM_UP)) // LOOKS
    await side_by_side(opens - LOOKS * per_round, open_and_close)
    for done in range(LOOKS):
        await side_by_side(per_round, open_and_close)
        report.looks.append(await look(opens - (LOOKS - done - 1) * per_round))
    report.seconds = time.monotonic() - began
    return report


async def side_by_side(opens, open_and_close):
    left = iter(range(opens))

    async def worker():
        async with open_and_close() as once:
            for _ in left:
                await once()

    async with trio.open_nursery() as nursery:
        for _ in range(SIDE_BY_SIDE):
            nursery.start_soon(worker)


# ---- in this process, with children that are Python objects


class FakeProcess:
    """Stands for `muxsim.processes.process.Process`: real pipes, and a task that answers at their other end."""

    def __init__(self, pid):
        self.pid = pid
        self.returncode = None
        self.way = "fresh"
        self._in, self.stdin = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self.stdout, self._out = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self.stderr, self._err = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._stdin_closer = None
        self._exited = trio.Event()

    async def live(self):
        """Answer every line that has an id, until stdin ends: a process does not end because a test is given up."""
        with trio.CancelScope(shield=True):
            await self._answer()
        for fd in (self._in, self._out, self._err):
            trio.lowlevel.notify_closing(fd)
            os.close(fd)
        self.returncode = 0
        self._exited.set()

    async def _answer(self):
        while True:
            await trio.lowlevel.wait_readable(self._in)
            data = os.read(self._in, 65536)
            if not data:
                break
            for line in data.splitlines():
                if "id" in (message := json.loads(line)):
                    answer = {"jsonrpc": "2.0", "id": message["id"], "result": {}}
                    os.write(self._out, json.dumps(answer).encode() + b"\n")

    def hand_over(self, *streams, close_stdin=None):
        for stream in streams:
            setattr(self, stream, -1)
        self._stdin_closer = close_stdin

    async def wait(self):
        await self._exited.wait()
        return self.returncode

    async def end(self, times):
        with trio.CancelScope(shield=True):
            self._stdin_closer()
            await self._exited.wait()
            trio.lowlevel.notify_closing(self.stderr)
            os.close(self.stderr)
            self.stderr = -1
        return self.returncode


class FakeLauncher(Launcher):
    """One whose children are `FakeProcess`es."""

    @classmethod
    @asynccontextmanager
    async def open(cls, **options):
        async with Launcher.open(**options) as real, trio.open_nursery() as nursery:
            real.__class__ = cls
            real.children = nursery
            real.made = 0
            yield real

    async def spawn(self, command, *, session):
        self.made += 1
        process = FakeProcess(self.made)
        self.children.start_soon(process.live)
        return process


async def churn_fakes(opens) -> Report:
    """In this process."""
    local.Launcher, real = FakeLauncher, local.Launcher
    capacity = Capacity(max_sessions=64, max_pending=64, queue_timeout=10, max_starting=64)
    specs = {"fake": EnvSpec(name="fake", command="fake")}
    try:
        async with (
            open_pool(capacity, memory_limit="99%") as pool,
            open_sessions(pool, specs, Events()) as sessions,
        ):

            @asynccontextmanager
            async def open_and_close():
                yield once

            async def once():
                session = await sessions.open("fake", client="someone")
                client = OwnClient(session)
                await client.ask("initialize", {}, LIMIT)
                session.end("deleted", "enough")
                await session.wait_ended()

            async def look(done):
                while len(sessions) or pool.statistics().leases.held:  # noqa: ASYNC110 - folders are being removed
                    await trio.sleep(0.001)
                gc.collect()
                counts = {
                    "descriptors": len(os.listdir("/proc/self/fd")),
                    "tasks": trio.lowlevel.current_statistics().tasks_living,
                    "threads": threading.active_count(),
                }
                return Look(done, memory(os.getpid()), counts, ours())

            return await churn(opens, open_and_close, look)
    finally:
        local.Launcher = real


# ---- a muxsim, its children and its clients


CONFIG = f"""[server]
opens_per_second = 0
max_sessions = 5000
log_level = "warning"
[environments.minimal]
command = "{MINIMAL}"
[environments.python]
command = "python3"
args = ["{SERVERS / "naughty.py"}"]
warm = 0
"""
HEADERS = [("Content-Type", "application/json"), ("Accept", BOTH)]


async def churn_real(opens, server, collector, env="minimal") -> Report:
    """Of a muxsim that serves `CONFIG`."""
    pid = server.process.pid

    @asynccontextmanager
    async def open_and_close():
        async with connect(server.url) as connection:

            async def once():
                body = json.dumps(initialize()).encode()
                answer = await connection.ask("POST", f"/mcp?env={env}", HEADERS, body)
                assert answer.status == 200, answer
                id = answer.headers["mcp-session-id"]
                assert (await connection.ask("DELETE", f"/sessions/{id}")).status == 204

            yield once

    async with open_and_close() as once:
        await once()
    guardian, *_ = descendants(pid)
    # The guardian, and a zygote where there is one.
    processes = 2 if env == "python" else 1

    least = math.inf

    async def look(done):
        nonlocal least
        with trio.fail_after(60):
            while len(descendants(pid)) > processes:  # noqa: ASYNC110 - nothing tells us, from outside
                await trio.sleep(0.01)
        with trio.move_on_after(1):  # in which it notices that the clients of the last round have gone
            while len(descriptors(pid)) > least:  # noqa: ASYNC110
                await trio.sleep(0.01)
        least = min(least, len(descriptors(pid)))
        objects = await collector.collect()
        with trio.fail_after(60):
            while any(objects[name] for name in PASSING):
                objects = await collector.collect()
        counts = {
            "descriptors": len(descriptors(pid)),
            "descriptors of the guardian": len(descriptors(guardian)),
            "threads": len(os.listdir(f"/proc/{pid}/task")),
        }
        return Look(done, memory(pid) + memory(guardian), counts, objects)

    return await churn(opens, open_and_close, look)


# ---- sessions that stay


@dataclass(frozen=True)
class Idleness:
    """What a muxsim needs for each of its idle sessions, and for all of them together."""

    memory: float
    """Bytes per session, the guardian's included."""

    cpu: float
    """The share of one processor."""

    threads: int

    def __str__(self) -> str:
        return f"{self.memory / 1024:.1f} KiB each, {self.cpu:.2%} of a processor, {self.threads} threads"


async def idle(sessions, server, seconds) -> Idleness:
    """Open so many sessions of ``minimal`` beside as many that are there for warming up, and let them be."""
    pid = server.process.pid
    guardian, *_ = descendants(pid)

    async def open_all():
        async with connect(server.url) as connection:
            for _ in range(sessions):
                body = json.dumps(initialize()).encode()
                assert (await connection.ask("POST", "/mcp?env=minimal", HEADERS, body)).status == 200

    await open_all()
    before = memory(pid) + memory(guardian)
    await open_all()
    grown = memory(pid) + memory(guardian) - before
    spent = cpu_seconds(pid) + cpu_seconds(guardian)
    await trio.sleep(seconds)
    spent = cpu_seconds(pid) + cpu_seconds(guardian) - spent
    return Idleness(grown / sessions, spent / seconds, len(os.listdir(f"/proc/{pid}/task")))


def main() -> int:
    """Run as the options say."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--opens", type=int, default=10_000)
    parser.add_argument("--real", action="store_true")
    parser.add_argument("--env", default="minimal", choices=["minimal", "python"])
    parser.add_argument("--idle", type=int)
    options = parser.parse_args()
    if options.idle:
        with tempfile.TemporaryDirectory() as folder, muxsim_serve(Path(folder), CONFIG) as server:
            print(trio.run(idle, options.idle, server, 10))
        return 0
    if options.real:
        with (
            tempfile.TemporaryDirectory() as folder,
            closing(Collector(Path(folder))) as collector,
            muxsim_serve(Path(folder), CONFIG, env=collector.env) as server,
        ):
            report = trio.run(churn_real, options.opens, server, collector, options.env)
    else:
        report = trio.run(churn_fakes, options.opens)
    print(report)
    for fault in (faults := report.faults()):
        print(f"grows: {fault}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
