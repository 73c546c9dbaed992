"""Environments of muxsim for TRL: `environment` gives the class that ``environment_factory`` wants.

    from muxsim.adapters.trl_environment import environment
    trainer = GRPOTrainer(…, environment_factory=environment("muxsim.toml", "frozen_lake"))

Each tool of the environment is a method of the class, each reset a session of its own with the row's seed, and the
reward what the environment's control plane tells. An episode that has broken has no reward: TRL leaves it out.
"""

from __future__ import annotations

import copyreg
import logging
import secrets
import weakref
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, Literal, cast

from muxsim.adapters.dialogue import (
    DEFAULT_CALL_TIMEOUT,
    Dialogue,
    EpisodeBroken,
    EpisodeOver,
    Part,
    Score,
    Terms,
    closing_of,
    looked_at,
    of_its_own,
    open_dialogue,
    text_of,
)
from muxsim.adapters.running import NotHere, Source, Use, portable, running
from muxsim.adapters.typed_tools import typed_tool
from muxsim.errors import Busy, MuxsimError, StartError
from muxsim.rollouts.data.rows import SEED_LIMIT

OnBroken = Literal["skip", "raise"]

_log: Final = logging.getLogger(__name__)
_DEFAULT_SEED_COLUMN: Final = "seed"
# As many as this, one after the other and none whole between: that is no bad luck.
_MOST_BROKEN: Final = 100
_BETWEEN: Final = "\n\n"


class CallRefused(MuxsimError):
    """A tool's own error, or a call that the server did not take; TRL shows it to the model as that."""


@dataclass(frozen=True)
class Wishes:
    """What the user of a class says of it, see `environment`."""

    source: Source
    env: str
    seed_column: str | None = _DEFAULT_SEED_COLUMN
    terms: Terms = field(default_factory=Terms)
    instructions: bool = True
    images: bool = False
    on_broken: OnBroken = "skip"
    token: str | None = None


class EnvironmentClass(type):
    """The type of the classes that `environment` makes, which are pickled by what they were made of."""

    _wishes: Wishes
    _made: bool
    _broken_in_a_row: int
    _instances: weakref.WeakSet[TRLEnvironment]

    def close(cls) -> None:
        """End the sessions of all instances, as the end of the program does; a reset begins again.

        It is not the instances' own: TRL would offer it to the model.
        """
        for one in list(cls._instances):
            one._use.end()


