"""What episodes come to, told to trackers of experiments: wandb, trackio, mlflow, tensorboard, and anything that logs.

    watchers=[track(wandb.init(project="lakes").log)]

An entry is logged for each episode that has ended, by a thread of the tracker's own: one that raises or blocks harms no
episode. What it could not take is lost, which is said once, at the end.
"""

from __future__ import annotations

import contextvars
import logging
import math
import os
import queue
import re
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import msgspec

from muxsim.errors import MuxsimError
from muxsim.rollouts.data.metrics import Metrics
from muxsim.rollouts.data.trajectory import Trajectory

_log: Final = logging.getLogger(__name__)

Values = dict[str, float]
Log = Callable[[Values, int], Any]

# Entries that wait for a tracker that is slower than the episodes.
_MOST_WAITING: Final = 10_000
# Seconds that a run waits at its end for what its tracker has not taken yet.
_FLUSH: Final = 30.0
# And for one that it opens and closes itself, which is long for some that ask a server.
_FLUSH_OF_OWN: Final = 120.0
# What all of the known trackers take in a name; mlflow takes no more than that.
_NOT_IN_A_NAME: Final = re.compile(r"[^A-Za-z0-9_./ -]")
_LONGEST_NAME: Final = 200
_LONGEST_PARAMETER: Final = 500
_PROJECT: Final = "muxsim"
# mlflow's own place is a database, for which mlflow-skinny lacks this package; it was a folder before, which has to be
# allowed now.
_DATABASES: Final = "sqlalchemy"
_FOLDER: Final = Path("mlruns")
_ALLOW_FOLDERS: Final = "MLFLOW_ALLOW_FILE_STORE"


class TrackerError(MuxsimError):
    """There is no such tracker, or not what it needs. The message says what to do."""


def track(log: Any, prefix: str = "rollout/", *, flush_seconds: float = _FLUSH) -> Tracker:
    """A watcher that logs what each episode comes to: ``log(values, step)``, from numbers by name, in a thread.

    ``log`` is such a function (``wandb.log``, ``trackio.log``, ``mlflow.log_metrics``), or what has a method ``log``
    like that or tensorboard's ``add_scalar``. ``step`` counts episodes that have ended, from 1, and never goes back:
    one tracker for one rollout. At the end a rollout waits ``flush_seconds`` for what has not been logged. What is
    behind ``log`` is not closed. Raises `TrackerError`: it is none of these.
    """
    function = _function(log)
    return Tracker(lambda config: function, prefix=prefix, flush_seconds=flush_seconds)


