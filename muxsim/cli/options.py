"""The options of the commands that play episodes, by what they are about."""

from __future__ import annotations

import math
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import typer

from muxsim.errors import ConfigError, MuxsimError

_TOKEN_VARIABLE = "MUXSIM_TOKEN"

# A year of seconds, as in a config, and more episodes than anybody has the time for.
MOST_SECONDS: Final = 31_536_000
_MANY: Final = 10**7


def finite(value: float | None) -> float | None:
    """The value of an option, which is a number that can be compared: "nan" is in no range, and passes all of them."""
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter(f"{value} is no finite number.")
    return value


Form = Literal["chat", "tokens", "trl", "sft", "verl", "verifiers", "atif", "gif", "parquet", "datasets"]
"""What `muxsim export` writes."""

LockedOption = Annotated[bool, typer.Option("--locked", help="Install nothing but what muxsim.lock says.")]
ConcurrentOption = Annotated[int, typer.Option(help="Episodes at the same time.", min=1, max=10_000)]
TokenOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="The variable that holds the token for --url.",
        show_default=f"{_TOKEN_VARIABLE}, if set",
    ),
]


def take_token(variable: str | None) -> str | None:
    """The token that a variable holds, taken out of the environment, where sessions could see it.

    An option would stand in every list of processes. Raises `MuxsimError`: the variable is not set.
    """
    token = os.environ.pop(variable or _TOKEN_VARIABLE, "").strip()
    if variable is not None and not token:
        raise MuxsimError(f"the variable {variable} (--token-env) is not set")
    return token or None


@dataclass(frozen=True, kw_only=True)
class Remote:
    """A muxsim that is serving already, in place of a config, and how strictly a config is taken."""

    url: Annotated[
        str | None,
        typer.Option(help="A muxsim that is serving already, instead of a config; unix:PATH too.", show_default=False),
    ] = None
    token_env: TokenOption = None
    transport: Annotated[Literal["http", "sse"], typer.Option(help="How to talk to --url.")] = "http"
    locked: LockedOption = False

    def take_token(self) -> str | None:
        """The token, as of `take_token`."""
        return take_token(self.token_env)


