"""Reads the command line. What it starts is imported only by the command that needs it: `stdio` starts fast."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from muxsim import __version__
from muxsim.access import AuthSettings
from muxsim.cli import beginning, doctor, envs, operate
from muxsim.cli.episodes import add_to
from muxsim.cli.notes import tell_notes
from muxsim.cli.options import LockedOption
from muxsim.cli.refusing import USAGE_ERROR, fail
from muxsim.cli.streams import lost_output, settle_standard_streams
from muxsim.config import Config, find_config, load, load_command
from muxsim.errors import ConfigError, ListenError, StartError, UnknownEnvironment
from muxsim.observe.events import ConfigNote, Events

if TYPE_CHECKING:
    from muxsim.observe.log import EventLog
    from muxsim.serve.routes.wires import Site, Wire

_SEPARATOR = "--"

app = typer.Typer(
    name="muxsim",
    help="Run any stdio MCP server as many isolated, seeded environments behind one endpoint.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

LogFormat = Literal["auto", "console", "json"]
LogLevel = Literal["debug", "info", "warning", "error"]
ConfigArgument = Annotated[
    Path | None,
    typer.Argument(
        metavar="CONFIG | -- COMMAND ARGS...",
        help="muxsim.toml or an mcpServers JSON file; ./muxsim.toml if left out. After --: one server to run, no file.",
        show_default=False,
    ),
]


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"muxsim {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Options of the command as a whole."""


@app.command(context_settings={"allow_extra_args": False})
def serve(
    config: ConfigArgument = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.", show_default="127.0.0.1")] = None,
    port: Annotated[
        int | None, typer.Option(help="Port to listen on; 0 takes a free one.", min=0, max=65535, show_default="8000")
    ] = None,
    unix: Annotated[
        Path | None, typer.Option(help="Listen on this unix socket instead.", metavar="PATH", show_default=False)
    ] = None,
    tokens_file: Annotated[
        Path | None, typer.Option(help="Bearer tokens, lines of NAME SCOPE TOKEN.", show_default=False)
    ] = None,
    tls_cert: Annotated[
        Path | None, typer.Option(help="Serve over TLS with this certificate.", show_default=False)
    ] = None,
    tls_key: Annotated[Path | None, typer.Option(help="The certificate's private key.", show_default=False)] = None,
    log_format: Annotated[
        LogFormat | None, typer.Option(help="Form of the log on stderr.", show_default="auto")
    ] = None,
    log_level: Annotated[LogLevel | None, typer.Option(help="Least level logged.", show_default="info")] = None,
    access_log: Annotated[
        bool | None, typer.Option("--access-log", help="Log a line for each HTTP request.", show_default=False)
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Look for all that would keep it from starting, and exit.")
    ] = False,
    locked: LockedOption = False,
) -> None:
    """Serve environments over streamable HTTP and SSE."""

    if unix is not None and (host, port) != (None, None):
        fail(ListenError("--unix goes without --host and --port: it listens in one place"))
    # Who names a port on the command line does not mean the socket of the config.
    socket = None if (host, port, unix) == (None, None, None) else "" if unix is None else str(unix.absolute())

    def with_options(config: Config) -> Config:
        config = _with_settings(
            config,
            host=host,
            port=port,
            unix=socket,
            tls_cert=tls_cert and str(tls_cert.absolute()),
            tls_key=tls_key and str(tls_key.absolute()),
            log_format=log_format,
            log_level=log_level,
            access_log=access_log,
        )
        if tokens_file is None:
            return config
        return replace(config, auth=replace(config.auth or AuthSettings(), tokens_file=str(tokens_file.absolute())))

    loaded = with_options(_load(config, locked=locked))
    file = loaded.file
    reread = None if file is None else lambda: with_options(load(file, locked=locked))
    if check:
        tell_notes(loaded)
        _check_starts(loaded)
        return
    from muxsim.cli.announce import announce  # noqa: PLC0415 - see the module's first line
    from muxsim.serve.operate import host as server  # noqa: PLC0415

    try:
        server.serve(loaded, announce, reread, *_logged(loaded), wires={"openenv": _openenv})
    except (ListenError, ConfigError) as error:
        fail(error)


def _openenv() -> Callable[[Site], Wire]:
    from muxsim.adapters.openenv_wire import OpenEnvWire  # noqa: PLC0415 - nobody else needs it
    from muxsim.serve.http.web_socket import load  # noqa: PLC0415

    load()
    return OpenEnvWire


