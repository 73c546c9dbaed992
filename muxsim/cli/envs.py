"""`muxsim envs`: the commands about what environments have installed."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from muxsim.cli.operate import JsonOption
from muxsim.cli.options import LockedOption, finite
from muxsim.cli.refusing import fail
from muxsim.config import Config, find_config, load
from muxsim.config.lock import lock_file, read_lock, write_lock
from muxsim.config.table import advise
from muxsim.errors import ConfigError, MuxsimError
from muxsim.spec import EnvSpec

T = TypeVar("T")

app = typer.Typer(
    name="envs",
    help="Look after what environments have installed.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

ConfigOption = Annotated[
    Path | None, typer.Option("--config", help="The config; ./muxsim.toml if left out.", show_default=False)
]
NamesArgument = Annotated[
    list[str] | None, typer.Argument(metavar="[NAME]...", help="Environments; all of the config if left out.")
]

_DAY = 86400


def _loaded(path: Path | None, *, locked: bool = False) -> Config:
    try:
        return load(path if path is not None else find_config(Path.cwd()), locked=locked)
    except ConfigError as error:
        fail(error)


def _loaded_if_there(path: Path | None) -> Config | None:
    return _loaded(path) if path is not None or Path("muxsim.toml").is_file() else None


def _chosen(config: Config, names: list[str] | None) -> list[EnvSpec]:
    for name in names or ():
        if name not in config.environments:
            fail(ConfigError(f"no environment is called {name!r}: {advise(name, config.environments)}"))
    return [spec for name, spec in config.environments.items() if not names or name in names]


def _run(function: Callable[..., Awaitable[T]], *arguments: object) -> T:
    import trio  # noqa: PLC0415 - `stdio` must not pay for these imports

    try:
        return trio.run(function, *arguments)
    except MuxsimError as error:
        fail(error)


@app.command("list")
def list_environments(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """List the environments of the config, and what is installed."""
    from muxsim.cli import envs_screen as screen  # noqa: PLC0415 - see _run
    from muxsim.provision import inventory  # noqa: PLC0415

    loaded = _loaded_if_there(config)
    specs = [] if loaded is None else [*loaded.environments.values()]
    named = _run(inventory.of_specs, specs)
    places = {one.place for one in named}
    others = [one for one in inventory.of_store() if one.place not in places]
    screen.show([*named, *others], screen.sessions_by_environment(loaded), as_json=as_json)


@app.command()
def build(
    names: NamesArgument = None, config: ConfigOption = None, locked: LockedOption = False, as_json: JsonOption = False
) -> None:
    """Install what environments need and is not there, or not whole. Exit status 1 if one could not be made."""
    from muxsim.cli import envs_screen as screen  # noqa: PLC0415 - see _run

    built = _run(screen.build_all, _chosen(_loaded(config, locked=locked), names))
    screen.show(built, {}, as_json=as_json)
    _end(one.problem for one in built)


@app.command()
def verify(
    names: NamesArgument = None,
    config: ConfigOption = None,
    repair: Annotated[bool, typer.Option("--repair", help="Make what is damaged anew.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Look at every file, version and entry of what is installed. Exit status 1 if something is not as it was built."""
    from muxsim.cli import envs_screen as screen  # noqa: PLC0415 - see _run

    looked_at = _run(screen.verify_all, _chosen(_loaded(config), names), repair)
    screen.show(looked_at, {}, as_json=as_json)
    _end(one.problem for one in looked_at)


@app.command()
def lock(
    names: NamesArgument = None,
    config: ConfigOption = None,
    upgrade: Annotated[bool, typer.Option("--upgrade", help="Of the newest versions that will do.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Write muxsim.lock beside the config: what to install exactly."""
    from muxsim.cli import envs_screen as screen  # noqa: PLC0415 - see _run

    loaded = _loaded(config)
    assert loaded.file is not None
    file = lock_file(loaded.file)
    try:
        before = {name: pins for name, pins in read_lock(file).items() if name in loaded.environments}
        found = _run(screen.lock_all, _chosen(loaded, names), upgrade)
        locked = {**before, **found}
        write_lock(file, {name: pins for name, pins in locked.items() if pins})
    except ConfigError as error:
        fail(error)
    screen.show_locked(file, locked, before, as_json=as_json)


@app.command()
def clean(
    config: ConfigOption = None,
    older_than: Annotated[
        float,
        typer.Option(
            metavar="DAYS", help="Only what nobody has used for so many days.", min=0, max=100_000, callback=finite
        ),
    ] = 30,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be removed.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Remove what no session has used for a while.

    What the config names stays. Exit status 1 if something else does.
    """
    from muxsim.cli import envs_screen as screen  # noqa: PLC0415 - see _run
    from muxsim.provision import inventory  # noqa: PLC0415

    loaded = _loaded_if_there(config)
    specs = [] if loaded is None else [*loaded.environments.values()]
    named = _run(inventory.of_specs, specs)
    for one in named:
        if one.state == "failed":  # it may be any of them
            fail(MuxsimError(f"nothing is removed, for which is that of {one.name} cannot be told: {one.problem}"))
    kept = [one.place for one in named]
    going = inventory.unused(inventory.of_store(), kept, older_than=older_than * _DAY)
    left = [] if dry_run else _run(screen.clean_up, going)
    screen.show_removed(going, left, dry_run=dry_run, as_json=as_json)
    _end(one.place for one in left)


@app.command()
def remove(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="Environments, or places as list shows them.")],
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Remove what is installed for environments. Exit status 1 if something is in use, and stays."""
    from muxsim.cli import envs_screen as screen  # noqa: PLC0415 - see _run
    from muxsim.provision import inventory  # noqa: PLC0415

    loaded = _loaded_if_there(config)
    specs = [] if loaded is None else [*loaded.environments.values()]
    known = {one.name: one for one in [*inventory.of_store(), *_run(inventory.of_specs, specs)]}
    for name in names:
        if name not in known:
            fail(MuxsimError(f"nothing is called {name!r}: {advise(name, known) if known else 'nothing is installed'}"))
    going = [known[name] for name in names if known[name].place and os.path.isdir(known[name].place)]
    left = _run(inventory.remove_all, going)
    screen.show_removed(going, left, dry_run=False, as_json=as_json)
    _end(one.place for one in left)


def _end(problems: Iterable[str]) -> None:
    if any(problems):
        raise typer.Exit(1)
