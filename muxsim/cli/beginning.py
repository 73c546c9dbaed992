"""The commands that somebody begins with: an environment, a config, completion in the shell."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Annotated, Literal

import typer

from muxsim.cli.refusing import fail, or_fail
from muxsim.errors import MuxsimError

Shell = Literal["bash", "zsh", "fish", "powershell", "pwsh"]


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(new)
    app.command()(init)
    app.command("install-completion")(install_completion)


def new(
    name: Annotated[Path, typer.Argument(metavar="NAME", help="The environment, and its new folder.")],
    javascript: Annotated[
        bool, typer.Option("--javascript/--python", help="In which language.", show_default="--python")
    ] = False,
) -> None:
    """Write a new environment into a folder, with its test.

    A game, a config, a test and a README, to be made your own.
    """
    from muxsim.cli.scaffold import write_environment  # noqa: PLC0415 - `stdio` must not pay for these imports

    written = or_fail(write_environment, name, "javascript" if javascript else "python")
    for path in written:
        typer.echo(path)
    typer.echo(f"\nIs it fit?  muxsim check {name.name} --config {shlex.quote(str(name / 'muxsim.toml'))}")


def init(
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="FILE", help="An mcpServers JSON; of Claude, Cursor or VS Code if left out.", show_default=False
        ),
    ] = None,
) -> None:
    """Make a muxsim.toml of another program's servers.

    Of the file that is found or named; variables keep their names.
    """
    from muxsim.cli.adopt import adopt  # noqa: PLC0415
    from muxsim.cli.notes import tell_notes  # noqa: PLC0415

    target, found = or_fail(adopt, Path.cwd(), Path.home(), file)
    tell_notes(found)
    typer.echo(f"{target} has {', '.join(found.environments)}, of {found.file}")
    typer.echo("What this machine needs for it:  muxsim doctor")


def install_completion(
    context: typer.Context,
    shell: Annotated[Shell | None, typer.Argument(help="The shell.", show_default="that of $SHELL")] = None,
) -> None:
    """Have the shell complete muxsim's commands and options."""
    from typer.completion import install_callback  # noqa: PLC0415

    wanted = shell or os.path.basename(os.environ.get("SHELL", ""))
    if wanted not in ("bash", "zsh", "fish", "powershell", "pwsh"):
        fail(MuxsimError(f"no completion for {wanted or 'a shell that $SHELL does not name'}: name bash, zsh or fish"))
    install_callback(context, context.command.params[0], wanted)  # says where, and ends the command
