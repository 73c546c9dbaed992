"""What the keepers of a pool's zygotes share: how they start processes, which zygotes live, and whom they tell."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from weakref import WeakKeyDictionary

from muxsim.observe.events import Events
from muxsim.processes.launcher import Launcher
from muxsim.processes.process import Process
from muxsim.runtime.boundary import Part
from muxsim.start.fork.client import Zygote
from muxsim.start.fork.learned import LearnedModules


@dataclass(frozen=True)
class ZygoteStatistics:
    """Of a pool: the zygotes that are alive now."""

    alive: int = 0


@dataclass
class Fleet:
    """Of one pool. ``on_ready`` is told the environment whose zygote can fork from now on."""

    launcher: Launcher
    part: Part
    store: LearnedModules
    folder: Path
    events: Events
    alive: set[Zygote] = field(default_factory=set)
    hooks: WeakKeyDictionary[Process, Callable[[], bool]] = field(default_factory=WeakKeyDictionary)
    on_ready: Callable[[str], None] = lambda _: None
    _files: int = 0

    def statistics(self) -> ZygoteStatistics:
        """A snapshot."""
        return ZygoteStatistics(sum(zygote.process.returncode is None for zygote in self.alive))

    def new_file(self, name: str) -> Path:
        """A path in a folder that goes with the pool."""
        self._files += 1
        return self.folder / f"{self._files}-{name}"

    def listen(self, part: Part, process: Process, hook: Callable[[], bool]) -> None:
        """Have this called with each thing that the process says, until it returns False; its failure is the part's."""
        self.hooks[process] = lambda: bool(part.attempt(hook))
