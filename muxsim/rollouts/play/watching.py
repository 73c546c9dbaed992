"""Who is told how episodes go on. One that fails harms neither the episodes nor the others."""

from __future__ import annotations

import inspect
import logging
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Protocol

import anyio
import anyio.to_thread

from muxsim.errors import MuxsimError
from muxsim.rollouts.data.kept_files import Collect
from muxsim.rollouts.data.metrics import Metrics, MetricsBuilder
from muxsim.rollouts.data.trajectory import Trajectory
from muxsim.rollouts.play.own_code import is_failure

_log: Final = logging.getLogger(__name__)
_CALLS: Final = ("started", "stepped", "ended")
_MAY_LACK: Final = ("config", "finished", "keep_files")
# Seconds that each has at the end of a run for what it has kept back; trackers have bounds of their own below it.
_LONGEST_END: Final = 150.0


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


class RunWatcher(Protocol):
    """A watcher that is also told of the run as a whole, as a tracker is. Each of the two may be missing."""

    def config(self, config: dict[str, Any]) -> None:
        """What is going to be run, as JSON: ``environments``, ``policy``, ``options`` and more; see `RunConfig`."""

    def finished(self, metrics: Metrics) -> None:
        """All episodes of this run are over, however it has ended. Runs in a thread, and may take some seconds."""


class Watchers:
    """All of them as one. Raises `MuxsimError` for one that lacks a method."""

    def __init__(self, watchers: Sequence[Watcher], *, success_reward: float | None = None) -> None:
        self._watchers = [_checked(watcher) for watcher in watchers]
        self._failed: set[tuple[int, str]] = set()
        wanted = any(_has(one, "finished") for one in self._watchers)
        self._counted = MetricsBuilder(success_reward=success_reward) if wanted else None

    def config(self, config: dict[str, Any]) -> None:
        """Tell those that want to know what is going to be run."""
        self._tell("config", config)

    async def finished(self) -> None:
        """Tell those that want to know what the run has come to; whoever cancels this waits for them too."""
        if self._counted is None:
            return
        metrics, deadline = self._counted.metrics(), time.monotonic() + _LONGEST_END
        told = [
            (watcher, threading.Thread(target=self._tell_one, args=(index, "finished", metrics), daemon=True))
            for index, watcher in enumerate(self._watchers)
            if _has(watcher, "finished")
        ]
        for _, thread in told:
            thread.start()
        with anyio.CancelScope(shield=True):
            for watcher, thread in told:
                await anyio.to_thread.run_sync(thread.join, max(0.0, deadline - time.monotonic()))
                if thread.is_alive():
                    text = "the watcher %r is still in finished() after %g s: nobody waits for it"
                    _log.warning(text, watcher, _LONGEST_END)

    def started(self, trajectory: Trajectory) -> None:
        """Tell all that an episode has its session."""
        self._tell("started", trajectory)

    def stepped(self, trajectory: Trajectory) -> None:
        """Tell all that an episode has taken one more step."""
        self._tell("stepped", trajectory)

    def ended(self, trajectory: Trajectory) -> None:
        """Tell all that an episode is over."""
        if self._counted is not None:
            self._counted.add(trajectory)
        self._tell("ended", trajectory)

    @property
    def keepers(self) -> bool:
        """Whether any of them keeps files."""
        return any(_has(watcher, "keep_files") for watcher in self._watchers)

    def keep_files(self, trajectory: Trajectory, workspace: Path, collect: Collect) -> None:
        """Have those that keep files do so."""
        self._tell("keep_files", trajectory, workspace, collect)

    def _tell(self, call: str, *told: Any) -> None:
        for index, watcher in enumerate(self._watchers):
            if call not in _MAY_LACK or _has(watcher, call):
                self._tell_one(index, call, *told)

    def _tell_one(self, index: int, call: str, *told: Any) -> None:
        watcher = self._watchers[index]
        try:
            getattr(watcher, call)(*told)
        except BaseException as error:  # of others, whatever it is: the episodes go on
            if not is_failure(error):
                raise
            if (index, call) not in self._failed:  # once: it would be told of with every step
                self._failed.add((index, call))
                text = "the watcher %r failed in %s(), and is told of further episodes all the same: %s: %s"
                _log.warning(text, watcher, call, type(error).__name__, error, exc_info=True)


def _has(watcher: Watcher, call: str) -> bool:
    """Whether it has such a method: a watcher of somebody's may well have a value of this name."""
    return callable(getattr(watcher, call, None))


def _checked(watcher: Watcher) -> Watcher:
    wanted = [*_CALLS, *(call for call in _MAY_LACK if _has(watcher, call))]
    for call in wanted:
        method = getattr(watcher, call, None)
        if not callable(method):
            raise MuxsimError(f"{watcher!r:.80} is no watcher: it has no method {call}(trajectory)")
        if inspect.iscoroutinefunction(method):
            raise MuxsimError(f"{watcher!r:.80} is no watcher: its {call}() is async, and nobody would await it")
    return watcher
