"""Who is told how episodes go on. One that fails harms neither the episodes nor the others."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Protocol

from muxsim.errors import MuxsimError
from muxsim.rollouts.data.kept_files import Collect
from muxsim.rollouts.data.trajectory import Trajectory

_log: Final = logging.getLogger(__name__)
_CALLS: Final = ("started", "stepped", "ended")


class Watcher(Protocol):
    """Is told how episodes go on: a progress display, a run folder. Calls do not block."""

    def started(self, trajectory: Trajectory) -> None:
        """An episode has its session."""

    def stepped(self, trajectory: Trajectory) -> None:
        """An episode has taken one more step."""

    def ended(self, trajectory: Trajectory) -> None:
        """An episode is over; its trajectory is complete."""


class Keeper(Protocol):
    """A watcher that also keeps files, as a run folder does."""

    def keep_files(self, trajectory: Trajectory, workspace: Path, collect: Collect) -> None:
        """Keep files of a workspace, and say in the trajectory which. Runs in a thread."""


class Watchers:
    """All of them as one. Raises `MuxsimError` for one that lacks a method."""

    def __init__(self, watchers: Sequence[Watcher]) -> None:
        self._watchers = [_checked(watcher) for watcher in watchers]
        self._failed: set[tuple[int, str]] = set()

    def started(self, trajectory: Trajectory) -> None:
        """Tell all that an episode has its session."""
        self._tell("started", trajectory)

    def stepped(self, trajectory: Trajectory) -> None:
        """Tell all that an episode has taken one more step."""
        self._tell("stepped", trajectory)

    def ended(self, trajectory: Trajectory) -> None:
        """Tell all that an episode is over."""
        self._tell("ended", trajectory)

    @property
    def keepers(self) -> bool:
        """Whether any of them keeps files."""
        return any(hasattr(watcher, "keep_files") for watcher in self._watchers)

    def keep_files(self, trajectory: Trajectory, workspace: Path, collect: Collect) -> None:
        """Have those that keep files do so."""
        self._tell("keep_files", trajectory, workspace, collect)

    def _tell(self, call: str, trajectory: Trajectory, *more: Any) -> None:
        for index, watcher in enumerate(self._watchers):
            if call not in _CALLS and not hasattr(watcher, call):
                continue
            try:
                getattr(watcher, call)(trajectory, *more)
            except Exception as error:
                if (index, call) not in self._failed:  # once: it would be told of with every step
                    self._failed.add((index, call))
                    text = "the watcher %r failed in %s(), and is told of further episodes all the same: %s: %s"
                    _log.warning(text, watcher, call, type(error).__name__, error, exc_info=True)


def _checked(watcher: Watcher) -> Watcher:
    for call in _CALLS:
        method = getattr(watcher, call, None)
        if not callable(method):
            raise MuxsimError(f"{watcher!r:.80} is no watcher: it has no method {call}(trajectory)")
        if inspect.iscoroutinefunction(method):
            raise MuxsimError(f"{watcher!r:.80} is no watcher: its {call}() is async, and nobody would await it")
    return watcher
