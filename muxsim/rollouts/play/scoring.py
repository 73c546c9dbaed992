"""What an episode has earned: by its environment's control plane, or by a reward function of the user's."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Awaitable, Callable, Mapping
from copy import deepcopy
from math import isfinite
from numbers import Real
from pathlib import Path
from typing import Any

from muxsim.errors import MuxsimError
from muxsim.rollouts.data.trajectory import REWARD_FUNCTION, Trajectory
from muxsim.rollouts.play.own_code import is_failure

Reward = float | Mapping[str, float]
RewardFunction = Callable[..., Reward | Awaitable[Reward]]
"""Scores a trajectory: ``(trajectory)`` or ``(trajectory, workspace)``; the workspace is a folder, or None."""

_REWARD = "reward"
_OURS = str(Path(__file__).parent.parent)


class _Refused(ValueError):
    """What a reward function has returned is no reward."""


def checked(reward: RewardFunction | None) -> RewardFunction | None:
    """A reward function that can be called. Raises `MuxsimError`."""
    if reward is None or (callable(reward) and (_takes(reward, 1) or _takes(reward, 2))):
        return reward
    raise MuxsimError(
        f"reward = {reward!r:.80}: a reward is a function of the trajectory, or of that and the workspace"
    )


async def score_by(reward: RewardFunction, trajectory: Trajectory, workspace: Path | None) -> None:
    """Score a trajectory. Where that fails it stays unscored, and says why.

    The function gets a copy: whatever it does to it is not on record.
    """
    try:
        shown = deepcopy(trajectory)
        given = reward(shown, workspace) if _takes(reward, 2) else reward(shown)
        scores = _scores(await given if inspect.isawaitable(given) else given)
    except _Refused as error:
        trajectory.error = f"{REWARD_FUNCTION} returned {error}"
    except BaseException as error:  # the user's function: the episode stays, and its row tells what to mend
        if not is_failure(error):
            raise
        trajectory.error = f"{REWARD_FUNCTION} failed: {type(error).__name__}: {error}".encode(
            errors="replace"
        ).decode()
        trajectory.traceback = traceback_of(error)
    else:
        trajectory.total_reward = scores.pop(_REWARD)
        trajectory.scores = scores


def traceback_of(error: BaseException) -> str:
    """An exception as Python prints it, from the first frame that is not ours on."""
    told = traceback.TracebackException.from_exception(error)
    foreign = (index for index, frame in enumerate(told.stack) if not frame.filename.startswith(_OURS))
    told.stack[:] = told.stack[next(foreign, 0) :]
    return "".join(told.format()).encode(errors="replace").decode()


def _takes(reward: RewardFunction, arguments: int) -> bool:
    """Whether a function can be called with so many."""
    try:
        signature = inspect.signature(reward)
    except (TypeError, ValueError):  # some that are written in C have none
        return arguments == 1
    try:
        signature.bind(*[None] * arguments)
    except TypeError:
        return False
    return True


def _scores(given: Any) -> dict[str, float]:
    """The numbers, with ``reward`` among them."""
    if not isinstance(given, Mapping):
        return {_REWARD: _number(given, "")}
    if _REWARD not in given:
        raise _Refused(f"{dict(given)!r:.80}, which has no {_REWARD!r}")
    return {str(name): _number(value, f"{name} = ") for name, value in given.items()}


def _number(value: Any, name: str) -> float:
    number = float(value) if isinstance(value, Real) or _is_scalar(value) else None
    if number is None:
        raise _Refused(f"{name}{value!r:.80}: a reward is a number, or a dict of numbers with {_REWARD!r} among them")
    if not isfinite(number):
        raise _Refused(f"{name}{number}: a reward is a finite number")
    return number


def _is_scalar(value: Any) -> bool:
    """Whether it is one number of an array library."""
    return not isinstance(value, str | bytes) and hasattr(value, "__float__") and getattr(value, "shape", None) == ()
