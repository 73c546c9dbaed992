"""Episodes for trainers of language models: a session whose tools a model calls, told in words. On any loop.

What a model reads comes from results alone; reward, end and what has failed are for the trainer. An episode that has
broken has no reward: it raises `EpisodeBroken`, then and for as long as anybody asks.
"""

from __future__ import annotations

import math
import random
import secrets
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import anyio

from muxsim.errors import Busy, MuxsimError, StartError
from muxsim.rollouts.data.prompts import first_messages
from muxsim.rollouts.data.rows import SEED_ADVICE, SEED_LIMIT, Row
from muxsim.rollouts.environments.environment import Environment, EnvironmentPool, Tool, ToolResult
from muxsim.rollouts.environments.mcp_environment import MCPEnvironment
from muxsim.rollouts.policy.messages import content_parts
from muxsim.values import ROLLOUT_KEYS, check_numbers

Part = dict[str, Any]
"""A part of a chat message: ``{"type": "text", "text": …}``, or ``image_url`` with a data URL."""

Score = Callable[[ToolResult], tuple[float, bool, bool]]
"""The reward of a call, and whether the episode has terminated or been truncated."""

DEFAULT_CALL_TIMEOUT: Final = 60.0
_OPEN_TRIES: Final = 10
_FIRST_WAIT: Final = 0.1
_LONGEST_WAIT: Final = 10.0
_SEED_PLACES: Final = (
    *(("seed",), ("extra_info", "seed"), ("environment_context", "seed"), ("verifier_metadata", "seed")),
)
_OVER: Final = "the episode is over: no call is made any more"
# Why is in `Dialogue.failure`: it may be of the control plane, which a model does not read.
_BROKEN: Final = "the environment has failed: no call is made any more"


class EpisodeOver(MuxsimError):
    """A call after an episode's end, or one more than there may be. It was not made."""


class EpisodeBroken(MuxsimError):
    """An episode that counts for nothing: its environment, or what stands before it, has failed. ``why`` tells.

    ``str()`` is for a model to read, and says no more than that.
    """

    def __init__(self, why: str) -> None:
        self.why = why
        super().__init__(_BROKEN)


@dataclass(frozen=True, kw_only=True)
class Terms:
    """How episodes of an environment are played. Times are in seconds; None: as the environment's config has it.

    ``score`` tells reward, terminated and truncated of a tool's result, for a server without a control plane.
    ``max_calls`` truncates an episode.
    """

    score: Score | None = None
    max_calls: int | None = None
    start_timeout: float | None = None
    call_timeout: float | None = DEFAULT_CALL_TIMEOUT

    def __post_init__(self) -> None:
        if self.max_calls is not None and (isinstance(self.max_calls, bool) or self.max_calls < 1):
            raise ValueError(f"max_calls = {self.max_calls!r}: give 1 or more, or None")
        check_numbers(self, ROLLOUT_KEYS)


@dataclass(frozen=True)
class Said:
    """What a call gave: what a model reads, and what its trainer knows. ``reward`` is None where there is none."""

    parts: list[Part]
    is_error: bool
    reward: float | None
    ended: bool

    @property
    def text(self) -> str:
        """The words; an image is ``[image]``."""
        return text_of(self.parts)