@dataclass(frozen=True, kw_only=True)
class Rows:
    """What is played."""

    env: Annotated[str | None, typer.Option(help="The environment, for rows that name none.", show_default=False)] = (
        None
    )
    dataset: Annotated[
        str | None,
        typer.Option(
            metavar="ROWS",
            help="A file (JSONL, CSV, Parquet), a folder, hf:NAME, or - for stdin; without it, --rollouts seeds.",
            show_default=False,
        ),
    ] = None
    split: Annotated[str | None, typer.Option(help="Of a dataset with several: train.", show_default=False)] = None
    column: Annotated[
        list[str] | None,
        typer.Option(help="A column with another name, * for the rest; may be repeated.", metavar="KEY=COLUMN"),
    ] = None
    limit: Annotated[int | None, typer.Option(help="Only so many rows.", min=1, max=_MANY, show_default=False)] = None
    shuffle: Annotated[bool, typer.Option("--shuffle", help="In an order that is drawn from --seed.")] = False
    rollouts: Annotated[int, typer.Option(help="Episodes to play without a dataset.", min=1, max=_MANY)] = 1
    seed: Annotated[
        int, typer.Option(help="The first seed, and the base for rows without one.", min=0, max=2**31 - 1)
    ] = 0
    rollouts_per_row: Annotated[
        int, typer.Option(help="Episodes of each row, all from its start state.", min=1, max=_MANY)
    ] = 1

    def columns(self) -> dict[str, str] | None:
        """The columns by the keys that they are for. Raises `ConfigError`."""
        found = {}
        for one in self.column or ():
            key, equals, column = one.partition("=")
            if not (key and equals and column):
                raise ConfigError("write KEY=COLUMN", file="the command line", key="column", value=one)
            found[key] = column
        return found or None

    def selection(self) -> dict[str, Any]:
        """How the rows of a dataset were chosen, for the record: nothing where all are played as they stand."""
        chosen = {"split": self.split, "limit": self.limit, "shuffle": self.seed if self.shuffle else None}
        return {name: value for name, value in chosen.items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class Players:
    """Who plays, and who scores."""

    policy: Annotated[
        str,
        typer.Option(
            help="random, scripted:FILE, openai:MODEL, fireworks:MODEL or python:MODULE:CLASS.", metavar="POLICY"
        ),
    ] = "random"
    policy_option: Annotated[
        list[str] | None, typer.Option(help="An argument of the policy; may be repeated.", metavar="NAME=VALUE")
    ] = None
    reward: Annotated[
        str | None,
        typer.Option(
            help="A function that scores trajectories, in place of the environment.", metavar="MODULE:FUNCTION"
        ),
    ] = None
    reward_option: Annotated[
        list[str] | None, typer.Option(help="An argument of the reward; may be repeated.", metavar="NAME=VALUE")
    ] = None
    images: Annotated[bool, typer.Option("--images/--no-images", help="Show the policy images, or none at all.")] = True
    success_reward: Annotated[
        float | None,
        typer.Option(help="The least reward that is a success.", show_default="more than 0", callback=finite),
    ] = None


@dataclass(frozen=True, kw_only=True)
class Model:
    """How a model is asked."""

    base_url: Annotated[str | None, typer.Option(help="The model's endpoint.", show_default=False)] = None
    temperature: Annotated[
        float | None, typer.Option(help="For a model.", min=0.0, max=100.0, show_default=False, callback=finite)
    ] = None
    top_p: Annotated[
        float | None, typer.Option(help="For a model.", min=0.0, max=1.0, show_default=False, callback=finite)
    ] = None
    max_tokens: Annotated[int | None, typer.Option(help="Of one reply.", min=1, max=_MANY, show_default=False)] = None
    max_completion_tokens: Annotated[
        int | None,
        typer.Option(help="The same for OpenAI's newer models.", min=1, max=_MANY, show_default=False),
    ] = None
    logprobs: Annotated[bool, typer.Option("--logprobs", help="Ask for log probabilities, and keep them.")] = False
    token_ids: Annotated[
        bool, typer.Option("--token-ids", help="Ask for the ids of tokens (return_token_ids), and keep them.")
    ] = False
    top_logprobs: Annotated[
        int | None,
        typer.Option(help="And for those of so many alternatives.", min=0, max=1000, show_default=False),
    ] = None
    extra_body: Annotated[
        str | None, typer.Option(help="A JSON object that goes into every request.", metavar="JSON", show_default=False)
    ] = None
    model_timeout: Annotated[
        float | None,
        typer.Option(
            help="Seconds for one answer of a model.",
            min=0.001,
            max=MOST_SECONDS,
            show_default="300",
            callback=finite,
        ),
    ] = None
    stream: Annotated[bool, typer.Option(help="Read the model's replies as streams.")] = False

    def settings(self) -> dict[str, Any]:
        """Those that were given, under the names that policies have for them."""
        asked = asdict(self)
        asked["timeout"] = asked.pop("model_timeout")
        asked["logprobs"] = self.logprobs or self.top_logprobs is not None or None
        asked["stream"] = self.stream or None
        asked["token_ids"] = self.token_ids or None
        return {name: value for name, value in asked.items() if name != "extra_body" and value is not None}


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """What ends an episode."""

    max_steps: Annotated[int, typer.Option(help="Tool calls of an episode.", min=1, max=_MANY)] = 50
    max_concurrent: ConcurrentOption = 16
    call_timeout: Annotated[
        float, typer.Option(help="Seconds for a tool call.", min=0.001, max=MOST_SECONDS, callback=finite)
    ] = 60.0
    episode_timeout: Annotated[
        float | None,
        typer.Option(help="Seconds for an episode.", min=0.001, max=MOST_SECONDS, show_default="none", callback=finite),
    ] = None
    start_timeout: Annotated[
        float | None,
        typer.Option(
            help="Seconds for a start.", min=0.001, max=MOST_SECONDS, show_default="the config's", callback=finite
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class Kept:
    """Where the run goes."""

    output: Annotated[Path, typer.Option(help="The run's folder.")] = Path("runs/rollout")
    resume: Annotated[bool, typer.Option("--resume", help="Play only what the run lacks.")] = False


@dataclass(frozen=True, kw_only=True)
class Watch:
    """Whether the run is shown while it plays, and to whom it is told."""

    watch: Annotated[bool, typer.Option("--watch", help="Show the run in a browser while it plays.")] = False
    track: Annotated[
        list[str] | None,
        typer.Option(
            help="Log each episode to wandb, trackio, mlflow or tensorboard; may be repeated.",
            metavar="TRACKER",
            show_default=False,
        ),
    ] = None
    watch_port: Annotated[
        int, typer.Option(help="With --watch: the port, on 127.0.0.1.", min=0, max=65535, show_default="a free one")
    ] = 0
    stay: Annotated[bool, typer.Option("--stay", help="With --watch: show it until Ctrl-C, also when it is over.")] = (
        False
    )
