"""What walls between environments and between sessions cost, beside none: openings, memory and disk, and building.

    python benchmarks/isolation.py [--only plain,venv,…] [--seconds N] [--builds N] [--json FILE]

All rows of openings are environments of one `muxsim serve` and take turns, so that a slow minute meets every one.
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from building import Built, build, shown_builds
from contenders import CACHE, NotHad
from drivers import BrokenRun, HttpLane
from environments import FORK, ZYGOTE, Environment, Way, muxsim_command, write_config
from opening import AS_USUAL, open_session
from processes import NotReady, Server, pss_mib, settle, tree
from report import machine, table
from startup import LEARNING, QUIET, SETTLE_LIMIT, names, served
from walls import KINDS, PLAIN, TOGETHER, Kind

KEPT = (PLAIN, "own", "private", "landlock", TOGETHER)
"""Rows whose live sessions are weighed."""
MEMORY_AIM = 1.1  # times plain
DISK_AIM = 64 * 1024  # bytes: folders, and no copy of anything
BLOCK = 512
BUILDING, HOLDING = "building", "memory"


@dataclass
class Row:
    """Openings of one environment, in seconds, and what a further session of it weighs."""

    kind: Kind
    environment: Environment
    seconds: list[float] = field(default_factory=list)
    mib: float | None = None
    disk: float | None = None
    failure: str = ""

    @property
    def p50(self) -> float:
        return statistics.median(self.seconds)


class Bench:
    """One server with all of the rows' environments."""

    def __init__(self, rows: Sequence[Row], server: Server, folders: Path) -> None:
        self._rows = list(rows)
        self._server = server
        self._folders = folders
        self._seed = 0

    def learn(self) -> None:
        for row in list(self._rows):
            for _ in range(2):  # the first learns, the second finds a zygote
                self._time(row)
                settle(self._server.pid, LEARNING, SETTLE_LIMIT)
            row.seconds.clear()

    def open_in_turns(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while self._rows and time.monotonic() < deadline:
            for row in list(self._rows):
                self._time(row)
                settle(self._server.pid, QUIET, SETTLE_LIMIT)

    def hold(self, few: int, many: int) -> None:
        """What each session beyond a few takes, of memory and of disk."""
        for row in self._rows:
            with self._broken(row), contextlib.ExitStack() as live:
                before = self._weigh(row, few, live)
                after = self._weigh(row, many - few, live)
                row.mib, row.disk = ((b - a) / (many - few) for a, b in zip(before, after, strict=True))
            settle(self._server.pid, LEARNING, SETTLE_LIMIT)

    def _weigh(self, row: Row, more: int, live: contextlib.ExitStack) -> tuple[float, float]:
        """MiB of all processes but the server's, and bytes on the disk, with so many more sessions."""
        for _ in range(more):
            live.callback(self._open(row)[1].end)
        settle(self._server.pid, LEARNING, SETTLE_LIMIT)
        below = [member.pid for member in tree(self._server.pid) if member.pid != self._server.pid]
        return sum(map(pss_mib, below)), on_disk(self._folders)

    def _time(self, row: Row) -> None:
        with self._broken(row):
            took, lane = self._open(row)
            lane.end()
            row.seconds.append(took)

    def _open(self, row: Row) -> tuple[float, HttpLane]:
        self._seed += 1
        return open_session(self._server.port, AS_USUAL, row.environment, self._seed)

    @contextlib.contextmanager
    def _broken(self, row: Row) -> Iterator[None]:
        try:
            yield
        except (BrokenRun, OSError) as error:
            row.failure = f"{error or type(error).__name__}"
            self._rows = [other for other in self._rows if other is not row]


def on_disk(folder: Path) -> float:
    """Bytes that files and folders below it take."""
    total = 0
    for path, _, files in os.walk(folder):
        for name in (".", *files):
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(path, name)).st_blocks * BLOCK
    return total


def prepare(kinds: Sequence[Kind], folder: Path) -> list[Row]:
    rows = []
    for kind in kinds:
        try:
            rows.append(Row(kind, kind.make(folder)))
        except (NotHad, OSError, subprocess.SubprocessError) as error:
            print(f"{kind.name} could not be had: {error}", file=sys.stderr)
    return rows


def measure(rows: Sequence[Row], options: argparse.Namespace, folder: Path) -> None:
    with serving(rows, ZYGOTE, folder) as bench:
        bench.learn()
        bench.open_in_turns(options.seconds)
    if options.hold:
        # Without forks that wait: how many of them there are would be weighed too.
        kept = [row for row in rows if row.kind.name in KEPT]
        with serving(kept, FORK, folder) as bench:
            bench.hold(2, 2 + options.hold)


