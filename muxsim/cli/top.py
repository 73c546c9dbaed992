"""`muxsim top`: sessions and environments of a running muxsim, live, with a hand on each."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any, ClassVar, Final

from rich.text import Text
from textual import work
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.css.query import NoMatches
from textual.screen import Screen
from textual.widgets import DataTable, Footer, Input, Static

from muxsim.cli.operator import Asked, do, duration, printable
from muxsim.cli.sessions_shown import cells_of, sessions_of, shown_memory
from muxsim.cli.top_rows import COLUMNS, EnvironmentSum, Order, Row, fitting, matching, shortened, summed, told_apart
from muxsim.cli.top_session import Ending, SessionScreen
from muxsim.errors import MuxsimError

# Seconds between two looks.
_AGAIN: Final = 1.0
# Rows that are drawn: more nobody reads, and each costs time with every look. A filter finds the others.
_MOST: Final = 1000
_ENVIRONMENTS: Final = (
    *("environment", "state", "live", "starting", "waiting", "busy", "calls", "memory", "opens", "failed"),
    "last failure",
)
# Those for which a narrow terminal has no room: so many columns it needs for all.
_ONLY_IF_WIDE: Final = frozenset({"starting", "busy", "calls", "opens"})
_WIDE: Final = 110
_NUMBERS: Final = frozenset({"seed", "pid", "age", "memory", "attachments", "calls", "in_flight"})
_COLOURS: Final = {"ready": "green", "started": "yellow", "restoring": "yellow", "ending": "red", "ended": "dim"}


class Top(App[None]):
    """The program: its first screen is `Sessions`."""

    TITLE = "muxsim top"
    ENABLE_COMMAND_PALETTE = False
    CSS = """
    #server { height: auto; padding: 0 1; background: $panel; }
    #environments { height: auto; max-height: 30%; margin: 1 0 0 0; }
    #sessions { height: 1fr; margin: 1 0 0 0; }
    #filter { display: none; height: 3; }
    #filter.shown { display: block; }
    DataTable > .datatable--header { text-style: bold; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q", "quit", "Quit"),
        Binding("t", "theme", "Light or dark"),
    ]

    def __init__(self, muxsim: Asked) -> None:
        super().__init__()
        self._muxsim = muxsim

    def get_default_screen(self) -> Screen[None]:
        """What is seen first."""
        return Sessions(self._muxsim)

    def action_theme(self) -> None:
        """Have the colours for the other kind of room."""
        self.theme = "textual-light" if self.theme != "textual-light" else "textual-dark"


