"""Commands whose options stand in groups: each field is an option, and each group is made of what was given."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from muxsim.cli.grouped import grouped
from muxsim.cli.main import app
from muxsim.cli.options import Bounds, Kept, Model, Players, Remote, Rows


@dataclass(frozen=True, kw_only=True)
class Where:
    folder: Annotated[Path, typer.Option(help="Where to.")]
    deep: Annotated[bool, typer.Option("--deep")] = False


@dataclass(frozen=True, kw_only=True)
class Size:
    width: Annotated[int, typer.Option(min=1)] = 3
    names: Annotated[list[str] | None, typer.Option("--name")] = None


Twice = Annotated[bool, typer.Option("--twice")]
DRAWN = []


def draw(what: Annotated[str, typer.Argument()], *, twice: Twice = False, where: Where, size: Size) -> None:
    """Draw something."""
    DRAWN.append((what, twice, where, size))


def run(*words):
    app = typer.Typer()
    app.command()(grouped(draw))
    DRAWN.clear()
    return CliRunner().invoke(app, words).exit_code


def test_groups_are_made_of_what_was_given_and_of_their_own_defaults():
    assert run("cat", "--folder", "x") == 0
    assert [("cat", False, Where(folder=Path("x")), Size())] == DRAWN
    assert run("--deep", "--folder", "x", "cat", "--name", "a", "--name", "b", "--twice", "--width", "9") == 0
    assert [("cat", True, Where(folder=Path("x"), deep=True), Size(width=9, names=["a", "b"]))] == DRAWN


@pytest.mark.parametrize("words", [("cat",), ("--folder", "x"), ("cat", "--folder", "x", "--width", "0")])
def test_what_a_field_wants_is_wanted_of_the_command_line(words):
    assert (run(*words), DRAWN) == (2, [])


@pytest.mark.parametrize("group", [Remote, Rows, Players, Model, Bounds, Kept])
def test_each_field_of_a_group_is_an_option_of_rollout(group):
    shown = CliRunner().invoke(app, ["rollout", "--help"], env={"COLUMNS": "200"}).output
    assert [one.name for one in fields(group) if f"--{one.name.replace('_', '-')}" not in shown] == []