class Tracker:
    """A watcher of `muxsim.rollouts.play.runner.rollout`; `track` and `named` make it.

    ``open`` is given what is run, and returns the function that logs; ``close`` is given what it came to. Both run in
    the thread that logs.
    """

    def __init__(
        self,
        open: Callable[[dict[str, Any]], Log],
        close: Callable[[dict[str, Any]], None] | None = None,
        *,
        prefix: str = "rollout/",
        waiting: int = _MOST_WAITING,
        flush_seconds: float = _FLUSH,
    ) -> None:
        self._open, self._close = open, close
        self._prefix = prefix
        self._flush = flush_seconds
        self._entries: queue.Queue[Callable[[], None] | None] = queue.Queue(waiting)
        self._logs: Log | None = None
        self._thread: threading.Thread | None = None
        # Trackers keep in it which run is theirs.
        self._context = contextvars.copy_context()
        self._running = _Running()
        self._config: dict[str, Any] = {}
        self._asked = self._logged = 0
        self._problem = ""

    def __repr__(self) -> str:
        return f"<Tracker: {self._logged} of {self._asked} entries logged>"

    def config(self, config: dict[str, Any]) -> None:
        """What is going to be run."""
        self._config = config
        self._running.environments = len(config.get("environments") or ())
        self._begin()

    def started(self, trajectory: Trajectory) -> None:
        """Nothing is logged of an episode that goes on."""

    def stepped(self, trajectory: Trajectory) -> None:
        """Nothing is logged of an episode that goes on."""

    def ended(self, trajectory: Trajectory) -> None:
        """Log what it came to."""
        self._begin()
        self._put(self._named(self._running.entry(trajectory)), self._running.ended)

    def finished(self, metrics: Metrics) -> None:
        """Log what the episodes came to, and wait for all that has not been logged, as long as that may take."""
        self._begin()
        summary = _numbers(metrics)
        self._put(self._named(summary), self._running.ended)
        deadline = time.monotonic() + self._flush
        try:
            if self._close is not None:
                close = partial(self._close, {self._prefix + name: value for name, value in summary.items()})
                self._entries.put(close, timeout=self._flush)
            self._entries.put(None, timeout=max(0.0, deadline - time.monotonic()))
        except queue.Full:
            pass  # it is not taking anything: how much is lost is said below
        if self._thread is not None:
            self._thread.join(max(0.0, deadline - time.monotonic()))
            self._thread = self._thread if self._thread.is_alive() else None
        self._tell()

    def _named(self, values: Mapping[str, float]) -> Values:
        names = {name: _NOT_IN_A_NAME.sub("_", self._prefix + name)[:_LONGEST_NAME] for name in values}
        return {names[name]: value for name, value in values.items()}

    def _begin(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(
                target=self._context.run, args=(self._work,), name="muxsim tracker", daemon=True
            )
            self._thread.start()

    def _put(self, values: Values, step: int) -> None:
        self._asked += 1
        try:
            self._entries.put_nowait(partial(self._take, values, step))
        except queue.Full:
            self._problem = self._problem or "it is slower than the episodes"

    def _take(self, values: Values, step: int) -> None:
        if self._logs is not None:
            self._logs(values, step)
            self._logged += 1

    def _work(self) -> None:
        self._guarded(self._opened)
        while (entry := self._entries.get()) is not None:
            self._guarded(entry)

    def _opened(self) -> None:
        self._logs = self._open(self._config)

    def _guarded(self, call: Callable[[], None]) -> None:
        try:
            call()
        except BaseException as error:  # of others, whatever it is, a cancellation too: this thread is ours
            self._problem = self._problem or " ".join(f"{type(error).__name__}: {error}".split())

    def _tell(self) -> None:
        lost = self._asked - self._logged
        if lost or self._problem:
            why = self._problem or f"it has not taken them within {self._flush:g} s"
            _log.warning("a tracker has lost %d of %d entries: %s", lost, self._asked, why)


class _Running:
    """What the episodes so far come to."""

    def __init__(self) -> None:
        self.ended = 0
        self.environments = 0
        self._valid = 0
        self._scored = 0
        self._total = 0.0
        self._ends: Counter[str] = Counter()

    def entry(self, trajectory: Trajectory) -> Values:
        """The numbers to log of one more episode: none of what is not known."""
        self.ended += 1
        self._valid += trajectory.valid
        self._ends[trajectory.end_reason.value] += 1
        values: Values = {"valid": float(trajectory.valid), "valid_share": self._valid / self.ended}
        values |= {f"end/{reason}": float(count) for reason, count in self._ends.items()}
        if trajectory.usage.total_tokens:
            values["tokens"] = float(trajectory.usage.total_tokens)
        if trajectory.valid:
            values |= {"steps": float(len(trajectory.steps)), "seconds": trajectory.seconds}
        reward = trajectory.total_reward
        if trajectory.valid and reward is not None and math.isfinite(reward):
            self._scored += 1
            self._total += reward
            values["reward"] = float(reward)
            if math.isfinite(self._total):
                values["reward_mean"] = self._total / self._scored
            if self.environments > 1:
                values[f"{trajectory.env}/reward"] = float(reward)
            values |= {f"scores/{name}": float(score) for name, score in trajectory.scores.items()}
        return values


def _numbers(metrics: Metrics) -> Values:
    """What a run came to, as far as it is known."""
    told = {
        "episodes": metrics.episodes,
        "valid_episodes": metrics.valid,
        "scored_episodes": metrics.scored,
        "mean_reward": metrics.mean_reward,
        "success_rate": metrics.success_rate,
        "steps_per_second": metrics.steps_per_second,
        "total_tokens": metrics.usage.total_tokens or None,
    }
    return {f"run/{name}": float(value) for name, value in told.items() if value is not None}


def _function(log: Any) -> Log:
    """A function that is called with values and a step, by place."""
    if hasattr(log, "add_scalar"):
        return partial(_scalars, log)
    function = log if callable(log) and not hasattr(log, "log") else getattr(log, "log", None)
    if not callable(function):
        raise TrackerError(f"{log!r:.80} is no tracker: it is no function of values and a step, and has no method log")
    mlflow = sys.modules.get("mlflow")
    if mlflow is not None and function is mlflow.log_metrics and (active := mlflow.active_run()) is not None:
        return partial(function, run_id=active.info.run_id)  # which run is the active one differs from thread to thread
    return function  # type: ignore[no-any-return]


def _scalars(writer: Any, values: Values, step: int) -> None:
    for name, value in values.items():
        writer.add_scalar(name, value, step)


# The trackers that the command line names: package, and who opens and closes a run of it.


def named(name: str, *, folder: Path, prefix: str = "rollout/") -> Tracker:
    """A tracker by its name: ``wandb``, ``trackio``, ``mlflow`` or ``tensorboard``; each run in it is one rollout.

    It is set up as the tracker's own variables say (``WANDB_MODE``, ``WANDB_PROJECT``, ``TRACKIO_DIR``,
    ``MLFLOW_TRACKING_URI``, ``MLFLOW_EXPERIMENT_NAME``); the project is else ``muxsim``, and the run has the name of
    the ``folder``, where tensorboard writes too. Raises `TrackerError`: there is none such, or it is not installed.
    """
    if name not in TRACKERS:
        raise TrackerError(f"there is no tracker {name}: {', '.join(TRACKERS)}; others from Python, by track(log)")
    if find_spec(name) is None:
        raise TrackerError(f"{name} is not installed: pip install 'mcp-muxsim[{name}]'")
    run = TRACKERS[name](folder)
    return Tracker(run.open, run.close, prefix=prefix, flush_seconds=_FLUSH_OF_OWN)


def _from_variable(name: str) -> str:
    return os.environ.get(name) or _PROJECT


def _parameters(config: Mapping[str, Any], before: str = "") -> dict[str, str]:
    """What is run, flat and in short, as mlflow's parameters are."""
    found: dict[str, str] = {}
    for name, value in config.items():
        if isinstance(value, dict):
            found |= _parameters(value, f"{before}{name}.")
        else:
            text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
            found[_NOT_IN_A_NAME.sub("_", before + name)[:_LONGEST_NAME]] = text[:_LONGEST_PARAMETER]
    return found


class _Wandb:
    def __init__(self, folder: Path) -> None:
        self._name = folder.resolve().name

    def open(self, config: dict[str, Any]) -> Log:
        wandb = import_module("wandb")
        project = _from_variable("WANDB_PROJECT")
        self._run = wandb.init(project=project, name=self._name, config=config)
        return self._run.log  # type: ignore[no-any-return]

    def close(self, summary: dict[str, Any]) -> None:
        self._run.summary.update(summary)
        self._run.finish()


class _Trackio:
    def __init__(self, folder: Path) -> None:
        self._name = folder.resolve().name

    def open(self, config: dict[str, Any]) -> Log:
        trackio = import_module("trackio")
        with redirect_stdout(sys.stderr):  # it prints
            self._run = trackio.init(project=_from_variable("TRACKIO_PROJECT"), name=self._name, config=config)
        return self._run.log  # type: ignore[no-any-return]

    def close(self, summary: dict[str, Any]) -> None:
        with redirect_stdout(sys.stderr):
            self._run.finish()


class _Mlflow:
    def __init__(self, folder: Path) -> None:
        self._name = folder.resolve().name

    def open(self, config: dict[str, Any]) -> Log:
        self._mlflow = import_module("mlflow")
        if not self._mlflow.is_tracking_uri_set() and find_spec(_DATABASES) is None:
            os.environ.setdefault(_ALLOW_FOLDERS, "true")
            self._mlflow.set_tracking_uri(_FOLDER.absolute().as_uri())
        self._mlflow.set_experiment(_from_variable("MLFLOW_EXPERIMENT_NAME"))
        self._mlflow.start_run(run_name=self._name)
        self._mlflow.log_params(_parameters(config))
        return self._mlflow.log_metrics  # type: ignore[no-any-return]

    def close(self, summary: dict[str, Any]) -> None:
        self._mlflow.end_run()


class _Tensorboard:
    def __init__(self, folder: Path) -> None:
        self._folder = folder / "tensorboard"

    def open(self, config: dict[str, Any]) -> Log:
        self._writer = import_module("tensorboard.summary").Writer(str(self._folder))
        return partial(_scalars, self._writer)

    def close(self, summary: dict[str, Any]) -> None:
        self._writer.close()


TRACKERS: Final[dict[str, Callable[[Path], Any]]] = {
    "wandb": _Wandb,
    "trackio": _Trackio,
    "mlflow": _Mlflow,
    "tensorboard": _Tensorboard,
}