@app.command()
def stdio(
    config: ConfigArgument = None,
    env: Annotated[str | None, typer.Option(help="The environment to run, if the config has several.")] = None,
    seed: Annotated[
        int | None, typer.Option(help="The session's seed.", min=0, max=2**31 - 1, show_default="random")
    ] = None,
    log_format: Annotated[
        LogFormat | None, typer.Option(help="Form of the log on stderr.", show_default="auto")
    ] = None,
    log_level: Annotated[LogLevel | None, typer.Option(help="Least level logged.", show_default="info")] = None,
    locked: LockedOption = False,
) -> None:
    """Run one session on stdin and stdout. This is for clients that start servers themselves."""
    loaded = _with_settings(_load(config, locked=locked), log_format=log_format, log_level=log_level)
    from muxsim.serve.operate.stdio_front import serve_stdio  # noqa: PLC0415

    try:
        finished = serve_stdio(loaded, loaded.environment(env).name, seed, _logged(loaded)[0])
    except (UnknownEnvironment, ConfigError) as error:
        fail(error)
    except StartError as error:
        typer.echo(f"muxsim: {error}", err=True)
        raise typer.Exit(1) from None
    if not finished:
        raise typer.Exit(1)


def _logged(config: Config) -> tuple[Events, EventLog]:
    """A stream of events that is written to stderr, as the config has it, its own notes first; and who writes it."""
    from muxsim.observe.log import configure  # noqa: PLC0415 - see the module's first line

    events, settings = Events(), config.server
    log = configure(settings.log_format, settings.log_level, settings.log_buffer, settings.log_kept, events)
    for note in config.notes:
        events.emit(ConfigNote(note))
    return events, log


def _check_starts(config: Config) -> None:
    import trio  # noqa: PLC0415 - see the module's first line

    from muxsim.provision.preflight import sandboxes  # noqa: PLC0415
    from muxsim.serve.operate.inspection import faults  # noqa: PLC0415

    found = trio.run(faults, config, os.environ)
    for problem in found:
        typer.echo(f"muxsim: {problem}", err=True)
    if found:
        raise typer.Exit(USAGE_ERROR)
    count = len(config.environments)
    typer.echo(f"{count} environment{'' if count == 1 else 's'}: nothing stands in the way of a start")
    typer.echo(sandboxes())


add_to(app)
operate.add_to(app)
doctor.add_to(app)
beginning.add_to(app)
app.add_typer(envs.app)

_command_line: list[str] = []


def _load(path: Path | None, *, locked: bool) -> Config:
    try:
        if _command_line:
            if path is not None:
                raise ConfigError("give either a config or a command after --, not both", file=str(path))
            return load_command(_command_line, Path.cwd())
        return load(path if path is not None else find_config(Path.cwd()), locked=locked)
    except ConfigError as error:
        fail(error)


def _with_settings(config: Config, **settings: Any) -> Config:
    given = {name: value for name, value in settings.items() if value is not None}
    return replace(config, server=replace(config.server, **given))


# What these have come to is elsewhere than in what they print.
_DOING = ("serve", "rollout")


def main() -> None:
    """The entry point. What stands behind ``--`` is a server's command line, whatever it looks like."""
    settle_standard_streams()
    if "_MUXSIM_COMPLETE" in os.environ:
        from typer.completion import get_completion_inspect_parameters  # noqa: PLC0415 - for shells that ask

        get_completion_inspect_parameters()  # which has Typer know shells; the options themselves are ours
    arguments = sys.argv[1:]
    if _SEPARATOR in arguments:
        cut = arguments.index(_SEPARATOR)
        arguments, _command_line[:] = arguments[:cut], arguments[cut + 1 :]
        if not _command_line:
            _missing_command()
    try:
        app(args=arguments, prog_name="muxsim")
    except SystemExit as ended:
        if lost := lost_output():
            print(f"muxsim: not all of the output could be written to stdout: {lost}", file=sys.stderr)
            if not ended.code and not {*arguments[:1]} & {*_DOING}:
                sys.exit(USAGE_ERROR)
        raise


def _missing_command() -> None:
    print("muxsim: a command is missing after --", file=sys.stderr)
    sys.exit(USAGE_ERROR)
