"""What `muxsim doctor` prints."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Final

from rich.text import Text

from muxsim.cli.console import console_of
from muxsim.config import Config
from muxsim.doctor.findings import AREAS, Finding

_STYLES: Final = {"ok": "green", "warning": "yellow", "error": "bold red"}
_WIDEST: Final = 100
"""Columns: longer lines are not read well."""
_PIPED_WIDTH: Final = 80
_INDENT: Final = 23
"""Columns before the words: of the state, and of the name."""


def show(findings: Sequence[Finding], config: Config | None) -> None:
    """A block for each area, and how it stands at the end."""
    console = console_of(piped=_PIPED_WIDTH)
    width = min(console.width, _WIDEST)
    for area in AREAS:
        rows = [one for one in findings if one.area == area]
        if rows:
            console.print(Text(area, style="bold"))
        for one in rows:
            console.print(_row(one, width), soft_wrap=True)
        if rows:
            console.print()
    console.print(_verdict(findings, config), soft_wrap=True)


def _row(one: Finding, width: int) -> Text:
    text = Text("  ").append(f"{one.state:9}", style=_STYLES[one.state]).append(f"{one.name:12}")
    first, *more = _wrapped(one.found, width)
    text.append(first)
    for line in (*more, *_wrapped(one.lost, width)):
        text.append(f"\n{'':{_INDENT}}{line}")
    for number, line in enumerate(_wrapped(one.advice, width - 2)):
        text.append(f"\n{'':{_INDENT}}{'  ' if number else '→ '}{line}", style="cyan")
    return text


def _wrapped(text: str, width: int) -> list[str]:
    # Paths and commands are copied, and so are not cut.
    return textwrap.wrap(text, max(20, width - _INDENT), break_long_words=False, break_on_hyphens=False)


def _verdict(findings: Sequence[Finding], config: Config | None) -> Text:
    errors, warnings = (sum(one.state == state for one in findings) for state in ("error", "warning"))
    counted = " and ".join(_counted(("error", errors), ("warning", warnings)))
    if errors:
        return Text(f"{counted}: not all will work", style=_STYLES["error"])
    if warnings:
        whose = "what it names will not work" if config is None else "of nothing that this config uses"
        return Text(f"{counted}: {whose}", style=_STYLES["warning"])
    return Text("all is well", style=_STYLES["ok"])


def _counted(*counts: tuple[str, int]) -> Iterator[str]:
    for word, number in counts:
        if number:
            yield f"{number} {word}{'' if number == 1 else 's'}"


def print_json(findings: Sequence[Finding], config: Config | None) -> None:
    """The same for programs."""
    told = {
        "ok": not any(one.state == "error" for one in findings),
        "config": str(config.file) if config is not None and config.file is not None else None,
        "findings": [asdict(one) for one in findings],
    }
    print(json.dumps(told, indent=2))
