"""Episodes of one environment for Gymnasium: what it looks like, and sessions that are reset and stepped. On a loop."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import anyio
import numpy as np
from gymnasium import Space, spaces

from muxsim.adapters.actions import Actions, AnyText, Call, actions_of
from muxsim.adapters.pictures import NoPicture, picture_of
from muxsim.errors import MuxsimError
from muxsim.mcpgym.errors import UnsupportedSpace
from muxsim.mcpgym.exact import NotExact, from_exact
from muxsim.mcpgym.space_json import space_from_json
from muxsim.placement.last_words import with_unsaid
from muxsim.rollouts.environments.environment import EnvironmentPool, ToolResult
from muxsim.rollouts.environments.mcp_environment import MCPEnvironment
from muxsim.values import ROLLOUT_KEYS, check_numbers

Score = Callable[[ToolResult], tuple[float, bool, bool]]
"""The reward of a call, and whether the episode has terminated or been truncated."""

Array = np.ndarray[Any, Any]


Aside = Callable[..., Awaitable[None]]
"""Does what it is given on the same loop, and does not wait for it."""


class EpisodeError(MuxsimError):
    """A step that is no step of an episode: refused, after its end, or with a reward that is not known."""


class SomeFailed(MuxsimError):
    """Of many environments some have failed: ``failures`` has each one's error by its index.

    The others have done what was asked of them. Where it was a step, those that failed want a reset.
    """

    def __init__(self, failures: Mapping[int, Exception]) -> None:
        self.failures = dict(failures)
        super().__init__("\n".join(_told(index, error) for index, error in sorted(self.failures.items())))


def _told(index: int, error: Exception) -> str:
    return with_unsaid(f"environment {index}: {error}", getattr(error, "stderr", ()))


@dataclass(frozen=True)
class Outcome:
    """What a reset or a step gave, as Gymnasium has it; the ``frame`` is the last image, if there was any."""

    observation: Any
    reward: Any = 0.0
    terminated: bool = False
    truncated: bool = False
    info: dict[str, Any] = field(default_factory=dict)
    frame: Array | None = None


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """What the user of an environment says of it, see `gymnasium_env.make`."""

    actions: tuple[Any, ...] | None = None
    observe: Callable[[str], Any] | None = None
    observation_space: Space[Any] | None = None
    score: Score | None = None
    start_timeout: float | None = None
    call_timeout: float | None = None

    def __post_init__(self) -> None:
        check_numbers(self, ROLLOUT_KEYS)


class Reader(Protocol):
    """Makes an observation, in its space, of what an environment shows and what it tells its trainer."""

    @property
    def space(self) -> Space[Any]:
        """The observation space."""

    def read(self, content: list[dict[str, Any]], exact: dict[str, Any] | None) -> Any:
        """The observation. Raises `EpisodeError`: there is none."""


@dataclass(frozen=True)
class Exact:
    """The environment's own observation, as the author kit tells it."""

    space: Space[Any]

    def read(self, content: list[dict[str, Any]], exact: dict[str, Any] | None) -> Any:
        try:
            return _element(self.space, from_exact((exact or {})["observation"]))
        except (KeyError, NotExact, ValueError, TypeError) as error:
            raise EpisodeError(f"the environment tells its observation no more: {error}") from None


@dataclass(frozen=True)
class Words:
    """The text, or what the user's function makes of it."""

    space: Space[Any]
    observe: Callable[[str], Any] = str

    def read(self, content: list[dict[str, Any]], exact: dict[str, Any] | None) -> Any:
        return self.observe(text_of(content))


@dataclass(frozen=True)
class Pictures:
    """The image, of which every observation must have one of the same size."""

    space: Space[Any]

    def read(self, content: list[dict[str, Any]], exact: dict[str, Any] | None) -> Any:
        frame = frame_of(content)
        if frame is None or frame.shape != self.space.shape:
            raise EpisodeError(f"an observation has no image of the shape {self.space.shape}, as the first one had")
        return frame


@dataclass(frozen=True)
class Looks:
    """What an environment looks like to Gymnasium."""

    actions: Actions
    reader: Reader
    renders: bool


