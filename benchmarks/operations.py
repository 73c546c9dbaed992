"""What it costs to look at muxsim: calls per second with metrics, log, scraper and dashboard, over those without.

    python benchmarks/operations.py [--sessions 8] [--rounds 8] [--seconds 1.0] [--starts 100]

Three muxsims beside each other, whose windows are taken in turn; and how soon `/health` answers while sessions start.
"""

import argparse
import contextlib
import http.client
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import report
from contenders import BACKEND
from drivers import HttpLane, closed_loop
from environments import EXAMPLES, toml
from processes import Server

MUXSIM = str(Path(sys.executable).with_name("muxsim"))
PLAIN, LOOKED_AT, WATCHED = "plain", "metrics + log", "metrics + log + scraper + dashboard"
SETTINGS = {
    PLAIN: {"metrics": False, "log_level": "error"},
    LOOKED_AT: {"metrics": True, "log_level": "info"},
    WATCHED: {"metrics": True, "log_level": "info"},
}
US = 1e6
MS = 1e3
POLL_SECONDS = 0.005
SCRAPE_SECONDS = 5  # of the watched one's windows; Prometheus is usually told 15 or more
SCRAPES = 20
READ_SIZE = 2**16


def config(settings: dict[str, object]) -> str:
    lake = toml({"command": str(EXAMPLES / "frozen_lake" / "server.py"), "args": ["--seed", "{seed}"]})
    nothing = toml({"command": BACKEND[0], "args": list(BACKEND[1:])})
    bounds: dict[str, object] = {"max_sessions": 1000, "opens_per_second": 0, "default": "nothing"}
    return f"[server]\n{toml(bounds | settings)}[environments.nothing]\n{nothing}[environments.lake]\n{lake}"


class Muxsim:
    """One of the three, its sessions, and what was measured of it."""

    def __init__(self, name: str, folder: Path, sessions: int) -> None:
        self.name = name
        file = folder / f"{len(name)}.toml"
        file.write_text(config(SETTINGS[name]))
        self.server = Server([MUXSIM, "serve", "--port", "0", "--log-format", "json", str(file)], 0)
        self.server.wait_ready()
        self.lanes = [HttpLane("127.0.0.1", self.server.port, "/mcp") for _ in range(sessions)]
        for lane in self.lanes:
            lane.open()
        self.rates: list[float] = []
        self.cpu: list[float] = []

    def window(self, seconds: float) -> None:
        before = self.server.cpu_seconds()
        sample = closed_loop(self.lanes, seconds)
        self.rates.append(sample.calls_per_second)
        self.cpu.append((self.server.cpu_seconds() - before) / sample.calls * US)

    def end(self) -> None:
        for lane in self.lanes:
            lane.close()
        self.server.end()


@contextmanager
def scraper(port: int) -> Iterator[None]:
    """Scrapes once, in the middle of the block."""
    done = threading.Thread(target=lambda: (time.sleep(0.2), get(port, "/metrics", {"Accept-Encoding": "gzip"})))
    done.start()
    try:
        yield
    finally:
        done.join()


@contextmanager
def dashboard(port: int) -> Iterator[None]:
    """Reads what a dashboard reads, in a process of its own: here it would keep the calls waiting."""
    reader = subprocess.Popen([sys.executable, __file__, "--watch", str(port)])
    try:
        yield
    finally:
        reader.kill()
        reader.wait()


