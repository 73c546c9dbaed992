"""Environments of muxsim for Gymnasium: `make` an `Env`, or `make_vec` a `VectorEnv` of many at once.

    from muxsim.adapters.gymnasium_env import make, make_vec
    env = make("muxsim.toml", "frozen_lake")
    observation, info = env.reset(seed=7)

An environment of the author kit has the spaces, observations, rewards, ends and infos of the `gymnasium.Env` that it
wraps. For others docs/adapters/gymnasium.md says what becomes of their tools.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import cache, partial, reduce
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Final, cast

from muxsim.adapters.needed import needed

with needed(__name__, "pip install 'mcp-muxsim[gymnasium]'"):
    import gymnasium
    import numpy as np
    from gymnasium import Space
    from gymnasium.utils import seeding
    from gymnasium.vector import AutoresetMode, VectorEnv
    from gymnasium.vector.utils import batch_space, concatenate, create_empty_array, iterate

from muxsim.adapters.actions import ActionError, Call
from muxsim.adapters.episodes import EpisodeError, Looks, Outcome, Play, Score, SomeFailed, Wishes, is_shown
from muxsim.adapters.running import Source, Use, all_at_once, running
from muxsim.config import find_config, load
from muxsim.errors import ConfigError, MuxsimError
from muxsim.rollouts.environments.environment import EnvironmentPool

NAMESPACE: Final = "muxsim"
_SEEDS: Final = 2**31
_DEFAULT_WINDOW: Final = 60.0


class MuxsimEnv(gymnasium.Env[Any, Any]):
    """One environment of a source, a session for each episode; made by `make`."""

    def __init__(
        self, source: Source, env: str, wishes: Wishes, *, render_mode: str | None = None, token: str | None = None
    ) -> None:
        self._held = _Held(source, env, wishes, token)
        looks = self._held.looks
        self.metadata = {"render_modes": ["rgb_array"] if looks.renders else [], "render_fps": 30}
        if render_mode is not None and render_mode not in self.metadata["render_modes"]:
            self._held.close()
            raise ValueError(f"{env} has no render_mode {render_mode!r}")
        self.render_mode = render_mode
        self.action_space, self.observation_space = looks.actions.space, looks.reader.space
        self._play = self._held.play()
        self._frame: Any = None

    def __repr__(self) -> str:
        return f"<MuxsimEnv {self._held.env}>"

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode: with ``seed`` that of the session, and without one of this environment's own generator.

        Raises what opening a session does, `StartError` or `Busy`, and ValueError: there are ``options``.
        """
        _require_no_options(options)
        super().reset(seed=seed)
        outcome = self._held.call(self._play.reset, _drawn(self.np_random) if seed is None else int(seed))
        self._frame = outcome.frame
        return outcome.observation, outcome.info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Make one step. Raises `EpisodeError`: there is none after an episode's end, or its reward is not known."""
        outcome = self._held.call(self._play.step, self._held.looks.actions.call_for(action))
        self._frame = outcome.frame if outcome.frame is not None else self._frame
        return outcome.observation, outcome.reward, outcome.terminated, outcome.truncated, outcome.info

    def render(self) -> Any:
        """The last image that the environment showed, height x width x 3 of uint8, in the mode ``rgb_array``."""
        return None if self.render_mode is None or self._frame is None else self._frame.copy()

    def close(self) -> None:
        """End the session. Calling it again is harmless."""
        self._held.close()


