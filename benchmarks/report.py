"""The tables of the gateway benchmark, and the same as JSON."""

import os
import platform
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from measure import LARGE_MIB, Large, Pipes, Point, Row, median_sample

NOTHING = "-"
SHOWN_REASON = 160  # characters of a failure in the tables; the JSON has all of it
MEMORY_SESSIONS = 32
SUBJECT = "muxsim"


def machine() -> str:
    return f"{cpu_model()}, {os.cpu_count()} cores, Python {platform.python_version()}, Linux {platform.release()}"


def cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Aligned columns, the first to the left, all others to the right."""
    lines = [head, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def sessions_table(sessions: int, pipes: Pipes, rows: Sequence[Row]) -> str:
    head = ["", "calls/s", "of the pipes", "p50 ms", "over the pipe", "p99 ms", "proxy us/call", "client us/call"]
    pipe = median_sample(pipes.samples[sessions])
    lines = [
        [
            "pipe", f"{pipe.calls_per_second:,.0f}", "1", f"{pipe.p50_ms:.3f}", NOTHING, f"{pipe.p99_ms:.2f}", NOTHING,
            f"{pipe.generator_us:.0f}",
        ]
    ]  # fmt: skip
    lines += [[row.name, *point_cells(row.points.get(sessions))] for row in rows]
    plural = "" if sessions == 1 else "s"
    return f"{sessions} session{plural}, one call in flight in each\n{table(head, lines)}"


def point_cells(point: Point | None) -> list[str]:
    if point is None:
        return [NOTHING] * 7
    sample = point.sample
    return [
        f"{sample.calls_per_second:,.0f}",
        f"{point.ratio:.3f}",
        f"{sample.p50_ms:.3f}",
        f"{point.added_p50_ms:+.3f}",
        f"{sample.p99_ms:.2f}",
        f"{point.cpu_us:.0f}",
        f"{sample.generator_us:.0f}",
    ]


def other_table(pipes: Pipes, rows: Sequence[Row]) -> str:
    measured = sorted(pipes.samples)
    sessions = MEMORY_SESSIONS if MEMORY_SESSIONS in measured else measured[-1]
    head = [
        "", "open ms", "backends", "proxy MiB", "tree MiB", f"{LARGE_MIB} MiB result ms", "of the pipe's",
        f"{LARGE_MIB} MiB request ms", "of the pipe's",
    ]  # fmt: skip
    lines = [
        [
            "pipe", f"{pipes.open_ms:.0f}", str(sessions), NOTHING, NOTHING, f"{middle(pipes.result_ms)}", "1",
            f"{middle(pipes.request_ms)}", "1",
        ]
    ]  # fmt: skip
    lines += [[row.name, *other_cells(row, sessions)] for row in rows]
    return f"Opening a session, memory (PSS) at {sessions}, {LARGE_MIB} MiB at once\n{table(head, lines)}"


def middle(values: Sequence[float]) -> str:
    return f"{sorted(values)[len(values) // 2]:.0f}" if values else NOTHING


def other_cells(row: Row, sessions: int) -> list[str]:
    point = row.points.get(sessions)
    return [
        NOTHING if row.open_ms is None else f"{row.open_ms:.0f}",
        *(
            [NOTHING] * 3
            if point is None
            else [str(point.backends), f"{point.pss_proxy_mib:.0f}", f"{point.pss_tree_mib:.0f}"]
        ),
        *(large_cells(row.result) if row.points else [NOTHING] * 2),
        *(large_cells(row.request) if row.points else [NOTHING] * 2),
    ]


def large_cells(large: Large | None) -> list[str]:
    return ["failed", NOTHING] if large is None else [f"{large.ms:.0f}", f"{large.ratio:.1f}"]


# What muxsim is held to: the aim, and how it is read off a row. None where it was not measured.
Reading = Callable[[Row], float | None]
AIMS: tuple[tuple[str, float, bool, Reading], ...] = (
    ("32 sessions: calls/s of the bare pipes'", 0.4, True, lambda row: at(row, 32, lambda point: point.ratio)),
    ("1 session: ms over the pipe at the median", 0.15, False, lambda row: at(row, 1, lambda p: p.added_p50_ms)),
    ("32 sessions: own CPU per call, us", 60, False, lambda row: at(row, 32, lambda point: point.cpu_us)),
    (f"result of {LARGE_MIB} MiB: times the pipe's", 2.5, False, lambda row: row.result and row.result.ratio),
    (f"request of {LARGE_MIB} MiB: times the pipe's", 2.5, False, lambda row: row.request and row.request.ratio),
)


def at(row: Row, sessions: int, read: Callable[[Point], float]) -> float | None:
    point = row.points.get(sessions)
    return None if point is None else read(point)


def aims(row: Row) -> str:
    lines = []
    for what, aim, least, read in AIMS:
        value = read(row)
        if value is not None:
            met = value >= aim if least else value <= aim
            bound = "at least" if least else "at most"
            lines.append([what, f"{bound} {aim:g}", f"{value:.3g}", "met" if met else "missed"])
    return table([f"{row.name}'s aims", "", "", ""], lines) if lines else ""


def who(rows: Sequence[Row]) -> str:
    lines = [["pipe", "", "the backend on bare pipes, driven by epoll"]]
    lines += [[row.name, row.version or NOTHING, row.what] for row in rows]
    widths = [max(len(line[column]) for line in lines) for column in (0, 1)]
    return "\n".join(f"{name:{widths[0]}}  {version:{widths[1]}}  {what}" for name, version, what in lines)


def failures(rows: Sequence[Row]) -> str:
    lines = [f"{row.name}: {' '.join(reason.split())[:SHOWN_REASON]}" for row in rows for reason in row.failures]
    lines += [f"{row.name}: left {row.left_behind} processes behind after SIGTERM" for row in rows if row.left_behind]
    return "What failed\n" + "\n".join(lines) if lines else ""


def tables(pipes: Pipes, rows: Sequence[Row]) -> str:
    parts = [
        who(rows),
        *(sessions_table(sessions, pipes, rows) for sessions in sorted(pipes.samples)),
        other_table(pipes, rows),
        failures(rows),
        *(aims(row) for row in rows if row.name == SUBJECT),
    ]
    note = "Ratios are to the bare pipes in the windows just before the row's own, not to the median shown as `pipe`."
    return "\n\n".join(part for part in ["", *parts, note] if part)


def record(pipes: Pipes, rows: Sequence[Row], seconds: float) -> dict[str, Any]:
    """Everything measured, for `--json`."""
    return {
        "machine": {
            "cpu": cpu_model(),
            "cores": os.cpu_count(),
            "python": platform.python_version(),
            "kernel": platform.release(),
        },
        "seconds": seconds,
        "pipe": {
            "open_ms": pipes.open_ms,
            "samples": {sessions: [asdict(each) for each in taken] for sessions, taken in pipes.samples.items()},
            "result_ms": pipes.result_ms,
            "request_ms": pipes.request_ms,
        },
        "rows": [
            {**asdict(row), "ratios": {sessions: point.ratio for sessions, point in row.points.items()}} for row in rows
        ],
    }
