"""The rollout loop: many episodes at once, each of which ends by itself (`play.player`)."""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, ParamSpec, TypeVar, cast

import anyio
import msgspec

from muxsim.errors import raised_as_itself
from muxsim.rollouts.data.run_config import RunConfig
from muxsim.rollouts.data.trajectory import Trajectory
from muxsim.rollouts.environments.environment import EnvironmentPool
from muxsim.rollouts.play.detached import Detached
from muxsim.rollouts.play.left import Left, RowsLike
from muxsim.rollouts.play.options import RolloutOptions
from muxsim.rollouts.play.outlook import Outlook
from muxsim.rollouts.play.player import Company, Player
from muxsim.rollouts.play.scoring import checked
from muxsim.rollouts.play.watching import Watcher, Watchers
from muxsim.rollouts.policy.checked import checked_policy
from muxsim.rollouts.policy.protocol import Policy, PolicyError

P = ParamSpec("P")
T = TypeVar("T")


@dataclass
class _Run:
    """The episodes of one rollout, and as many tasks as play at once; an episode exists while it is played."""

    pool: EnvironmentPool
    dataset: RowsLike
    policy: Policy
    rollouts_per_row: int
    watchers: Sequence[Watcher]
    skip: frozenset[str]
    options: RolloutOptions
    config: RunConfig | None = None

    async def play(self, take: Callable[[int, Trajectory], Awaitable[None]]) -> None:
        """Play them all; ``take`` is given the place of each in the run, and its trajectory."""
        left = Left(self.dataset, self.pool.environments, rollouts_per_row=self.rollouts_per_row, skip=self.skip)
        watchers = Watchers(self.watchers, success_reward=None if self.config is None else self.config.success_reward)
        company = Company(self.pool, checked_policy(self.policy), self.options, watchers, Outlook())
        checked(self.options.reward)
        watchers.config(self._described())
        try:
            await self._play(left, company, take)
        finally:
            await watchers.finished()

    async def _play(self, left: Left, company: Company, take: Callable[[int, Trajectory], Awaitable[None]]) -> None:
        stopped: PolicyError | None = None

        async def play_on() -> None:
            nonlocal stopped
            while (episode := await left.take()) is not None:
                player = Player(company, episode)
                await player.play()
                await take(episode.index, player.trajectory)
                if player.hopeless is not None:
                    stopped = stopped or player.hopeless
                    group.cancel_scope.cancel()
                    return

        try:
            with raised_as_itself():
                async with anyio.create_task_group() as group:
                    for _ in range(self.options.max_concurrent):
                        group.start_soon(play_on)
        finally:
            await left.aclose()
        if stopped is not None:
            raise stopped

    def _described(self) -> dict[str, Any]:
        """What watchers are told of what is run: all that is known of it here."""
        if self.config is not None:
            return cast("dict[str, Any]", msgspec.to_builtins(self.config))
        options = {name: value for name, value in vars(self.options).items() if name != "reward"}
        model = getattr(self.policy, "model", None)
        policy = {"kind": type(self.policy).__name__, **({"model": model} if isinstance(model, str) else {})}
        environments = list(self.pool.environments)
        more = {"rollouts_per_row": self.rollouts_per_row, "options": options}
        return {"environments": environments, "policy": policy, **more}


def _run_of(
    pool: EnvironmentPool,
    dataset: RowsLike,
    *,
    policy: Policy,
    rollouts_per_row: int = 1,
    watchers: Sequence[Watcher] = (),
    skip: frozenset[str] = frozenset(),
    options: RolloutOptions | None = None,
    config: RunConfig | None = None,
    **bounds: Any,
) -> _Run:
    """What `rollout` and `episodes` take."""
    options = options or RolloutOptions(**bounds)
    return _Run(pool, dataset, policy, rollouts_per_row, watchers, skip, options, config)


def _taking(make: Callable[P, _Run]) -> Callable[[Callable[[_Run], T]], Callable[P, T]]:
    """Have a function of a run take what a run is made of."""

    def decorate(function: Callable[[_Run], T]) -> Callable[P, T]:
        @functools.wraps(function)
        def call(*arguments: P.args, **named: P.kwargs) -> T:
            return function(make(*arguments, **named))

        returns = inspect.signature(function).return_annotation
        call.__signature__ = inspect.signature(make).replace(return_annotation=returns)  # type: ignore[attr-defined]
        return call

    return decorate


@_taking(_run_of)
async def rollout(run: _Run) -> list[Trajectory]:
    """Play every row of ``dataset`` with ``policy``, each ``rollouts_per_row`` times; trajectories in that order.

    ``dataset`` may also be rows as a program makes them (see `muxsim.rollouts.data.rows`): a list is checked before
    anything starts, an iterator or async iterator is read as episodes are played. ``bounds`` are fields of
    `RolloutOptions`. An episode that fails is a trajectory with ``valid`` False; it harms no other. ``skip`` holds ids
    of episodes that have been played before, and ``config`` is what watchers are told that want to know what is run.
    Cancelling ends the episodes under way as ``cancelled`` before the cancellation goes on. A policy that nothing more
    can be had of (`PolicyError.ends_run`) ends them too, and its error is raised. All trajectories are kept until the
    last: where that is too much, use `episodes`.
    """
    ended: list[tuple[int, Trajectory]] = []

    async def keep(index: int, trajectory: Trajectory) -> None:
        ended.append((index, trajectory))

    await run.play(keep)
    return [trajectory for _, trajectory in sorted(ended, key=itemgetter(0))]


@_taking(_run_of)
async def episodes(run: _Run) -> AsyncGenerator[Trajectory, None]:
    """As `rollout`, each trajectory when its episode ends: for ``async for``, with those under way in memory only.

    Episodes wait for whoever takes their trajectories, and rows that an iterator gives wait for episodes: at most
    ``max_concurrent`` are ahead. Leaving the loop early ends those under way as ``cancelled``:
    at once in ``async with contextlib.aclosing(...)``, else when the generator is collected.
    """
    give, take = anyio.create_memory_object_stream[Trajectory](0)

    async def hand_over(index: int, trajectory: Trajectory) -> None:
        await give.send(trajectory)

    async def play() -> None:
        with give:
            await run.play(hand_over)

    task = Detached(play)
    with take:
        try:
            async for trajectory in take:
                yield trajectory
        finally:
            await task.end()
