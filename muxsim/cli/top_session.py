"""One session in `muxsim top`: all that is known of it, its stderr as it comes, and its end."""

from __future__ import annotations

import asyncio
import contextlib
import json
from functools import partial
from typing import Any, ClassVar, Final

from rich.table import Table
from rich.text import Text
from textual import work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.css.query import NoMatches
from textual.screen import ModalScreen, Screen
from textual.widgets import Button, Footer, Label, Log, Static

from muxsim.cli.operator import Asked, do, facts_of, printable
from muxsim.cli.top_rows import news
from muxsim.errors import MuxsimError

# Seconds between two looks.
_AGAIN: Final = 1.0
_MOST_LINES: Final = 10_000
# What the log calls a line of stderr, and the levels at which it has those.
_STDERR: Final = "backend.stderr"
_LOGGED: Final = frozenset({"debug", "info"})


class SessionScreen(Screen[None]):
    """Looks into one again and again, until it is left."""

    CSS = """
    #facts { height: auto; max-height: 60%; padding: 0 1; }
    #said { height: 1; padding: 0 1; background: $panel; }
    #stderr { height: 1fr; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "leave", "Back"),
        Binding("e,delete", "end", "End"),
    ]

    def __init__(self, muxsim: Asked, session: str) -> None:
        super().__init__()
        self._muxsim = muxsim
        self._session = session
        self._said: list[str] = []
        self._is_followed = False

    def compose(self) -> ComposeResult:
        """What is on it, from top to bottom."""
        with VerticalScroll(id="facts"):
            yield Static(id="known")
        yield Static("stderr, as it comes", id="said")
        yield Log(id="stderr", max_lines=_MOST_LINES)
        yield Footer()

    def on_mount(self) -> None:
        """Begin to look."""
        self._keep_looking()
        self._follow()

    @work
    async def _follow(self) -> None:
        """Show its stderr from the log, where that has it: each line as it comes, and as many as are kept."""
        after, over = 0, False
        with contextlib.suppress(NoMatches, MuxsimError):  # it has been left; or its last lines have to do
            levels = await asyncio.to_thread(partial(do, self._muxsim, "loglevel"))
            self._is_followed = {levels["level"], *levels["environments"].values()} <= _LOGGED
            while self._is_followed and not over:
                page = await asyncio.to_thread(
                    partial(do, self._muxsim, "logs", session=self._session, after=after, wait=_AGAIN)
                )
                lines = map(json.loads, page["lines"])
                said = [printable(line["line"]) for line in lines if line["event"] == _STDERR]
                self.query_one("#stderr", Log).write_lines(said)
                after, over = page["after"], page["over"]
            return
        self._is_followed = False

    @work
    async def _keep_looking(self) -> None:
        with contextlib.suppress(NoMatches):  # it has been left meanwhile
            while True:
                try:
                    self._show(await asyncio.to_thread(partial(do, self._muxsim, "inspect", session=self._session)))
                except MuxsimError as error:
                    self.query_one("#known", Static).update(Text(str(error), style="red"))
                await asyncio.sleep(_AGAIN)

    def _show(self, session: dict[str, Any]) -> None:
        table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
        table.add_column(style="dim")
        table.add_column(overflow="fold")
        for name, value in facts_of(session):
            table.add_row(name, Text(value))
        self.query_one("#known", Static).update(table)
        said = list(session.get("stderr", ()))
        if not self._is_followed:
            self.query_one("#stderr", Log).write_lines(map(printable, news(self._said, said)))
        self._said = said

    def action_leave(self) -> None:
        """Go back to the list."""
        self.dismiss()

    def action_end(self) -> None:
        """End it, if that is really wanted."""
        self.app.push_screen(Ending(self._muxsim, self._session))


class Ending(ModalScreen[None]):
    """Asks whether a session is to end, and ends it."""

    CSS = """
    Ending { align: center middle; }
    #question { width: auto; max-width: 90%; height: auto; padding: 1 2; border: thick $error; background: $surface; }
    #question Label { margin: 0 0 1 0; }
    #question Horizontal { width: auto; height: auto; }
    #question Button { margin: 0 2 0 0; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "do_end", "End it"),
        Binding("n,escape,q", "leave", "Let it be"),
    ]

    def __init__(self, muxsim: Asked, session: str) -> None:
        super().__init__()
        self._muxsim = muxsim
        self._session = session

    def compose(self) -> ComposeResult:
        """The question, and two answers."""
        with Vertical(id="question"):
            yield Label(Text(f"End session {self._session}? Its client gets an error for each call."))
            with Horizontal():
                yield Button("Let it be (n)", id="leave")
                yield Button("End it (y)", id="end", variant="error")

    def on_button_pressed(self, event: Button.Pressed) -> None:
        """Take the answer."""
        if event.button.id == "end":
            self.action_do_end()
        else:
            self.dismiss()

    def action_leave(self) -> None:
        """Let it be."""
        self.dismiss()

    def action_do_end(self) -> None:
        """End it, while the list goes on."""
        self.app.run_worker(self._end(), exclusive=False)
        self.dismiss()

    async def _end(self) -> None:
        app, short = self.app, self._session[:8]
        try:
            await asyncio.to_thread(partial(do, self._muxsim, "end", session=self._session))
        except MuxsimError as error:
            app.notify(str(error), severity="error", markup=False)
        else:
            app.notify(f"session {short} has ended", markup=False)
