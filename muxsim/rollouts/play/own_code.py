"""Code of the user's that runs inside a rollout: a policy, a reward function, a watcher, what makes rows."""

from __future__ import annotations

import asyncio

import trio


def is_failure(error: BaseException) -> bool:
    """Whether what such code raises is its own failure, and not the end of its task from outside.

    Engines and clients of models let a cancellation of their own work through. Such a stray one would end the task that
    plays, on asyncio without a word: the episode, and all behind it, would be missing from the run.
    """
    if isinstance(error, Exception | SystemExit):
        return True
    if isinstance(error, BaseExceptionGroup):
        return all(map(is_failure, error.exceptions))
    return isinstance(error, asyncio.CancelledError) and not _is_cancelled()


def _is_cancelled() -> bool:
    """Whether somebody has asked for the end of this task of asyncio's; trio has an exception of its own for that."""
    try:
        task = asyncio.current_task()
    except RuntimeError:  # on trio
        return False
    return task is not None and task.cancelling() > 0


def is_cancellation(error: BaseException) -> bool:
    """Whether it is how a loop ends a task."""
    if isinstance(error, BaseExceptionGroup):
        return any(map(is_cancellation, error.exceptions))
    return isinstance(error, trio.Cancelled | asyncio.CancelledError | GeneratorExit)
