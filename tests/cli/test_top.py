"""`muxsim top`, driven by keys, in front of a muxsim that is played."""

from __future__ import annotations

import asyncio
import functools
import json
import sys

import pytest
import typer
from textual.widgets import DataTable, Input, Log, Static

from muxsim.cli import operate, top, top_session
from muxsim.cli.top import Top
from muxsim.cli.top_session import Ending, SessionScreen
from muxsim.errors import NotRunning

from .test_top_rows import row


class Played:
    """A muxsim that answers what an operator asks."""

    name = "played"

    def __init__(self, *rows):
        self.rows = {one["id"] if one["number"] == one["id"] else one["number"]: dict(one) for one in rows}
        self.ended = {}
        self.stderr = ["first"]
        self.gone = False
        self.level = "warning"

    def ask(self, command, *, timeout=0, **arguments):
        if self.gone:
            raise NotRunning("muxsim 7 does not answer: it has gone")
        if command == "sessions":
            rows = self.ended if arguments.get("state") == "ended" else self.rows
            return {"sessions": [dict(one) for one in rows.values()], "next": None}
        if command == "environments":
            failing = {"retry_after": 3.0, "error": {"text": "[bold]it\x1b broke"}}
            usual = {"state": "ready", "starting": 0, "waiting": 2, "opens": 5, "failures": 1}
            return {"environments": [{"name": "lake", **usual, "error": None}, {"name": "maze", **usual, **failing}]}
        if command == "status":
            return {
                "pid": 7,
                "url": "http://127.0.0.1:1",
                "state": "serving",
                "uptime": 5.0,
                "in_flight": 0,
                "sessions": len(self.rows),
                "environments": ["lake", "maze"],
                "limits": {"max_url": 3},
            }
        if command == "loglevel":
            return {"level": self.level, "environments": {}}
        if command == "logs":
            lines = [{"event": "backend.stderr", "line": line} for line in self.stderr]
            lines = [json.dumps(line) for line in [*lines, {"event": "session.call"}]][arguments["after"] :]
            return {"lines": lines, "after": arguments["after"] + len(lines), "over": False}
        one = self.rows.get(arguments["session"]) or self.ended.get(arguments["session"])
        if one is None:
            return {"error": "no session has an id that is that"}
        if command == "end":
            self.ended[one["id"]] = {**self.rows.pop(one["id"]), "state": "ended", "cause": "deleted", "pid": None}
            return {"id": one["id"]}
        return {**one, "clients": [], "stderr": list(self.stderr)}


def driven(*rows, size=(150, 30)):
    """A test of the program, which is given it, its pilot, and the muxsim that it looks at."""

    def decorate(function):
        @functools.wraps(function)
        def test(monkeypatch):
            for module in (top, top_session):
                monkeypatch.setattr(module, "_AGAIN", 0.1)
            asyncio.run(asyncio.wait_for(run(), 120))

        async def run():
            muxsim = Played(*rows)
            app = Top(muxsim)
            async with app.run_test(size=size) as pilot:
                await until(pilot, lambda: ids_of(app) or not rows)
                await function(app, pilot, muxsim)

        del test.__wrapped__  # or pytest would take its arguments for fixtures
        return test

    return decorate


async def until(pilot, condition):
    """Wait until this is so, of which nobody tells."""
    while not condition():
        await pilot.pause(0.02)


def sessions(app):
    return app.screen_stack[0].query_one("#sessions", DataTable)


def ids_of(app):
    return [key.value for key in sessions(app).rows]


def text_of(app, selector):
    return str(app.screen.query_one(selector, Static).render())


def under_cursor(app):
    table = sessions(app)
    return table.coordinate_to_cell_key(table.cursor_coordinate).row_key.value


THREE = (row("aa1", age=3.0, calls=1), row("bb2", age=2.0, calls=5, env="maze"), row("cc3", age=1.0, calls=2))


@driven(*THREE)
async def test_it_shows_the_server_its_environments_and_its_sessions_and_what_becomes_of_them(app, pilot, muxsim):
    assert ids_of(app) == ["aa1", "bb2", "cc3"]
    assert "max_url 3" in text_of(app, "#server")
    environments = app.screen.query_one("#environments", DataTable)
    assert [str(environments.get_row_at(at)[0]) for at in range(2)] == ["lake", "maze"]
    assert str(environments.get_row_at(1)[-1]) == "[bold]it\N{REPLACEMENT CHARACTER} broke"
    muxsim.rows["dd4"] = row("dd4", age=9.0)
    await until(pilot, lambda: ids_of(app) == ["dd4", "aa1", "bb2", "cc3"])
    assert under_cursor(app) == "aa1", "who was under the cursor stays there"
    muxsim.rows["aa1"]["calls"] = 77
    await until(pilot, lambda: str(sessions(app).get_cell("aa1", "calls")) == "77")


@driven(*THREE)
async def test_it_sorts_by_the_next_column_and_the_other_way_round(app, pilot, muxsim):
    for _ in range(3):
        await pilot.press("s")
    # Age, memory, clients, calls.
    await until(pilot, lambda: ids_of(app) == ["bb2", "cc3", "aa1"])
    await pilot.press("r")
    await until(pilot, lambda: ids_of(app) == ["aa1", "cc3", "bb2"])


@driven(*THREE)
async def test_a_filter_shows_what_matches_until_it_is_taken_back(app, pilot, muxsim):
    await pilot.press("slash", *"maze")
    await until(pilot, lambda: ids_of(app) == ["bb2"])
    assert "showing 1 of 3" in text_of(app, "#server")
    await pilot.press("enter", "escape")
    await until(pilot, lambda: len(ids_of(app)) == 3)
    assert app.screen.query_one("#filter", Input).value == ""