class Dialogue:
    """One episode. Made by `open_dialogue`; `close` it."""

    def __init__(self, session: Environment, terms: Terms, *, scored: bool) -> None:
        self.scored = scored
        """Whether anything tells what it earns."""
        self.failure: str | None = None
        """Why it counts for nothing; None if nothing has failed."""
        self.terminated = False
        self.truncated = False
        self.calls = 0
        self._session = session
        self._terms = terms
        self._scores: list[float] = []
        self._told = 0.0

    def __repr__(self) -> str:
        state = self.failure or ("over" if self.ended else "under way")
        return f"<Dialogue {self._session.env} seed {self.seed}, {self.calls} calls, {state}>"

    @property
    def id(self) -> str:
        """The session's."""
        return self._session.id

    @property
    def seed(self) -> int:
        """The session's seed, which a shared environment has from its start."""
        return self._session.seed

    @property
    def ended(self) -> bool:
        """Whether it is over, by the environment's end or `Terms.max_calls`."""
        return self.terminated or self.truncated

    @property
    def tools(self) -> tuple[Tool, ...]:
        """Those that a model may call."""
        return self._session.opened.tools

    def beginning(self, *, instructions: bool = True) -> tuple[str, list[Part]]:
        """What a model is told before its first call: the environment's ``instructions``, and its first observation."""
        opened = self._session.opened
        state = opened.initial_state
        observation = state.get("observation") if isinstance(state, dict) else None
        told = opened.instructions if instructions else ""
        if observation is None:
            return told, []
        messages = first_messages(Row(id=self.id, seed=self.seed), observation, instructions=told)
        content = messages[-1]["content"]
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
        shown = [part for part in parts if part.get("text") != ""]
        return (messages[0]["content"] if len(messages) > 1 else ""), shown

    async def call(self, tool: str, arguments: dict[str, Any]) -> Said:
        """Call a tool; what a server says of a call that it refuses is a result, ``is_error``.

        Raises `EpisodeOver` or `EpisodeBroken`.
        """
        self._require_whole()
        if self.ended:
            raise EpisodeOver(_OVER)
        with self._breaking(f"{tool} was not waited for"):
            result = await self._session.call(tool, arguments, timeout=self._terms.call_timeout)
        self.calls += 1
        reward = self._scored(result)
        if self._terms.max_calls is not None and self.calls >= self._terms.max_calls and not self.terminated:
            self.truncated = True
        return Said(content_parts(result.content, result.structured), result.is_error, reward, self.ended)

    async def earned(self) -> float | None:
        """What it has earned, if this is its end, by the environment's own count too; None where nothing tells.

        Raises `EpisodeBroken`.
        """
        return await self._earned(over=True)

    async def _earned(self, *, over: bool) -> float | None:
        self._require_whole()
        if self._terms.score is not None:
            return float(sum(self._scores))
        with self._breaking("its reward was not waited for"):
            return await self._session.earned(timeout=self._terms.call_timeout, over=over)

    async def newly_earned(self) -> float:
        """What it has earned since this was asked last, for trainers that add up. Raises `EpisodeBroken`."""
        earned = await self._earned(over=self.ended)
        if earned is None:
            raise self.break_("nothing tells its reward")
        before, self._told = self._told, earned
        return float(earned - before)

    async def close(self) -> None:
        """End the session. Calling it again is harmless."""
        with anyio.CancelScope(shield=True):
            await self._session.close()

    def break_(self, why: str) -> EpisodeBroken:
        """Let it count for nothing; returns what to raise."""
        self.failure = self.failure or why
        return EpisodeBroken(self.failure)

    def _require_whole(self) -> None:
        if self.failure is not None:
            raise EpisodeBroken(self.failure)

    @contextmanager
    def _breaking(self, otherwise: str) -> Iterator[None]:
        """Whatever is raised inside breaks the episode: what was asked may have been done, and nobody knows."""
        try:
            yield
        except MuxsimError as error:
            raise self.break_(str(error)) from error
        except Exception as error:
            raise self.break_(f"{otherwise}: {type(error).__name__}: {error}") from error
        except BaseException:
            self.break_(otherwise)
            raise

    def _scored(self, result: ToolResult) -> float | None:
        if self._terms.score is not None:
            with self._breaking("score failed"):
                reward, terminated, truncated = self._terms.score(result)
                if not math.isfinite(reward):
                    raise ValueError(f"a reward is a finite number, not {reward!r:.80}")
            self._scores.append(float(reward))
            self.terminated, self.truncated = bool(terminated), bool(truncated)
            return self._scores[-1]
        control = result.control
        if control is None:
            return None
        if control.reward is None and control.problem is not None:
            raise self.break_(f"a reward could not be read: {control.problem}")
        self.terminated, self.truncated = control.terminated, control.truncated
        return control.reward


