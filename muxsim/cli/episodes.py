"""The commands that run, replay and look at episodes; added to the command line by `muxsim.cli.main`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

import typer

from muxsim.errors import MuxsimError

_USAGE_ERROR = 2
_TOKEN_VARIABLE = "MUXSIM_TOKEN"

Transport = Literal["http", "sse"]
ConfigOption = Annotated[
    Path | None, typer.Argument(metavar="CONFIG", help="muxsim.toml or an mcpServers JSON file.", show_default=False)
]
UrlOption = Annotated[
    str | None, typer.Option(help="A muxsim that is serving already, instead of a config.", show_default=False)
]
TransportOption = Annotated[Transport, typer.Option(help="How to talk to --url.")]
TokenOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help="The variable that holds the token for --url.", show_default=f"{_TOKEN_VARIABLE}, if set"
    ),
]
ConcurrentOption = Annotated[int, typer.Option(help="Episodes at the same time.", min=1)]


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (rollout, replay, view, export, check):
        app.command()(command)


def rollout(
    config: ConfigOption = None,
    url: UrlOption = None,
    token_env: TokenOption = None,
    transport: TransportOption = "http",
    env: Annotated[
        str | None, typer.Option(help="The environment, for rows that name none.", show_default=False)
    ] = None,
    dataset: Annotated[
        Path | None, typer.Option(help="JSONL rows to play; without it, --rollouts seeds.", show_default=False)
    ] = None,
    rollouts: Annotated[int, typer.Option(help="Episodes to play without a dataset.", min=1)] = 1,
    seed: Annotated[int, typer.Option(help="The first seed, and the base for rows without one.", min=0)] = 0,
    rollouts_per_row: Annotated[int, typer.Option(help="Episodes of each row, all from its start state.", min=1)] = 1,
    policy: Annotated[
        str,
        typer.Option(
            help="random, scripted:FILE, openai:MODEL, fireworks:MODEL or python:MODULE:CLASS.", metavar="POLICY"
        ),
    ] = "random",
    policy_option: Annotated[
        list[str] | None, typer.Option(help="An argument of the policy; may be repeated.", metavar="NAME=VALUE")
    ] = None,
    reward: Annotated[
        str | None,
        typer.Option(
            help="A function that scores trajectories, in place of the environment.", metavar="MODULE:FUNCTION"
        ),
    ] = None,
    reward_option: Annotated[
        list[str] | None, typer.Option(help="An argument of the reward; may be repeated.", metavar="NAME=VALUE")
    ] = None,
    success_reward: Annotated[
        float | None, typer.Option(help="The least reward that is a success.", show_default="more than 0")
    ] = None,
    base_url: Annotated[str | None, typer.Option(help="The model's endpoint.", show_default=False)] = None,
    temperature: Annotated[float | None, typer.Option(help="For a model.", min=0.0, show_default=False)] = None,
    top_p: Annotated[float | None, typer.Option(help="For a model.", min=0.0, max=1.0, show_default=False)] = None,
    max_tokens: Annotated[int | None, typer.Option(help="Of one reply.", min=1, show_default=False)] = None,
    max_completion_tokens: Annotated[
        int | None, typer.Option(help="The same for OpenAI's newer models.", min=1, show_default=False)
    ] = None,
    logprobs: Annotated[bool, typer.Option("--logprobs", help="Ask for log probabilities, and keep them.")] = False,
    top_logprobs: Annotated[
        int | None, typer.Option(help="And for those of so many alternatives.", min=0, show_default=False)
    ] = None,
    extra_body: Annotated[
        str | None, typer.Option(help="A JSON object that goes into every request.", metavar="JSON", show_default=False)
    ] = None,
    model_timeout: Annotated[
        float | None, typer.Option(help="Seconds for one answer of a model.", min=0.001, show_default="300")
    ] = None,
    stream: Annotated[bool, typer.Option(help="Read the model's replies as streams.")] = False,
    max_steps: Annotated[int, typer.Option(help="Tool calls of an episode.", min=1)] = 50,
    max_concurrent: ConcurrentOption = 16,
    call_timeout: Annotated[float, typer.Option(help="Seconds for a tool call.", min=0.001)] = 60.0,
    episode_timeout: Annotated[
        float | None, typer.Option(help="Seconds for an episode.", min=0.001, show_default="none")
    ] = None,
    start_timeout: Annotated[
        float | None, typer.Option(help="Seconds for a start.", min=0.001, show_default="the config's")
    ] = None,
    output: Annotated[Path, typer.Option(help="The run's folder.")] = Path("runs/rollout"),
    resume: Annotated[bool, typer.Option("--resume", help="Play only what the run lacks.")] = False,
) -> None:
    """Run episodes and write their trajectories. Exit status 1 if some did not get on record, or none is valid."""
    if (config is None) == (url is None):
        _fail(MuxsimError("name a config, or a serving muxsim with --url"))
    from muxsim.cli import rollout as command  # noqa: PLC0415 - `stdio` must not pay for these imports
    from muxsim.cli.chosen import Chosen  # noqa: PLC0415
    from muxsim.rollouts.play.options import RolloutOptions  # noqa: PLC0415

    chosen = _or_fail(
        Chosen.read,
        policy,
        {
            "base_url": base_url,
            "temperature": temperature,
            "top_p": top_p,
            "max_tokens": max_tokens,
            "max_completion_tokens": max_completion_tokens,
            "logprobs": logprobs or top_logprobs is not None or None,
            "top_logprobs": top_logprobs,
            "timeout": model_timeout,
            "stream": stream or None,
        },
        extra_body,
        policy_option or [],
        reward,
        reward_option or [],
    )
    plan = command.RolloutPlan(
        config=config,
        url=url,
        token=_token(token_env),
        wire=transport,
        env=env,
        dataset=dataset,
        rollouts=rollouts,
        seed=seed,
        rollouts_per_row=rollouts_per_row,
        chosen=chosen,
        success_reward=success_reward,
        options=RolloutOptions(
            max_steps=max_steps,
            max_concurrent=max_concurrent,
            call_timeout=call_timeout,
            episode_timeout=episode_timeout,
            start_timeout=start_timeout,
            reward=chosen.reward_function,
        ),
        output=output,
        resume=resume,
    )
    metrics = _or_fail(command.run, plan)
    typer.echo(f"{output}: {metrics.episodes} episodes, {metrics.valid} valid; look at them with: muxsim view {output}")
    if not metrics.complete or not metrics.valid:
        typer.echo(f"muxsim: {metrics.problem or 'some episodes are missing'}; --resume plays them", err=True)
        raise typer.Exit(1)


def replay(
    run: Annotated[Path, typer.Argument(help="A run's folder.")],
    config: Annotated[
        Path | None, typer.Option(help="Another config than the run's.", show_default="the run's")
    ] = None,
    url: UrlOption = None,
    token_env: TokenOption = None,
    transport: TransportOption = "http",
    max_concurrent: ConcurrentOption = 16,
) -> None:
    """Play a run's recorded actions again and compare. Exit status 1 if an environment says something else."""
    from muxsim.cli import replay as command  # noqa: PLC0415

    replayed = _or_fail(command.run, run, config, url, transport, max_concurrent, _token(token_env))
    divergences = [one.divergence for one in replayed if one.divergence is not None]
    for divergence in divergences:
        typer.echo(str(divergence))
    steps = sum(one.steps for one in replayed)
    same = len(replayed) - len(divergences)
    typer.echo(f"{same} of {len(replayed)} episodes are the same, over {steps} steps")
    if divergences:
        raise typer.Exit(1)


