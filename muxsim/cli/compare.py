"""``muxsim compare``: a table for each run beside the first."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec
from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from muxsim.cli.console import console_of
from muxsim.errors import ConfigError
from muxsim.rollouts.data.comparison import Change, Comparison, Difference, Price, compare
from muxsim.rollouts.data.run_folder import RunFolder

_NO_PRICE: Final = "-"
_WIDEST: Final = 110
_PIPED_WIDTH: Final = 80
_LONGEST_NAME: Final = 12
_NUMBER: Final = 6
_LEAST_CHANCE: Final = 0.0001
_SMALL: Final = 0.001
_LONG: Final = 1e9
# Which of more and less is better; of the others neither is, by itself.
_BETTER: Final = frozenset({"reward", "success", "valid"})


def run(
    runs: Sequence[Path],
    names: Sequence[str],
    prices: Sequence[str],
    success_reward: float | None,
    as_json: bool,
    page: Path | None,
) -> None:
    """Compare, print, and write the page. Raises `MuxsimError`."""
    from muxsim.rollouts.view.report import write_comparison  # noqa: PLC0415 - it may be that there are no pages

    folders = [RunFolder(path) for path in runs]
    compared = compare(*folders, names=names, prices=_prices(prices), success_reward=success_reward)
    if page is not None:
        write_comparison(compared, folders, page)
    if as_json:
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(compared)).decode() + "\n")
    else:
        show(compared)
        if page is not None:
            print(page)


def _prices(given: Sequence[str]) -> Price | list[Price | None] | None:
    """``INPUT,OUTPUT``, of a million tokens; ``-`` for a run that has none. Raises `ConfigError`."""
    read = [_price(text) for text in given]
    return read if len(read) > 1 else read[0] if read else None


def _price(text: str) -> Price | None:
    if text.strip() == _NO_PRICE:
        return None
    try:
        input, output = map(float, text.split(","))
    except ValueError:
        advice = "write INPUT,OUTPUT: what a million tokens cost, such as 0.15,0.60"
        raise ConfigError(advice, file="the command line", key="price", value=text) from None
    return Price(input, output)


def show(compared: Comparison, console: Console | None = None) -> None:
    """Print what the runs come to."""
    console = console or console_of(piped=_PIPED_WIDTH)
    width = min(console.width, _WIDEST)
    for note in compared.notes:
        console.print(Text(note, style="yellow"), width=width)
    for difference in compared.differences:
        console.print(_heading(difference), width=width)
        console.print(_table(difference), width=width)
        for text, style in _told(difference):
            console.print(Text(text, style=style), width=width)
        console.print()


def _heading(difference: Difference) -> Text:
    pairs = f"{difference.pairs} pair{'s' * (difference.pairs != 1)} by {difference.paired_by}"
    heading = Text(difference.second, style="bold")
    return heading.append(" against ", style="not bold").append(difference.first).append(f": {pairs}", style="not bold")


def _table(difference: Difference) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False, header_style="dim")
    table.add_column("mean", no_wrap=True, min_width=10)
    for name in _headers(difference.first, difference.second):
        table.add_column(
            Text(name, overflow="ellipsis"), justify="right", no_wrap=True, min_width=_NUMBER, max_width=_LONGEST_NAME
        )
    table.add_column("difference, 95 %", no_wrap=True)
    table.add_column("+ = -", justify="right", no_wrap=True)
    table.add_column("sign test", justify="right", no_wrap=True)
    shown = [(name, change, name in _BETTER) for name, change in difference.figures.items()]
    shown += [(_words(name), change, False) for name, change in difference.ends.items()]
    for name, change, judged in shown:
        table.add_row(name, *_cells(change, judged))
    return table


def _headers(first: str, second: str) -> tuple[str, str]:
    """Two names of which as much is shown as tells them apart: their ends, where they begin alike."""
    if first[: _LONGEST_NAME - 1] != second[: _LONGEST_NAME - 1]:
        return first, second
    return _end_of(first), _end_of(second)


def _end_of(name: str) -> str:
    return name if cell_len(name) <= _LONGEST_NAME else "…" + name[1 - _LONGEST_NAME :]


def _cells(change: Change, judged: bool) -> Iterator[str | Text]:
    yield _number(change.first)
    yield _number(change.second)
    interval = change.interval
    sure = interval is not None and (interval[0] > 0 or interval[1] < 0)
    style = "" if not (judged and sure) else "green" if change.difference > 0 else "red"
    yield Text(_within(change), style=style)
    yield f"{change.more} {change.same} {change.less}"
    yield "-" if change.sign_test is None else _small(change.sign_test)


def _within(change: Change) -> str:
    if change.interval is None or change.same == change.pairs:
        return _signed(change.difference)
    low, high = change.interval
    return f"{_signed(change.difference)} ({_number(low)} to {_number(high)})"


def _words(name: str) -> str:
    """An end reason as it is read."""
    return name.replace("_", " ")


def _small(chance: float) -> str:
    return f"{chance:.2g}" if chance >= _LEAST_CHANCE else f"< {_LEAST_CHANCE:g}"


def _number(value: float) -> str:
    if abs(value) >= _LONG:
        return f"{value:.3g}".replace("e+", "e")
    if abs(value) >= 1_000:
        return f"{value:,.0f}"
    # Of a cost: few columns.
    return f"{value:.1e}".replace("e-0", "e-") if 0 < abs(value) < _SMALL else f"{value:.3g}"


def _signed(value: float) -> str:
    return f"+{_number(value)}" if value > 0 else _number(value)


def _told(difference: Difference) -> Iterator[tuple[str, str]]:
    if difference.differs:
        yield "More than the policy differs, from the first to the second:", "yellow"
    for line in difference.differs:
        yield f"  {line}", "yellow"
    for note in difference.notes:
        yield f"* {note}", ""
