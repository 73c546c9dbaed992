"""The table of `muxsim ps`: whole where it is read once, and as wide as the terminal where it is watched."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from muxsim.cli.sessions_shown import Seen, table_of
from muxsim.cli.top_rows import COLUMNS

SESSION = {
    "id": "0123456789abcdef" * 2,
    "env": "frozen_lake",
    "seed": 2_147_483_647,
    "state": "started",
    "owner": "somebody",
    "peer": "127.0.0.1",
    "pid": 4_194_304,
    "age": 7199.0,
    "memory": 999 * 2**20,
    "attachments": 1,
    "calls": 12345,
    "in_flight": 0,
    "muxsim": 4711,
}


def lines(width):
    console = Console(width=width or 500, record=True, file=io.StringIO())
    console.print(table_of(Seen([4711], [SESSION]), width))
    return [line.rstrip() for line in console.export_text().splitlines()]


@pytest.mark.parametrize("width", [80, 100, 149, 150, 200])
def test_a_terminal_shows_whole_heads_and_numbers_or_leaves_the_column_out(width):
    head, row = lines(width)
    assert "…" not in head
    assert row.split()[0].startswith("0123456789ab")
    assert {"2147483647", "started", "999.0", "12345"} <= set(row.split())


def test_whoever_asks_once_is_told_all():
    head, row = lines(None)
    assert head.split() == list(COLUMNS.values())
    assert SESSION["id"] in row
