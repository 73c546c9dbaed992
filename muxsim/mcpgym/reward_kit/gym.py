"""`McpGym` and its elder `GymProductionServer`: one episode of an adapter's environment over stdio.

reward-kit's servers keep the sessions of all their clients. Here muxsim gives each session a process of its own, so
there is one session, whose environment has the seed of the process; the methods that look for it always find it.
"""

import dataclasses
import functools
import inspect
import json
import logging
import os
import random
import secrets
import threading
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import date
from typing import Any, ClassVar

import numpy as np
from mcp.shared.exceptions import MCPError
from mcp_types import CallToolResult

from muxsim.mcpgym.errors import EnvironmentFailed, EpisodeEnded, ToolError
from muxsim.mcpgym.jsonable import to_json
from muxsim.mcpgym.protocol import is_exact
from muxsim.mcpgym.reward_kit.contents import first_observation, for_agent
from muxsim.mcpgym.reward_kit.context import Context
from muxsim.mcpgym.reward_kit.endpoints import (
    INITIAL_STATE,
    SCHEME,
    control_plane_endpoint,
    endpoints_of,
)
from muxsim.mcpgym.reward_kit.fastmcp import FastMCP, failed_result
from muxsim.mcpgym.reward_kit.given import SPACES, Given
from muxsim.mcpgym.reward_kit.score import Score, State, ended, info_of, new_state

_SEED_VARIABLE = "MUXSIM_SEED"
_RANDOM_SEEDS = 2**31
_NUMPY_SEEDS = 2**32
_SESSION = "session"
_BROKEN = "the environment has failed: no further step is possible in this session"
_OVER = "the episode has ended: no further step is possible in this session"
# With these in a server's own words, muxsim reads them; else it is told with each result.
_SCORED = frozenset({f"{SCHEME}reward", f"{SCHEME}status"})

logger = logging.getLogger(__name__)


