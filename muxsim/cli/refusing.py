"""What stops a command before it begins: one line on stderr, and exit status 2."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import NoReturn, ParamSpec, TypeVar

import typer

from muxsim.errors import MuxsimError

P = ParamSpec("P")
T = TypeVar("T")

USAGE_ERROR = 2


def fail(error: Exception) -> NoReturn:
    """End the command with what is wrong."""
    print(f"muxsim: {error}", file=sys.stderr)
    raise typer.Exit(USAGE_ERROR) from None


def or_fail(function: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
    """What a call returns, or the command's end with what it raises."""
    try:
        return function(*arguments, **named)
    except MuxsimError as error:
        fail(error)
