"""What `muxsim top` shows of sessions: sorted, filtered, and summed up by environment. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

Row: TypeAlias = Mapping[str, Any]

COLUMNS: Final = {
    "id": "session",
    "env": "env",
    "seed": "seed",
    "state": "state",
    "owner": "owner",
    "peer": "peer",
    "pid": "pid",
    "age": "age",
    "memory": "memory",
    "attachments": "clients",
    "calls": "calls",
    "in_flight": "now",
}
"""What a session's row has, under which head, in the order of `muxsim.cli.sessions_shown.cells_of`."""

# The narrowest terminal that has room for all of it, and what goes without in one that is narrower.
_WIDE: Final = 150
_ONLY_IF_WIDE: Final = frozenset({"owner", "peer", "pid", "attachments"})
_NARROW_ID: Final = 13
_NARROW_ENV: Final = 12


def fitting(width: int) -> dict[str, str]:
    """Those of `COLUMNS` that a terminal of so many columns has room for."""
    return {name: head for name, head in COLUMNS.items() if width >= _WIDE or name not in _ONLY_IF_WIDE}


def shortened(column: str, cell: str, width: int) -> str:
    """What stands in a column of that terminal; "…" is in the place of what does not."""
    most = {"id": _NARROW_ID, "env": _NARROW_ENV}.get(column)
    return cell if most is None or width >= _WIDE or len(cell) <= most else f"{cell[: most - 1]}…"


# What one looks for the most of: the largest comes first.
_LARGEST_FIRST: Final = frozenset({"age", "memory", "attachments", "calls", "in_flight"})
_SEARCHED: Final = ("id", "env", "seed", "state", "owner", "peer", "pid", "cause")


@dataclass(frozen=True)
class Order:
    """By which of `COLUMNS`, and whether the other way round."""

    column: str = "age"
    reverse: bool = False

    def next(self) -> Order:
        """The order by the column that follows."""
        names = list(COLUMNS)
        return Order(names[(names.index(self.column) + 1) % len(names)])

    def chosen(self, column: str) -> Order:
        """The order by this column; the other way round if it is that already."""
        return Order(column, not self.reverse if column == self.column else False)

    def sort(self, rows: Iterable[Row]) -> list[Row]:
        """The rows in this order; those that have nothing there are last, whichever way round."""
        rows = list(rows)
        known = [row for row in rows if row.get(self.column) is not None]
        unknown = [row for row in rows if row.get(self.column) is None]
        backwards = self.reverse is not (self.column in _LARGEST_FIRST)
        return sorted(known, key=lambda row: row[self.column], reverse=backwards) + unknown


def matching(rows: Iterable[Row], text: str) -> list[Row]:
    """Those in which each of the words stands somewhere."""
    words = text.lower().split()
    return [row for row in rows if all(word in _text_of(row) for word in words)]


def _text_of(row: Row) -> str:
    return " ".join(str(row[name]) for name in _SEARCHED if row.get(name) is not None).lower()


def told_apart(rows: Iterable[Row]) -> list[Row]:
    """The rows, each once and with a ``key`` of its own: the ids that a monitor is shown may be alike.

    One that has ended between two looks stands in both, and is what it was last.
    """
    once = {row["number"]: row for row in rows}
    alike = Counter(row["id"] for row in once.values())
    return [
        {**row, "key": row["id"] if alike[row["id"]] == 1 else f"{row['id']} {number}"} for number, row in once.items()
    ]


@dataclass(frozen=True)
class EnvironmentSum:
    """How an environment fares, and what its sessions are together; of one that is not served any more only that."""

    name: str
    told: Row
    """What muxsim tells of it: ``state``, ``waiting``, ``starting``, ``opens``, ``failures``, ``error``."""
    live: int
    busy: int
    calls: int
    memory: int | None

    @property
    def state(self) -> str:
        """In a word."""
        return str(self.told.get("state", "not served"))

    @property
    def error(self) -> str:
        """What has failed last, in a line."""
        error = self.told.get("error")
        return "" if error is None else " ".join(error["text"].split())


def summed(environments: Sequence[Row], rows: Iterable[Row]) -> list[EnvironmentSum]:
    """One for each environment that is served, or that sessions have."""
    told = {one["name"]: one for one in environments}
    by_name: dict[str, list[Row]] = {name: [] for name in told}
    for row in rows:
        if row["state"] != "ended":
            by_name.setdefault(row["env"], []).append(row)
    return [_sum(name, told.get(name, {}), of_it) for name, of_it in by_name.items()]


def _sum(name: str, told: Row, rows: Sequence[Row]) -> EnvironmentSum:
    known = [row["memory"] for row in rows if row.get("memory") is not None]
    busy, calls = sum(row["in_flight"] > 0 for row in rows), sum(row["calls"] for row in rows)
    return EnvironmentSum(name, told, len(rows), busy, calls, sum(known) if known else None)


def news(before: Sequence[str], now: Sequence[str]) -> list[str]:
    """The lines that have come since, of a ring of which both are all that there was."""
    for common in range(min(len(before), len(now)), 0, -1):
        if list(before[-common:]) == list(now[:common]):
            return list(now[common:])
    return list(now)
