"""The commands that look into a muxsim that serves, and clear up after one that was killed."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import typer

from muxsim.cli.grouped import grouped
from muxsim.cli.options import TokenOption, take_token
from muxsim.cli.refusing import fail
from muxsim.errors import MuxsimError

if TYPE_CHECKING:
    from muxsim.cli.operator import Asked


# Of Linux.
_MOST_PID: Final = 2**22

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@dataclass(frozen=True, kw_only=True)
class Which:
    """The muxsim that is asked: one of this user's on this machine, or one at a URL, as far as a token may."""

    pid: Annotated[
        int | None,
        typer.Option(
            help="Which muxsim, if several serve.", min=1, max=_MOST_PID, metavar="PID", show_default="the only one"
        ),
    ] = None
    url: Annotated[
        str | None,
        typer.Option(help="One that serves elsewhere; what it does is for an admin's token.", show_default=False),
    ] = None
    token_env: TokenOption = None

    def all(self) -> list[Asked]:
        """Those that are meant. Raises `MuxsimError`."""
        from muxsim.serve.operate.running import choose_running, find_running  # noqa: PLC0415 - see _do

        if self.url is None:
            return [*find_running()] if self.pid is None else [choose_running(self.pid)]
        if self.pid is not None:
            raise MuxsimError("give either --pid or --url")
        from muxsim.cli.over_http import OverHTTP  # noqa: PLC0415

        return [OverHTTP(self.url, take_token(self.token_env))]

    def one(self) -> Asked:
        """The one that is meant. Raises `NotRunning`, which says which there are."""
        from muxsim.serve.operate.running import choose_running  # noqa: PLC0415 - see _do

        return choose_running(self.pid) if self.url is None else self.all()[0]


@dataclass(frozen=True, kw_only=True)
class Filters:
    """Which sessions are looked for."""

    env: Annotated[str | None, typer.Option(help="Only of this environment.", show_default=False)] = None
    state: Annotated[
        str | None, typer.Option(help="Only in this state; ended: those of the last minutes.", show_default=False)
    ] = None
    owner: Annotated[str | None, typer.Option(help="Only of this principal.", show_default=False)] = None
    seed: Annotated[int | None, typer.Option(help="Only with this seed.", min=0, max=2**31 - 1, show_default=False)] = (
        None
    )
    cause: Annotated[
        str | None, typer.Option(help="Only those that ended so: deleted, idle_timeout, …", show_default=False)
    ] = None

    def given(self) -> dict[str, Any]:
        """Those that are given."""
        return {name: value for name, value in asdict(self).items() if value is not None}


ctl = typer.Typer(
    name="ctl",
    help="Ask something of a running muxsim. Exit status 2 if it refuses, or if there is none.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
SessionArgument = Annotated[
    str, typer.Argument(help="Its id, or as much of its beginning as no other's has.", metavar="SESSION")
]


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (status, end, inspect, reload, drain, resume, loglevel, stop):
        ctl.command()(grouped(command))
    app.add_typer(ctl)
    app.command()(grouped(logs))
    app.command()(grouped(ps))
    app.command()(grouped(top))
    app.command()(reap)


def _do(which: Which, command: str, *, as_json: bool, until_empty: bool = False, **arguments: Any) -> None:
    from muxsim.cli import operator as screen  # noqa: PLC0415 - `stdio` must not pay for these imports

    try:
        answer = screen.do(which.one(), command, until_empty=until_empty, **arguments)
    except MuxsimError as error:
        fail(error)
    screen.show_answer(command, answer, as_json=as_json)


def status(which: Which, as_json: JsonOption = False) -> None:
    """Show where it listens, what it holds, and which bounds were met."""
    _do(which, "status", as_json=as_json)


def end(session: SessionArgument, which: Which, as_json: JsonOption = False) -> None:
    """End a session, and return when nothing of it is left."""
    _do(which, "end", as_json=as_json, session=session)


def inspect(session: SessionArgument, which: Which, as_json: JsonOption = False) -> None:
    """Show all that is known of a session, or how it ended."""
    _do(which, "inspect", as_json=as_json, session=session)


def reload(which: Which, as_json: JsonOption = False) -> None:
    """Have it read its config and its tokens again. One with a fault changes nothing."""
    _do(which, "reload", as_json=as_json)


def drain(
    which: Which,
    wait: Annotated[bool, typer.Option("--wait", help="Until every session has ended, but shared ones.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Have it take no new sessions. Those that are open go on."""
    _do(which, "drain", as_json=as_json, until_empty=wait)


def resume(which: Which, as_json: JsonOption = False) -> None:
    """Have it take new sessions again, after drain."""
    _do(which, "resume", as_json=as_json)


def loglevel(
    which: Which,
    level: Annotated[
        Literal["debug", "info", "warning", "error"] | None,
        typer.Argument(
            metavar="LEVEL",
            help="debug, info, warning or error: the least that is logged from now on.",
            show_default="show those in use",
        ),
    ] = None,
    env: Annotated[str | None, typer.Option(help="Of this environment alone.", show_default=False)] = None,
    as_json: JsonOption = False,
) -> None:
    """Show what is logged, or change it. A level for all ends that of single environments."""
    if env is not None and level is None:
        fail(MuxsimError("name a level with --env"))
    given: dict[str, Any] = {name: value for name, value in {"level": level, "env": env}.items() if value is not None}
    _do(which, "loglevel", as_json=as_json, **given)


def stop(which: Which, as_json: JsonOption = False) -> None:
    """Stop it, and let calls finish within drain_timeout."""
    _do(which, "stop", as_json=as_json)


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
    from muxsim.cli.log_lines import show_logs  # noqa: PLC0415 - see _do

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
    from muxsim.cli import sessions_shown as screen  # noqa: PLC0415 - see _do

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
    from muxsim.cli import operator as screen  # noqa: PLC0415 - see _do

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
        int | None,
        typer.Option(
            help="Only what this dead muxsim has left.", min=1, max=_MOST_PID, metavar="PID", show_default="all"
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be ended and removed.")] = False,
    as_json: JsonOption = False,
) -> None:
    """End and remove what a killed muxsim has left. Exit status 1 if something stays."""
    from muxsim.cli import operator as screen  # noqa: PLC0415 - see _do
    from muxsim.processes.folders import find_folders, remove_folders  # noqa: PLC0415
    from muxsim.processes.strays import end_strays, find_strays  # noqa: PLC0415

    strays, folders = find_strays(pid), find_folders(pid)
    survivors = [] if dry_run else end_strays(strays)
    kept = [] if dry_run else remove_folders(folders)
    screen.show_reaped(strays, folders, dry_run=dry_run, left=[*survivors, *kept], as_json=as_json)
    if survivors or kept:
        raise typer.Exit(1)