@driven(*THREE)
async def test_a_session_is_looked_into_and_its_stderr_followed(app, pilot, muxsim):
    await pilot.press("down", "enter")
    await until(pilot, lambda: isinstance(app.screen, SessionScreen))
    log = app.screen.query_one("#stderr", Log)
    await until(pilot, lambda: "first" in log.lines)
    muxsim.stderr = ["first", "second \x1b[2J"]
    await until(pilot, lambda: any("second" in line for line in log.lines))
    assert [line for line in log.lines if line] == ["first", "second \N{REPLACEMENT CHARACTER}[2J"]
    await pilot.press("escape")
    await until(pilot, lambda: not isinstance(app.screen, SessionScreen))


@driven(*THREE)
async def test_its_stderr_is_followed_in_the_log_where_that_has_it_and_no_line_is_missed(app, pilot, muxsim):
    muxsim.level = "info"
    await pilot.press("down", "enter")
    await until(pilot, lambda: isinstance(app.screen, SessionScreen))
    log = app.screen.query_one("#stderr", Log)
    await until(pilot, lambda: "first" in log.lines)
    many = [f"line {number}" for number in range(100)]  # more than are kept of a session for its end
    muxsim.stderr = ["first", *many]
    await until(pilot, lambda: "line 99" in log.lines)
    assert [line for line in log.lines if line.startswith("line")][-99:] == many[1:]


@driven(*THREE)
async def test_one_is_ended_only_when_that_is_really_wanted(app, pilot, muxsim):
    await pilot.press("e")
    await until(pilot, lambda: isinstance(app.screen, Ending))
    await pilot.press("n")
    await until(pilot, lambda: not isinstance(app.screen, Ending))
    assert len(muxsim.rows) == 3
    await pilot.press("e")
    await until(pilot, lambda: isinstance(app.screen, Ending))
    await pilot.press("y")
    await until(pilot, lambda: ids_of(app) == ["bb2", "cc3"])
    await pilot.press("a")
    await until(pilot, lambda: "aa1" in ids_of(app))
    assert "deleted" in str(sessions(app).get_cell("aa1", "state"))


@driven(*THREE)
async def test_a_muxsim_that_has_gone_is_told_and_what_was_seen_last_stays(app, pilot, muxsim):
    muxsim.gone = True
    await until(pilot, lambda: "it has gone" in text_of(app, "#server"))
    assert len(ids_of(app)) == 3
    await pilot.press("e")
    await until(pilot, lambda: isinstance(app.screen, Ending))
    await pilot.press("y")
    muxsim.gone = False
    await until(pilot, lambda: "it has gone" not in text_of(app, "#server"))


@driven(row("aa1", owner="[red]x[/red]\x1b[31m"), size=(160, 30))
async def test_what_others_have_named_is_text(app, pilot, muxsim):
    assert str(sessions(app).get_cell("aa1", "owner")) == "[red]x[/red]\N{REPLACEMENT CHARACTER}[31m"


@driven(*(row(f"s{number}", age=float(number)) for number in range(3000)), size=(100, 20))
async def test_of_very_many_it_draws_the_first_and_a_filter_finds_the_others(app, pilot, muxsim):
    assert len(ids_of(app)) == 1000
    assert "showing 1000 of 3000" in text_of(app, "#server")
    await pilot.press("slash", *"s7")
    await until(pilot, lambda: "s7" in ids_of(app))


LONG = row("5f0c6a1e-8b1d-4d3c-9a52-0123456789ab", owner="ada", peer="127.0.0.1", env="a_rather_long_name", calls=1234)


@driven(LONG, size=(80, 24))
async def test_eighty_columns_have_room_for_what_matters_and_more_of_them_for_all(app, pilot, muxsim):
    table = sessions(app)
    assert [str(column.label) for column in table.ordered_columns] == [
        *("session", "env", "seed", "state", "age ▼", "memory", "calls", "now")
    ]
    assert str(table.get_cell(LONG["id"], "id")) == "5f0c6a1e-8b1…"
    assert table.virtual_size.width <= 80, "nothing has to be scrolled for"
    assert app.screen.query_one("#environments", DataTable).ordered_columns[-2].label.plain == "failed"
    await pilot.resize_terminal(160, 30)
    await until(pilot, lambda: len(sessions(app).ordered_columns) == 12)
    await until(pilot, lambda: ids_of(app))
    assert str(sessions(app).get_cell(LONG["id"], "id")) == LONG["id"]


@driven(row("epis", number=1), row("epis", number=2))
async def test_sessions_of_which_a_monitor_is_told_the_same_beginning_are_two(app, pilot, muxsim):
    await until(pilot, lambda: len(ids_of(app)) == 2)
    assert ids_of(app) == ["epis 1", "epis 2"]


@driven()
async def test_without_a_session_there_is_nothing_to_end(app, pilot, muxsim):
    await until(pilot, lambda: "muxsim 7" in text_of(app, "#server"))
    await pilot.press("e", "i", "enter", "t")
    assert app.theme == "textual-light"
    assert len(app.screen_stack) == 1


def test_without_the_extra_it_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "muxsim.cli.top", None)
    with pytest.raises(typer.Exit):
        operate.top(operate.Which())
    assert "pip install 'mcp-muxsim[top]'" in capsys.readouterr().err
