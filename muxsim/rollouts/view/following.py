"""Runs that may still be written, by this process or another: what is new of them, whenever somebody asks.

Nothing is read while nobody asks, and each row is read once. What is kept of an episode is what a table shows of it,
and where its row is.
"""

from __future__ import annotations

import base64
import os
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, Final, Literal

import msgspec

from muxsim.rollouts.data.images import is_reference, taken_out
from muxsim.rollouts.data.metrics import Metrics, MetricsBuilder
from muxsim.rollouts.data.row_file import RunError
from muxsim.rollouts.data.run_config import RunConfig
from muxsim.rollouts.data.run_folder import FAILURES, ROLLOUTS, RunFolder
from muxsim.rollouts.data.trajectory import Trajectory
from muxsim.rollouts.view.playing import Playing
from muxsim.rollouts.view.shown import Json, details, playing_details, playing_summary, shortened, summary

State = Literal["running", "complete", "incomplete"]

# Bytes of rows that are read for one answer: a large run comes in parts, and its reader sees the first at once.
_READ_AT_ONCE: Final = 16 * 2**20
_TOLD_AT_ONCE: Final = 5_000
# The figures of so many episodes take a while, intervals above all: they then take a twentieth of the time at most.
_MANY: Final = 500
_REST: Final = 20

_decode = msgspec.json.Decoder(Trajectory).decode


class News(msgspec.Struct, kw_only=True):
    """What is new of a run, behind its first ``from`` episodes; `dashboard/src/runs/live_source.ts` reads it."""

    key: str
    name: str
    config: RunConfig
    mark: str
    """What is known now, to be given with the next question."""
    first: int = msgspec.field(name="from")
    episodes: list[Json]
    state: State
    playing: list[Json]
    metrics: Metrics | None
    """None where they are what they were."""
    more: bool
    """Whether there is more to be told at once."""


