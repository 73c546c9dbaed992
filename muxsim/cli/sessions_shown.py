"""The sessions of running muxsims as `muxsim ps` shows them, once or again and again."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from rich.console import Console, Group
from rich.live import Live
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from muxsim.cli.console import console_of
from muxsim.cli.operator import Asked, duration, memory_of_tree, print_json, printable
from muxsim.cli.top_rows import COLUMNS, fitting, shortened
from muxsim.errors import Gone, MuxsimError, NotRunning
from muxsim.serve.operate.running import Running, none_serves

_PAGE: Final = 1000
# Seconds between two looks.
_AGAIN: Final = 1.0
_TEXTS: Final = frozenset({"session", "env", "state", "owner", "peer"})


@dataclass(frozen=True)
class Seen:
    """Which muxsims there are, by pid or URL, and their sessions."""

    muxsims: Sequence[int | str]
    sessions: Sequence[dict[str, Any]]
    silent: Sequence[str] = ()
    """Of those that do not answer, in words."""


def look(asked: Sequence[Asked], filters: Mapping[str, Any]) -> Seen:
    """All sessions that are looked for. Raises `MuxsimError` for a muxsim that refuses, or if none answers."""
    there, rows, silent = list[int | str](), list[dict[str, Any]](), list[str]()
    for muxsim in asked:
        try:
            rows += sessions_of(muxsim, filters)
            there.append(muxsim.name)
        except Gone:
            continue
        except NotRunning as error:
            silent.append(str(error))
    if silent and not there:
        raise NotRunning("; ".join(silent))
    return Seen(there, rows, silent)


def sessions_of(muxsim: Asked, filters: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The sessions of a muxsim, with the memory of each one's processes in bytes."""
    rows = rows_of(muxsim, filters)
    if isinstance(muxsim, Running):  # its processes are here
        for row in rows:
            row["memory"] = None if row["pid"] is None else memory_of_tree(row["pid"])
    return rows


def rows_of(muxsim: Asked, filters: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The same, but for what has to be found out here."""
    rows: list[dict[str, Any]] = []
    after: str | None = "0"
    while after is not None:
        answer = muxsim.ask("sessions", limit=_PAGE, after=after, **filters)
        if "error" in answer:
            raise MuxsimError(answer["error"])
        rows += answer["sessions"]
        after = answer["next"]
    for row in rows:
        row["muxsim"] = muxsim.name
    return rows


def show(seen: Seen, *, as_json: bool) -> None:
    """Print sessions, those of all muxsims in one table."""
    if as_json:
        print_json({"muxsims": seen.muxsims, "sessions": seen.sessions})
    elif not seen.muxsims:
        print(none_serves())
    else:
        _wide_console(table_of(seen)).print(table_of(seen))
        print(_sum(seen))
    for problem in seen.silent:
        print(f"muxsim: {problem}", file=sys.stderr)


def watch(look: Callable[[], Seen], *, as_json: bool) -> None:
    """Show them again and again until Ctrl-C: in one place of a terminal, else below each other, or lines of JSON."""
    console = console_of()
    with contextlib.suppress(KeyboardInterrupt):
        if as_json or not console.is_terminal:
            while True:
                seen = look()
                if as_json:
                    print(
                        msgspec.json.encode({"muxsims": seen.muxsims, "sessions": seen.sessions}).decode(), flush=True
                    )
                else:
                    show(seen, as_json=False)
                    print(flush=True)
                time.sleep(_AGAIN)
        with Live(_screen(look(), console.width), console=console, auto_refresh=False, screen=True) as live:
            while True:
                time.sleep(_AGAIN)
                live.update(_screen(look(), console.width), refresh=True)


def _screen(seen: Seen, width: int) -> Group:
    """What a terminal has room for: who wants to copy an id, or know all, asks without --watch."""
    return Group(_sum(seen) if seen.muxsims else none_serves(), *seen.silent, "", table_of(seen, width))


def _sum(seen: Seen) -> str:
    """How many there are, and what they take as far as that is known."""
    count = f"{len(seen.sessions)} session{'' if len(seen.sessions) == 1 else 's'}"
    known = [one["memory"] for one in seen.sessions if one["memory"] is not None]
    return f"{count}, {shown_memory(sum(known))}" if known else count


def table_of(seen: Seen, width: int | None = None) -> Table:
    """A row for each session: all that is told of it, or what a terminal of this width has room for."""
    several = len(seen.muxsims) > 1
    heads = COLUMNS if width is None else fitting(width)
    table = Table(box=None, padding=(0, 2 if len(heads) == len(COLUMNS) else 1, 0, 0), header_style="dim")
    for column in (*(["muxsim"] if several else []), *heads.values()):
        table.add_column(column, justify="left" if column in _TEXTS else "right", no_wrap=True)
    for one in seen.sessions:
        told = dict(zip(COLUMNS, cells_of(one), strict=True))
        cells = [told[name] if width is None else shortened(name, told[name], width) for name in heads]
        table.add_row(*(Text(printable(cell)) for cell in [*([str(one["muxsim"])] if several else []), *cells]))
    return table


def cells_of(one: Mapping[str, Any]) -> list[str]:
    """What stands in a session's row: its whole id, since whoever asks may do what it opens."""
    state = f"{one['state']}: {one['cause']}" if one.get("cause") else one["state"]
    counts = [str(one.get(name, "-")) for name in ("attachments", "calls", "in_flight")]
    return [
        *(one["id"], one["env"], str(one["seed"]), state, one["owner"] or "-", one["peer"] or "-"),
        *("-" if one["pid"] is None else str(one["pid"]), duration(one["age"]), shown_memory(one["memory"])),
        *counts,
    ]


def shown_memory(size: int | None) -> str:
    """For people."""
    return "-" if size is None else f"{size / 2**20:.1f} MiB"


def _wide_console(table: Table) -> Console:
    """As wide as the table at least: a terminal that is not goes on in the next line, and nothing is left out."""
    console = console_of()
    needed = Measurement.get(console_of(width=10_000), console.options.update(max_width=10_000), table).maximum
    return console_of(width=max(console.width, needed))
