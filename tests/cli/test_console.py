"""What programs, paths and names say is shown as it is, wherever the command line shows it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from rich.console import Group
from rollout.samples import trajectory

import muxsim
from muxsim.cli.check import show as show_check
from muxsim.cli.console import console_of
from muxsim.cli.envs_screen import show as show_environments
from muxsim.cli.operator import facts_of, show_answer, show_reaped
from muxsim.cli.progress import Progress
from muxsim.inside.proc import Stat
from muxsim.processes.owner import Owner
from muxsim.processes.strays import Stray
from muxsim.provision.inventory import Environment
from muxsim.rollouts.play.check import Finding

ROOT = Path(muxsim.__file__).parent
TEXT = "say [/red] [bold] :smile: [link=x]"
STATUS = {
    "pid": 1,
    "version": "0",
    "url": TEXT,
    "config": TEXT,
    "state": "serving",
    "sessions": 0,
    "in_flight": 0,
    "uptime": 1.0,
    "limits": {},
}


def ended(console):
    with Progress(1, console) as progress:
        progress.ended(trajectory("a#0", error=TEXT))


def flying(console):
    progress = Progress(1, console)
    progress.started(trajectory("a#0", env=TEXT))
    console.print(Group(progress._render()))


@pytest.mark.parametrize(
    "show",
    [
        lambda: ended(console_of(width=500)),
        lambda: flying(console_of(width=500)),
        lambda: show_check(TEXT, [], True),
        lambda: show_environments([Environment(name=TEXT)], {}, as_json=False),
        lambda: show_answer("status", STATUS, as_json=False),
        lambda: show_answer("inspect", {"id": TEXT}, as_json=False),
        lambda: show_reaped(
            [Stray(7, Stat(b"S", 1, 7, 7, 0), Owner(8, 0, 0), TEXT, 1.0)], [], dry_run=True, left=[], as_json=False
        ),
    ],
)
def test_what_is_shown_is_text_and_no_markup(show, capsys):
    show()
    assert TEXT in capsys.readouterr().out


def test_no_markup_of_our_own_is_shown_as_text(capsys):
    show_check(
        "lake", [Finding("starts", True, "a"), Finding("plays", False, "b"), Finding("differs", None, "c")], False
    )
    told = [line.split() for line in capsys.readouterr().out.splitlines() if line.strip()]
    assert told[1:] == [["yes", "starts", "a"], ["no", "plays", "b"], ["-", "differs", "c"]]
    written = [path for path in ROOT.rglob("*.py") if re.search(r"\[/(\w[\w ]*)?\]", path.read_text())]
    assert written == [], "consoles take no markup"


def test_no_other_console_is_made():
    made = {path.name for path in ROOT.rglob("*.py") if re.search(r"\bConsole\(", path.read_text())}
    assert made == {"console.py"}


def test_nought_is_known_of_a_session_as_any_other_number_is():
    told = facts_of({"seed": 0, "calls": 0, "owner": None, "shared": False, "peer": "", "workspace": "/w"})
    assert told == [("seed", "0"), ("calls", "0"), ("workspace", "/w")]