class FollowedRun:
    """One run; ``key`` names it in links. Threads may ask at the same time. Raises `RunError`: there is none."""

    def __init__(self, key: str, path: str | Path, playing: Playing | None = None) -> None:
        self.key = key
        self.folder = RunFolder(path)
        self._playing = playing or Playing()
        self._asked = threading.Lock()
        self._file = -1  # the inode of the file that has been read, which another takes the place of at a resume
        self._generation = 0
        self._version = 0
        self._standing: tuple[Any, ...] = ()
        self._counted = 0, 0
        self._counts_again = 0.0
        self._state: State = "incomplete"
        self._metrics: Metrics | None = None
        self._images: dict[str, dict[str, str]] = {}
        self._begin()

    def __repr__(self) -> str:
        return f"<FollowedRun {self.folder.path}: {len(self._episodes)} episodes>"

    @property
    def read_so_far(self) -> tuple[int, int, int]:
        """What is known of it, to be told from what will be known."""
        return self._generation, len(self._episodes), self._version

    def news(self, mark: str = "") -> News:
        """What is new since the answer with this mark; all of it for "" and for a mark of another time."""
        with self._asked:
            self._read_config()
            more = self._read() | self._read_failures()
            state, metrics = self._stand()
            known = [int(part) if part.isdecimal() else -1 for part in mark.split(".")]
            told = known[1] if len(known) == 3 and known[0] == self._generation else 0
            first = min(told, len(self._episodes))
            new = self._episodes[first : first + _TOLD_AT_ONCE]
            now = [self._generation, first + len(new), self._version]
            return News(
                key=self.key,
                name=self.folder.path.resolve().name,
                config=self.folder.config,
                mark=".".join(map(str, now)),
                first=first,
                episodes=new,
                state=state,
                playing=[playing_summary(one) for one in self._playing.now()],
                metrics=None if known == now else metrics,
                more=more or now[1] < len(self._episodes),
            )

    def episode(self, id: str) -> Json | None:
        """The whole of an episode, of one under way what there is of it; None if there is none of this id."""
        playing = {trajectory.id: trajectory for trajectory in self._playing.now()}
        self._images = {known: images for known, images in self._images.items() if known in playing}
        if id in playing:
            return self._under_way(playing[id])
        with self._asked:
            place = self._places.get(id)
        if place is None:
            return None
        try:
            with (self.folder.path / ROLLOUTS).open("rb") as file:
                file.seek(place)
                trajectory = _decode(file.readline())
        except (OSError, msgspec.DecodeError, UnicodeDecodeError):
            return None  # another file has taken the place of the one that was read
        return shortened(details(trajectory)) if trajectory.id == id else None

    def image(self, name: str) -> bytes | None:
        """An image of an episode, by the reference that stands for it there."""
        if not is_reference(name):
            return None
        held = next((images[name] for images in self._images.values() if name in images), None)
        data = held if held is not None else self.folder.images.get(name)
        return None if data is None else base64.b64decode(data)

    def _under_way(self, trajectory: Trajectory) -> Json:
        """Its images are no files yet: they are kept for those who see a reference to them here."""
        shown, images = taken_out(playing_details(trajectory))
        self._images[trajectory.id] = images
        under_way: Json = shortened(shown)
        return under_way

    def _begin(self) -> None:
        """Know nothing yet."""
        self._end = 0
        self._end_of_failures = 0
        self._lines = 0
        self._problem: str | None = None
        self._episodes: list[Json] = []
        self._places: dict[str, int] = {}
        self._builder = MetricsBuilder(success_reward=self.folder.config.success_reward)

    def _read_config(self) -> None:
        """Know what the run is now: one that is resumed may be a longer one, or have another bar for a success."""
        with suppress(RunError):
            folder = RunFolder(self.folder.path)
            if folder.config != self.folder.config:
                self.folder = folder
                self._generation += 1
                self._begin()

    def _read(self) -> bool:
        """Take in rows that are new; whether there may be more of them."""
        try:
            file = (self.folder.path / ROLLOUTS).open("rb")
        except OSError:
            return False  # of a run that is about to begin, or a folder that is gone
        with file:
            about = os.fstat(file.fileno())
            if about.st_ino != self._file or about.st_size < self._end:
                self._generation += self._file >= 0
                self._file = about.st_ino
                self._begin()
            file.seek(self._end)
            before = self._end
            for line in _whole_lines(file, _READ_AT_ONCE):
                if self._problem is not None:
                    break
                self._take(line)
            return self._problem is None and self._end - before >= _READ_AT_ONCE

    def _read_failures(self) -> bool:
        """Take in what has failed, and may have been played again: of it only what it has cost is told."""
        before = self._end_of_failures
        with suppress(OSError, msgspec.DecodeError), (self.folder.path / FAILURES).open("rb") as file:
            file.seek(before)
            for line in _whole_lines(file, _READ_AT_ONCE):
                self._builder.spend(_decode(line))
                self._end_of_failures += len(line)
        return self._end_of_failures - before >= _READ_AT_ONCE

    def _take(self, line: bytes) -> None:
        self._lines += 1
        try:
            trajectory = _decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            self._problem = f"{self.folder.path / ROLLOUTS}, line {self._lines}: {error}"
            return
        self._places[trajectory.id] = self._end
        self._end += len(line)
        self._builder.add(trajectory)
        self._episodes.append(summary(trajectory))

    def _stand(self) -> tuple[State, Metrics]:
        """How far the run is, and what it comes to."""
        written = self.folder.is_being_written()
        standing = (self._generation, self._problem, self.folder.finished_at(), written)
        ends = self._end, self._end_of_failures
        soon = len(self._episodes) > _MANY and time.monotonic() < self._counts_again
        if self._metrics is not None and self._standing == standing and (self._counted == ends or soon):
            return self._state, self._metrics
        began = time.monotonic()
        metrics = self.folder.finished(self._builder.metrics())
        metrics.problem = self._problem or metrics.problem
        if metrics.planned is None:
            metrics.planned = self.folder.config.planned
        self._standing, self._counted = standing, ends
        self._counts_again = time.monotonic() + _REST * (time.monotonic() - began)
        self._version += 1
        self._state, self._metrics = "complete" if metrics.complete else "running" if written else "incomplete", metrics
        return self._state, metrics


def _whole_lines(file: BinaryIO, most: int) -> Iterator[bytes]:
    """The lines from here on, until ``most`` bytes have been read; a last one without its end is being written."""
    read = 0
    for line in file:
        if not line.endswith(b"\n"):
            return
        yield line
        read += len(line)
        if read >= most:
            return
