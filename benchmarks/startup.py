"""How long a session takes to open: from the request to the first tool's result, by each way to start its process.

    python benchmarks/startup.py [--only fresh,zygote,…] [--env frozen_lake,…] [--seconds N] [--row N] [--burst N]

Beside muxsim's ways stand the same server started by hand on bare pipes, supergateway and mcp-proxy. All of them take
turns within one run, so that a slow minute meets every one. Then each but the fresh one opens sessions in a row, one
right after the other, and once more when it has come to rest; and then each opens many at once.
"""

import argparse
import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from contenders import CONTENDERS, Contender, NotHad
from drivers import MODERN_VERSION, BrokenRun
from environments import (
    ENVIRONMENTS,
    FORK,
    FRESH,
    WARM,
    WAYS,
    ZYGOTE,
    Environment,
    Way,
    muxsim_command,
    write_config,
)
from opening import AS_USUAL, ByHandshake, ByRequest, Manner, open_at_once, open_by_hand, open_session
from processes import NotReady, Server, free_port, settle
from report import machine, table

BY_HAND, AS_USERS, MODERN = "by hand", "npx by hand", "warm without handshake"
RIVALS = ("supergateway", "mcp-proxy-npm")
MCP_PATH = "/mcp"
FAILURES = (BrokenRun, NotReady, NotHad, OSError, subprocess.SubprocessError)
TURN = 1.0  # seconds of a row in each round; one opening at least
WARM_SLOTS = 4
ROWS = 2
QUIET, LEARNING = 0.1, 1.0  # seconds without CPU after which the next opening starts, and the first one of all
SETTLE_LIMIT = 30.0
ROOM = 32  # sessions over what a burst asks for: the ones before it may not have ended yet
NOTHING = "-"
SHOWN_REASON = 200


@dataclass
class Row:
    """Openings of one environment by one way, in seconds."""

    name: str
    what: str
    seconds: list[float] = field(default_factory=list)
    in_a_row: list[list[float]] = field(default_factory=list)
    burst: float | None = None
    failure: str = ""

    @property
    def p50(self) -> float | None:
        return statistics.median(self.seconds) if self.seconds else None

    @property
    def p99(self) -> float | None:
        """The slowest, while there are fewer than a hundred."""
        return sorted(self.seconds)[int(0.99 * len(self.seconds))] if self.seconds else None


@dataclass
class Subject:
    """What takes its turns. `open` gives the seconds of one opening; `server` is None for what has none."""

    row: Row
    open: Callable[[int], float]
    server: Server | None = None
    manner: Manner = AS_USUAL

    def turn(self, seed: int) -> int:
        """Open sessions for a while; how many."""
        deadline, opened = time.monotonic() + TURN, 0
        while not opened or time.monotonic() < deadline:
            self.row.seconds.append(self.open(seed + opened))
            self.settle(QUIET)
            opened += 1
        return opened

    def settle(self, quiet: float) -> None:
        if self.server is not None:
            settle(self.server.pid, quiet, SETTLE_LIMIT)


@contextmanager
def served(command: Sequence[str], port: int) -> Iterator[Server]:
    server = Server(command, port)
    try:
        server.wait_ready()
        yield server
    finally:
        server.end()


def over_http(row: Row, server: Server, environment: Environment, manner: Manner) -> Subject:
    def open_one(seed: int) -> float:
        seconds, lane = open_session(server.port, manner, environment, seed)
        lane.end()
        return seconds

    return Subject(row, open_one, server, manner)


def by_hand(row: Row, environment: Environment, command: Callable[[int], Sequence[str]]) -> Subject:
    return Subject(row, lambda seed: open_by_hand(command(seed), environment))


