"""The commands that run, replay and look at episodes; added to the command line by `muxsim.cli.main`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from muxsim.cli.grouped import grouped
from muxsim.cli.options import (
    Bounds,
    ConcurrentOption,
    Form,
    Kept,
    LockedOption,
    Model,
    Players,
    Remote,
    Rows,
    Watch,
    finite,
)
from muxsim.cli.refusing import fail, or_fail
from muxsim.errors import MuxsimError


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (rollout, replay, view, compare, export, check):
        app.command()(grouped(command))


def rollout(
    remote: Remote,
    rows: Rows,
    players: Players,
    model: Model,
    bounds: Bounds,
    kept: Kept,
    watch: Watch,
    config: Annotated[
        Path | None,
        typer.Argument(
            metavar="CONFIG",
            help="muxsim.toml or an mcpServers JSON file; ./muxsim.toml if left out.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Run episodes and write their trajectories. Exit status 1 if some are not on record, or none counts."""
    if config is not None and remote.url is not None:
        fail(MuxsimError("name a config, or a serving muxsim with --url, not both"))
    from muxsim.cli import rollout as command  # noqa: PLC0415 - `stdio` must not pay for these imports

    metrics = or_fail(command.run, config, remote, rows, players, model, bounds, kept, watch)
    output = kept.output
    page = f"muxsim view {shlex.quote(str(output))}"
    typer.echo(f"{output}: {metrics.episodes} episodes, {metrics.valid} valid; look at them with: {page}")
    problem = metrics.problem
    if unscored := metrics.unscored_words:
        if problem is not None and problem.startswith(unscored):
            unscored, problem = problem, None
        typer.echo(f"muxsim: {unscored}", err=True)
    if not metrics.complete or not metrics.valid:
        typer.echo(f"muxsim: {problem or 'some episodes are missing'}; --resume plays them", err=True)
        raise typer.Exit(1)
    if unscored:
        if problem is not None:
            typer.echo(f"muxsim: {problem}", err=True)
        raise typer.Exit(0 if metrics.scored else 1)


def replay(
    run: Annotated[Path, typer.Argument(help="A run's folder.")],
    *,
    config: Annotated[
        Path | None, typer.Option(help="Another config than the run's.", show_default="the run's")
    ] = None,
    remote: Remote,
    max_concurrent: ConcurrentOption = 16,
) -> None:
    """Play a run's recorded actions again and compare. Exit status 1 if an environment says something else."""
    from muxsim.cli import replay as command  # noqa: PLC0415

    replayed = or_fail(command.run, run, config, remote, max_concurrent)
    divergences = [one.divergence for one in replayed if one.divergence is not None]
    for divergence in divergences:
        typer.echo(str(divergence))
    steps = sum(one.steps for one in replayed)
    same = len(replayed) - len(divergences)
    typer.echo(f"{same} of {len(replayed)} episodes are the same, over {steps} steps")
    if divergences:
        raise typer.Exit(1)


def view(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN…", help="Folders of runs.")],
    output: Annotated[
        Path | None, typer.Option(help="Where to write the page of one run.", show_default="RUN/report.html")
    ] = None,
    serve: Annotated[
        bool, typer.Option("--serve", help="Show them in a browser, side by side and while they play, until Ctrl-C.")
    ] = False,
    port: Annotated[
        int, typer.Option(help="With --serve: the port, on 127.0.0.1.", min=0, max=65535, show_default="a free one")
    ] = 0,
) -> None:
    """Write each run as a page, or show them with --serve.

    Rewards, episodes, steps and images.
    """
    from muxsim.cli.watching import serve_runs  # noqa: PLC0415
    from muxsim.rollouts.data.run_folder import RunFolder  # noqa: PLC0415
    from muxsim.rollouts.view.report import write_report  # noqa: PLC0415

    if output is not None and (serve or len(runs) > 1):
        fail(MuxsimError("--output is for the page of one run: leave it out"))
    if port and not serve:
        fail(MuxsimError("--port goes with --serve"))
    if serve:
        or_fail(serve_runs, runs, port)
        return
    for run in runs:
        typer.echo(or_fail(lambda folder: write_report(RunFolder(folder), output), run))


def compare(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN RUN…", help="Folders of runs; the first is compared with.")
    ],
    name: Annotated[
        list[str] | None, typer.Option(help="What a run is called, for each.", show_default="their folders' names")
    ] = None,
    price: Annotated[
        list[str] | None,
        typer.Option(
            help="What a million tokens cost, read and written; once for all runs, or for each. - for unknown.",
            metavar="INPUT,OUTPUT",
            show_default="no cost",
        ),
    ] = None,
    success_reward: Annotated[
        float | None,
        typer.Option(help="The least reward that is a success.", show_default="the runs'", callback=finite),
    ] = None,
    page: Annotated[
        Path | None, typer.Option(help="Also write a page with curves.", metavar="FILE", show_default=False)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Compare runs with the first of them, row by row."""
    from muxsim.cli import compare as command  # noqa: PLC0415

    or_fail(command.run, runs, name or (), price or (), success_reward, as_json, page)


def export(
    run: Annotated[Path, typer.Argument(help="A run's folder.")],
    output: Annotated[Path, typer.Argument(help="A file for rows (- for stdout) and parquet, else a folder.")],
    form: Annotated[
        Form,
        typer.Option("--format", help="JSONL of chat or of tokens, or what other tools read: see docs/rollouts.md."),
    ] = "chat",
    rows: Annotated[
        Literal["chat", "tokens", "trl", "sft", "verl"] | None,
        typer.Option(help="In parquet and datasets: what a row is.", show_default="chat"),
    ] = None,
    invalid: Annotated[
        bool, typer.Option("--invalid/--valid", help="Also episodes that the machinery broke, or not.")
    ] = False,
    min_reward: Annotated[
        float | None,
        typer.Option(help="Only episodes with this reward or more.", show_default=False, callback=finite),
    ] = None,
    best_of_group: Annotated[bool, typer.Option("--best-of-group", help="Only the best episode of each row.")] = False,
    bare: Annotated[bool, typer.Option("--bare", help="In rows, only what a trainer reads.")] = False,
    inline_images: Annotated[
        bool, typer.Option("--inline-images", help="In chat and verifiers, as data URLs.")
    ] = False,
    fps: Annotated[float, typer.Option(help="Frames of a GIF in a second.", min=0.1, max=50.0, callback=finite)] = 4.0,
) -> None:
    """Write a run's episodes in a format of other tools."""
    from muxsim.cli import export as command  # noqa: PLC0415

    chosen: dict[str, Any] = {
        "include_invalid": invalid,
        "min_reward": min_reward,
        "best_of_group": best_of_group,
    }
    written = or_fail(command.run, run, output, form, rows, chosen, bare=bare, inline_images=inline_images, fps=fps)
    to_stdout = str(output) in ("-", "/dev/stdout")
    for line in written:
        typer.echo(line, err=to_stdout or line.startswith("muxsim:"))


def check(
    env: Annotated[str, typer.Argument(metavar="ENV", help="An environment of the config.")],
    config: Annotated[Path | None, typer.Option(help="Its config.", show_default="./muxsim.toml")] = None,
    steps: Annotated[int, typer.Option(help="Random actions of each play.", min=1, max=1_000_000)] = 10,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
    locked: LockedOption = False,
) -> None:
    """Is an environment fit for rollouts? Status 1 if not."""
    from muxsim.cli import check as command  # noqa: PLC0415

    if not or_fail(command.run, env, config, steps, as_json, locked):
        raise typer.Exit(1)