class MuxsimVectorEnv(VectorEnv[Any, Any, Any]):
    """Many sessions of one environment, all of which go a step at once; made by `make_vec`.

    `send` and `recv` go on with those that are ready instead.
    """

    def __init__(
        self,
        source: Source,
        env: str,
        wishes: Wishes,
        num_envs: int,
        *,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        token: str | None = None,
    ) -> None:
        if isinstance(num_envs, bool) or not hasattr(num_envs, "__index__") or num_envs < 1:
            raise ValueError(f"num_envs must be 1 or more, not {num_envs!r}")
        self.num_envs = num_envs
        self.autoreset_mode = AutoresetMode(autoreset_mode)
        self.render_mode = None
        self.metadata = {"autoreset_mode": self.autoreset_mode, "render_modes": []}
        self._held = _Held(source, env, wishes, token)
        looks = self._held.looks
        self.single_action_space, self.single_observation_space = looks.actions.space, looks.reader.space
        self._actions_for = cache(partial(batch_space, self.single_action_space))  # as many; one takes long to make
        self.action_space = self._actions_for(num_envs)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self._plays = [self._held.play() for _ in range(num_envs)]
        self._generators = [seeding.np_random()[0] for _ in range(num_envs)]
        self._seen: list[Any] = [None] * num_envs
        self._ended = np.zeros(num_envs, dtype=np.bool_)
        self._under_way: set[int] = set()
        self._finished: SimpleQueue[tuple[int, _Step, Exception | None]] = SimpleQueue()
        self._received: list[tuple[int, _Step, Exception | None]] = []

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin episodes everywhere, or where ``options["reset_mask"]`` is true. A number is the first one's seed.

        Raises `SomeFailed`, and ValueError: there are other options.
        """
        seeds = _seeds(seed, self.num_envs)
        mask = _mask(options, self.num_envs)
        chosen = [index for index in range(self.num_envs) if mask[index]]
        self._require_idle(chosen)
        if unseen := [index for index, seen in enumerate(self._seen) if seen is None and not mask[index]]:
            raise EpisodeError(f"these have not begun, reset them too: {unseen}")
        works = [(self._plays[index].reset, (self._seed_of(index, seeds[index]), self._held.looks)) for index in chosen]
        infos = []
        failures = {}
        for index, outcome in zip(chosen, self._held.running.call_all(works), strict=True):
            if isinstance(outcome, Exception):
                failures[index] = outcome
                continue
            self._seen[index], self._ended[index] = outcome.observation, False
            infos.append((index, outcome.info))
        if failures:
            raise SomeFailed(failures)
        return self._batch(self._seen), self._infos(infos)

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """A step of each at once; what has ended is reset as ``autoreset_mode`` says. Raises `SomeFailed`."""
        self._require_idle(range(self.num_envs))
        if self.autoreset_mode is AutoresetMode.DISABLED and self._ended.any():
            raise EpisodeError(f"these have ended, reset them first: {np.flatnonzero(self._ended).tolist()}")
        works = [(self._advance, one) for one in enumerate(self._works(range(self.num_envs), actions))]
        done = self._held.running.call_all(works)
        failures = {index: one for index, one in enumerate(done) if isinstance(one, Exception)}
        if failures:
            self._noted([one for one in done if not isinstance(one, Exception)])
            raise SomeFailed(failures)
        return self._stepped(done)

    def send(self, actions: Any, env_ids: Sequence[int] | None = None) -> None:
        """Begin a step of some, or of all: of none that is under way. ``actions`` has one for each.

        Raises `EpisodeError`, and ValueError: one of ``env_ids`` is there twice, or is none of this vector's.
        """
        ids = range(self.num_envs) if env_ids is None else _ids(env_ids, self.num_envs)
        self._require_idle(ids)
        works = [(self._advance, one) for one in zip(ids, self._works(ids, actions), strict=True)]
        finished = self._finished
        self._held.running.begin(works, lambda place, step, error: finished.put((ids[place], step, error)))
        self._under_way.update(ids)

    def recv(self, least: int = 1) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """What has finished, ``least`` at least, first finished first: ``info["env_id"]`` tells whose it is.

        Raises `EpisodeError` where fewer are under way, `NotHere` in a fork, and `SomeFailed`; the others are received
        after it.
        """
        self._held.running.require_same_process()
        if not 0 < least <= len(self._under_way):
            raise EpisodeError(f"{len(self._under_way)} are under way, and {least} cannot be received")
        while len(self._received) < least:  # what has come is there for the next call if this one is interrupted
            self._received.append(self._finished.get())
        with suppress(Empty):
            while True:
                self._received.append(self._finished.get_nowait())
        if failures := {index: error for index, _, error in self._received if error is not None}:
            self._under_way.difference_update(failures)
            # The steps of others are not lost with it.
            self._received = [one for one in self._received if one[-1] is None]
            raise SomeFailed(failures)
        done, self._received = self._received, []
        self._under_way.difference_update(index for index, _, _ in done)
        observations, rewards, terminated, truncated, infos = self._stepped([step for _, step, _ in done])
        infos = _first(infos, len(done)) | {"env_id": np.array([index for index, _, _ in done])}
        return observations, rewards, terminated, truncated, infos

    def close_extras(self, **kwargs: Any) -> None:
        """End all sessions."""
        self._held.close()

    def _require_idle(self, indices: Iterable[int]) -> None:
        if busy := self._under_way.intersection(indices):
            raise EpisodeError(f"these are under way, receive them first: {sorted(busy)}")

    def _works(self, indices: Sequence[int], actions: Any) -> list[Call | int]:
        """What a step is for each, before any is begun: none is if one of the actions is no action."""
        chosen = list(iterate(self._actions_for(len(indices)), actions))
        if len(chosen) != len(indices):
            raise ActionError(f"{len(indices)} actions are wanted, one for each environment, not {len(chosen)}")
        return [self._work(index, action) for index, action in zip(indices, chosen, strict=True)]

    def _work(self, index: int, action: Any) -> Call | int:
        """A call, or the seed of the episode that takes the place of one that has ended."""
        if self._ended[index] and self.autoreset_mode is AutoresetMode.NEXT_STEP:
            return self._seed_of(index, None)
        return self._held.looks.actions.call_for(action)

    async def _advance(self, pool: EnvironmentPool, index: int, work: Call | int) -> _Step:
        play, looks = self._plays[index], self._held.looks
        if isinstance(work, int):
            return _Step(index, await play.reset(pool, work, looks))
        outcome = await play.step(pool, work, looks)
        if self.autoreset_mode is AutoresetMode.SAME_STEP and (outcome.terminated or outcome.truncated):
            return _Step(index, outcome, await play.reset(pool, self._seed_of(index, None), looks))
        return _Step(index, outcome)

    def _stepped(self, steps: list[_Step]) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        infos = self._noted(steps)
        rewards = np.array([one.outcome.reward for one in steps], dtype=np.float64)
        terminated = np.array([one.outcome.terminated for one in steps], dtype=np.bool_)
        truncated = np.array([one.outcome.truncated for one in steps], dtype=np.bool_)
        return self._batch([self._seen[one.index] for one in steps]), rewards, terminated, truncated, infos

    def _noted(self, steps: list[_Step]) -> dict[str, Any]:
        """Where each is now; returns all their infos, as Gymnasium has those of many."""
        infos = []
        for place, one in enumerate(steps):
            outcome, after = one.outcome, one.after
            if after is not None:
                infos.append((place, {"final_obs": outcome.observation, "final_info": outcome.info}))
            self._seen[one.index] = (after or outcome).observation
            infos.append((place, (after or outcome).info))
            self._ended[one.index] = outcome.terminated or outcome.truncated
        return self._infos(infos)

    def _infos(self, infos: list[tuple[int, dict[str, Any]]]) -> dict[str, Any]:
        """The infos at these places in one, as Gymnasium has them.

        Values that do not go into one of its arrays, such as a number at one place and a word at another, are in an
        array of objects: the step has been made, and what it has earned is not lost for that.
        """
        values: dict[str, list[tuple[int, Any]]] = {}
        for place, info in infos:
            for key, value in info.items():
                values.setdefault(key, []).append((place, value))
        made: dict[str, Any] = {}
        for key, placed in values.items():
            made |= self._info_of(key, placed)
        return made

    def _info_of(self, key: str, placed: list[tuple[int, Any]]) -> dict[str, Any]:
        objects = key != "final_obs" and {isinstance(value, dict) for _, value in placed}
        if not objects or objects == {False}:
            with suppress(ValueError, TypeError, OverflowError):
                return reduce(lambda made, one: self._add_info(made, {key: one[1]}, one[0]), placed, {})
        if objects == {True}:
            array: Any = self._infos(placed)
        else:
            array = np.full(self.num_envs, None, dtype=object)
            for place, value in placed:
                array[place] = value
        mask = np.zeros(self.num_envs, dtype=np.bool_)
        mask[[place for place, _ in placed]] = True
        return {key: array, f"_{key}": mask}

    def _batch(self, observations: list[Any]) -> Any:
        space: Space[Any] = self.single_observation_space
        empty: Any = create_empty_array(space, len(observations))
        return concatenate(space, observations, empty)

    def _seed_of(self, index: int, seed: int | None) -> int:
        if seed is None:
            return _drawn(self._generators[index])
        self._generators[index] = seeding.np_random(seed)[0]
        return seed


class _Step:
    """What one of many has done: with ``after``, the beginning of the next episode."""

    __slots__ = ("after", "index", "outcome")

    def __init__(self, index: int, outcome: Outcome, after: Outcome | None = None) -> None:
        self.index, self.outcome, self.after = index, outcome, after


class _Held:
    """A source in use, and what one of its environments looks like."""

    def __init__(self, source: Source, env: str, wishes: Wishes, token: str | None) -> None:
        self.env = env
        self.running = running(source, token=token)
        self._wishes = wishes
        self._plays: list[Play] = []
        self._use = Use(self, self.running, partial(_closing, self._plays))
        try:
            self.looks = self._looked()
        except BaseException:
            self.close()
            raise

    def _looked(self) -> Looks:
        """What it looks like, for which one session of the environment is enough for all who wish the same of it."""
        for wishes, looks in self.running.known.setdefault(self.env, []):
            if wishes == self._wishes:
                return cast("Looks", looks)
        looks = self.running.call(Play(self.env, self._wishes, self.running.aside).look)
        self.running.known[self.env].append((self._wishes, looks))
        return looks

    def play(self) -> Play:
        self._plays.append(Play(self.env, self._wishes, self.running.aside))
        return self._plays[-1]

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        try:
            return self.running.call(function, *args, self.looks)
        except MuxsimError as error:
            for line in getattr(error, "stderr", ()):  # what the environment said last, in the traceback
                error.add_note(line)
            raise

    def close(self) -> None:
        self._use.end()


def _closing(plays: list[Play]) -> Callable[[EnvironmentPool], Awaitable[object]]:
    async def close(pool: EnvironmentPool) -> None:
        failures: dict[int, Exception] = {}

        def tell(index: int, _: None, error: Exception | None) -> None:
            if error is not None:
                failures[index] = error

        await all_at_once(pool, [(play.close, ()) for play in plays], tell)
        if failures:
            raise SomeFailed(failures)

    return close


def make(
    source: Source,
    env: str,
    *,
    actions: Sequence[Any] | None = None,
    observe: Callable[[str], Any] | None = None,
    observation_space: Space[Any] | None = None,
    score: Score | None = None,
    start_timeout: float | None = None,
    call_timeout: float | None = _DEFAULT_WINDOW,
    render_mode: str | None = None,
    token: str | None = None,
) -> MuxsimEnv:
    """An environment of a config file, of a muxsim's URL or of an open pool as a `gymnasium.Env`.

    ``actions`` are calls, ``(tool, arguments)`` or a tool's name, that make the action space `Discrete`; without them
    it is the environment's own, or made of its tools. ``observe`` makes an element of ``observation_space`` of a text.
    ``score`` tells reward, terminated and truncated of a tool's result, for a server without a control plane. Times are
    in seconds. ``render_mode`` is None or ``rgb_array``; ``token`` is for a URL.

    Raises `ConfigError`, `StartError`, `UnknownEnvironment`, `ActionError` or `EpisodeError`.
    """
    wishes = _wishes(actions, observe, observation_space, score, start_timeout, call_timeout)
    return MuxsimEnv(source, env, wishes, render_mode=render_mode, token=token)


def make_vec(
    source: Source,
    env: str,
    *,
    num_envs: int = 1,
    autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
    actions: Sequence[Any] | None = None,
    observe: Callable[[str], Any] | None = None,
    observation_space: Space[Any] | None = None,
    score: Score | None = None,
    start_timeout: float | None = None,
    call_timeout: float | None = _DEFAULT_WINDOW,
    token: str | None = None,
) -> MuxsimVectorEnv:
    """So many sessions as a `gymnasium.vector.VectorEnv`; the rest as for `make`."""
    wishes = _wishes(actions, observe, observation_space, score, start_timeout, call_timeout)
    return MuxsimVectorEnv(source, env, wishes, num_envs, autoreset_mode=autoreset_mode, token=token)


def _wishes(
    actions: Sequence[Any] | None,
    observe: Callable[[str], Any] | None,
    observation_space: Space[Any] | None,
    score: Score | None,
    start_timeout: float | None,
    call_timeout: float | None,
) -> Wishes:
    if observe is not None and observation_space is None:
        raise ValueError("observe needs observation_space, the space of what it returns")
    if observe is None and observation_space is not None and not is_shown(observation_space):
        raise ValueError(
            f"observation_space needs observe: of a text nothing else makes an element of {observation_space}"
        )
    return Wishes(
        actions=None if actions is None else tuple(actions),
        observe=observe,
        observation_space=observation_space,
        score=score,
        start_timeout=start_timeout,
        call_timeout=call_timeout,
    )


def register(source: str | Path, *, namespace: str = NAMESPACE) -> tuple[str, ...]:
    """Give each environment of a config an id, ``muxsim/NAME``, for `gymnasium.make` and `gymnasium.make_vec`.

    Returns the ids. Raises `ConfigError`.
    """
    ids = []
    for env in load(source).environments:
        id = f"{namespace}/{env}"
        # Gymnasium says of a second one with this id that it takes the place of the first.
        if id in gymnasium.registry:
            del gymnasium.registry[id]
        with suppress(gymnasium.error.Error):  # a name that Gymnasium has no id for
            one: Any = partial(make, str(source), env)
            many: Any = partial(make_vec, str(source), env)
            gymnasium.register(id, one, vector_entry_point=many)
            ids.append(id)
    return tuple(ids)


def _drawn(generator: np.random.Generator) -> int:
    return int(generator.integers(_SEEDS))


def _seeds(seed: Any, number: int) -> list[int | None]:
    if seed is None:
        return [None] * number
    if isinstance(seed, int | np.integer):
        return [int(seed) + index for index in range(number)]
    if len(seed) != number:
        raise ValueError(f"seeds as a list are one for each of {number} environments, not {len(seed)}")
    return [None if one is None else int(one) for one in seed]


def _first(infos: dict[str, Any], number: int) -> dict[str, Any]:
    """Infos of so many. Gymnasium's have a place for each environment; a mask has to be as long as what it masks."""
    return {key: _first(one, number) if isinstance(one, dict) else one[:number] for key, one in infos.items()}