class Play:
    """One session after another of one environment."""

    def __init__(self, env: str, wishes: Wishes, aside: Aside) -> None:
        self._env = env
        self._wishes = wishes
        self._aside = aside
        self._session: MCPEnvironment | None = None
        self._leaving: anyio.Event | None = None
        self._beginning: anyio.Lock | None = None  # of the pool's loop: this may be made on another
        self._closed = False
        self._over = "none has begun"

    async def look(self, pool: EnvironmentPool) -> Looks:
        """Open a session to see what the environment looks like. Raises what opening one does, and `ActionError`."""
        session = await self._open(pool, 0)
        try:
            told = await session.read("spaces")
            told = told if isinstance(told, dict) else {}
            if self._wishes.score is None and not await session.tells_rewards(timeout=self._wishes.call_timeout):
                raise EpisodeError(
                    f"{self._env} has no control plane: give score=, a function that makes reward, terminated and "
                    "truncated of a tool's result"
                )
            actions = actions_of(session.opened.tools, _space(told, "action"), told.get("step"), self._wishes.actions)
            content, _ = await self._first(session)
            return Looks(actions, self._reader(told, content), frame_of(content) is not None)
        finally:
            await _close(session)

    async def reset(self, pool: EnvironmentPool, seed: int, looks: Looks) -> Outcome:
        """Begin an episode in a session of its own, and have the one before end meanwhile.

        Raises what opening a session does, and `EpisodeError`.
        """
        self._beginning = self._beginning or anyio.Lock()
        async with self._beginning:  # who gave up waiting for a reset has not ended it
            return await self._begin(pool, seed, looks)

    async def _begin(self, pool: EnvironmentPool, seed: int, looks: Looks) -> Outcome:
        self._require_open()
        await self._left()
        before, self._session = self._session, None
        self._over = "none has begun"
        if before is not None:
            self._leaving = anyio.Event()
            await self._aside(self._leave, before, self._leaving)
        session = await self._open(pool, seed)
        if self._closed:  # meanwhile: nobody else would end it
            await _close(session)
        self._require_open()
        self._session = session
        self._over = "its beginning could not be read"
        content, state = await self._first(session)
        info = _info((state.get("exact") or {}).get("info"), state.get("info"))
        outcome = Outcome(looks.reader.read(content, state.get("exact")), info=info, frame=frame_of(content))
        self._over = ""
        return outcome

    async def step(self, pool: EnvironmentPool, call: Call, looks: Looks) -> Outcome:
        """Make a call. Raises `EpisodeError`, and what the session's own failure is.

        With a call that was refused the episode goes on. Behind any other failure it is over: of a step that may have
        been made the reward is not known.
        """
        self._require_open()
        if self._session is None or self._over:
            raise EpisodeError(f"there is no episode to go on with, {self._over}: reset the environment")
        tool, arguments = call
        self._over = "a step has failed"
        result = await self._session.call(tool, arguments, timeout=self._wishes.call_timeout, exact=True)
        if result.is_error:
            self._over = ""
            raise EpisodeError(f"{tool}: {text_of(result.content)}")
        reward, terminated, truncated, exact, info = self._scored(result)
        seen = looks.reader.read(result.content, exact)
        outcome = Outcome(seen, reward, terminated, truncated, info, frame_of(result.content))
        self._over = "it is over" if terminated or truncated else ""
        return outcome

    async def close(self, pool: EnvironmentPool) -> None:
        """End the session. Calling it again is harmless."""
        self._closed = True
        session, self._session = self._session, None
        if session is not None:
            await _close(session)
        await self._left()

    def _require_open(self) -> None:
        if self._closed:
            raise EpisodeError(f"{self._env} has been closed: make it again")

    async def _left(self) -> None:
        """The session before is gone. One at a time is on its way out, so that fast resets do not pile them up."""
        if self._leaving is not None:
            await self._leaving.wait()

    async def _leave(self, session: MCPEnvironment, left: anyio.Event) -> None:
        try:
            await _close(session)
        finally:
            left.set()

    def _scored(self, result: ToolResult) -> tuple[Any, bool, bool, dict[str, Any] | None, dict[str, Any]]:
        if self._wishes.score is not None:
            reward, terminated, truncated = self._wishes.score(result)
            return reward, bool(terminated), bool(truncated), None, {}
        control = result.control
        if control is None or control.reward is None:
            why = "there is no control plane" if control is None else control.problem or "it is null"
            raise EpisodeError(f"the reward is not known, and Gymnasium has no word for that: {why}")
        exact = control.exact
        info = _info((exact or {}).get("info"), control.info)
        return _exact_reward(exact, control.reward), control.terminated, control.truncated, exact, info

    def _reader(self, told: dict[str, Any], content: list[dict[str, Any]]) -> Reader:
        if self._wishes.observe is not None:
            return Words(self._wishes.observation_space or AnyText(), self._wishes.observe)
        given = self._wishes.observation_space
        if given is not None:
            return Pictures(given) if isinstance(given, spaces.Box) else Words(given)
        if (space := _space(told, "observation")) is not None:
            return Exact(space)
        frame = frame_of(content)
        if frame is not None and not text_of(content):
            return Pictures(spaces.Box(0, 255, frame.shape, np.uint8))
        return Words(AnyText())

    async def _open(self, pool: EnvironmentPool, seed: int) -> MCPEnvironment:
        session = await pool.open(self._env, seed, start_timeout=self._wishes.start_timeout)
        assert isinstance(session, MCPEnvironment)
        return session

    async def _first(self, session: MCPEnvironment) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """What an agent sees before its first move, and all that is told of the start."""
        state = await session.read("initial_state", timeout=self._wishes.call_timeout)
        state = state if isinstance(state, dict) else {}
        observation = state.get("observation", session.opened.instructions)
        if isinstance(observation, list) and all(isinstance(one, dict) and "type" in one for one in observation):
            return observation, state
        return [{"type": "text", "text": observation if isinstance(observation, str) else str(observation)}], state