@contextlib.contextmanager
def serving(rows: Sequence[Row], way: Way, folder: Path) -> Iterator[Bench]:
    folders = folder / way.name
    folders.mkdir()
    os.environ["TMPDIR"] = str(folders)
    file = write_config(folder, [row.environment for row in rows], way, max_sessions=64)
    subprocess.run([sys.executable, "-m", "muxsim", "envs", "build", "--config", file], check=False)
    with served(muxsim_command(file), 0) as server:
        yield Bench(rows, server, folders)


def shown(rows: Sequence[Row]) -> str:
    by_name = {row.kind.name: row for row in rows if row.seconds}
    lines = [_line(row, by_name) for row in by_name.values()]
    failed = [f"{row.kind.name}: {row.failure}" for row in rows if row.failure]
    return "\n".join([table(["", "openings", "p50 ms", "times", "", ""], lines), *failed])


def _line(row: Row, by_name: Mapping[str, Row]) -> list[str]:
    beside = by_name.get(row.kind.beside)
    ratio = row.p50 / beside.p50 if beside is not None and beside is not row else None
    times = "" if ratio is None else f"{ratio:.2f} of {row.kind.beside}"
    aim = row.kind.aim
    return [row.kind.name, str(len(row.seconds)), f"{row.p50 * 1e3:.1f}", times, judged(ratio, aim), row.kind.what]


def judged(value: float | None, aim: float | None) -> str:
    """Whether an aim is missed, or kept; nothing where there is none."""
    if value is None or aim is None:
        return ""
    return f"at most {aim:g}" if value <= aim else f"MISSES {aim:g}"


def shown_weights(rows: Sequence[Row]) -> str:
    held = {row.kind.name: row for row in rows if row.mib is not None and row.disk is not None}
    plain = held[PLAIN].mib if PLAIN in held else None
    lines = []
    for name, row in held.items():
        ratio = row.mib / plain if plain and row.mib is not None and name != PLAIN else None
        times = "" if ratio is None else f"{ratio:.2f}"
        disk = row.disk or 0.0
        aims = [judged(ratio, MEMORY_AIM), f"{disk / 1024:.0f}", "MISSES" if disk > DISK_AIM else "no copy"]
        lines.append([name, f"{row.mib:.1f}", times, *aims])
    return table(["each further session", "MiB (PSS)", f"of {PLAIN}", "", "KiB on disk", ""], lines)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    known = [*(kind.name for kind in KINDS), HOLDING, BUILDING]
    parser.add_argument("--only", type=names(known), help=f"these beside plain, of {', '.join(known)}")
    parser.add_argument("--seconds", type=float, default=20.0, help="of openings in turn, after two of each (20)")
    parser.add_argument("--hold", type=int, default=8, help="live sessions of which each is weighed; 0: none (8)")
    parser.add_argument("--builds", type=int, default=3, help="times that each environment is built (3)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything measured")
    options = parser.parse_args()
    if options.only is not None:
        options.hold *= HOLDING in options.only
        options.builds *= BUILDING in options.only
    return options


def wanted(only: Sequence[str] | None) -> list[Kind]:
    """The rows that were asked for, and those that they are compared with."""
    if only is None:
        return list(KINDS)
    compared = {kind.beside for kind in KINDS if kind.name in only}
    held = KEPT if HOLDING in only else ()
    return [kind for kind in KINDS if kind.name in {*only, *compared, *held}]


def main() -> None:
    options = arguments()
    print(machine(), flush=True)
    # A uv that lies beside this interpreter, as the tests have it.
    os.environ["PATH"] = os.pathsep.join([os.environ["PATH"], str(Path(sys.executable).parent)])
    os.environ["MUXSIM_CACHE"] = str(CACHE / "isolation")
    rows: list[Row] = []
    builds: list[Built] = []
    with tempfile.TemporaryDirectory() as folder:
        if kinds := wanted(options.only):
            rows = prepare(kinds, Path(folder))
            measure(rows, options, Path(folder))
            print(shown(rows), flush=True)
        if options.hold:
            print(f"\n{shown_weights(rows)}", flush=True)
        if options.builds:
            builds = build(options.builds, Path(folder))
            print(f"\n{shown_builds(builds)}")
    if options.json is not None:
        opened = {row.kind.name: {"seconds": row.seconds, "mib": row.mib, "disk": row.disk} for row in rows}
        options.json.write_text(json.dumps({"openings": opened, "builds": [asdict(built) for built in builds]}) + "\n")


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt, NotReady):
        main()