def _ids(env_ids: Sequence[int], number: int) -> list[int]:
    ids = [int(index) for index in env_ids]
    if len(set(ids)) < len(ids) or not set(ids) <= set(range(number)):
        raise ValueError(f"env_ids are different numbers from 0 to {number - 1}, not {ids!r:.80}")
    return ids


def _require_no_options(options: Mapping[str, Any] | None) -> None:
    if options:
        raise ValueError(
            f"a session takes no options at its reset, {', '.join(map(str, options))}: what an environment begins "
            "with stands in its config, which may have several of one server"
        )


def _mask(options: dict[str, Any] | None, number: int) -> Any:
    _require_no_options({name: value for name, value in (options or {}).items() if name != "reset_mask"})
    mask = (options or {}).get("reset_mask")
    if mask is None:
        return np.ones(number, dtype=np.bool_)
    if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_:
        raise TypeError(f"reset_mask is a numpy array of bool, not {mask!r:.80}")
    if mask.shape != (number,) or not mask.any():
        raise ValueError(f"reset_mask has {number} elements, one of them true, not {mask!r:.80}")
    return mask


def _register_own() -> None:
    """What ``gymnasium.make("muxsim.adapters.gymnasium_env:muxsim/NAME")`` finds: $MUXSIM_CONFIG, or ./muxsim.toml."""
    with suppress(ConfigError):
        register(os.environ.get("MUXSIM_CONFIG") or find_config(Path.cwd()))


_register_own()