class Bench:
    """All rows of one environment."""

    def __init__(self, environment: Environment, options: argparse.Namespace, stack: ExitStack) -> None:
        self.environment = environment
        self.rows: list[Row] = []
        self.subjects: list[Subject] = []
        self._options = options
        self._stack = stack
        self._folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))

    def prepare(self) -> None:
        """Start everything that is wanted, and open a session of each before anything counts."""
        environment = self.environment
        environment.prepare()
        self._add(BY_HAND, "started by hand, on bare pipes", lambda row: by_hand(row, environment, environment.by_hand))
        if environment.as_users_run_it:
            users = environment.as_users_run_it
            self._add(AS_USERS, "its npx command on bare pipes", lambda row: by_hand(row, environment, lambda _: users))
        for way in WAYS:
            if way not in (FORK, ZYGOTE) or environment.python:
                self._add(way.name, way.what, lambda row, way=way: self._muxsim(row, way))
        if environment.modern:
            what = f"{WARM.what}, and no handshake (revision {MODERN_VERSION})"
            self._add(MODERN, what, lambda row: self._muxsim(row, WARM, ByRequest()))
        for contender in CONTENDERS:
            if contender.name in RIVALS:
                what = f"{contender.name}, {contender.what.partition(', ')[2]}"
                self._add(contender.name, what, lambda row, one=contender: self._rival(row, one))

    def _add(self, name: str, what: str, make: Callable[[Row], Subject]) -> None:
        if self._options.only is not None and name not in self._options.only:
            return
        row = Row(name, what)
        self.rows.append(row)
        try:
            subject = make(row)
            subject.open(0)
            subject.settle(LEARNING)
            self.subjects.append(subject)
        except FAILURES as error:
            row.failure = f"{error or type(error).__name__}"

    def _muxsim(self, row: Row, way: Way, manner: Manner = AS_USUAL) -> Subject:
        if way.missing():
            raise NotHad(way.missing())
        options = self._options
        sessions = max(options.burst, options.row) + ROOM
        file = write_config(self._folder, [self.environment], way, max_sessions=sessions, warm=options.warm)
        server = self._stack.enter_context(served(muxsim_command(file), 0))
        return over_http(row, server, self.environment, manner)

    def _rival(self, row: Row, contender: Contender) -> Subject:
        contender.prepare()
        port = free_port()
        backend = self.environment.as_users_run_it or self.environment.by_hand(0)
        server = self._stack.enter_context(served(contender.command(port, backend), port))
        return over_http(row, server, self.environment, ByHandshake(lambda *_: MCP_PATH))

    def open_in_turns(self, seconds: float) -> None:
        """Round after round until the time is over."""
        deadline, seed = time.monotonic() + seconds, 1
        while self.subjects and time.monotonic() < deadline:
            for subject in list(self.subjects):
                seed += self._guarded(subject, lambda subject=subject, seed=seed: subject.turn(seed)) or 0

    def in_a_row(self, count: int) -> None:
        """So many sessions one right after the other, and again, one way after the other."""
        for _ in range(ROWS):
            for subject in list(self.subjects):
                if subject.server is not None and subject.row.name != FRESH.name:
                    self._guarded(subject, lambda subject=subject: self._in_a_row(subject, count))

    def _in_a_row(self, subject: Subject, count: int) -> int:
        subject.settle(LEARNING)
        assert subject.server is not None
        lanes, seconds = [], []
        for seed in range(count):
            took, lane = open_session(subject.server.port, subject.manner, self.environment, seed)
            seconds.append(took)
            lanes.append(lane)
        for lane in lanes:
            lane.end()
        subject.row.in_a_row.append(seconds)
        return count

    def burst(self, count: int) -> None:
        """So many sessions at once, one row after the other."""
        for subject in list(self.subjects):
            if subject.server is not None:
                self._guarded(subject, lambda subject=subject: self._burst(subject, count))

    def _burst(self, subject: Subject, count: int) -> int:
        subject.settle(LEARNING)
        assert subject.server is not None
        seconds, openings = open_at_once(subject.server.port, subject.manner, self.environment, range(count))
        subject.row.burst = seconds
        for opening in openings:
            opening.lane.end()
        return count

    def _guarded(self, subject: Subject, action: Callable[[], int]) -> int | None:
        try:
            return action()
        except FAILURES as error:
            log = subject.server.log_tail() if subject.server is not None else ""
            subject.row.failure = f"{error or type(error).__name__} {log}"
            self.subjects.remove(subject)
            return None


def measure(environment: Environment, options: argparse.Namespace) -> list[Row]:
    with ExitStack() as stack:
        bench = Bench(environment, options, stack)
        bench.prepare()
        bench.open_in_turns(options.seconds)
        if options.row:
            bench.in_a_row(options.row)
        if options.burst:
            bench.burst(options.burst)
        return bench.rows


def milliseconds(seconds: float | None) -> str:
    if seconds is None:
        return NOTHING
    return f"{seconds * 1e3:,.1f}" if seconds < 0.1 else f"{seconds * 1e3:,.0f}"


def quantiles(seconds: Sequence[float]) -> str:
    """The median and the ninth decile."""
    return " / ".join(milliseconds(sorted(seconds)[int(share * len(seconds))]) for share in (0.5, 0.9))


def shown(environment: Environment, rows: Sequence[Row], in_a_row: int, burst: int) -> str:
    fresh = {row.name: row.p50 for row in rows}.get(FRESH.name)
    head = [environment.name, "openings", "p50 ms", "p99 ms", "fresh / this"]
    head += [f"{in_a_row} in a row, p50 / p90 ms, and again", f"{burst or 'many'} at once, s"]
    lines = []
    for row in rows:
        ratio = f"{fresh / row.p50:.2f}" if fresh and row.p50 else NOTHING
        at_once = NOTHING if row.burst is None else f"{row.burst:.2f}"
        rows_of_it = ", ".join(map(quantiles, row.in_a_row)) or NOTHING
        times = [milliseconds(row.p50), milliseconds(row.p99), ratio, rows_of_it, at_once]
        lines.append([row.name, str(len(row.seconds)), *times])
    failed = [f"{row.name}: {' '.join(row.failure.split())[:SHOWN_REASON]}" for row in rows if row.failure]
    shared = [f"{row.name}: {row.what}" for row in rows if "shared" in row.what and not row.failure]
    return "\n".join([table(head, lines), *failed, *shared])


