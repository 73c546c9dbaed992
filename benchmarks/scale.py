"""What many live sessions cost: memory of each, the supervisor's memory and CPU while they idle, and calls beside them.

    python benchmarks/scale.py [--ways zygote,…] [--sessions 1,10,100] [--idle N] [--churn N] [--nightly] [--json FILE]

FrozenLake, one seed for each session. Every session is stepped, and every answer compared with Gymnasium played beside
it with the same seed. Then as many sessions are opened and closed, and what is left of them is counted.
"""

import argparse
import contextlib
import json
import random
import re
import resource
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import gymnasium
from contenders import NOTHING, NotHad
from drivers import BrokenRun, HttpLane, call, converse
from environments import FRESH, FROZEN_LAKE, WAYS, Environment, Way, muxsim_command, write_config
from gymnasium.envs.toy_text.frozen_lake import generate_random_map
from opening import AS_USUAL, open_at_once
from processes import NotReady, Server, cpu_seconds, descriptors, pss_mib, settle, tree, zombies
from report import machine, table

MOVES = ("LEFT", "DOWN", "RIGHT", "UP")
POSITION = re.compile(rb"You are at row (\d+), column (\d+)")
SESSIONS, NIGHTLY_SESSIONS = (1, 10, 100), (1, 10, 100, 1000)
CHURN, NIGHTLY_CHURN = 300, 5000
FEW, MANY = 10, 1000  # what the calls' latency and the supervisor's memory are compared between
MOST_MOVES = 99  # of an episode that has its end at a hundred
STEPS = 3  # of each session, after the one that it is opened with
AT_ONCE = 25  # sessions asked for at a time
CALLS = 20  # in each of the few at each level, all levels together within the hundred steps of an episode
QUIET, SETTLE_LIMIT = 0.5, 60.0
WARM_SLOTS = 4
ROOM = 64
SPARED = 0.1  # of the available memory, which a benchmark does not take
MIB = 1024.0
FAILURES = (BrokenRun, NotReady, NotHad, OSError)
# The cheapest server there is, for opening and closing thousands of fresh processes.
NOTHING_ENVIRONMENT = Environment(
    name="nothing",
    table=f'command = "python"\nargs = ["-S", {json.dumps(NOTHING)}]\n',
    by_hand=lambda _: [],
    tool="echo",
    arguments='{"text":"here"}',
    shows=b"here",
    python=True,
)


@dataclass
class Level:
    """So many live sessions. MiB are PSS: a page that several processes share counts for each in part."""

    sessions: int
    right: int
    """Sessions whose every step was Gymnasium's."""
    session_mib: float
    """Of everything but the supervisor, for each session."""
    supervisor_mib: float
    open_seconds: float
    """For the sessions that this level has more than the one before, for each."""
    idle_percent: float
    """CPU of the supervisor while nothing happens, of one core."""
    idle_tree_percent: float
    """With all environments."""
    call_ms: float
    call_p99_ms: float
    step_ms: float
    """Of the first few calls of each session, which find it as cold as it is."""


@dataclass(frozen=True)
class Left:
    """What there is while no session lives."""

    opened: int
    supervisor_mib: float
    tree_mib: float
    descriptors: int
    processes: int
    zombies: int


@dataclass
class Row:
    """One way to start processes."""

    way: str
    levels: list[Level] = field(default_factory=list)
    churned: str = ""
    left: list[Left] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


