"""A run is a folder: what was run, each of its episodes, their images and logs, and what it came to.

::

    config.json       what was run; written first, and compared when the run is resumed, with the notes of the last time
    rollouts.jsonl    a `Trajectory` on each line, one for each episode that has ended
    failures.jsonl    those with ``valid`` false once more, of every attempt
    images/           the images of all rows, by hash
    files/            what was kept of workspaces, ``<episode>/<path>``
    env_logs/         the last stderr lines of sessions, ``<session>.stderr``
    metrics.json      what the episodes come to; written at the end

A run that is resumed plays what is missing: episodes that have no row, and those that the machinery broke (``valid``
false), whose rows then leave ``rollouts.jsonl`` and stay in ``failures.jsonl``.

Writes are plain blocking ones. A row is small beside the episode that it tells of, and a file that a run waits for is
what makes "has ended" and "is on record" the same.
"""

from __future__ import annotations

import fcntl
import os
import re
import time
from collections.abc import Container, Iterator, Sequence
from contextlib import ExitStack, suppress
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import msgspec

from muxsim.rollouts.data.images import FOLDER as IMAGES
from muxsim.rollouts.data.images import ImageFolder, reference, with_data, with_references, write_whole
from muxsim.rollouts.data.kept_files import Collect, keep_files
from muxsim.rollouts.data.metrics import Metrics, MetricsBuilder
from muxsim.rollouts.data.row_file import RowFile, RunError, read_rows, repair
from muxsim.rollouts.data.run_config import RunConfig
from muxsim.rollouts.data.trajectory import EndReason, Trajectory, first_and_last, is_unscored_by_mistake

ROLLOUTS: Final = "rollouts.jsonl"
FAILURES: Final = "failures.jsonl"
FILES: Final = "files"
_CONFIG: Final = "config.json"
_METRICS: Final = "metrics.json"
_LOGS: Final = "env_logs"
_OWN_FILES: Final = (_CONFIG, ROLLOUTS, FAILURES, _METRICS)
_OWN_FOLDERS: Final = (IMAGES, FILES, _LOGS)
_LONGEST_NAME: Final = 100
# Whoever looks whether a run is being written holds its lock for an instant.
_LOOKS: Final = 5
_LOOK_S: Final = 0.02
_NOT_IN_A_FILE_NAME: Final = re.compile(r"[^A-Za-z0-9_.-]")
_MOST_DIFFERENCES_SHOWN: Final = 5


