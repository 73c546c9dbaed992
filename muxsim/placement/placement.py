"""Where backends run: what whoever admits sessions asks of a place."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from muxsim.placement.backend import Backend, BackendListener
from muxsim.processes.launcher import LauncherStatistics
from muxsim.processes.usage import ProcessUsage, Usage
from muxsim.spec import EnvSpec
from muxsim.start.order import Order
from muxsim.start.starter import StarterStatistics

# What is told of backends; above this row nobody knows processes.
__all__ = ["Placement", "PlacementStatistics", "ProcessUsage", "Usage"]


@dataclass(frozen=True)
class PlacementStatistics(StarterStatistics):
    """Likewise, and what runs at that place."""

    processes: LauncherStatistics

    @property
    def backends(self) -> int:
        """Processes that serve sessions, or wait for one."""
        return self.processes.alive - self.zygotes.alive


class Placement(Protocol):
    """A place where backends run. What it may give at once is so for `muxsim.runtime.soon.begin`."""

    async def prepare(self, spec: EnvSpec) -> EnvSpec:
        """The spec with what its starts need installed there. Raises `StartError`."""

    async def start(self, order: Order, listener: BackendListener) -> Backend:
        """A backend for a session.

        Raises `StartError`, `PlaceError` if the environment is not to blame, and `Busy` if there is no room for one.
        """

    def keep_ready(self, specs: Collection[EnvSpec], *, has_room: Callable[[], bool]) -> None:
        """Keep processes ready for sessions of these, as many as each wants, and of no others.

        While ``has_room`` says that there is none, sessions that are being opened go first.
        """

    async def make_room(self) -> bool:
        """End what is kept ready, for there is too little of something; whether there was anything."""

    async def remove(self, workspace: Path) -> None:
        """Remove the folder of a session that is over. Not to be cancelled, and never raises."""

    def hasten(self) -> None:
        """End every process at once, also those that have been asked politely."""

    def memory_in_use(self) -> int:
        """Bytes that this process and its backends take. It may take long, and runs in a thread."""

    def usages(self, pids: Collection[int], now: float) -> Mapping[int, Usage]:
        """What backends with these pids use, of as many as can be looked at for little; runs in a thread."""

    def processes_of(self, pid: int) -> list[ProcessUsage]:
        """The processes of the backend with this pid, itself first; runs in a thread."""

    def statistics(self) -> PlacementStatistics:
        """A snapshot."""
