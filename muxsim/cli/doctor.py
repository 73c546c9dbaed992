"""`muxsim doctor`: what this machine has of all that muxsim can use, and what to do about the rest."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Final

import typer

from muxsim.cli.operate import JsonOption
from muxsim.config import Config, find_config, load
from muxsim.errors import ConfigError

_NAME: Final = "muxsim.toml"


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(doctor)


def doctor(
    config: Annotated[
        Path | None,
        typer.Argument(
            metavar="CONFIG",
            help="What is to be served; ./muxsim.toml if left out and there, else only this machine is looked at.",
            show_default=False,
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Say what muxsim can use of this machine.

    With what will not work, and what to do. Exit status 1 for an error.
    """
    import trio  # noqa: PLC0415 - `stdio` must not pay for these imports

    from muxsim.cli import doctor_screen as screen  # noqa: PLC0415
    from muxsim.doctor.examine import examine  # noqa: PLC0415
    from muxsim.doctor.served import unfit  # noqa: PLC0415

    loaded, problem = _loaded(config)
    findings = trio.run(examine, loaded, os.environ)
    if problem is not None:
        findings.append(unfit("file", problem))
    if as_json:
        screen.print_json(findings, loaded)
    else:
        screen.show(findings, loaded)
    if any(one.state == "error" for one in findings):
        raise typer.Exit(1)


def _loaded(path: Path | None) -> tuple[Config | None, str | None]:
    """The config, or why there is none; a machine can be looked at all the same."""
    if path is None and not Path(_NAME).is_file():
        return None, None
    try:
        return load(path if path is not None else find_config(Path.cwd())), None
    except ConfigError as error:
        return None, str(error)