class RunFolder:
    """A run to read. Raises `RunError`: the folder holds none."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.images = ImageFolder(self.path)
        self.config = _read_config(self.path)

    def __repr__(self) -> str:
        return f"RunFolder({str(self.path)!r})"

    @classmethod
    def create(cls, path: str | Path, config: RunConfig, *, fsync: bool = False) -> RunWriter:
        """Start a run in a new or empty folder; ``fsync`` has each row on the disk itself before the next.

        Raises `RunError`: the folder holds a run or something else, or cannot be made.
        """
        folder = Path(path)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if (folder / _CONFIG).exists():
                raise RunError(f"{folder} holds a run: go on with it (--resume), or choose another folder (--output)")
            if any(folder.iterdir()):
                raise RunError(f"{folder} is not empty: choose another folder (--output)")
            _write_config(folder, config)
            return RunWriter(cls(folder), fsync=fsync)
        except OSError as error:
            raise RunError(f"{folder}: a run cannot be started there: {error}") from None

    @classmethod
    def resume(
        cls, path: str | Path, config: RunConfig, *, episodes: Container[str] | None = None, fsync: bool = False
    ) -> RunWriter:
        """Go on with a run, or start it if there is none; `RunWriter.done` then says what need not be played.

        ``episodes`` are the ids of those that will be: what the machinery broke of others, since the run was longer
        before, stays on record. Raises `RunError`: it was another run, another process writes it, or it cannot be read.
        """
        if not (Path(path) / _CONFIG).exists():
            return cls.create(path, config, fsync=fsync)
        folder = cls(path)
        differences = folder.config.differences(config)
        if differences:
            shown = "; ".join(differences[:_MOST_DIFFERENCES_SHOWN])
            raise RunError(f"{folder.path} is another run, resume it as it was or choose another folder: {shown}")
        try:
            return RunWriter(folder, config=folder.config.going_on_as(config), episodes=episodes, fsync=fsync)
        except OSError as error:
            raise RunError(f"{folder.path}: the run cannot be resumed: {error}") from None

    def trajectories(self) -> Iterator[Trajectory]:
        """The episodes in the order in which they ended. Raises `RunError`: a row other than a torn last is broken."""
        return (trajectory for _, trajectory in read_rows(self.path / ROLLOUTS))

    def recorded(self) -> int:
        """How many episodes are on record. Raises `RunError`."""
        try:
            with (self.path / ROLLOUTS).open("rb") as file:
                return sum(line.endswith(b"\n") for line in file)
        except FileNotFoundError:
            return 0
        except OSError as error:
            raise RunError(f"{self.path / ROLLOUTS} cannot be read: {error.strerror}") from None

    def failures(self) -> Iterator[Trajectory]:
        """The failed episodes of every attempt, in the order in which they ended. Raises `RunError`."""
        return (trajectory for _, trajectory in read_rows(self.path / FAILURES))

    def metrics(self) -> Metrics:
        """What the run comes to, counted from its rows; ``complete`` is False while it runs, or if it was killed."""
        builder = MetricsBuilder(success_reward=self.config.success_reward)
        for trajectory in self.trajectories():
            builder.add(trajectory)
        for failure in self.failures():
            builder.spend(failure)
        return self.finished(builder.metrics())

    def finished(self, counted: Metrics) -> Metrics:
        """Numbers of the run's rows, completed by what its writer has said when it came to its end, if it did."""
        try:
            written = msgspec.json.decode((self.path / _METRICS).read_bytes(), type=Metrics)
        except (OSError, msgspec.DecodeError):
            counted.complete = False
            return counted
        counted.planned, counted.lost, counted.problem = written.planned, written.lost, written.problem
        counted.unscored = written.unscored
        counted.complete = written.complete and counted.episodes == written.episodes
        return counted

    def finished_at(self) -> int:
        """When the writer came to its end, in ns of the file system's clock; 0 while it has not."""
        try:
            return (self.path / _METRICS).stat().st_mtime_ns
        except OSError:
            return 0

    def is_being_written(self) -> bool:
        """Whether a process is at it, on any machine whose locks this file system knows."""
        try:
            fd = os.open(self.path / _CONFIG, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
        finally:
            os.close(fd)
        return False

    def with_images(self, value: Any) -> Any:
        """Messages or content blocks of a row with their images in them again: base64 data, or ``data:`` URLs."""
        return with_data(value, self.images.get)

    def whole(self, trajectory: Trajectory) -> Trajectory:
        """An episode of this run with its images in it again, as `rollout` returned it; a notebook shows them."""
        steps = [msgspec.structs.replace(step, content=self.with_images(step.content)) for step in trajectory.steps]
        messages, state = self.with_images(trajectory.messages), self.with_images(trajectory.initial_state)
        return msgspec.structs.replace(trajectory, steps=steps, messages=messages, initial_state=state)

    def stderr(self, session: str) -> str:
        """What was kept of a session's stderr, "" if nothing was."""
        try:
            return _log_path(self.path, session).read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""


class RunWriter:
    """Writes a run; made by `RunFolder.create` and `RunFolder.resume`, and closed at the end of its ``with`` block.

    It is a watcher of `muxsim.rollouts.play.runner.rollout`. A row that cannot be written does not stop the run: it is
    counted in ``lost``, ``problem`` says why, and `finish` marks the run as incomplete.
    """

    def __init__(
        self,
        folder: RunFolder,
        *,
        config: RunConfig | None = None,
        episodes: Container[str] | None = None,
        fsync: bool = False,
    ) -> None:
        self.folder = folder
        self._episodes = episodes
        self.lost = 0
        self.problem: str | None = None
        self._last_error = self._mistake = ""
        self._unscored = 0
        self._done: set[str] = set()
        with ExitStack() as opened:
            _lock(folder.path, opened)
            if config is not None and config != folder.config:
                _write_config(folder.path, config)
                _lock(folder.path, opened)  # of the new file; who looks at the old one has to wait as well
                folder.config = config
            self._metrics = MetricsBuilder(success_reward=folder.config.success_reward)
            repair(folder.path / FAILURES, keep=self._count_failure)
            repair(folder.path / ROLLOUTS, keep=self._is_done)
            (folder.path / _METRICS).unlink(missing_ok=True)
            self._rollouts = RowFile(folder.path / ROLLOUTS, fsync=fsync)
            opened.callback(self._rollouts.close)
            self._failures = RowFile(folder.path / FAILURES, fsync=fsync)
            opened.callback(self._failures.close)
            self._opened = opened.pop_all()

    def __repr__(self) -> str:
        return f"<RunWriter {self.folder.path}: {len(self._done)} episodes, {self.lost} lost>"

    def __enter__(self) -> RunWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    def done(self) -> frozenset[str]:
        """The ids of the episodes that are on record and need not be played."""
        return frozenset(self._done)

    def append(self, trajectory: Trajectory) -> bool:
        """Put an episode that has ended on record; False if that did not work. Its images become files of the run."""
        if trajectory.id in self._done:
            raise ValueError(f"episode {trajectory.id} is on record already")
        try:
            row = msgspec.json.encode(self._with_files(trajectory)) + b"\n"
            if (
                not trajectory.valid
            ):  # first here: a row that is missing is played again, one that is nowhere is not missed
                self._failures.append(row)
            self._rollouts.append(row)
        except (OSError, TypeError, ValueError, RecursionError) as error:  # the disk's fault, or the row is no JSON
            self.lost += 1
            self.problem = f"{trajectory.id} could not be written: {error}"
            return False
        self._done.add(trajectory.id)
        self._metrics.add(trajectory)
        self._last_error = first_and_last(trajectory.error or trajectory.end_reason.value)
        self._note_mistake(trajectory)
        return True

    def write_stderr(self, session: str, lines: Sequence[str]) -> None:
        """Keep what a session wrote on stderr."""
        path = _log_path(self.folder.path, session)
        try:
            path.parent.mkdir(exist_ok=True)
            path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8", errors="replace")
        except OSError as error:
            self.problem = f"the stderr of session {session} could not be written: {error}"

    def stored(self, value: Any) -> Any:
        """Messages or content blocks in the form in which rows have them, without storing anything."""
        return with_references(value, reference)

    def finish(self, planned: int | None = None, *, problem: str | None = None) -> Metrics:
        """Write ``metrics.json``. ``planned`` is how many episodes there should be on record now, at least.

        ``problem`` is why the run was given up, if it was.
        """
        metrics = self._metrics.metrics()
        metrics.planned, metrics.lost, metrics.problem = planned, self.lost, problem or self.problem
        if metrics.problem is None and metrics.episodes and not metrics.valid:
            metrics.problem = f"no episode is valid: {self._last_error}"
        metrics.unscored = self._unscored
        if metrics.problem is None and self._unscored:
            metrics.problem = f"{metrics.unscored_words}: {self._mistake}"
        # An episode that was cut off has its row, but says nothing: the run was interrupted.
        cut_off = EndReason.CANCELLED.value in metrics.end_reasons
        metrics.complete = self.lost == 0 and (planned or 0) <= metrics.episodes and not cut_off
        try:
            write_whole(self.folder.path / _METRICS, msgspec.json.format(msgspec.json.encode(metrics)))
        except OSError as error:
            metrics.complete, metrics.problem = False, f"{_METRICS} could not be written: {error}"
        return metrics

    def _note_mistake(self, trajectory: Trajectory) -> None:
        if is_unscored_by_mistake(trajectory):
            self._unscored += 1
            self._mistake = first_and_last(trajectory.error or "")

    def close(self) -> None:
        """Let go of the files. Calling it again is harmless."""
        self._opened.close()

    # As a watcher.

    def keep_files(self, trajectory: Trajectory, workspace: Path, collect: Collect) -> None:
        """Keep files of an episode's workspace. What cannot be kept is told in the trajectory."""
        try:
            target = _new_folder(self.folder.path / FILES, trajectory.id)
        except OSError as error:
            trajectory.files_problem = f"nothing could be kept: {error}"
            return
        trajectory.files, trajectory.files_problem = keep_files(workspace, target, collect)
        if not trajectory.files:
            with suppress(OSError):
                target.rmdir()

    def started(self, trajectory: Trajectory) -> None:
        """Nothing is written of an episode that goes on."""

    def stepped(self, trajectory: Trajectory) -> None:
        """Nothing is written of an episode that goes on."""

    def ended(self, trajectory: Trajectory) -> None:
        """Put the episode on record, with what its session wrote on stderr."""
        self.append(trajectory)
        if trajectory.stderr:
            self.write_stderr(trajectory.session or trajectory.id, trajectory.stderr)

    def _count_failure(self, trajectory: Trajectory) -> bool:
        self._metrics.spend(trajectory)
        return True

    def _is_done(self, trajectory: Trajectory) -> bool:
        stays = trajectory.valid or (self._episodes is not None and trajectory.id not in self._episodes)
        if stays:
            self._done.add(trajectory.id)
            self._metrics.add(trajectory)
            self._note_mistake(trajectory)
        return stays

    def _with_files(self, trajectory: Trajectory) -> Trajectory:
        stored: dict[tuple[str, str], str | None] = {}

        def put(type: str, data: str) -> str | None:
            if (type, data) not in stored:  # each frame is in a step and in a message
                stored[type, data] = self.folder.images.put(type, data)
            return stored[type, data]

        steps = [msgspec.structs.replace(step, content=with_references(step.content, put)) for step in trajectory.steps]
        messages = with_references(trajectory.messages, put)
        return msgspec.structs.replace(trajectory, steps=steps, messages=messages)


def keep_runs(file: Path) -> None:
    """Look, before a file is written, whether it is one that a run consists of. Raises `RunError`: it is."""
    real = Path(os.path.realpath(file))
    for folder in real.parents:
        if (folder / ROLLOUTS).is_file() and (folder / _CONFIG).is_file():
            name = real.relative_to(folder).parts
            if name[0] in (_OWN_FILES if len(name) == 1 else _OWN_FOLDERS):
                raise RunError(f"{file} is a part of the run {folder}, and is not written over: name another file")


def _read_config(path: Path) -> RunConfig:
    file = path / _CONFIG
    try:
        return msgspec.json.decode(file.read_bytes(), type=RunConfig)
    except (FileNotFoundError, NotADirectoryError):
        raise RunError(f"{path} holds no run: there is no {_CONFIG} in it") from None
    except (OSError, msgspec.DecodeError) as error:
        raise RunError(f"{file} cannot be read: {error}") from None


def _write_config(path: Path, config: RunConfig) -> None:
    write_whole(path / _CONFIG, msgspec.json.format(msgspec.json.encode(config)))


def _lock(path: Path, opened: ExitStack) -> None:
    """Hold the run's lock until the stack is closed, or the process ends. Raises `RunError`: another has it."""
    fd = os.open(path / _CONFIG, os.O_RDONLY | os.O_CLOEXEC)
    opened.callback(os.close, fd)
    for _ in range(_LOOKS):
        with suppress(OSError):
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        time.sleep(_LOOK_S)
    raise RunError(f"{path} is being written by another process: wait for its end")


def _new_folder(parent: Path, id: str) -> Path:
    """A folder for an episode: each attempt at it has its own. Raises OSError."""
    parent.mkdir(exist_ok=True)
    name = _NOT_IN_A_FILE_NAME.sub("_", id)[:_LONGEST_NAME].lstrip(".") or "_"
    for number in count(1):
        with suppress(FileExistsError):
            folder = parent / (name if number == 1 else f"{name}.{number}")
            folder.mkdir()
            return folder
    raise AssertionError("there is always another number")


def _log_path(path: Path, session: str) -> Path:
    return path / _LOGS / f"{_NOT_IN_A_FILE_NAME.sub('_', session)}.stderr"