class Walk:
    """A session's steps, and where each leads to: Gymnasium's own game with the same seed."""

    def __init__(self, seed: int, *, stays: bool) -> None:
        lake = generate_random_map(size=4, p=0.8, seed=seed)
        env: Any = gymnasium.make("FrozenLake-v1", desc=lake, is_slippery=False).unwrapped
        env.reset(seed=seed)
        chance = random.Random(seed)
        # An opening's first call goes to the left.
        self.moves, self.places = ["LEFT"], [self._moved(env, "LEFT")]
        while not self._over(env) and len(self.moves) < (MOST_MOVES if stays else STEPS + 1):
            self.moves.append("LEFT" if stays else chance.choice(MOVES))
            self.places.append(self._moved(env, self.moves[-1]))
        self.taken = 1
        self.right = True

    def _moved(self, env: Any, move: str) -> tuple[int, int]:
        env.step(MOVES.index(move))
        row, column = divmod(int(env.s), int(env.ncol))
        return row, column

    def _over(self, env: Any) -> bool:
        return env.desc.reshape(-1)[env.s] in b"GH"

    @property
    def over(self) -> bool:
        return self.taken == len(self.moves)

    def step(self, lane: HttpLane) -> float | None:
        """Take the next step, in milliseconds; None if there is none."""
        if self.over:
            return None
        lane.refresh()
        begun = time.perf_counter()
        answer = converse(lane, call(self.taken, FROZEN_LAKE.tool, f'{{"action":"{self.moves[self.taken]}"}}'))
        taken = (time.perf_counter() - begun) * 1e3
        found = POSITION.search(answer)
        self.right &= found is not None and (int(found[1]), int(found[2])) == self.places[self.taken]
        self.taken += 1
        return taken