def watch(port: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request("GET", "/watch", headers={"Accept": "text/event-stream"})
    answer = connection.getresponse()
    assert answer.status == 200, answer.status
    while answer.read1(READ_SIZE):
        pass


def get(port: int, path: str, headers: dict[str, str] | None = None) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("GET", path, headers=headers or {})
        answer = connection.getresponse()
        answer.read()
        return answer.status
    finally:
        connection.close()


def overhead(folder: Path, options: argparse.Namespace) -> None:
    muxsims = []
    scraped_in = max(1, round(SCRAPE_SECONDS / options.seconds))
    try:
        for name in SETTINGS:
            muxsims.append(Muxsim(name, folder, options.sessions))
        plain, _, watched = muxsims
        with dashboard(watched.server.port):
            for number in range(options.rounds + 1):
                # Each is first as often as the others: the first may find the machine in another mood.
                for one in muxsims[number % 3 :] + muxsims[: number % 3]:
                    due = one is watched and number % scraped_in == 0
                    with scraper(one.server.port) if due else contextlib.nullcontext():
                        one.window(options.seconds)
                if number == 0:  # connections and caches warm up
                    for one in muxsims:
                        one.rates.clear()
                        one.cpu.clear()
        print(f"\n{options.sessions} sessions, {options.rounds} rounds of {options.seconds:g} s each\n")
        print("| | calls/s | of plain, median | quartiles | CPU us/call | of plain, mean |\n|---|---|---|---|---|---|")
        for one in muxsims:
            print(row(one, plain))
        print(f"\nA scrape: {scrape_ms(watched.server):.1f} ms of CPU.")
    finally:
        for one in muxsims:
            one.end()


def scrape_ms(server: Server) -> float:
    before = server.cpu_seconds()
    for _ in range(SCRAPES):
        get(server.port, "/metrics", {"Accept-Encoding": "gzip"})
    return (server.cpu_seconds() - before) / SCRAPES * MS


def row(one: Muxsim, plain: Muxsim) -> str:
    ratios = [mine / theirs for mine, theirs in zip(one.rates, plain.rates, strict=True)]
    # Of all windows: what is done now and then is in few of them.
    cpu = statistics.mean(one.cpu) / statistics.mean(plain.cpu)
    low, middle, high = statistics.quantiles(ratios, n=4)
    return (
        f"| {one.name} | {statistics.median(one.rates):.0f} | {middle:.3f} | {low:.3f} to {high:.3f} "
        f"| {statistics.median(one.cpu):.1f} | {cpu:.3f} |"
    )


def health(folder: Path, options: argparse.Namespace) -> None:
    """How long `/health` takes while so many sessions are opened at once."""
    one = Muxsim(LOOKED_AT, folder, 1)
    try:
        waited = run_delay(one.server.pid)
        alone = polled(one.server.port, lambda: time.sleep(1.0))
        opening = [sys.executable, __file__, "--open", str(one.server.port), "--starts", str(options.starts)]
        # In a process of its own: here the threads would keep each other waiting.
        during = polled(one.server.port, lambda: subprocess.run(opening, check=True))
        waited = run_delay(one.server.pid) - waited
    finally:
        one.end()
    print(f"\n/health while {options.starts} FrozenLake sessions are opened at once\n")
    print("| | answers | p50 ms | p99 ms | max ms |\n|---|---|---|---|---|")
    for name, times in (("nothing else", alone), (f"{options.starts} start", during)):
        cuts = statistics.quantiles(times, n=100)
        print(f"| {name} | {len(times)} | {cuts[49] * MS:.1f} | {cuts[98] * MS:.1f} | {max(times) * MS:.1f} |")
    print(f"\nmuxsim waited {waited:.2f} s for a processor meanwhile.")


def run_delay(pid: int) -> float:
    """Seconds that the process has waited for a processor so far."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9


def polled(port: int, meanwhile: Callable[[], None]) -> list[float]:
    times = []
    busy = threading.Thread(target=meanwhile)
    busy.start()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    while busy.is_alive() or len(times) < 2:
        begun = time.perf_counter()
        connection.request("GET", "/health")
        connection.getresponse().read()
        times.append(time.perf_counter() - begun)
        time.sleep(POLL_SECONDS)
    connection.close()
    return times


def open_sessions(port: int, count: int) -> None:
    with ThreadPoolExecutor(count) as threads:
        made = list(threads.map(lambda _: open_session(port), range(count)))
    assert made == [201] * count, made


def open_session(port: int) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    try:
        connection.request("POST", "/sessions", b'{"env": "lake"}', {"Content-Type": "application/json"})
        answer = connection.getresponse()
        answer.read()
        return answer.status
    finally:
        connection.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sessions", type=int, default=8, help="default 8")
    parser.add_argument("--rounds", type=int, default=8, help="windows of each, default 8")
    parser.add_argument("--seconds", type=float, default=1.0, help="of each window, default 1")
    parser.add_argument("--starts", type=int, default=100, help="sessions that start while /health is asked")
    parser.add_argument("--only", choices=["overhead", "health"], help="one half")
    parser.add_argument("--watch", type=int, metavar="PORT", help=argparse.SUPPRESS)
    parser.add_argument("--open", type=int, metavar="PORT", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.watch:
        watch(options.watch)
    if options.open:
        open_sessions(options.open, options.starts)
        return
    print(report.machine())
    with tempfile.TemporaryDirectory() as folder:
        if options.only != "health":
            overhead(Path(folder), options)
        if options.only != "overhead":
            health(Path(folder), options)


if __name__ == "__main__":
    main()
