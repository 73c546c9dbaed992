"""Environments of muxsim for Inspect: `dataset`, `play` and `reward` make a task of them.

    from inspect_ai import Task, task
    from muxsim.adapters.inspect_solver import dataset, play, reward

    @task
    def frozen_lake():
        return Task(dataset=dataset(8), solver=play("muxsim.toml", "frozen_lake"), scorer=reward())

Each sample has a session of its own, of its seed. The loop ends where the environment's episode ends, and what the
machinery breaks is an error of the sample: it has no score. docs/adapters/inspect.md has more.
"""

from __future__ import annotations

import math
import os
import random
import threading
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import anyio
from pydantic import Field

from muxsim.adapters.needed import needed

with needed(__name__, "pip install 'mcp-muxsim[inspect]'"):
    from inspect_ai.dataset import MemoryDataset
    from inspect_ai.model import ChatMessage, ChatMessageAssistant, ChatMessageTool, Content
    from inspect_ai.scorer import Score, Scorer, Target, mean, scorer, stderr
    from inspect_ai.solver import Generate, Solver, TaskState, solver
    from inspect_ai.tool import Tool, ToolDef, ToolError, ToolFunction, ToolParams
    from inspect_ai.util import LimitExceededError, StoreModel

from muxsim.adapters.inspect_messages import content_of, row_of, sample_of, show
from muxsim.adapters.running import URLS, Running, Source, Use, running
from muxsim.config import load
from muxsim.errors import Busy, MuxsimError
from muxsim.rollouts.data.dataset import Dataset, dataset_from_rows, generate_dataset, load_dataset
from muxsim.rollouts.data.rows import Row
from muxsim.rollouts.data.trajectory import VALID_ENDS, EndReason
from muxsim.rollouts.environments.environment import Environment, EnvironmentFailed, EnvironmentPool, ToolResult
from muxsim.rollouts.environments.environment import Tool as EnvironmentTool
from muxsim.rollouts.play.options import RolloutOptions
from muxsim.rollouts.policy.messages import tool_messages
from muxsim.rollouts.policy.tools import WireTools

_DEFAULT_WINDOW: Final = 60.0
# Between two tries to open a session on a pool that is full, when it does not say; doubled each time, and spread.
_FIRST_RETRY: Final = 0.5
_LONGEST_RETRY: Final = 30.0
_TRIES: Final = 10
_OVER: Final = "not called: the episode had ended"
# What Inspect says of a model's output that ends for its length, and what it names its limits.
_CUT_OFF: Final = ("max_tokens", "model_length")
# Of a call that Inspect does not make: no tool has its name, its arguments do not fit, or an approver said no.
_REFUSED: Final = ("parsing", "approval")
_LIMITS: Final = {
    "message": EndReason.MAX_STEPS,
    "turn": EndReason.MAX_STEPS,
    "token": EndReason.TOKEN_LIMIT,
    "cost": EndReason.TOKEN_LIMIT,
    "time": EndReason.EPISODE_TIMEOUT,
    "working": EndReason.EPISODE_TIMEOUT,
}


class Episode(StoreModel):
    """What a sample's episode was, which no model is shown; ``state.store_as(Episode)`` in a scorer.

    ``rewards`` has one for each call, None where it is not known, and for one that Inspect itself has refused;
    ``total_reward`` is None for an environment without a control plane. ``end_reason`` is one of muxsim's,
    ``cancelled`` until it has ended.
    """

    env: str = ""
    seed: int | None = None
    session: str = ""
    rewards: list[float | None] = Field(default_factory=list)
    total_reward: float | None = None
    end_reason: str = EndReason.CANCELLED.value
    valid: bool = False


@solver
def play(
    source: Source,
    env: str | None = None,
    *,
    player: Solver | None = None,
    max_steps: int = 50,
    start_timeout: float | None = None,
    call_timeout: float | None = _DEFAULT_WINDOW,
    token: str | None = None,
) -> Solver:
    """Plays each sample's environment to the end of its episode, in a session of the sample's own.

    ``source`` is a config file, a muxsim's URL, or a pool that is open on the loop of the eval. The environment is the
    sample's ``metadata["env"]``, else ``env``, else the only one; the seed is ``metadata["seed"]``, else one that
    follows from the sample's id. ``{observation}`` in the user's messages is what the environment shows first.

    ``player`` plays with ``state.tools`` until ``state.completed`` is set: by default Inspect's own loop of `generate`.
    ``max_steps`` counts calls; times are in seconds; ``token`` is for a URL.

    Raises `ConfigError` for a config file, and for a bound that nobody can mean. An environment that fails, an unknown
    reward and all that muxsim does not get done is raised as it is (`muxsim.errors`), and so an error of the sample.
    """
    bounds = RolloutOptions(max_steps=max_steps, start_timeout=start_timeout, call_timeout=call_timeout)
    held = _Held(source, token)

    async def solve(state: TaskState, generate: Generate) -> TaskState:
        row = row_of(state)
        pool = await held.running()
        (row,) = (await pool.wait(partial(_with_environment, row, env))).rows
        async with _opened(pool, row, bounds.start_timeout) as session:
            game = _Game(pool, session, state, bounds)
            return await game.played(row, generate, player)

    return solve


