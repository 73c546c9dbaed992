"""Every number that a command takes lies between a least and a greatest one."""

from __future__ import annotations

import dataclasses
import inspect
import typing

import pytest

from muxsim.cli import main
from muxsim.cli.options import Bounds, finite
from muxsim.values import ROLLOUT_KEYS

APP = inspect.getmodule(main).app


def commands(app):
    """Each command of an application and of those in it."""
    for command in app.registered_commands:
        yield command.callback
    for group in app.registered_groups:
        yield from commands(group.typer_instance)


def numbers():
    """Each option that is a number: of which command, its name, and what is said of it."""
    for callback in commands(APP):
        for name, parameter in inspect.signature(callback, eval_str=True).parameters.items():
            kind, *about = typing.get_args(parameter.annotation) or (parameter.annotation,)
            if {int, float} & {kind, *typing.get_args(kind)}:
                yield callback.__name__, name, about[0] if about else None


@pytest.mark.parametrize(("command", "name", "option"), list(numbers()))
def test_an_option_that_is_a_number_has_a_least_and_a_greatest(command, name, option):
    if name in ("success_reward", "min_reward"):  # a reward may be any number, but one that can be compared
        assert option.callback is finite
    else:
        assert option.min is not None
        assert option.max is not None


def test_what_bounds_an_episode_has_the_range_that_a_program_has_for_it():
    options = {name: option for command, name, option in numbers() if command == "rollout"}
    for field in dataclasses.fields(Bounds):
        assert f"{options[field.name].min:.9g} to {options[field.name].max:.9g}" == ROLLOUT_KEYS[field.name].span
