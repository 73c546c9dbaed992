"""The commands that look into a muxsim that serves, and clear up after one that was killed."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import typer

from muxsim.cli.refusing import fail
from muxsim.errors import MuxsimError

PidOption = Annotated[
    int | None, typer.Option(help="Which muxsim, if several serve.", metavar="PID", show_default="the only one")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (ctl, logs, ps, reap):
        app.command()(command)


def ctl(
    command: Annotated[
        Literal["status", "reload", "drain", "resume", "loglevel", "stop"],
        typer.Argument(
            help="status, reload (the config), drain (no new sessions), resume (undo it), loglevel [LEVEL], or stop.",
            metavar="COMMAND",
        ),
    ],
    level: Annotated[
        Literal["debug", "info", "warning", "error"] | None,
        typer.Argument(help="With loglevel: the least level that is logged from now on.", metavar="LEVEL"),
    ] = None,
    env: Annotated[
        str | None, typer.Option(help="With loglevel: of this environment alone.", show_default=False)
    ] = None,
    pid: PidOption = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="With drain: until every session has ended, but shared ones.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Ask something of a running muxsim. Exit status 2 if it refuses, or if there is none."""
    from muxsim.cli import operator as screen  # noqa: PLC0415 - `stdio` must not pay for these imports
    from muxsim.serve.operate.running import choose_running  # noqa: PLC0415

    try:
        if wait and command != "drain":
            raise MuxsimError(f"--wait goes with drain, not with {command}")
        if (level or env) and command != "loglevel":
            raise MuxsimError(f"a level and --env go with loglevel, not with {command}")
        if env and not level:
            raise MuxsimError("name a level with --env")
        muxsim = choose_running(pid)
        wanted: dict[str, Any] = {name: value for name, value in {"level": level, "env": env}.items() if value}
        answer = muxsim.ask(command, **wanted)
        if "error" in answer:
            raise MuxsimError(answer["error"])
        if wait:
            answer = screen.wait_until_empty(muxsim, answer)
        if command == "stop":
            screen.wait_for_end(muxsim.pid)
    except MuxsimError as error:
        fail(error)
    screen.show_answer(command, answer, as_json=as_json)


def logs(
    session: Annotated[
        str | None, typer.Argument(help="Its id, or what that begins with; of all if left out.", metavar="SESSION")
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the session has ended.")] = False,
    pid: PidOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what a running muxsim has logged lately of a session. Exit status 2 if it knows nothing of one."""
    from muxsim.cli.log_lines import show_logs  # noqa: PLC0415 - `stdio` must not pay for these imports
    from muxsim.serve.operate.running import choose_running, find_running  # noqa: PLC0415

    try:
        several = find_running() if pid is None and session is not None else []
        show_logs(several or [choose_running(pid)], session, follow=follow, as_json=as_json)
    except (MuxsimError, OSError) as error:
        fail(error)


def ps(pid: PidOption = None, as_json: JsonOption = False) -> None:
    """List the sessions of every muxsim that is running. The memory is that of a session's whole tree."""
    from muxsim.cli import operator as screen  # noqa: PLC0415
    from muxsim.serve.operate.running import choose_running, find_running  # noqa: PLC0415

    try:
        chosen = find_running() if pid is None else [choose_running(pid)]
        rows: list[dict[str, Any]] = [row for muxsim in chosen for row in screen.sessions_of(muxsim)]
    except (MuxsimError, OSError) as error:
        fail(error)
    screen.show_sessions([muxsim.pid for muxsim in chosen], rows, as_json=as_json)


def reap(
    pid: Annotated[
        int | None, typer.Option(help="Only what this dead muxsim has left.", metavar="PID", show_default="all")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be ended and removed.")] = False,
    as_json: JsonOption = False,
) -> None:
    """End and remove what a killed muxsim has left. Exit status 1 if something stays."""
    from muxsim.cli import operator as screen  # noqa: PLC0415
    from muxsim.processes.folders import find_folders, remove_folders  # noqa: PLC0415
    from muxsim.processes.strays import end_strays, find_strays  # noqa: PLC0415

    strays, folders = find_strays(pid), find_folders(pid)
    survivors = [] if dry_run else end_strays(strays)
    kept = [] if dry_run else remove_folders(folders)
    screen.show_reaped(strays, folders, dry_run=dry_run, left=[*survivors, *kept], as_json=as_json)
    if survivors or kept:
        raise typer.Exit(1)