@scorer(metrics=[mean(), stderr()])
def reward() -> Scorer:
    """The reward of the episode that `play` has played, with its end reason, its seed and its steps as metadata.

    A reward that is not known is no number: such a sample is unscored, and no metric counts it.
    """

    async def score(state: TaskState, target: Target) -> Score:
        episode = state.store_as(Episode)
        told = {
            "end_reason": episode.end_reason,
            "seed": episode.seed,
            "steps": len(episode.rewards),
            "env": episode.env,
            "session": episode.session,
        }
        if not episode.session:
            return Score.unscored(
                reason="not_played", explanation="no episode was played: the solver is muxsim's play()"
            )
        words = f"{episode.end_reason} after {len(episode.rewards)} calls, seed {episode.seed}"
        if not episode.valid:
            return Score.unscored(
                reason=episode.end_reason, explanation=f"no sample of the model: {words}", metadata=told
            )
        if episode.total_reward is None:
            why = f"{episode.env} has no control plane: {words}"
            return Score.unscored(reason="no_reward", explanation=why, metadata=told)
        return Score(value=episode.total_reward, explanation=words, metadata=told)

    return score


def dataset(
    rows: int | str | Path | Iterable[Mapping[str, Any]], *, seed: int = 0, name: str | None = None
) -> MemoryDataset:
    """muxsim's rows as samples: those of a file, those of a program, or so many whose seeds count up from ``seed``.

    A sample's id is the row's; its metadata has ``seed``, ``env``, ``environment_context``, ``evaluation_criteria`` and
    ``info``. Raises `DatasetError`.
    """
    if isinstance(rows, int):
        read = generate_dataset(rows, first_seed=seed)
    elif isinstance(rows, str | Path):
        read = load_dataset(rows, base_seed=seed)
    else:
        read = dataset_from_rows(rows, base_seed=seed)
    return MemoryDataset([sample_of(row) for row in read.rows], name=name, location=read.source or None)


class _Held:
    """The pool of a solver: opened for its first sample, and there as long as the solver is."""

    def __init__(self, source: Source, token: str | None) -> None:
        self._source, self._token = source, token
        self._lock = threading.Lock()
        self._running: Running | None = None
        if isinstance(source, str | Path) and not str(source).startswith(URLS):
            # Inspect changes folders between a task's making and its run.
            self._source = os.path.abspath(source)
            load(self._source)

    async def running(self) -> Running:
        """The pool in use. Raises `ConfigError` or `StartError`: it cannot be opened."""
        return await anyio.to_thread.run_sync(self._use) if self._running is None else self._running

    def _use(self) -> Running:
        with self._lock:
            if self._running is None:
                self._running = running(self._source, token=self._token)
                Use(self, self._running, _nothing_open)
            return self._running


def _is_refused(message: ChatMessage) -> bool:
    return isinstance(message, ChatMessageTool) and message.error is not None and message.error.type in _REFUSED


def _nothing_open() -> None:
    """Each sample closes its own session."""


async def _with_environment(row: Row, env: str | None, pool: EnvironmentPool) -> Dataset:
    return Dataset((row,)).with_environments(pool.environments, env)


@asynccontextmanager
async def _opened(held: Running, row: Row, start_timeout: float | None) -> AsyncIterator[Environment]:
    """A session for the length of a block. Raises `StartError`, or `Busy` after many tries."""

    async def open(pool: EnvironmentPool) -> Environment:
        wait = _FIRST_RETRY
        for _ in range(_TRIES - 1):
            try:
                return await pool.open(row.env, row.seed, start_timeout=start_timeout)
            except Busy as busy:  # whoever is refused together must not come back together
                await anyio.sleep(max(wait, busy.retry_after) * random.uniform(1.0, 1.5))
                wait = min(2 * wait, _LONGEST_RETRY)
        return await pool.open(row.env, row.seed, start_timeout=start_timeout)

    async def close(pool: EnvironmentPool) -> None:
        await session.close()

    session = await held.wait(open)
    try:
        yield session
    finally:
        with anyio.CancelScope(shield=True):
            await held.wait(close)


