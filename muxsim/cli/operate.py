"""The commands that look into a muxsim that serves, and clear up after one that was killed."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from muxsim.cli.grouped import grouped
from muxsim.cli.options import TokenOption, take_token
from muxsim.cli.refusing import fail
from muxsim.errors import MuxsimError

if TYPE_CHECKING:
    from muxsim.cli.operator import Asked


JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]

# The commands that are about one session.
_OF_SESSIONS = ("end", "inspect")
_LEVELS = ("debug", "info", "warning", "error")


@dataclass(frozen=True, kw_only=True)
class Which:
    """The muxsim that is asked: one of this user's on this machine, or one at a URL, for a token of the admin's."""

    pid: Annotated[
        int | None, typer.Option(help="Which muxsim, if several serve.", metavar="PID", show_default="the only one")
    ] = None
    url: Annotated[
        str | None, typer.Option(help="One that serves elsewhere, for an admin's token.", show_default=False)
    ] = None
    token_env: TokenOption = None

    def all(self) -> list[Asked]:
        """Those that are meant. Raises `MuxsimError`."""
        from muxsim.serve.operate.running import choose_running, find_running  # noqa: PLC0415 - see _operator

        if self.url is None:
            return [*find_running()] if self.pid is None else [choose_running(self.pid)]
        if self.pid is not None:
            raise MuxsimError("give either --pid or --url")
        from muxsim.cli.over_http import OverHTTP  # noqa: PLC0415

        return [OverHTTP(self.url, take_token(self.token_env))]

    def one(self) -> Asked:
        """The one that is meant. Raises `NotRunning`, which says which there are."""
        from muxsim.serve.operate.running import choose_running  # noqa: PLC0415 - see _operator

        return choose_running(self.pid) if self.url is None else self.all()[0]


@dataclass(frozen=True, kw_only=True)
class Filters:
    """Which sessions are looked for."""

    env: Annotated[str | None, typer.Option(help="Only of this environment.", show_default=False)] = None
    state: Annotated[
        str | None, typer.Option(help="Only in this state; ended: those of the last minutes.", show_default=False)
    ] = None
    owner: Annotated[str | None, typer.Option(help="Only of this principal.", show_default=False)] = None
    seed: Annotated[int | None, typer.Option(help="Only with this seed.", show_default=False)] = None
    cause: Annotated[
        str | None, typer.Option(help="Only those that ended so: deleted, idle_timeout, …", show_default=False)
    ] = None

    def given(self) -> dict[str, Any]:
        """Those that are given."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (ctl, logs, ps, top):
        app.command()(grouped(command))
    app.command()(reap)


def ctl(
    command: Annotated[
        Literal["status", "end", "inspect", "reload", "drain", "resume", "loglevel", "stop"],
        typer.Argument(
            help="status; end SESSION; inspect SESSION; reload (the config); drain (no new sessions); resume (undo "
            "that); loglevel [LEVEL]; or stop.",
            metavar="COMMAND",
        ),
    ],
    which: Which,
    subject: Annotated[
        str | None,
        typer.Argument(
            help="A session's id, or as much of its beginning as no other's has; or debug, info, warning or error, the "
            "least level that is logged from now on.",
            metavar="[SESSION|LEVEL]",
        ),
    ] = None,
    env: Annotated[
        str | None, typer.Option(help="With loglevel: of this environment alone.", show_default=False)
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="With drain: until every session has ended, but shared ones.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Ask something of a running muxsim. Exit status 2 if it refuses, or if there is none."""
    from muxsim.cli import operator as screen  # noqa: PLC0415 - `stdio` must not pay for these imports

    try:
        if wait and command != "drain":
            raise MuxsimError(f"--wait goes with drain, not with {command}")
        arguments = _arguments(command, subject, env)
        answer = screen.do(which.one(), command, wait=wait, **arguments)
    except MuxsimError as error:
        fail(error)
    screen.show_answer(command, answer, as_json=as_json)


def _arguments(command: str, subject: str | None, env: str | None) -> dict[str, Any]:
    """What goes with a command. Raises `MuxsimError` for what does not."""
    if command in _OF_SESSIONS:
        if subject is None:
            raise MuxsimError(f"{command} wants a SESSION: its id, or what no other's begins with")
        given = {"session": subject}
    elif command == "loglevel":
        if subject not in (None, *_LEVELS):
            raise MuxsimError(f"{subject!r} is no level: use one of {', '.join(_LEVELS)}")
        if env and not subject:
            raise MuxsimError("name a level with --env")
        return {name: value for name, value in {"level": subject, "env": env}.items() if value}
    elif subject is not None:
        raise MuxsimError(f"{command} is about all of muxsim: it goes without {subject!r}")
    else:
        given = {}
    if env:
        raise MuxsimError(f"--env goes with loglevel, not with {command}")
    return given


def logs(
    which: Which,
    session: Annotated[
        str | None, typer.Argument(help="Its id, or what that begins with; of all if left out.", metavar="SESSION")
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the session has ended.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show what a running muxsim has logged of a session.

    Exit status 2 if it knows nothing of one.
    """
    from muxsim.cli.log_lines import show_logs  # noqa: PLC0415 - see ctl

    try:
        several = which.all() if session is not None else []
        show_logs(several or [which.one()], session, follow=follow, as_json=as_json)
    except (MuxsimError, OSError) as error:
        fail(error)


def ps(
    which: Which,
    filters: Filters,
    watch: Annotated[bool, typer.Option("--watch", help="Again every second, until Ctrl-C.")] = False,
    as_json: JsonOption = False,
) -> None:
    """List the sessions of every muxsim that is running. The memory is that of a session's whole tree."""
    from muxsim.cli import sessions_shown as screen  # noqa: PLC0415 - see ctl

    def look() -> screen.Seen:
        return screen.look(which.all(), filters.given())

    try:
        if watch:
            screen.watch(look, as_json=as_json)
        else:
            screen.show(look(), as_json=as_json)
    except (MuxsimError, OSError) as error:
        fail(error)


def top(which: Which) -> None:
    """Show sessions and environments of a muxsim, live.

    Sort them, filter them, look into one, end one.
    """
    from muxsim.cli import operator as screen  # noqa: PLC0415 - see ctl

    try:
        from muxsim.cli.top import Top  # noqa: PLC0415 - an extra
    except ImportError as error:
        fail(MuxsimError(f"top needs what is not installed ({error.name}): pip install 'mcp-muxsim[top]'"))
    try:
        muxsim = which.one()
        screen.do(muxsim, "status")  # or it could only show that it sees nothing
    except MuxsimError as error:
        fail(error)
    Top(muxsim).run()


def reap(
    pid: Annotated[
        int | None, typer.Option(help="Only what this dead muxsim has left.", metavar="PID", show_default="all")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be ended and removed.")] = False,
    as_json: JsonOption = False,
) -> None:
    """End and remove what a killed muxsim has left. Exit status 1 if something stays."""
    from muxsim.cli import operator as screen  # noqa: PLC0415 - see ctl
    from muxsim.processes.folders import find_folders, remove_folders  # noqa: PLC0415
    from muxsim.processes.strays import end_strays, find_strays  # noqa: PLC0415

    strays, folders = find_strays(pid), find_folders(pid)
    survivors = [] if dry_run else end_strays(strays)
    kept = [] if dry_run else remove_folders(folders)
    screen.show_reaped(strays, folders, dry_run=dry_run, left=[*survivors, *kept], as_json=as_json)
    if survivors or kept:
        raise typer.Exit(1)
