"""`GymServer`: one episode of a `gymnasium.Env` as one stdio MCP server."""

import argparse
import os
import random
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

import numpy as np
from mcp.server.lowlevel import Server
from mcp_types import ToolAnnotations

from muxsim.mcpgym.control import ControlPlane, begun
from muxsim.mcpgym.errors import UnsupportedSpace
from muxsim.mcpgym.observation import Content, Describe, Env, Form, FrameSize, Observer
from muxsim.mcpgym.protocol import Endpoint
from muxsim.mcpgym.space_json import space_to_json
from muxsim.mcpgym.tools import Tool, function_tool, step_tool
from muxsim.mcpgym.wire import Connection

SEED_VARIABLE = "MUXSIM_SEED"

Make: TypeAlias = Callable[[int], Env]
"""Makes the environment. The seed is for what is fixed at creation, such as a map: `reset` gets it too."""

# Any number of digits is a seed, but those that are made up here people may have to type again.
_RANDOM_SEEDS = 2**31
_NUMPY_SEEDS = 2**32

_FIRST_OBSERVATION = "{observation}"
_STEP = "step"

# Pixels on a side. Above it a typing error would take minutes and gigabytes for each step.
_LARGEST_FRAME = 4096

_FunctionT = TypeVar("_FunctionT", bound=Callable[..., Any])


@dataclass(slots=True)
class _Episode:
    env: Env
    control: ControlPlane
    observer: Observer
    observation: Any


class GymServer:
    """Serves one episode of an environment over stdin and stdout.

    Args:
        name: the server's name in MCP.
        make: makes the environment from the seed.
        describe: the observation in words for the agent; without it the agent reads JSON.
        observation: "text", "image" (the frame that the environment renders), or "text+image".
        frame_size: width and height of images, in pixels, unless `--frame-size` says otherwise; without either they
            are as large as the environment renders them.
        actions: names for the elements of a Discrete action space, which the tool `step` then takes.
        instructions: for the agent, before it plays. `{observation}` becomes the first observation's text.

    Without a `@server.tool()` the agent gets one tool, `step`, made from the action space.

    Same seed and same actions give the same episode: `make` and `reset` get the seed, and both spaces, Python's
    `random` and numpy's global generator are seeded with it. Only the order of a set of strings is out of reach:
    it follows PYTHONHASHSEED, which has to be in place before Python starts.
    """

    def __init__(
        self,
        name: str,
        make: Make,
        *,
        describe: Describe | None = None,
        observation: Form = "text",
        frame_size: FrameSize | None = None,
        actions: Sequence[str] | None = None,
        title: str | None = None,
        version: str = "",
        instructions: str | None = None,
    ) -> None:
        self.name = name
        self.parser = argparse.ArgumentParser(description=title or f"{name}: a stdio MCP server")
        self.parser.add_argument(
            "--seed",
            type=_seed,
            help=f"seed of the episode (default: ${SEED_VARIABLE}, or else a random one)",
        )
        self._options: argparse.Namespace | None = None
        self._make = make
        self._observer = Observer(observation, describe)
        if self._observer.shows_images:
            self._add_frame_size_option(frame_size)
        self._actions = actions
        self._title = title
        self._version = version
        self._instructions = instructions
        self._tools: dict[str, Tool] = {}
        self._episode: _Episode | None = None

    def __repr__(self) -> str:
        state = repr(self._episode.control) if self._episode else "not started"
        return f"<GymServer {self.name!r} {state}>"

    def tool(
        self,
        name: str | None = None,
        *,
        title: str | None = None,
        description: str | None = None,
        annotations: ToolAnnotations | None = None,
    ) -> Callable[[_FunctionT], _FunctionT]:
        """Decorator: the function is a tool, with a schema from its parameters and its docstring.

        It acts on the environment by `step`, as often as it likes, and returns what the agent shall read:
        what `step` returned, text, content blocks, or anything that has a JSON form. It runs on the main
        thread, one call at a time, and may be a coroutine function.
        """

        def register(function: _FunctionT) -> _FunctionT:
            tool = function_tool(function, name=name, title=title, description=description, annotations=annotations)
            if tool.definition.name in self._tools:
                raise ValueError(f"there is a tool {tool.definition.name!r} already")
            self._tools[tool.definition.name] = tool
            return function

        return register

    @property
    def options(self) -> argparse.Namespace:
        """What the command line said, for `make` to read; the defaults of `parser` unless `run` has read one."""
        return self._options or self.parser.parse_args([])

    @property
    def env(self) -> Env:
        """The environment. Raises: RuntimeError: `start` has not made it yet."""
        return self._started().env

    @property
    def control(self) -> ControlPlane:
        """Rewards and end of the episode, so far. Not for the agent."""
        return self._started().control

    @property
    def observation(self) -> Any:
        """The last observation, as the environment gave it."""
        return self._started().observation

    def step(self, action: Any) -> Content:
        """Do `env.step(action)` and return the observation for the agent.

        Raises:
            EpisodeEnded: the episode is over. Nothing has happened.
            EnvironmentFailed: the environment raised, or returned what Gymnasium does not allow.
        """
        episode = self._started()
        episode.control.require_running()
        try:
            returned = episode.env.step(action)
        except Exception as error:
            number = episode.control.step + 1
            told = f"the environment failed in step {number} ({type(error).__name__})"
            raise episode.control.fail(told, error) from error
        episode.observation = episode.control.record(returned).observation
        return self.observe()

    def observe(self) -> Content:
        """The last observation for the agent, once more: for a tool that only looks."""
        episode = self._started()
        return episode.observer.content(episode.observation, episode.env)

    def start(self, seed: int) -> Server[Any]:
        """Make and reset the environment; returns the SDK's server of this episode, connected to nothing yet.

        Raises:
            UnsupportedSpace: the tool `step` cannot be made from the action space.
            ValueError: the environment does not fit what the constructor was told.
        """
        endpoint = self._new_endpoint()
        self._begin(endpoint, seed)
        return endpoint.server

    def run(self, arguments: Sequence[str] | None = None) -> None:
        """Serve on stdin and stdout until stdin ends. Reads `--seed N` from the command line.

        What the author added to `parser` is in `options` when `make` is called. From here on, fd 1 is
        stderr to everybody else: environments may print what they like. (What a script prints before this
        goes the same way if Python buffers it, and to the client if PYTHONUNBUFFERED is set.)
        """
        endpoint = self._new_endpoint()
        # Before anything is asked of the session: a fork of muxsim's may have come here before there is one.
        with Connection(endpoint.server) as connection:
            self._options = self.parser.parse_args(arguments)
            seed = self._chosen_seed()
            connection.divert()
            if self._observer.shows_images:
                _draw_off_screen()
            self._begin(endpoint, seed)
            try:
                connection.serve()
            finally:
                self.env.close()

    def _new_endpoint(self) -> Endpoint:
        return Endpoint(self.name, title=self._title, version=self._version)

    def _begin(self, endpoint: Endpoint, seed: int) -> None:
        _seed_global_generators(seed)
        observer = self._chosen_observer()
        env = self._make(seed)
        observer.require_fit(env)
        _seed_spaces(env, seed)  # reset may sample from them
        observation, info = begun(env.reset(seed=seed))
        _seed_spaces(env, seed)  # and may have put others in their place
        plain = observer.plain(observation, env)
        control = ControlPlane(seed=seed, observation=plain, info=info, first=observation, spaces=self._spaces)
        self._episode = _Episode(env, control, observer, observation)
        endpoint.begin(self._tools or self._default_tools(env), control, self._first_instructions())

    def _chosen_seed(self) -> int:
        if self.options.seed is not None:  # 0 is a seed
            return int(self.options.seed)
        if given := os.environ.get(SEED_VARIABLE):
            try:
                return _seed(given)
            except argparse.ArgumentTypeError as error:
                self.parser.error(f"environment variable {SEED_VARIABLE}: {error}")
        return secrets.randbelow(_RANDOM_SEEDS)

    def _add_frame_size_option(self, default: FrameSize | None) -> None:
        shown = "x".join(map(str, default)) if default else "as rendered"
        self.parser.add_argument(
            "--frame-size",
            type=_frame_size,
            default=default,
            metavar="WIDTHxHEIGHT",
            help=f"pixels of the images that the agent sees (default: {shown})",
        )

    def _chosen_observer(self) -> Observer:
        return self._observer.resized(self.options.frame_size) if self._observer.shows_images else self._observer

    def _spaces(self) -> dict[str, Any]:
        """For trainers: the spaces, null for one that JSON cannot write down, and the tool `step`, if that is one."""
        env, told = self._started().env, dict[str, Any]()
        for name, space in (("action", env.action_space), ("observation", env.observation_space)):
            try:
                told[name] = space_to_json(space)
            except UnsupportedSpace:
                told[name] = None
        return {**told, "step": None if self._tools else {"tool": _STEP, "names": self._actions and [*self._actions]}}

    def _default_tools(self, env: Env) -> dict[str, Tool]:
        description = "Take one step in the environment. Returns what you observe then."
        tool = step_tool(env.action_space, self.step, name=_STEP, description=description, actions=self._actions)
        return {tool.definition.name: tool}

    def _first_instructions(self) -> str | None:
        if self._instructions is None or _FIRST_OBSERVATION not in self._instructions:
            return self._instructions
        episode = self._started()
        return self._instructions.replace(_FIRST_OBSERVATION, episode.observer.text(episode.observation, episode.env))

    def _started(self) -> _Episode:
        if self._episode is None:
            raise RuntimeError(f"{self.name} has not been started: there is no environment yet")
        return self._episode