class TRLEnvironment(metaclass=EnvironmentClass):
    """A rollout's environment: constructed once and reset often, by TRL; used by one thread at a time, but by any.

    It has no public method that is not for TRL: all of them would be offered to the model.
    """

    _wishes: Wishes
    _broken_in_a_row = 0

    def __init__(self) -> None:
        self._episode: list[Dialogue] = []
        self._closing: Future[None] | None = None
        self._failure: str | None = None
        self._reward: float | None = None
        self._settled = False
        self._begin_use()
        type(self)._made_class()._instances.add(self)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._episode[0] if self._episode else 'before its first reset'}>"

    def reset(self, /, **row: Any) -> str | list[dict[str, Any]] | None:
        """Begin an episode with the row's seed, or a random one; returns what the environment says at its start.

        Raises `ValueError`: the seed is none.
        """
        wishes, made = self._wishes, type(self)._made_class()
        if made._broken_in_a_row >= _MOST_BROKEN:
            raise StartError(f"the last {_MOST_BROKEN} episodes of {wishes.env} have all broken: {self._failure}")
        seed = _seed_of(row, wishes.seed_column)
        if not self._use.alive:
            self._begin_use()
        self._let_go()
        self._failure, self._reward, self._settled = None, None, False
        try:
            self._episode.append(self._running.call(open_dialogue, wishes.env, seed, wishes.terms))
            blocks = self._beginning()
        except (StartError, Busy, EpisodeBroken) as error:
            self._broke(error.why if isinstance(error, EpisodeBroken) else str(error))
            if wishes.on_broken == "raise":
                raise
            return None
        # It is appended to the prompt's last message as it is.
        between = _BETWEEN if blocks and _is_asked(row.get("prompt")) else ""
        if isinstance(blocks, str):
            return (between + blocks) or None
        return [{"type": "text", "text": between}, *blocks] if between else blocks

    @property
    def failure(self) -> str | None:
        """Why this episode counts for nothing; None if nothing has failed."""
        return self._failure

    @property
    def seed(self) -> int | None:
        """The session's seed."""
        return self._episode[0].seed if self._episode else None

    @property
    def ended(self) -> bool:
        """Whether the environment has ended the episode."""
        return bool(self._episode) and self._episode[0].ended

    @property
    def calls(self) -> int:
        """How many calls have been made in this episode."""
        return self._episode[0].calls if self._episode else 0

    def _begin_use(self) -> None:
        self._running = running(self._wishes.source, token=self._wishes.token)
        self._use = Use(self, self._running, partial(closing_of, self._episode))

    def _call(self, tool: str, arguments: dict[str, Any]) -> str | list[dict[str, Any]]:
        if self._failure is not None:
            raise EpisodeBroken(self._failure)
        if not self._episode or self._settled:
            raise EpisodeOver("there is no episode under way: reset the environment")
        try:
            said = self._running.call(of_its_own(self._episode[0].call), tool, arguments)
            shown = _blocks(said.parts, images=self._wishes.images and not said.is_error)
        except EpisodeBroken as broken:
            self._broke(broken.why)
            raise
        if said.is_error:
            raise CallRefused(shown)
        return shown

    def _beginning(self) -> str | list[dict[str, Any]]:
        told, parts = self._episode[0].beginning(instructions=self._wishes.instructions)
        before = [{"type": "text", "text": told}] if told else []
        return _blocks([*before, *parts], images=self._wishes.images)

    def _earned(self) -> float | None:
        """What the episode has earned; with this it is over. None: it has broken, and its reward is not known."""
        if not self._settled and self._failure is None and self._episode:
            try:
                self._reward = self._running.call(of_its_own(self._episode[0].earned))
                type(self)._made_class()._broken_in_a_row = 0
            except EpisodeBroken as broken:
                self._broke(broken.why)
            self._settled = True
            # Its processes need not wait for the trainer's next step.
            self._close()
        if self._failure is not None and self._wishes.on_broken == "raise":
            raise EpisodeBroken(self._failure) from None
        return self._reward

    @classmethod
    def _made_class(cls) -> EnvironmentClass:
        """The class that `environment` has made, of which this may be a subclass."""
        return next(one for one in cls.__mro__ if isinstance(one, EnvironmentClass) and "_made" in vars(one))

    def _broke(self, why: str) -> None:
        self._failure = why
        type(self)._made_class()._broken_in_a_row += 1
        _log.warning("an episode of %s has broken, and counts for nothing: %s", self._wishes.env, why)
        self._close()

    def _close(self) -> None:
        if self._episode and self._closing is None:
            self._closing = self._running.start(of_its_own(self._episode[0].close))

    def _let_go(self) -> None:
        """End the episode before. The next one need not wait for that."""
        self._close()
        self._closing = None
        self._episode.clear()


def environment(
    source: Source,
    env: str,
    *,
    seed_column: str | None = _DEFAULT_SEED_COLUMN,
    score: Score | None = None,
    max_calls: int | None = None,
    instructions: bool = True,
    images: bool = False,
    on_broken: OnBroken = "skip",
    start_timeout: float | None = None,
    call_timeout: float | None = DEFAULT_CALL_TIMEOUT,
    token: str | None = None,
) -> type[TRLEnvironment]:
    """The class of an environment of a config file, of a muxsim's URL or of an open pool, for ``environment_factory``.

    A session is opened to see its tools, and ended. ``seed_column`` names the column of a row that has its seed.
    ``score`` tells reward, terminated and truncated of a tool's result, for a server without a control plane; without
    either the class has no reward, and the trainer wants ``reward_funcs``. ``max_calls`` truncates an episode.
    With ``instructions`` a reset tells the server's too, and with ``images`` images are blocks for a model that sees,
    which needs Pillow. ``on_broken``: ``skip`` gives an episode that has broken the reward None, which TRL leaves out;
    ``raise`` ends the training. Times are in seconds; ``token`` is for a URL.

    Raises `ConfigError`, `StartError`, `UnknownEnvironment` or `Busy`, and `ValueError`.
    """
    if on_broken not in ("skip", "raise"):
        raise ValueError(f'on_broken = {on_broken!r}: it is "skip" or "raise"')
    terms = Terms(score=score, max_calls=max_calls, start_timeout=start_timeout, call_timeout=call_timeout)
    return _class_of(Wishes(portable(source), env, seed_column, terms, instructions, images, on_broken, token))


