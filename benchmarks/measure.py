"""One contender's row: its windows beside those of the bare pipes, taken in turn so that a slow minute meets both."""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields

import drivers
from contenders import BACKEND, NOTHING, Contender, NotHad
from drivers import BrokenRun, HttpLane, Lane, PipeLane, Sample
from processes import NotReady, Server, free_port

WINDOWS = 3  # per point; the median window counts
LARGE_MIB = 10
LARGE_REPEATS = 5
MCP_PATH = "/mcp"
US = 1e6
MS = 1e3
FAILURES = (BrokenRun, OSError)


@dataclass(frozen=True)
class Point:
    """One number of sessions. `pipe` is the bare pipes' sample beside it."""

    sample: Sample
    pipe: Sample
    cpu_us: float
    """The proxy's own CPU per call, microseconds."""
    pss_proxy_mib: float
    pss_tree_mib: float
    backends: int
    """Living backend processes: one for each session, or one shared by all."""

    @property
    def ratio(self) -> float:
        return self.sample.calls_per_second / self.pipe.calls_per_second

    @property
    def added_p50_ms(self) -> float:
        return self.sample.p50_ms - self.pipe.p50_ms


@dataclass(frozen=True)
class Large:
    """A call of LARGE_MIB, in median milliseconds."""

    ms: float
    pipe_ms: float

    @property
    def ratio(self) -> float:
        return self.ms / self.pipe_ms


@dataclass
class Row:
    """What a contender gave, and what it did not, with the reason."""

    name: str
    what: str
    version: str = ""
    open_ms: float | None = None
    points: dict[int, Point] = field(default_factory=dict)
    result: Large | None = None
    request: Large | None = None
    failures: list[str] = field(default_factory=list)
    left_behind: int = 0
    """Processes of the tree that outlived the server by seconds."""


def median_sample(samples: Sequence[Sample]) -> Sample:
    return Sample(**{
        each.name: type(getattr(samples[0], each.name))(statistics.median(getattr(s, each.name) for s in samples))
        for each in fields(Sample)
    })  # fmt: skip


class Pipes:
    """The yardstick: backends on bare pipes, kept for the whole run."""

    def __init__(self) -> None:
        self.samples: dict[int, list[Sample]] = {}
        self.result_ms: list[float] = []
        self.request_ms: list[float] = []
        self._lanes: list[PipeLane] = []
        self._open_ms: list[float] = []

    def window(self, sessions: int, seconds: float) -> Sample:
        while len(self._lanes) < sessions:
            begun = time.perf_counter()
            lane = PipeLane(BACKEND)
            self._lanes.append(lane)
            lane.open()
            self._open_ms.append((time.perf_counter() - begun) * MS)
        sample = drivers.closed_loop(self._lanes[:sessions], seconds)
        self.samples.setdefault(sessions, []).append(sample)
        return sample

    def large_result_ms(self) -> float:
        self.result_ms.append(drivers.large_result_ms(self._lanes[0], LARGE_MIB, LARGE_REPEATS))
        return self.result_ms[-1]

    def large_request_ms(self) -> float:
        self.request_ms.append(drivers.large_request_ms(self._lanes[0], LARGE_MIB, LARGE_REPEATS))
        return self.request_ms[-1]

    @property
    def open_ms(self) -> float:
        """Median of a backend's start with its handshake."""
        return statistics.median(self._open_ms)

    def close(self) -> None:
        for lane in self._lanes:
            lane.close()


class Measurement:
    """Takes one contender through all session counts and the large payloads."""

    def __init__(self, row: Row, server: Server, pipes: Pipes) -> None:
        self._row = row
        self._server = server
        self._pipes = pipes
        self._lanes: list[HttpLane] = []
        self._open_ms: list[float] = []

    def run(self, sessions: Sequence[int], seconds: float) -> None:
        for count in sessions:
            if not self._try(f"{count} sessions", lambda count=count: self._point(count, seconds)):  # type: ignore[misc]
                break
        self._close_lanes()
        self._try(f"a result of {LARGE_MIB} MiB", self._large_result)
        self._try(f"a request of {LARGE_MIB} MiB", self._large_request)

    def _try(self, what: str, action: Callable[[], None]) -> bool:
        try:
            action()
        except FAILURES as error:
            self._row.failures.append(f"{what}: {error or type(error).__name__}")
            return False
        return True

    def _point(self, sessions: int, seconds: float) -> None:
        while len(self._lanes) < sessions:
            self._lanes.append(self._open())
        self._row.open_ms = statistics.median(self._open_ms)
        samples, pipe_samples, cpu = [], [], 0.0
        for _ in range(WINDOWS):
            pipe_samples.append(self._pipes.window(sessions, seconds / WINDOWS))
            for lane in self._lanes:
                lane.refresh()
            before = self._server.cpu_seconds()
            samples.append(drivers.closed_loop(self._lanes, seconds / WINDOWS))
            cpu += self._server.cpu_seconds() - before
        alone, whole = self._server.pss()
        self._row.points[sessions] = Point(
            sample=median_sample(samples),
            pipe=median_sample(pipe_samples),
            cpu_us=cpu / sum(sample.calls for sample in samples) * US,
            pss_proxy_mib=alone,
            pss_tree_mib=whole,
            backends=self._server.count(NOTHING),
        )

    def _open(self) -> HttpLane:
        lane = HttpLane("127.0.0.1", self._server.port, MCP_PATH)
        self._open_ms.append(lane.open() * MS)
        return lane

    def _close_lanes(self) -> None:
        for lane in self._lanes:
            lane.close()
        self._lanes.clear()

    # Each in a session of its own: some servers do not outlive the refusal.
    def _large_result(self) -> None:
        pipe_ms = self._pipes.large_result_ms()
        self._row.result = Large(self._large(drivers.large_result_ms), pipe_ms)

    def _large_request(self) -> None:
        pipe_ms = self._pipes.large_request_ms()
        self._row.request = Large(self._large(drivers.large_request_ms), pipe_ms)

    def _large(self, measure: Callable[[Lane, int, int], float]) -> float:
        lane = HttpLane("127.0.0.1", self._server.port, MCP_PATH)
        try:
            lane.open()
            return measure(lane, LARGE_MIB, LARGE_REPEATS)
        finally:
            lane.close()


@contextmanager
def running(contender: Contender, row: Row) -> Iterator[Server]:
    port = 0 if contender.picks_port else free_port()
    server = Server(contender.command(port), port)
    try:
        server.wait_ready()
        yield server
    finally:
        server.end()
        row.left_behind = server.left_behind


def measure(
    contender: Contender,
    pipes: Pipes,
    sessions: Sequence[int],
    seconds: float,
    watch: Callable[[int], None] = lambda _: None,
) -> Row:
    """The contender's row. What fails is in the row with its reason. `watch` is told the server's pid."""
    row = Row(contender.name, contender.what)
    try:
        row.version = contender.prepare()
        with running(contender, row) as server:
            watch(server.pid)
            Measurement(row, server, pipes).run(sessions, seconds)
    except NotHad as error:
        row.failures.append(f"could not be had: {error}")
    except NotReady as error:
        row.failures.append(f"did not start: {error}")
    return row