class Sessions(Screen[None]):
    """The server in a line or two, its environments, and its sessions."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("i", "look_into", "Look into"),
        Binding("e,delete", "end", "End"),
        Binding("s", "sort", "Sort by next"),
        Binding("r", "reverse", "Reverse"),
        Binding("slash", "filter", "Filter"),
        Binding("escape", "no_filter", "All", show=False),
        Binding("a", "ended", "Ended too"),
    ]

    def __init__(self, muxsim: Asked) -> None:
        super().__init__()
        self._muxsim = muxsim
        self._order = Order()
        self._with_ended = False
        self._words = ""
        self._rows: list[Row] = []
        self._status: dict[str, Any] = {}
        self._environments: list[Row] = []
        self._problem = ""
        self._width = 0

    def compose(self) -> ComposeResult:
        """What is on it, from top to bottom."""
        yield Static(id="server")
        environments: DataTable[Text] = DataTable(id="environments", cursor_type="none")
        environments.can_focus = False
        yield environments
        yield DataTable(id="sessions", cursor_type="row", zebra_stripes=True)
        yield Input(id="filter", placeholder="words that stand in id, env, seed, state, owner, peer or cause")
        yield Footer()

    def on_mount(self) -> None:
        """Begin to look."""
        self._head()
        self._sessions.focus()
        self._keep_looking()

    @property
    def _sessions(self) -> DataTable[Text]:
        return self.query_one("#sessions", DataTable)

    def on_resize(self) -> None:
        """Show the columns for which there is room now."""
        if fitting(self.app.size.width) != fitting(self._width) or (self.app.size.width < _WIDE) != self._is_narrow:
            self._head()
            self._show()

    @property
    def _is_narrow(self) -> bool:
        return self._width < _WIDE

    def _head(self) -> None:
        """The heads of both tables."""
        self._width = self.app.size.width
        environments = self.query_one("#environments", DataTable)
        environments.clear(columns=True)
        environments.add_columns(*(name for name in _ENVIRONMENTS if not (self._is_narrow and name in _ONLY_IF_WIDE)))
        self._sessions.clear(columns=True)
        self._head_sessions()

    def _head_sessions(self) -> None:
        """The heads of the columns, with an arrow where they are sorted by."""
        arrow = "▲" if self._order.reverse else "▼"
        for name, head in fitting(self._width).items():
            self._sessions.add_column(f"{head} {arrow}" if name == self._order.column else head, key=name)

    # ---- looking

    @work(exclusive=True)
    async def _keep_looking(self) -> None:
        with contextlib.suppress(NoMatches):  # the program has ended meanwhile
            while True:
                try:
                    self._status, self._environments, self._rows = await asyncio.to_thread(self._look)
                    self._problem = ""
                except MuxsimError as error:
                    self._problem = str(error)
                self._show()
                await asyncio.sleep(_AGAIN)

    def _look(self) -> tuple[dict[str, Any], list[Row], list[Row]]:
        """In a thread: it waits for the muxsim, and reads much of /proc."""
        status = do(self._muxsim, "status")
        environments: list[Row] = do(self._muxsim, "environments")["environments"]
        rows: list[Row] = [*sessions_of(self._muxsim, {})]
        if self._with_ended:
            rows += sessions_of(self._muxsim, {"state": "ended"})
        return status, environments, told_apart(rows)

    # ---- showing

    def _show(self) -> None:
        chosen = self._order.sort(matching(self._rows, self._words))
        self.query_one("#server", Static).update(self._server_line(len(chosen)))
        self._show_environments(summed(self._environments, self._rows))
        self._show_sessions(chosen[:_MOST])

    def _server_line(self, chosen: int) -> Text:
        if not self._status:
            return Text(self._problem or "looking …", style="red" if self._problem else "")
        status = self._status
        line = Text("muxsim " if status["pid"] is None else f"muxsim {status['pid']} ", style="bold")
        line.append(f"{status['url']}  ", style="none")
        line.append(status["state"], style="green" if status["state"] == "serving" else "yellow")
        # Not all of it is told to whoever is no admin.
        if status["uptime"] is not None:
            line.append(f"  up {duration(status['uptime'])}")
        if status["sessions"] is not None:
            line.append(f"  {status['sessions']} sessions")
        if status["in_flight"] is not None:
            line.append(f", {status['in_flight']} calls now")
        if chosen != len(self._rows) or chosen > _MOST:
            line.append(f"  showing {min(chosen, _MOST)} of {len(self._rows)}", style="yellow")
        if status["limits"]:
            met = ", ".join(f"{name} {count}" for name, count in status["limits"].items())
            line.append(f"\nbounds met: {met}", style="yellow")
        if self._problem:
            line.append(f"\n{self._problem}", style="bold red")
        return line

    def _show_environments(self, sums: Sequence[EnvironmentSum]) -> None:
        table = self.query_one("#environments", DataTable)
        table.clear()
        for one in sums:
            counts = (one.live, one.told.get("starting"), one.told.get("waiting"), one.busy, one.calls)
            numbers = [*map(_number, counts), shown_memory(one.memory)]
            numbers += [_number(one.told.get("opens")), _number(one.told.get("failures"))]
            style = "red" if one.told.get("retry_after") is not None else ""
            cells = [Text(one.name), Text(one.state, style=style)]
            cells += [*(Text(cell, justify="right") for cell in numbers), Text(printable(one.error))]
            shown = zip(_ENVIRONMENTS, cells, strict=True)
            table.add_row(*(cell for name, cell in shown if not (self._is_narrow and name in _ONLY_IF_WIDE)))

    def _show_sessions(self, rows: Sequence[Row]) -> None:
        """Change what has changed; who is under the cursor stays there, wherever they are now."""
        table = self._sessions
        there = [key.value for key in table.rows]
        if there != [row["key"] for row in rows]:
            selected = self._selected()
            table.clear()
            for row in rows:
                table.add_row(*_cells(row, self._width).values(), key=row["key"])
            if selected is not None and selected in table.rows:
                table.move_cursor(row=table.get_row_index(selected), animate=False)
            return
        for row in rows:
            for column, cell in _cells(row, self._width).items():
                if table.get_cell(row["key"], column) != cell:
                    table.update_cell(row["key"], column, cell, update_width=True)

    def _selected(self) -> str | None:
        table = self._sessions
        if not table.row_count:
            return None
        return table.coordinate_to_cell_key(table.cursor_coordinate).row_key.value

    def _id_of(self, key: str) -> str:
        return next((row["id"] for row in self._rows if row["key"] == key), key)

    # ---- sorting and filtering

    def _sort_by(self, order: Order) -> None:
        self._order = order
        selected = self._selected()
        self._sessions.clear(columns=True)
        self._head_sessions()
        self._show()
        if selected is not None and selected in self._sessions.rows:
            self._sessions.move_cursor(row=self._sessions.get_row_index(selected), animate=False)

    def action_sort(self) -> None:
        """Sort by the column that follows."""
        self._sort_by(self._order.next())

    def action_reverse(self) -> None:
        """Sort the other way round."""
        self._sort_by(self._order.chosen(self._order.column))

    def on_data_table_header_selected(self, event: DataTable.HeaderSelected) -> None:
        """Sort by the column that was clicked."""
        if event.data_table.id == "sessions" and event.column_key.value is not None:
            self._sort_by(self._order.chosen(event.column_key.value))

    def action_filter(self) -> None:
        """Ask for the words that have to stand in a row."""
        field = self.query_one("#filter", Input)
        field.add_class("shown")
        field.focus()

    def on_input_changed(self, event: Input.Changed) -> None:
        """Show those in which they stand."""
        self._words = event.value
        self._show()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Go on among those."""
        self._sessions.focus()

    def action_no_filter(self) -> None:
        """Show all again."""
        field = self.query_one("#filter", Input)
        field.value = ""
        field.remove_class("shown")
        self._sessions.focus()

    def action_ended(self) -> None:
        """Show those that have ended in the last minutes, too, or no more."""
        self._with_ended = not self._with_ended
        self._keep_looking()

    # ---- one session

    def on_data_table_row_selected(self, event: DataTable.RowSelected) -> None:
        """Look into the session under the cursor."""
        if event.row_key.value is not None:
            self.app.push_screen(SessionScreen(self._muxsim, self._id_of(event.row_key.value)))

    def action_look_into(self) -> None:
        """Look into the session under the cursor."""
        if (selected := self._selected()) is not None:
            self.app.push_screen(SessionScreen(self._muxsim, self._id_of(selected)))

    def action_end(self) -> None:
        """End the session under the cursor, if that is really wanted."""
        if (selected := self._selected()) is not None:
            self.app.push_screen(Ending(self._muxsim, self._id_of(selected)))


def _cells(row: Row, width: int) -> dict[str, Text]:
    """A session's row, by column: what others have written in it means nothing to the terminal."""
    cells = {}
    told = dict(zip(COLUMNS, cells_of(row), strict=True))
    for column in fitting(width):
        style = _COLOURS.get(row["state"], "") if column == "state" else ""
        text = shortened(column, printable(told[column]), width)
        cells[column] = Text(text, style=style, justify="right" if column in _NUMBERS else "left")
    return cells


def _number(count: int | None) -> str:
    return "-" if count is None else str(count)
