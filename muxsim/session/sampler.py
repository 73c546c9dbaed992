"""What the sessions use, memory and CPU: sampled at a bounded rate, and only while somebody looks."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

import trio

from muxsim.admission.pool import Pool
from muxsim.observe.events import Events
from muxsim.placement.placement import Usage
from muxsim.runtime.bell import Bell
from muxsim.runtime.boundary import open_boundary
from muxsim.session.registry import Sessions

_STEP: Final = 1.0
# Seconds for which it goes on after the last look: longer than anybody waits between two scrapes.
_INTEREST: Final = 150.0


@dataclass(frozen=True, slots=True)
class EnvironmentUsage:
    """What the live sessions of an environment use, and what all since muxsim's start have used of CPU.

    ``memory`` in bytes, those that were not read yet taken for average; None before any was. ``cpu`` in seconds: what
    a session used after it was looked at last is not in it, nor one that nobody looked at.
    """

    memory: int | None
    cpu: float
    processes: int


class Sampler:
    """Knows what sessions use, as of some ten seconds ago. Open it with `open_sampler`; `look` says that you do."""

    def __init__(self, sessions: Sessions, pool: Pool) -> None:
        self._sessions = sessions
        self._pool = pool
        self._wanted_until = -math.inf
        self._wanted = Bell()
        self._by_pid: dict[int, Usage] = {}
        self._cpu: defaultdict[str, float] = defaultdict(float)
        self._now = trio.lowlevel.current_clock().current_time

    def __repr__(self) -> str:
        return f"<Sampler of {len(self._by_pid)} backends>"

    def look(self) -> None:
        """Go on sampling for some minutes, or begin to; from either loop."""
        self._wanted_until = self._now() + _INTEREST
        self._wanted.ring()

    def of(self, pid: int | None) -> Usage | None:
        """What the tree of the backend with this pid uses; None if that is not known (yet)."""
        return None if pid is None else self._by_pid.get(pid)

    def by_environment(self) -> Mapping[str, EnvironmentUsage]:
        """By environment: of those that have live sessions, or had any that were looked at."""
        live: defaultdict[str, list[Usage | None]] = defaultdict(list)
        for session in self._sessions.all():
            live[session.spec.name].append(self.of(session.pid))
        return {env: _sum(live[env], self._cpu[env]) for env in {*live, *self._cpu}}

    async def sample(self) -> None:
        """Go on while that is wanted. Runs until cancelled."""
        while True:
            if self._now() >= self._wanted_until:
                await self._wanted.wait()
            await self._step()
            await trio.sleep(_STEP)

    async def _step(self) -> None:
        envs = {pid: one.spec.name for one in self._sessions.all() if (pid := one.pid) is not None}
        if not envs:
            self._by_pid = {}
            return
        looked = await self._pool.usages(list(envs))
        for pid, usage in looked.items():
            before = self._by_pid.get(pid)
            spent = usage.cpu - (before.cpu if before else 0.0)
            # A pid that is another's by now begins anew.
            self._cpu[envs[pid]] += spent if spent >= 0 else usage.cpu
        self._by_pid = {pid: one for pid, one in {**self._by_pid, **looked}.items() if pid in envs}


def _sum(usages: list[Usage | None], cpu: float) -> EnvironmentUsage:
    known = [one.memory for one in usages if one is not None and one.memory is not None]
    memory = sum(known) * len(usages) // len(known) if known else (None if usages else 0)
    return EnvironmentUsage(memory, round(cpu, 2), sum(one.processes for one in usages if one is not None))


@asynccontextmanager
async def open_sampler(sessions: Sessions, pool: Pool, events: Events) -> AsyncIterator[Sampler]:
    """A sampler for the length of a block, which may fail alone: then nothing new is known."""
    async with open_boundary(events.part_failed) as boundary:
        sampler = Sampler(sessions, pool)
        boundary.part("the sampler of memory and CPU").start_soon(sampler.sample)
        yield sampler
