"""The consoles of the command line: what they are given is text and no markup, whatever programs and names say."""

from __future__ import annotations

from rich.console import Console


def console_of(*, stderr: bool = False, width: int | None = None, piped: int | None = None) -> Console:
    """One as wide as the terminal, or ``width``; where there is no terminal, ``piped``, so that nothing is cut."""
    console = Console(stderr=stderr, width=width, markup=False, emoji=False, highlight=False)
    if width is None and piped is not None and not console.is_terminal:
        console.width = piped
    return console