class GymProductionServer(ABC):
    """Serves one episode of the environment that `adapter` makes.

    Subclasses have `_register_tools`, which registers tools with `@self.mcp.tool()`, and `format_observation`.

    The environment's seed is `seed`, else `MUXSIM_SEED`, else a random one; 0 is a seed. Python's and numpy's global
    generators have it too. Every step that the adapter makes of this environment is on the control plane, whoever asked
    for it, unless the server has written it there itself (`_update_control_plane`).
    """

    hidden_from_agent: ClassVar[frozenset[str]] = frozenset(
        {"reward", "total_reward", "terminated", "truncated", "info"}
    )
    """Members of a tool's result that are the control plane's: they are taken out of it."""

    hidden_tools: ClassVar[frozenset[str]] = frozenset({"get_control_plane_state"})
    """Tools that are not the agent's: they are taken from the list, as the control plane tells the same."""

    def __init__(self, name: str, adapter: Any, seed: int | None = None, **_settings: Any) -> None:
        self.adapter = adapter
        self.seed = _chosen_seed(seed)
        self.session_lock = threading.Lock()
        self._score = Score()
        self._watch(adapter)
        # Nobody looks: pygame is to open neither a display nor a sound device.
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
        os.environ.setdefault("SDL_AUDIODRIVER", "dummy")
        random.seed(self.seed)
        np.random.seed(self.seed % _NUMPY_SEEDS)
        env, obs, info = self._new_env(seed=self.seed)
        self._first_info = info
        self._given = Given(env, obs, info)
        self.control_plane_state: State = new_state()
        own: dict[str, Any] = {"control_plane": self.control_plane_state}
        self.sessions: dict[str, dict[str, Any]] = {
            _SESSION: {"env": env, "obs": obs, "session_data": own, "session_id": _SESSION}
        }
        self.mcp = FastMCP(name)
        self.mcp.score_with(_Scored(self, self._score))
        self._register_resources()
        self._register_tools()
        self.mcp.hide(self.hidden_tools)
        self.mcp.name_actions(self.action_names)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.mcp.name!r} seed={self.seed} {dict(self._state())!r:.120}>"

    @property
    def action_names(self) -> Sequence[str]:
        """What agents may write for an action, () if that is not known: what most adapters have, under their names."""
        names = getattr(self.adapter, "ACTION_NAMES", None) or getattr(self.adapter, "action_map", None) or ()
        return [*names] if all(isinstance(name, str) for name in names) else ()

    @property
    def env(self) -> Any:
        """The environment."""
        return self.sessions[_SESSION]["env"]

    @env.setter
    def env(self, env: Any) -> None:
        self.sessions[_SESSION]["env"] = env

    @property
    def obs(self) -> Any:
        """The last observation, as the environment gave it."""
        return self.sessions[_SESSION]["obs"]

    @obs.setter
    def obs(self, observation: Any) -> None:
        self.sessions[_SESSION]["obs"] = observation

    @abstractmethod
    def _register_tools(self) -> None:
        """Register the agent's tools with `@self.mcp.tool()`."""

    def _register_resources(self) -> None:  # noqa: B027  # most servers have none
        """Register resources with `@self.mcp.resource(uri)`; there are none but those of a subclass."""

    def format_observation(self, obs: Any, env: Any) -> dict[str, Any]:
        """The observation as the agent is to see it, as JSON."""
        plain = self._to_json_serializable(obs)
        return plain if isinstance(plain, dict) else {"observation": plain}

    def run(self, transport: str = "stdio", **_options: Any) -> None:
        """Serve on stdin and stdout until stdin ends, whatever the `transport` is called."""
        try:
            self.mcp.run(transport)
        finally:
            self.adapter.close_environment(self.env)

    def extract_seed_from_context(self, ctx: Context) -> int:
        """The seed of the process. Nothing is reset: the environment has it from the start."""
        return self.seed

    def _get_session_id(self, ctx: Context) -> str:
        return _SESSION

    def _get_or_create_session(self, ctx: Context) -> dict[str, Any]:
        return self.sessions[_SESSION]

    def _new_env(self, seed: int | None = None) -> tuple[Any, Any, dict[str, Any]]:
        config = self._get_default_config()
        if hasattr(self.adapter, "create_environment_with_seed"):
            env, obs, info = self.adapter.create_environment_with_seed(config, seed=seed)
            return env, obs, info
        env = self.adapter.create_environment(config)
        obs, info = self.adapter.reset_environment(env, seed=seed)
        return env, obs, info

    def _get_default_config(self) -> Any:
        get = getattr(self.adapter, "get_default_config", None)
        return {} if get is None else get()  # whatever the adapter's own create_environment takes

    def _render(self, obs: Any) -> dict[str, Any]:
        return self.format_observation(obs, self.env)

    def _execute_environment_step(self, action_int: Any) -> dict[str, Any]:
        return self._execute_session_environment_step(_SESSION, action_int)

    def _execute_session_environment_step(self, session_id: str, action: Any) -> dict[str, Any]:
        session = self.sessions[session_id]
        obs, reward, terminated, truncated, info = self.adapter.step_environment(session["env"], action)
        session["obs"] = obs
        self._update_session_control_plane(session_id, reward, terminated, truncated, info)
        return self.format_observation(obs, session["env"])

    def _update_control_plane(self, reward: Any, terminated: Any, truncated: Any, info: Any) -> None:
        self._update_session_control_plane(_SESSION, reward, terminated, truncated, info)

    def _update_session_control_plane(
        self, session_id: str, reward: Any, terminated: Any, truncated: Any, info: Any
    ) -> None:
        self._score.record(self._get_or_create_session_control_plane(session_id), reward, terminated, truncated, info)

    def _get_or_create_session_control_plane(self, session_id: str) -> State:
        state: State = self.sessions[session_id]["session_data"].setdefault("control_plane", new_state())
        return state

    def get_control_plane_state(self, session_id: str) -> dict[str, Any] | None:
        """A copy of the session's control plane; None for a session that there is not."""
        return dict(self._get_or_create_session_control_plane(session_id)) if session_id in self.sessions else None

    def _get_session_control_plane_from_data(self, session_data: Mapping[str, Any]) -> State:
        state: State = session_data.get("session_data", {}).get("control_plane") or new_state()
        return state

    @control_plane_endpoint("/control/reward")
    def get_reward_endpoint(self, session_data: dict[str, Any]) -> dict[str, Any]:
        """What the last step has earned."""
        state = self._get_session_control_plane_from_data(session_data)
        return {"reward": state.get("reward", 0.0), "step_count": state.get("step_count", 0)}

    @control_plane_endpoint("/control/status")
    def get_status_endpoint(self, session_data: dict[str, Any]) -> dict[str, Any]:
        """How far the episode is."""
        state = self._get_session_control_plane_from_data(session_data)
        return {
            "terminated": state.get("terminated", False),
            "truncated": state.get("truncated", False),
            "step_count": state.get("step_count", 0),
            "total_reward": state.get("total_reward", 0.0),
        }

    @control_plane_endpoint("/control/info")
    def get_info_endpoint(self, session_data: dict[str, Any]) -> dict[str, Any]:
        """The info of the last step."""
        return info_of(self._get_session_control_plane_from_data(session_data))

    @control_plane_endpoint("/control/initial_state")
    def get_initial_state_endpoint(self, session_data: dict[str, Any]) -> Any:
        """The first observation, as the agent is to see it."""
        return self.format_observation(session_data["obs"], session_data["env"])

    def _to_json_serializable(self, obj: Any) -> Any:
        if hasattr(obj, "model_dump"):
            return obj.model_dump(mode="json")
        if isinstance(obj, date):
            return obj.isoformat()
        if isinstance(obj, dict):
            return {str(key): self._to_json_serializable(value) for key, value in obj.items()}
        if isinstance(obj, list | tuple):
            return [self._to_json_serializable(item) for item in obj]
        if hasattr(obj, "__dict__") and not dataclasses.is_dataclass(obj) and not isinstance(obj, type):
            return {key: self._to_json_serializable(one) for key, one in vars(obj).items() if not key.startswith("_")}
        return to_json(obj, lenient=True)

    def _state(self) -> State:
        return self._get_or_create_session_control_plane(_SESSION)

    def _watch(self, adapter: Any) -> None:
        """See every step of the environment, also those of a server that keeps no control plane itself."""
        step = adapter.step_environment

        def seen(env: Any, action: Any, *more: Any, **named: Any) -> Any:
            if env is not self.env:  # some other of the server's own
                return step(env, action, *more, **named)
            if self._score.failed is not None:
                raise EnvironmentFailed(_BROKEN)
            if ended(self._state()):
                raise EpisodeEnded(_OVER)
            self._score.moved = True
            try:
                returned = step(env, action, *more, **named)
                obs, reward, terminated, truncated, info = returned
            except ToolError:  # an adapter's own word that nothing has happened
                self._score.moved = False
                raise
            except Exception as error:
                self._score.fail("the environment failed in a step", error)
                raise EnvironmentFailed(f"the environment failed ({type(error).__name__})") from error
            self._score.stepped(reward, terminated, truncated, info)
            self._given.last = obs, info
            return returned

        adapter.step_environment = seen