class _Game:
    """A sample and its session: tools that end the sample's loop where the episode ends."""

    def __init__(self, pool: Running, session: Environment, state: TaskState, bounds: RolloutOptions) -> None:
        self._pool, self._session, self._state = pool, session, state
        self._max_steps, self._call_timeout = bounds.max_steps, bounds.call_timeout
        self._episode = state.store_as(Episode)
        self._own: list[Tool] = []
        self._reason: EndReason | None = None
        self._fault: MuxsimError | None = None

    async def played(self, row: Row, generate: Generate, player: Solver | None) -> TaskState:
        """Play, and find what it has earned."""
        session, state = self._session, self._state
        episode = self._episode
        episode.env, episode.seed, episode.session = session.env, session.seed, session.id
        show(state, row, session.opened)
        self._offer(session.opened.tools)
        try:
            state = await (self._turns(generate) if player is None else player(state, generate))
        except LimitExceededError as limit:  # of the sample, which Inspect scores as it is
            self._raise_fault()
            await self._settle(_LIMITS.get(limit.type, EndReason.CANCELLED))
            raise
        self._raise_fault()
        cut_off = state.output.stop_reason in _CUT_OFF
        await self._settle(self._reason or (EndReason.TOKEN_LIMIT if cut_off else EndReason.NO_TOOL_CALL))
        # What ended is the episode: solvers behind this one have their turn, without the tools of this session.
        state.completed = False
        state.tools = self._others()
        return state

    async def _turns(self, generate: Generate) -> TaskState:
        """Inspect's own loop, turn by turn: calls that it refuses itself count too, though no session hears of them."""
        state, choice = self._state, self._state.tool_choice
        try:
            while True:
                before = len(state.messages)
                state = await generate(state, tool_calls="single")
                said = state.messages[before:]
                if self._reason is None:
                    self._count([None] * sum(map(_is_refused, said)))
                if state.completed or not any(isinstance(one, ChatMessageAssistant) and one.tool_calls for one in said):
                    return state
                if isinstance(state.tool_choice, ToolFunction):  # as in Inspect's loop: one call was asked for, once
                    state.tool_choice = "auto"
        finally:
            state.tool_choice = choice

    async def _settle(self, reason: EndReason) -> None:
        episode = self._episode
        if reason in VALID_ENDS:
            earned = await self._pool.wait(lambda _: self._session.earned(timeout=self._call_timeout, over=True))
            if earned is not None and not math.isfinite(earned):
                raise EnvironmentFailed(f"the reward of the episode is {earned}")
            episode.total_reward = earned
        episode.end_reason, episode.valid = reason.value, reason in VALID_ENDS

    def _offer(self, tools: Sequence[EnvironmentTool]) -> None:
        """Beside whatever else the sample's player has."""
        others = self._others()
        wired = WireTools([tool.for_chat() for tool in tools])
        self._own = [self._tool(wired.own_name(one["function"]["name"]), one["function"]) for one in wired.tools]
        self._state.tools = [*others, *self._own]

    def _others(self) -> list[Tool]:
        return [tool for tool in self._state.tools if not any(tool is own for own in self._own)]

    def _tool(self, name: str, function: Mapping[str, Any]) -> Tool:
        async def execute(**arguments: Any) -> list[Content]:
            return await self._call(name, arguments)

        params = ToolParams.model_validate(function["parameters"])
        for key, one in params.properties.items():
            one.description = one.description or key
        made: Tool = ToolDef(execute, function["name"], function.get("description") or name, params).as_tool()
        return made

    async def _call(self, tool: str, arguments: dict[str, Any]) -> list[Content]:
        if self._reason is not None or self._fault is not None:
            raise ToolError(_OVER)
        try:
            result = await self._pool.wait(
                lambda _: self._session.call(tool, arguments, timeout=self._call_timeout),
            )
            self._note(result)
        except MuxsimError as fault:  # nobody's move: it ends the sample, whatever its player makes of it
            self._fault = fault
            for line in getattr(fault, "stderr", ()):
                fault.add_note(line)
            raise
        if result.is_error:
            raise ToolError(tool_messages("", result.content, result.structured)[0]["content"])
        return content_of(result)

    def _note(self, result: ToolResult) -> None:
        if result.tools is not None:
            self._offer(result.tools)
        control = result.control
        if control is not None and (control.terminated or control.truncated):
            self._end(EndReason.TERMINATED if control.terminated else EndReason.TRUNCATED)
        self._count([None if control is None else control.reward])
        if control is not None and control.reward is None and control.problem is not None:
            raise EnvironmentFailed(f"a reward could not be read: {control.problem}")

    def _count(self, rewards: list[float | None]) -> None:
        self._episode.rewards = [*self._episode.rewards, *rewards]
        if self._reason is None and len(self._episode.rewards) >= self._max_steps:
            self._end(EndReason.MAX_STEPS)

    def _end(self, reason: EndReason) -> None:
        self._reason = reason
        self._state.completed = True

    def _raise_fault(self) -> None:
        if self._fault is not None:
            raise self._fault