def view(
    run: Annotated[Path, typer.Argument(help="A run's folder.")],
    output: Annotated[
        Path | None, typer.Option(help="Where to write the page.", show_default="RUN/report.html")
    ] = None,
) -> None:
    """Write a run as one HTML page. It has the run's rewards, episodes, steps and images."""
    from muxsim.rollouts.data.run_folder import RunFolder  # noqa: PLC0415
    from muxsim.rollouts.view.report import write_report  # noqa: PLC0415

    typer.echo(_or_fail(lambda: write_report(RunFolder(run), output)))


def export(
    run: Annotated[Path, typer.Argument(help="A run's folder.")],
    output: Annotated[Path, typer.Argument(help="A file for chat, else a folder.")],
    form: Annotated[
        Literal["chat", "atif", "gif"],
        typer.Option("--format", help="OpenAI chat JSONL, ATIF or a GIF of the frames (one file per episode)."),
    ] = "chat",
    invalid: Annotated[
        bool, typer.Option("--invalid/--valid", help="Also episodes that the machinery broke, or not.")
    ] = False,
    min_reward: Annotated[
        float | None, typer.Option(help="Only episodes with this reward or more.", show_default=False)
    ] = None,
    best_of_group: Annotated[bool, typer.Option("--best-of-group", help="Only the best episode of each row.")] = False,
    bare: Annotated[bool, typer.Option("--bare", help="In chat, only messages and tools.")] = False,
    inline_images: Annotated[bool, typer.Option("--inline-images", help="In chat, as data URLs.")] = False,
    fps: Annotated[float, typer.Option(help="Frames of a GIF in a second.", min=0.1, max=50.0)] = 4.0,
) -> None:
    """Write a run's episodes in a format that other tools read."""
    from muxsim.rollouts.data.run_folder import RunFolder  # noqa: PLC0415
    from muxsim.rollouts.view import export as exports  # noqa: PLC0415

    chosen: dict[str, Any] = {
        "include_invalid": invalid,
        "min_reward": min_reward,
        "best_of_group": best_of_group,
    }

    def write() -> int:
        folder = RunFolder(run)
        if form == "atif":
            return len(exports.export_atif(folder, output, **chosen))
        if form == "gif":
            return len(exports.export_gif(folder, output, frames_per_second=fps, **chosen))
        return exports.export_chat(folder, output, inline_images=inline_images, bare=bare, **chosen)

    typer.echo(f"{output}: {_or_fail(write)} episodes")


def check(
    env: Annotated[str, typer.Argument(metavar="ENV", help="An environment of the config.")],
    config: Annotated[Path | None, typer.Option(help="Its config.", show_default="./muxsim.toml")] = None,
    steps: Annotated[int, typer.Option(help="Random actions of each play.", min=1)] = 10,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> None:
    """Is an environment fit for rollouts? Exit status 1 if not."""
    from muxsim.cli import check as command  # noqa: PLC0415

    if not _or_fail(command.run, env, config, steps, as_json):
        raise typer.Exit(1)


def _token(variable: str | None) -> str | None:
    """The token for another muxsim, taken out of the environment; an option would stand in every list of processes."""
    token = os.environ.pop(variable or _TOKEN_VARIABLE, "").strip()
    if variable is not None and not token:
        _fail(MuxsimError(f"the variable {variable} (--token-env) is not set"))
    return token or None


def _or_fail(function: Any, *arguments: Any) -> Any:
    try:
        return function(*arguments)
    except MuxsimError as error:
        _fail(error)


def _fail(error: Exception) -> NoReturn:
    print(f"muxsim: {error}", file=sys.stderr)
    raise typer.Exit(_USAGE_ERROR) from None
