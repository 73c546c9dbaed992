"""What the keepers of a pool's zygotes share: how they start processes, which zygotes live, and what is counted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from weakref import WeakKeyDictionary

from muxsim.processes.launcher import Launcher
from muxsim.processes.process import Process
from muxsim.runtime.boundary import Part
from muxsim.start.fork.client import Zygote
from muxsim.start.fork.learned import LearnedModules


@dataclass(frozen=True)
class ZygoteStatistics:
    """``alive`` is now, the rest since the pool was opened.

    ``forked`` and ``fresh`` count backends of Python environments by how they started, learners among the fresh;
    ``failed`` the zygotes that died or could not be made.
    """

    alive: int = 0
    started: int = 0
    failed: int = 0
    forked: int = 0
    fresh: int = 0
    learners: int = 0


@dataclass
class Counts:
    """As in `ZygoteStatistics`."""

    started: int = 0
    failed: int = 0
    forked: int = 0
    fresh: int = 0
    learners: int = 0


@dataclass
class Fleet:
    """Of one pool. ``on_ready`` is told the environment whose zygote can fork from now on."""

    launcher: Launcher
    part: Part
    store: LearnedModules
    folder: Path
    counts: Counts = field(default_factory=Counts)
    alive: set[Zygote] = field(default_factory=set)
    hooks: WeakKeyDictionary[Process, Callable[[], bool]] = field(default_factory=WeakKeyDictionary)
    on_ready: Callable[[str], None] = lambda _: None
    _files: int = 0

    def statistics(self) -> ZygoteStatistics:
        """A snapshot."""
        alive = sum(zygote.process.returncode is None for zygote in self.alive)
        return ZygoteStatistics(alive, **asdict(self.counts))

    def new_file(self, name: str) -> Path:
        """A path in a folder that goes with the pool."""
        self._files += 1
        return self.folder / f"{self._files}-{name}"

    def listen(self, part: Part, process: Process, hook: Callable[[], bool]) -> None:
        """Have this called with each thing that the process says, until it returns False; its failure is the part's."""
        self.hooks[process] = lambda: bool(part.attempt(hook))
