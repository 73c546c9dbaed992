"""``muxsim check``: a table of what was found."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import Final

import msgspec
import trio
from rich import box
from rich.table import Table
from rich.text import Text

from muxsim.cli.console import console_of
from muxsim.cli.notes import tell_notes
from muxsim.config import find_config, load
from muxsim.errors import MuxsimError, UnknownEnvironment
from muxsim.rollouts.play.check import Finding, check
from muxsim.rollouts.policy.random import RandomPolicy

_MARKS: Final = {True: Text("yes", "green"), False: Text("no", "red"), None: Text("-", "dim")}


def run(env: str, config: Path | None, steps: int, as_json: bool, locked: bool) -> bool:
    """Check and print; whether nothing is amiss. Raises `MuxsimError` if there is no such environment."""
    if config is None and os.path.isfile(env):
        raise MuxsimError(
            f"{env} is a file: name one of its environments, muxsim check ENV --config {shlex.quote(env)}"
        )
    loaded = load(config or find_config(Path.cwd(), "name a config with --config"), locked=locked)
    tell_notes(loaded)
    try:
        name = loaded.environment(env).name
    except UnknownEnvironment as error:
        if config is not None:
            raise
        raise UnknownEnvironment(f"{error}; another config is named with --config") from None
    findings = trio.run(check, loaded, name, RandomPolicy(), steps)
    fit = all(finding.ok is not False for finding in findings)
    if as_json:
        report = {"environment": name, "fit": fit, "findings": findings}
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(report)).decode() + "\n")
    else:
        show(name, findings, fit)
    return fit


def show(name: str, findings: list[Finding], fit: bool) -> None:
    """Print what was found."""
    table = Table(box=box.SIMPLE, show_header=False, padding=(0, 1), pad_edge=False)
    for finding in findings:
        # Whole, however long a path is in it, and as it is, whatever stands in it.
        table.add_row(_MARKS[finding.ok], finding.name, Text(finding.detail, overflow="fold"))
    console = console_of()
    console.print(Text(name, style="bold").append(f" is {'fit' if fit else 'not fit'} for rollouts", style="not bold"))
    console.print(table)