def text_of(content: list[dict[str, Any]]) -> str:
    """The text blocks, a line each."""
    return "\n".join(str(block.get("text", "")) for block in content if block.get("type") == "text")


def is_shown(space: Space[Any]) -> bool:
    """Whether what an environment shows may be in a space as it is: a text, or an image."""
    image = isinstance(space, spaces.Box) and space.dtype == np.uint8 and space.shape[2:] == (3,)
    return image or isinstance(space, spaces.Text)


def frame_of(content: list[dict[str, Any]]) -> Array | None:
    """The last image, height x width x 3 of uint8; None without one. Raises `EpisodeError`: it is none."""
    images = [block for block in content if block.get("type") == "image"]
    if not images:
        return None
    try:
        return np.array(picture_of(images[-1].get("data")))
    except NoPicture as error:
        raise EpisodeError(f"an observation has an image that cannot be read: {error}") from None


async def _close(session: MCPEnvironment) -> None:
    with anyio.CancelScope(shield=True):
        await session.close()


def _space(told: dict[str, Any], name: str) -> Space[Any] | None:
    if told.get(name) is None:
        return None
    try:
        return space_from_json(told[name])
    except UnsupportedSpace as error:
        raise EpisodeError(f"control://spaces: {error}") from None


def _element(space: Space[Any] | None, value: Any) -> Any:
    """An element of what plain JSON says, in every part: other kits than Python's tell no types."""
    if isinstance(space, spaces.Dict) and isinstance(value, dict):
        return {key: _element(space.spaces.get(key), part) for key, part in value.items()}
    if isinstance(space, spaces.Tuple) and isinstance(value, list | tuple) and len(value) == len(space.spaces):
        return type(value)(map(_element, space.spaces, value))
    told = isinstance(value, np.ndarray | np.generic)
    if isinstance(space, spaces.Box | spaces.MultiDiscrete | spaces.MultiBinary) and not told:
        return np.asarray(value, dtype=space.dtype).reshape(space.shape)
    return value


def _exact_reward(exact: dict[str, Any] | None, reward: float) -> Any:
    """The environment's own number, if this is what the call has earned: one that made several steps earned a sum."""
    try:
        own = from_exact((exact or {}).get("reward"))
        return own if own is not None and float(own) == reward else reward
    except (NotExact, TypeError, ValueError):
        return reward


def _info(exact: Any, plain: Any) -> dict[str, Any]:
    try:
        own = from_exact(exact)
    except NotExact:
        own = None
    return own if isinstance(own, dict) else dict(plain) if isinstance(plain, dict) else {}