# What muxsim is held to: environment, what, aim, whether it is a lower bound, and how it is read off the rows by name.
Rows = dict[str, Row]
NPX_TOLERANCE = 1.05  # two runs of one command differ by as much
AIMS: tuple[tuple[str, str, float, bool, Callable[[Rows], float | None]], ...] = (
    ("frozen_lake", "zygote: times as fast as fresh", 30, True, lambda r: ratio(r, FRESH.name, ZYGOTE.name)),
    ("frozen_lake", "warm slot: ms", 5, False, lambda r: at(r, WARM.name, lambda row: row.p50, 1e3)),
    ("frozen_lake", "warm slot, without handshake: ms", 5, False, lambda r: at(r, MODERN, lambda row: row.p50, 1e3)),
    ("frozen_lake", "zygote: ms", 10, False, lambda r: at(r, ZYGOTE.name, lambda row: row.p50, 1e3)),
    ("frozen_lake", "zygote, 24 in a row: ms", 20, False, lambda r: at(r, ZYGOTE.name, first_row, 1e3)),
    ("frozen_lake", "100 at once from a zygote: s", 3, False, lambda r: at(r, ZYGOTE.name, lambda row: row.burst)),
    ("server_everything", "npx: times `node bin` by hand", NPX_TOLERANCE, False, lambda r: ratio(r, "fresh", BY_HAND)),
)


def at(rows: Rows, name: str, read: Callable[[Row], float | None], factor: float = 1.0) -> float | None:
    value = read(rows[name]) if name in rows else None
    return None if value is None else value * factor


def first_row(row: Row) -> float | None:
    """The median of the sessions that were opened in a row the first time."""
    return statistics.median(row.in_a_row[0]) if row.in_a_row else None


def ratio(rows: Rows, above: str, below: str) -> float | None:
    one, other = (at(rows, name, lambda row: row.p50) for name in (above, below))
    return one / other if one and other else None


def aims(measured: dict[str, list[Row]], in_a_row: int, burst: int) -> str:
    lines = []
    for environment, what, aim, least, read in AIMS:
        value = read({row.name: row for row in measured.get(environment, [])})
        if value is None or ("at once" in what and burst != 100) or ("in a row" in what and in_a_row != 24):
            continue
        met = value >= aim if least else value <= aim
        bound = "at least" if least else "at most"
        lines.append([f"{environment}, {what}", f"{bound} {aim:g}", f"{value:.3g}", "met" if met else "missed"])
    return table(["Aims", "", "", ""], lines) if lines else ""


def names(known: Sequence[str]) -> Callable[[str], list[str]]:
    def parse(text: str) -> list[str]:
        for name in text.split(","):
            if name not in known:
                raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(known)}")
        return text.split(",")

    return parse


def arguments() -> argparse.Namespace:
    environments = [environment.name for environment in ENVIRONMENTS]
    rows = [BY_HAND, AS_USERS, *(way.name for way in WAYS), MODERN, *RIVALS]
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--env", type=names(environments), default=environments, help=f"of {', '.join(environments)}")
    parser.add_argument("--only", type=names(rows), help=f"rows, of {', '.join(rows)}")
    parser.add_argument("--seconds", type=float, default=60.0, help="of openings in turn, per environment (60)")
    parser.add_argument("--row", type=int, default=24, help="so many one right after the other, twice (24; 0: none)")
    parser.add_argument("--burst", type=int, default=0, help="so many at once afterwards; the aim is for 100 (0: none)")
    parser.add_argument("--warm", type=int, default=WARM_SLOTS, help=f"processes kept ready ({WARM_SLOTS})")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything measured")
    return parser.parse_args()


def main() -> None:
    options = arguments()
    print(machine(), flush=True)
    measured: dict[str, list[Row]] = {}
    for environment in ENVIRONMENTS:
        if environment.name not in options.env:
            continue
        print(f"{environment.name} …", file=sys.stderr, flush=True)
        try:
            measured[environment.name] = measure(environment, options)
        except NotHad as error:
            print(f"\n{environment.name} could not be had: {error}", flush=True)
            continue
        print(f"\n{shown(environment, measured[environment.name], options.row, options.burst)}", flush=True)
    print(f"\n{aims(measured, options.row, options.burst)}")
    if options.json is not None:
        rows = {name: [asdict(row) for row in each] for name, each in measured.items()}
        options.json.write_text(json.dumps({"machine": machine(), "environments": rows}, indent=1) + "\n")


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
