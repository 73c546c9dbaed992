"""Play a run's recorded actions again, and compare everything that the environments say."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import anyio
import msgspec

from muxsim.errors import MuxsimError
from muxsim.rollouts.data.trajectory import Step, Trajectory
from muxsim.rollouts.environments.environment import Environment, EnvironmentPool, ToolResult


@dataclass(frozen=True)
class Divergence:
    """The first difference of one episode. ``step`` is None before the first step, ``what`` names the part."""

    episode: str
    step: int | None
    what: str
    expected: Any
    got: Any

    def __str__(self) -> str:
        where = "at its start" if self.step is None else f"at step {self.step}"
        return (
            f"{self.episode} differs {where}, in {self.what}: expected {_short(self.expected)}, got {_short(self.got)}"
        )


@dataclass(frozen=True)
class Replayed:
    """What became of one episode: how many steps were played again, and where it differed, if it did."""

    episode: str
    steps: int
    divergence: Divergence | None


async def replay(
    pool: EnvironmentPool,
    trajectories: Sequence[Trajectory],
    *,
    content_of: Callable[[dict[str, Any]], dict[str, Any]],
    max_concurrent: int = 16,
    call_timeout: float | None = 60.0,
    start_timeout: float | None = None,
) -> list[Replayed]:
    """Drive the environments again with the recorded actions, each episode to its first divergence.

    ``content_of`` brings a content block into the form in which the run has it, images as files of the run.
    """
    limiter = anyio.CapacityLimiter(max_concurrent)
    replayed: dict[int, Replayed] = {}

    async def play(index: int, trajectory: Trajectory) -> None:
        async with limiter:
            replayed[index] = await _play(pool, trajectory, content_of, call_timeout, start_timeout)

    async with anyio.create_task_group() as group:
        for index, trajectory in enumerate(trajectories):
            group.start_soon(play, index, trajectory)
    return [replayed[index] for index in sorted(replayed)]


async def _play(
    pool: EnvironmentPool,
    trajectory: Trajectory,
    content_of: Callable[[dict[str, Any]], dict[str, Any]],
    call_timeout: float | None,
    start_timeout: float | None,
) -> Replayed:
    def differs(step: int | None, what: str, expected: Any, got: Any) -> Replayed:
        return Replayed(trajectory.id, step or 0, Divergence(trajectory.id, step, what, expected, got))

    try:
        environment = await pool.open(trajectory.env, trajectory.seed, start_timeout=start_timeout)
    except MuxsimError as error:
        return differs(None, "its start", "a session", f"{type(error).__name__}: {error}")
    try:
        for what, expected, got in _starts(trajectory, environment):
            return differs(None, what, expected, got)
        called = [step for step in trajectory.steps if step.called]
        for step in called:
            try:
                result = await environment.call(step.tool, step.arguments, timeout=call_timeout)
            except MuxsimError as error:
                return differs(step.index, "its answer", "a result", f"{type(error).__name__}: {error}")
            for what, expected, got in _differences(step, result, content_of):
                return differs(step.index, what, expected, got)
        return Replayed(trajectory.id, len(called), None)
    finally:
        with anyio.CancelScope(shield=True):
            await environment.close()


def _starts(trajectory: Trajectory, environment: Environment) -> Iterator[tuple[str, Any, Any]]:
    tools = [tool.for_chat() for tool in environment.opened.tools]
    if trajectory.tools != tools:
        yield "its tools", trajectory.tools, tools
    if trajectory.initial_state != environment.opened.initial_state:
        yield "its initial state", trajectory.initial_state, environment.opened.initial_state


def _differences(
    step: Step, result: ToolResult, content_of: Callable[[dict[str, Any]], dict[str, Any]]
) -> Iterator[tuple[str, Any, Any]]:
    """What differs, the observation first: it is what a person looks at."""
    content = [content_of(block) for block in result.content]
    if step.content != content:
        yield "the observation", step.content, content
    if step.is_error != result.is_error:
        yield "isError", step.is_error, result.is_error
    if step.structured != result.structured:
        yield "the structured content", step.structured, result.structured
    expected, got = (None if one is None else msgspec.to_builtins(one) for one in (step.control, result.control))
    if expected != got:
        yield from _control_differences(expected, got)


def _control_differences(expected: Any, got: Any) -> Iterator[tuple[str, Any, Any]]:
    if expected is None or got is None:
        yield "the control plane", expected, got
        return
    for name in expected:
        if expected[name] != got[name]:
            yield name, expected[name], got[name]


def _short(value: Any, limit: int = 300) -> str:
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= limit else f"{text[:limit]}… ({len(text)} characters)"