def _seed(text: str) -> int:
    # isdecimal() alone would let other scripts' digits pass, which int() reads, but nobody means.
    if not (text.isascii() and text.isdecimal()):
        raise argparse.ArgumentTypeError(f"a seed is a whole number from 0 on, not {text!r}")
    return int(text)


def _frame_size(text: str) -> FrameSize:
    sides = text.split("x")
    if len(sides) != 2 or not all(side.isascii() and side.isdecimal() for side in sides):
        raise argparse.ArgumentTypeError(f"a frame size is like 300x200, not {text!r}")
    width, height = map(int, sides)
    if not (0 < width <= _LARGEST_FRAME and 0 < height <= _LARGEST_FRAME):
        raise argparse.ArgumentTypeError(f"the sides of a frame are from 1 to {_LARGEST_FRAME} pixels, not {text}")
    return width, height


def _seed_spaces(env: Env, seed: int) -> None:
    env.action_space.seed(seed)
    env.observation_space.seed(seed)


def _draw_off_screen() -> None:
    """For environments that draw with pygame, some of which open a display and a sound device even for
    `rgb_array`. The agent's frames need neither, and a server may have none."""
    os.environ["SDL_VIDEODRIVER"] = os.environ["SDL_AUDIODRIVER"] = "dummy"


def _seed_global_generators(seed: int) -> None:
    """For environments that do not keep to `self.np_random`."""
    random.seed(seed)
    np.random.seed(seed % _NUMPY_SEEDS)