def _class_of(wishes: Wishes) -> type[TRLEnvironment]:
    held = running(wishes.source, token=wishes.token)
    try:
        tools, scored = held.call(looked_at, wishes.env, wishes.terms)
    finally:
        held.release()
    members: dict[str, Any] = {
        "__doc__": f"The environment {wishes.env} of {wishes.source}.",
        "__module__": __name__,
        "_wishes": wishes,
        "_made": True,
        "_broken_in_a_row": 0,
        "_instances": weakref.WeakSet(),
    }
    for tool in tools:
        name = tool.name if _is_free(tool.name, members) else _attribute(tool.name, members)
        members[name] = typed_tool(tool).function(TRLEnvironment._call)
    if scored:

        def get_reward(self: TRLEnvironment) -> float | None:
            """What the episode has earned; with this it is over. None: it has broken, and its reward is not known."""
            return self._earned()

        members["get_reward"] = get_reward
    # TRL shows the reward under the class's name.
    return cast("type[TRLEnvironment]", EnvironmentClass(wishes.env, (TRLEnvironment,), members))


def _is_free(name: str, members: Mapping[str, Any]) -> bool:
    taken = name in members or hasattr(TRLEnvironment, name) or name == "get_reward"
    return name.isidentifier() and not name.startswith("_") and not taken


def _attribute(name: str, members: Mapping[str, Any]) -> str:
    """Where a method stands that cannot stand under its tool's name: a model calls it by that all the same."""
    safe = "".join(one if one.isalnum() and one.isascii() else "_" for one in name)
    found, number = f"call_{safe}", 1
    while not _is_free(found, members):
        number += 1
        found = f"call_{safe}_{number}"
    return found


def _reduced(cls: EnvironmentClass) -> Any:
    """How a class is pickled: one that was made here is made again, one that somebody wrote is found by its name."""
    if "_made" not in vars(cls):
        return cls.__qualname__
    wishes = cls._wishes
    if not isinstance(wishes.source, str):
        raise TypeError(
            f"{cls.__name__} is of a pool that is open, which no other process has: make it of a config file or a URL"
        )
    return _class_of, (wishes,)


copyreg.pickle(EnvironmentClass, _reduced)


def _seed_of(row: Mapping[str, Any], column: str | None) -> int:
    if column is not None and column != _DEFAULT_SEED_COLUMN and column not in row:
        raise ValueError(f"seed_column = {column!r}: the row has no such column; it has {', '.join(row)}")
    seed = None if column is None else row.get(column)
    if seed is None:
        return secrets.randbelow(SEED_LIMIT)
    if isinstance(seed, float) and seed.is_integer():  # a table's column in which some are missing
        return int(seed)
    return seed if isinstance(seed, bool) or not hasattr(seed, "__index__") else int(seed)


def _is_asked(prompt: Any) -> bool:
    """Whether a row's own prompt says anything in its last message."""
    return isinstance(prompt, list) and bool(prompt) and bool(prompt[-1].get("content"))


def _blocks(parts: list[Part], *, images: bool) -> str | list[dict[str, Any]]:
    """What TRL shows a model: text, or a list of blocks if there is an image that it is to see."""
    if not images or all(part["type"] == "text" for part in parts):
        return text_of(parts)
    return [part if part["type"] == "text" else {"type": "image", "image": _image(part)} for part in parts]


def _image(part: Part) -> Any:
    from muxsim.adapters.pictures import NoPicture, picture_of  # noqa: PLC0415  # only for those who want images

    try:
        return picture_of(part["image_url"]["url"].partition(",")[2])
    except NoPicture as error:
        raise EpisodeBroken(f"an image cannot be read: {error}") from None


__all__ = ["CallRefused", "EpisodeBroken", "EpisodeOver", "NotHere", "TRLEnvironment", "environment"]
