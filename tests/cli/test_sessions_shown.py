"""The table of `muxsim ps`: whole where it is read once, and as wide as the terminal where it is watched."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from muxsim.cli.sessions_shown import Seen, look, show, table_of, watch
from muxsim.cli.top_rows import COLUMNS
from muxsim.errors import Gone, NotRunning

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


def test_what_is_not_known_of_memory_is_not_said(capsys):
    for row, said in ((SESSION, "1 session, 999.0 MiB"), ({**SESSION, "memory": None}, "1 session")):
        show(Seen([4711], [row]), as_json=False)
        assert capsys.readouterr().out.splitlines()[-1] == said


@pytest.mark.parametrize("as_json", [False, True])
def test_who_watches_through_a_pipe_is_told_each_time(as_json, capsys, monkeypatch):
    looks = iter([Seen([4711], [SESSION]), Seen([4711], [])])
    monkeypatch.setattr("muxsim.cli.sessions_shown._AGAIN", 0)

    def look():
        try:
            return next(looks)
        except StopIteration:
            raise KeyboardInterrupt from None

    watch(look, as_json=as_json)
    out = capsys.readouterr().out
    assert SESSION["id"] in out
    assert ('"sessions":[]' if as_json else "0 sessions") in out


class Asked:
    """A muxsim that has one session, or fails."""

    def __init__(self, name, error=None):
        self.name = name
        self.error = error

    def ask(self, command, **arguments):
        if self.error is not None:
            raise self.error
        return {"sessions": [dict(SESSION)], "next": None}


def test_one_that_does_not_answer_hides_no_others_and_is_named(capsys):
    gone, hangs = Asked(1, Gone("muxsim 1 has gone")), Asked(2, NotRunning("muxsim 2 does not answer within 10 s"))
    seen = look([gone, hangs, Asked(3)], {})
    assert (seen.muxsims, [row["muxsim"] for row in seen.sessions]) == ([3], [3])
    show(seen, as_json=False)
    shown = capsys.readouterr()
    assert (shown.err, SESSION["id"] in shown.out) == ("muxsim: muxsim 2 does not answer within 10 s\n", True)
    with pytest.raises(NotRunning, match="muxsim 2 does not answer"):
        look([gone, hangs], {})
    assert look([gone], {}) == Seen([], [], [])
