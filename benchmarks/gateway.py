"""What a proxy in front of stdio servers costs: calls per second, latency, CPU and memory, as ratios to bare pipes.

    python benchmarks/gateway.py [--only muxsim,pipe,…] [--sessions 1,8,32,128] [--seconds N] [--json FILE] [--profile]

Never part of the tests: what it measures is the machine as much as the code.
"""

import argparse
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import report
from contenders import CACHE, CONTENDERS
from measure import Pipes, Row, measure

PIPE = "pipe"
PROFILED = "muxsim"
PROFILE = CACHE / "muxsim-profile.svg"
PROFILE_RATE = 250  # samples per second


def numbers(text: str) -> list[int]:
    return sorted({int(part) for part in text.split(",")})


def names(text: str) -> list[str]:
    known = [PIPE, *(contender.name for contender in CONTENDERS)]
    chosen = text.split(",")
    for name in chosen:
        if name not in known:
            raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(known)}")
    return chosen


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", type=names, help="rows to measure, by name; the bare pipes always are")
    parser.add_argument("--sessions", type=numbers, default=[1, 8, 32, 128], help="default 1,8,32,128")
    parser.add_argument("--seconds", type=float, default=3.0, help="per row and number of sessions, default 3")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything measured")
    parser.add_argument("--profile", action="store_true", help=f"run muxsim under py-spy, into {PROFILE.name}")
    return parser.parse_args(arguments)


class Profiler:
    """py-spy on the one process it is told of."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def watch(self, pid: int) -> None:
        command = ["py-spy", "record", "--pid", str(pid), "--rate", str(PROFILE_RATE), "--output", str(PROFILE)]
        if shutil.which(command[0]) is None:
            print("no profile: py-spy is not installed", file=sys.stderr)
            return
        PROFILE.parent.mkdir(exist_ok=True)
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)

    def end(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait()
            print(f"profile: {PROFILE}", file=sys.stderr)


def run(options: argparse.Namespace, pipes: Pipes) -> list[Row]:
    rows = []
    profiler = Profiler()
    for contender in CONTENDERS:
        if options.only is not None and contender.name not in options.only:
            continue
        print(f"{contender.name} …", file=sys.stderr, flush=True)
        profiled = options.profile and contender.name == PROFILED
        row = measure(
            contender, pipes, options.sessions, options.seconds, watch=profiler.watch if profiled else lambda _: None
        )
        rows.append(row)
    profiler.end()
    if not pipes.samples:
        measure_pipes(options, pipes)
    return rows


def measure_pipes(options: argparse.Namespace, pipes: Pipes) -> None:
    for sessions in options.sessions:
        pipes.window(sessions, options.seconds)
    pipes.large_result_ms()
    pipes.large_request_ms()


def main() -> None:
    options = parse()
    print(report.machine())
    pipes = Pipes()
    try:
        rows = run(options, pipes)
    finally:
        pipes.close()
    print(report.tables(pipes, rows))
    if options.json is not None:
        options.json.write_text(json.dumps(report.record(pipes, rows, options.seconds), indent=1) + "\n")


if __name__ == "__main__":
    main()