class Fleet:
    """Live sessions of one muxsim."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.lanes: list[HttpLane] = []
        self.walks: list[Walk] = []

    def grow(self, count: int) -> float:
        """Open up to so many; seconds for each."""
        begun, before = time.perf_counter(), len(self.lanes)
        while len(self.lanes) < count:
            seeds = range(len(self.lanes), min(len(self.lanes) + AT_ONCE, count))
            openings = open_at_once(self.server.port, AS_USUAL, FROZEN_LAKE, seeds)[1]
            self.lanes += [opening.lane for opening in openings]
        taken = time.perf_counter() - begun
        # The first few stay where they are, so that calls can be made in them again and again.
        self.walks += [Walk(seed, stays=seed < FEW) for seed in range(before, count)]
        return taken / max(count - before, 1)

    def step(self, first: int, last: int, rounds: int) -> list[float]:
        """Milliseconds of steps, one in each of these sessions by turns."""
        pairs = list(zip(self.lanes, self.walks, strict=True))[first:last]
        steps = [walk.step(lane) for _ in range(rounds) for lane, walk in pairs]
        return [taken for taken in steps if taken is not None]

    def idle(self, seconds: float) -> tuple[float, float]:
        """Percent of a core that the supervisor uses, and everything together."""
        settle(self.server.pid, QUIET, SETTLE_LIMIT)
        before, whole, begun = self.server.cpu_seconds(), cpu_seconds(self.server.pid), time.perf_counter()
        time.sleep(seconds)
        taken = time.perf_counter() - begun
        alone = self.server.cpu_seconds() - before
        return 100 * alone / taken, 100 * (cpu_seconds(self.server.pid) - whole) / taken

    def memory(self) -> tuple[float, float]:
        """MiB of the supervisor, and of everything else for each session."""
        settle(self.server.pid, QUIET, SETTLE_LIMIT)
        alone = pss_mib(self.server.pid)
        others = sum(pss_mib(member.pid) for member in tree(self.server.pid) if member.pid != self.server.pid)
        return alone, others / len(self.lanes)

    def level(self, count: int, idle: float) -> Level:
        before = len(self.lanes)
        open_seconds = self.grow(count)
        steps = self.step(before, count, STEPS)
        supervisor, each = self.memory()
        alone, whole = self.idle(idle)
        calls = sorted(self.step(0, FEW, CALLS))
        return Level(
            sessions=count,
            right=sum(walk.right for walk in self.walks),
            session_mib=each,
            supervisor_mib=supervisor,
            open_seconds=open_seconds,
            idle_percent=alone,
            idle_tree_percent=whole,
            call_ms=statistics.median(calls),
            call_p99_ms=calls[int(0.99 * len(calls))],
            step_ms=statistics.median(steps),
        )


@contextmanager
def serving(way: Way, environment: Environment, sessions: int) -> Iterator[Server]:
    with tempfile.TemporaryDirectory() as folder:
        warm = WARM_SLOTS if way.warm else 0
        file = write_config(Path(folder), [environment], way, max_sessions=sessions + ROOM, warm=warm)
        server = Server(muxsim_command(file), 0)
        try:
            server.wait_ready()
            yield server
        finally:
            server.end()


def available_mib() -> float:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) / MIB
    return float("inf")


def measure_levels(row: Row, way: Way, counts: Sequence[int], idle: float) -> None:
    with serving(way, FROZEN_LAKE, max(counts)) as server:
        fleet = Fleet(server)
        for count in counts:
            wanted = (count - len(fleet.lanes)) * row.levels[-1].session_mib if row.levels else 0.0
            if wanted > (1 - SPARED) * available_mib():
                raise BrokenRun(
                    f"{count} sessions need {wanted / MIB:.0f} GiB more, there are {available_mib() / MIB:.0f}"
                )
            row.levels.append(fleet.level(count, idle))


def measure_churn(row: Row, way: Way, count: int) -> None:
    environment = NOTHING_ENVIRONMENT if way is FRESH else FROZEN_LAKE
    row.churned = environment.name
    with serving(way, environment, AT_ONCE) as server:
        opened = 0
        for share in (0.2, 0.6, 1.0):
            while opened < share * count:
                seeds = range(opened, opened + AT_ONCE)
                for opening in open_at_once(server.port, AS_USUAL, environment, seeds)[1]:
                    opening.lane.end()
                opened += AT_ONCE
            row.left.append(left(server, opened))


def left(server: Server, opened: int) -> Left:
    settle(server.pid, 2 * QUIET, SETTLE_LIMIT)
    members = tree(server.pid)
    return Left(
        opened=opened,
        supervisor_mib=pss_mib(server.pid),
        tree_mib=sum(pss_mib(member.pid) for member in members),
        descriptors=descriptors(server.pid),
        processes=len(members),
        zombies=zombies(server.pid),
    )


def measure(way: Way, options: argparse.Namespace) -> Row:
    row = Row(way.name)
    if way.missing():
        row.failures.append(way.missing())
        return row
    try:
        if options.sessions:
            measure_levels(row, way, options.sessions, options.idle)
    except FAILURES as error:
        row.failures.append(f"{error or type(error).__name__}")
    try:
        if options.churn:
            measure_churn(row, way, options.churn)
    except FAILURES as error:
        row.failures.append(f"opening and closing: {error or type(error).__name__}")
    return row


def shown(row: Row) -> str:
    head = [
        f"{row.way}: live sessions", "right", "MiB each", "supervisor MiB", "ms to open one", "idle CPU %",
        "with all %", "call ms", "p99 ms", "first steps ms",
    ]  # fmt: skip
    lines = [
        [
            f"{one.sessions:,}", f"{one.right:,}", f"{one.session_mib:.1f}", f"{one.supervisor_mib:.1f}",
            f"{one.open_seconds * 1e3:.0f}", f"{one.idle_percent:.2f}", f"{one.idle_tree_percent:.2f}",
            f"{one.call_ms:.2f}", f"{one.call_p99_ms:.2f}", f"{one.step_ms:.2f}",
        ]
        for one in row.levels
    ]  # fmt: skip
    churn_head = [
        f"{row.way}: {row.churned} opened, closed",
        "supervisor MiB",
        "all MiB",
        "files",
        "processes",
        "zombies",
    ]
    churn = [
        [
            f"{one.opened:,}", f"{one.supervisor_mib:.2f}", f"{one.tree_mib:.1f}", str(one.descriptors),
            str(one.processes), str(one.zombies),
        ]
        for one in row.left
    ]  # fmt: skip
    parts = [table(head, lines) if lines else "", table(churn_head, churn) if churn else ""]
    parts += [f"{row.way}: {' '.join(failure.split())}" for failure in row.failures]
    return "\n\n".join(part for part in parts if part)


def level_of(row: Row, sessions: int) -> Level | None:
    return next((level for level in row.levels if level.sessions == sessions), None)


# What is left after the second and the third part of the openings must be the same, but for the allocator's mood.
GROWTH_KIB = 0.5  # for each opening


def aims(row: Row) -> str:
    lines: list[list[str]] = []

    def aim(what: str, value: float, most: float) -> None:
        lines.append([what, f"at most {most:g}", f"{value:.3g}", "met" if value <= most else "missed"])

    if row.levels:
        last = row.levels[-1]
        if row.way != FRESH.name:
            aim(f"MiB for each of {last.sessions:,} sessions", last.session_mib, 12)
        aim(f"sessions of {last.sessions:,} that went wrong", last.sessions - last.right, 0)
        aim(f"CPU of the supervisor at {last.sessions:,} idle sessions, % of a core", last.idle_percent, 1)
        few = level_of(row, FEW)
        if few is not None and last.sessions > FEW:
            each = (last.supervisor_mib - few.supervisor_mib) * MIB / (last.sessions - FEW)
            aim("supervisor's KiB for an idle session", each, 50)
            aim(f"a call's ms at {last.sessions:,} live sessions over those at {FEW}", last.call_ms / few.call_ms, 2)
    if len(row.left) > 1:
        before, after = row.left[-2:]
        growth = (after.supervisor_mib - before.supervisor_mib) * MIB / (after.opened - before.opened)
        aim(f"KiB the supervisor has grown for each of {after.opened - before.opened:,} openings", growth, GROWTH_KIB)
        aim("descriptors more", after.descriptors - before.descriptors, 0)
        aim("processes more", after.processes - before.processes, 0)
        aim("zombies", after.zombies, 0)
    return table([f"Aims of {row.way}", "", "", ""], lines) if lines else ""


def arguments() -> argparse.Namespace:
    ways = {way.name: way for way in WAYS}
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--ways", type=lambda text: [ways[name] for name in text.split(",")], help=f"of {', '.join(ways)} (all)"
    )
    parser.add_argument(
        "--sessions",
        type=lambda text: [int(part) for part in text.split(",") if part],
        help="live at a time (1,10,100)",
    )
    parser.add_argument("--idle", type=float, help="seconds of idling at each number of sessions (10)")
    parser.add_argument("--churn", type=int, help=f"sessions opened and closed ({CHURN}; 0: none)")
    parser.add_argument("--nightly", action="store_true", help="1,000 live sessions, 30 s of idling, 5,000 openings")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything measured")
    options = parser.parse_args()
    nightly = options.nightly
    options.ways = list(WAYS) if options.ways is None else options.ways
    if options.sessions is None:
        options.sessions = list(NIGHTLY_SESSIONS if nightly else SESSIONS)
    options.idle = (30.0 if nightly else 10.0) if options.idle is None else options.idle
    options.churn = (NIGHTLY_CHURN if nightly else CHURN) if options.churn is None else options.churn
    return options


def allow_descriptors() -> None:
    """A connection for each session, here and in the servers, which inherit the limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def main() -> None:
    options = arguments()
    allow_descriptors()
    print(machine(), flush=True)
    rows = []
    for way in options.ways:
        rows.append(measure(way, options))
        print("\n" + "\n\n".join(part for part in (shown(rows[-1]), aims(rows[-1])) if part), flush=True)
    if options.json is not None:
        options.json.write_text(
            json.dumps({"machine": machine(), "rows": [asdict(row) for row in rows]}, indent=1) + "\n"
        )


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
