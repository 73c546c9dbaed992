"""What is being installed, on a terminal: a line for each environment while it is made; plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from muxsim.cli.console import console_of
from muxsim.observe.events import Event, InstallFinished, InstallStarted
from muxsim.observe.installs import Installs

_REFRESHES_PER_SECOND: Final = 4
_SHOWN: Final = 12
"""Lines; a screen has no room for hundreds."""


class Installing:
    """A listener of events that shows those of installs on a console."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._installs = Installs()
        self._is_shared = False
        self._live = (
            Live(
                console=console,
                get_renderable=self.rendered,
                refresh_per_second=_REFRESHES_PER_SECOND,
                transient=True,
            )
            if console.is_terminal
            else None
        )

    def listen(self, event: Event) -> None:
        """Show an install that begins or ends."""
        if not self._installs.follow(event):
            return
        match event:
            case InstallStarted(env=env) if self._live is None and not self._is_shared:
                self._say(f"{env}: installing {self._installs.running[env].what}")
            case InstallFinished(env=env, seconds=seconds, packages=packages, bytes=size):
                self._say(f"{env}: {packages} packages, {shown_bytes(size)} in {seconds:.1f} s")
        self._follow()

    def _say(self, line: str) -> None:
        self._console.print(line, soft_wrap=True)

    def _follow(self) -> None:
        """Have a display on the terminal as long as there is something to show."""
        if self._live is None:
            return
        if self._installs.running and not self._live.is_started:
            self._live.start()
        elif not self._installs.running and self._live.is_started:
            self._live.stop()

    def close(self) -> None:
        """Leave the terminal as it was, and to others."""
        if self._live is not None:
            self._live.stop()
            self._live, self._is_shared = None, True

    def rendered(self) -> RenderableType:
        """What runs, a line for each environment."""
        return rendered_installs(self._installs)


def rendered_installs(installs: Installs) -> RenderableType:
    """A line for each install that runs, with the seconds it has taken."""
    table = Table.grid(padding=(0, 2))
    now = time.monotonic()
    for env, one in [*installs.running.items()][:_SHOWN]:
        table.add_row(
            Text(env, style="bold"),
            Text(f"{now - one.began:.0f} s", style="dim"),
            Text(f"installing {one.what}", overflow="ellipsis", no_wrap=True),
        )
    hidden = len(installs.running) - _SHOWN
    return Group(table, *([Text(f"and {hidden} more", style="dim")] if hidden > 0 else []))


@contextmanager
def shown_installs(console: Console | None = None) -> Iterator[Installing]:
    """Shows installs on stderr for the length of a block."""
    installing = Installing(console or console_of(stderr=True))
    try:
        yield installing
    finally:
        installing.close()


def shown_bytes(size: int) -> str:
    """A size for people."""
    for unit, name in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if size >= unit:
            return f"{size / unit:.1f} {name}"
    return f"{size} B"