class McpGym(GymProductionServer):
    """The same under its later name. `max_workers` is for servers of many sessions, and does nothing here."""

    def __init__(
        self, server_name: str, adapter: Any, seed: int | None = None, max_workers: int | None = None, **settings: Any
    ) -> None:
        super().__init__(server_name, adapter, seed, **settings)


class _Scored:
    """Stands around the calls of a server: muxsim's control plane (docs/environments.md), of reward-kit's."""

    def __init__(self, server: GymProductionServer, score: Score) -> None:
        self._server = server
        self._score = score
        self._first: str | None = None

    @functools.cached_property
    def _endpoints(self) -> dict[str, Callable[..., Any]]:
        return endpoints_of(self._server)

    @functools.cached_property
    def resources(self) -> Mapping[str, Callable[[], Awaitable[str]]]:
        readers = {uri: self._reader(uri, endpoint) for uri, endpoint in self._endpoints.items()}
        spaces = None if self._says_itself else self._server._given.spaces()
        return readers if spaces is None else {SPACES: _saying(spaces), **readers}

    @functools.cached_property
    def exact_resources(self) -> Mapping[str, Callable[[], Awaitable[str]]]:
        return {INITIAL_STATE: self._exact_initial_state}

    async def call(self, run: Callable[[], Any], *, wish: Any) -> tuple[CallToolResult, dict[str, Any] | None]:
        if self._score.failed is not None:
            return failed_result(EnvironmentFailed(_BROKEN)), self._told(wish, refused=True)
        await self._initial_state()
        self._score.begin(self._server._state())
        result = await self._run(run)
        self._score.settle(self._server._state())
        return result, self._told(wish, refused=bool(result.is_error))

    def _told(self, wish: Any, *, refused: bool) -> dict[str, Any] | None:
        # Read by muxsim where the server says itself what its reward and status are.
        if not (wish is True or isinstance(wish, Mapping)) or self._says_itself:
            return None
        told = self._score.of_call(self._server._state(), refused=refused)
        return told if told["reward"] is None or not is_exact(wish) else {**told, **self._server._given.exact()}

    @functools.cached_property
    def _says_itself(self) -> bool:
        of_server = {uri for uri in _SCORED if not _is_ours(self._endpoints[uri])}
        return bool(of_server or _SCORED & self._server.mcp.own_resources)

    async def _run(self, run: Callable[[], Any]) -> CallToolResult:
        try:
            value = run()
            value = await value if inspect.isawaitable(value) else value
            return for_agent(value, self._server.hidden_from_agent)
        except ToolError as error:
            if error.__cause__ is not None:
                logger.warning("%s", error, exc_info=error.__cause__)
            return failed_result(error)
        except MCPError:
            raise
        except Exception as error:  # whatever the author's code raises
            logger.warning("a tool has failed", exc_info=True)
            if not self._score.moved:  # it has refused what the agent wanted, as reward-kit's tools do
                return failed_result(error)
            self._score.fail("a tool failed after its step", error)
            return failed_result(EnvironmentFailed(f"the tool failed ({type(error).__name__})"))

    def _reader(self, uri: str, endpoint: Callable[..., Any]) -> Callable[[], Awaitable[str]]:
        async def read() -> str:
            if uri == INITIAL_STATE:
                return await self._initial_state()
            value = endpoint(session_data=self._server.sessions[_SESSION])
            value = to_json(await value if inspect.isawaitable(value) else value, lenient=True)
            if uri == f"{SCHEME}status" and isinstance(value, dict):
                value = {**value, **self._score.failure()}
            return json.dumps(value, ensure_ascii=False)

        return read

    async def _exact_initial_state(self) -> str:
        """With what the reset gave, before the first step: environments use arrays again."""
        told = json.loads(await self._initial_state())
        begun = self._score.moved or int(self._server._state().get("step_count", 0))
        return json.dumps(told if begun else {**told, **self._server._given.exact()}, ensure_ascii=False)

    async def _initial_state(self) -> str:
        """Made once, before the first step: an observation is often drawn from where the environment is."""
        if self._first is None:
            value = self._endpoints[INITIAL_STATE](session_data=self._server.sessions[_SESSION])
            value = await value if inspect.isawaitable(value) else value
            info = to_json(self._server._first_info or {}, lenient=True)
            told = {"observation": first_observation(value), "info": info, "seed": self._server.seed}
            self._first = json.dumps(told, ensure_ascii=False)
        return self._first


def _saying(value: Any) -> Callable[[], Awaitable[str]]:
    async def read() -> str:
        return json.dumps(value, ensure_ascii=False)

    return read


def _is_ours(endpoint: Callable[..., Any]) -> bool:
    function = getattr(endpoint, "__func__", endpoint)
    return function.__module__ == __name__


def _chosen_seed(seed: int | None) -> int:
    if seed is not None:
        return int(seed)
    given = os.environ.get(_SEED_VARIABLE, "")
    if given.isascii() and given.isdecimal():
        return int(given)
    if given:
        raise ValueError(f"{_SEED_VARIABLE}: a seed is a whole number from 0 on, not {given!r}")
    return secrets.randbelow(_RANDOM_SEEDS)