async def open_dialogue(pool: EnvironmentPool, env: str, seed: int, terms: Terms) -> Dialogue:
    """Begin an episode, waiting its turn while the pool is full.

    Raises `Busy`, `StartError` or `UnknownEnvironment`, and `ValueError` for what is no seed.
    """
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < SEED_LIMIT:
        raise ValueError(f"seed = {seed!r:.80}: {SEED_ADVICE}")
    wait = _FIRST_WAIT
    for remaining in reversed(range(_OPEN_TRIES)):
        try:
            session = await pool.open(env, seed, start_timeout=terms.start_timeout)
            break
        except Busy as busy:
            if not remaining:
                raise
            # Whoever is refused together must not come back together.
            await anyio.sleep(max(wait, busy.retry_after) * random.uniform(1.0, 1.5))
            wait = min(2 * wait, _LONGEST_WAIT)
    try:
        return Dialogue(session, terms, scored=terms.score is not None or await _is_scored(session, terms))
    except BaseException as error:
        with anyio.CancelScope(shield=True):
            await session.close()
        if isinstance(error, MuxsimError):
            raise StartError(f"environment {env!r}: {error}") from error
        raise


async def _is_scored(session: Environment, terms: Terms) -> bool:
    if isinstance(session, MCPEnvironment):
        return await session.tells_rewards(timeout=terms.call_timeout)
    return session.opened.published


def asked(
    prompt: Iterable[Mapping[str, Any]], dialogue: Dialogue, *, instructions: bool = True, tools: str = ""
) -> list[dict[str, Any]]:
    """A row's prompt with what the environment says at its start.

    Its instructions and ``tools`` stand in the system message, and the first observation at the end.
    """
    told, parts = dialogue.beginning(instructions=instructions)
    observation = text_of(parts)
    messages = [dict(message) for message in prompt]
    system = "\n\n".join(text for text in (told, tools) if text)
    if system and messages and messages[0].get("role") == "system":
        messages[0]["content"] = f"{messages[0]['content']}\n\n{system}"
    elif system:
        messages.insert(0, {"role": "system", "content": system})
    if not observation:
        return messages
    last = messages[-1] if messages else {}
    if last.get("role") == "user" and isinstance(last.get("content"), str) and last["content"]:
        last["content"] = f"{last['content']}\n\n{observation}"
    else:
        messages.append({"role": "user", "content": observation})
    return messages


def seed_in(row: Mapping[str, Any]) -> Any:
    """The seed in a trainer's row, wherever its kind of rows has it; a random one where it has none.

    What is no whole number stays what it is, for `open_dialogue` to refuse.
    """
    for place in _SEED_PLACES:
        value: Any = row
        for part in place:
            value = value.get(part) if isinstance(value, Mapping) else None
        if value is not None:
            return value if isinstance(value, bool) or not hasattr(value, "__index__") else int(value)
    return secrets.randbelow(SEED_LIMIT)


def text_of(parts: list[Part]) -> str:
    """The words of parts, a line each; an image is ``[image]``."""
    return "\n".join(part["text"] if part["type"] == "text" else "[image]" for part in parts)


async def looked_at(pool: EnvironmentPool, env: str, terms: Terms) -> tuple[tuple[Tool, ...], bool]:
    """The tools of an environment, and whether anything tells what an episode earns. Raises as `open_dialogue` does."""
    dialogue = await open_dialogue(pool, env, 0, terms)
    try:
        return dialogue.tools, dialogue.scored
    finally:
        await dialogue.close()


def of_its_own(method: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """A method of an episode's as `Running.call` wants it, which gives a pool first: an episode needs none."""

    async def call(pool: EnvironmentPool, *args: Any) -> Any:
        return await method(*args)

    return call


def closing_of(open: list[Dialogue]) -> Callable[[EnvironmentPool], Awaitable[object]] | None:
    """What closes the one that is open, if one is: of a `running.Use`."""
    if not open:
        return None
    return of_its_own(open.pop().close)
