"""What one OpenEnv client plays: one session of an environment after another, as frames ask for it.

The trainer's side (`Play.reset`, `Play.call`, `Play.state`) has reward and ends apart from what an agent may see; the
agent's (`Play.agent_tools`, `Play.agent_call`) has none of them. Nothing is started before it is needed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar

import msgspec
from msgspec import Raw

from muxsim.adapters import openenv_frames as frames
from muxsim.adapters.openenv_frames import Fault, Observed, Refused, Tools
from muxsim.errors import Busy, MuxsimError, StartError
from muxsim.placement.last_words import with_unsaid
from muxsim.rollouts.environments.answers import Malformed, read_result
from muxsim.rollouts.environments.environment import Tool, ToolResult
from muxsim.rollouts.environments.mcp_environment import Channel, MCPEnvironment, ask, fault_of, list_tools
from muxsim.session.agent_answers import Withheld
from muxsim.session.control.ledger import STEP, TOTAL, count_in, number_in
from transports.errors import INTERNAL_ERROR, INVALID_PARAMS
from transports.messages import Kind, Message

T = TypeVar("T")

# JSON-RPC's code for what only this server knows.
_SERVER_ERROR: Final = -32000
_WITHHELD: Final = "what the environment has said is not for an agent"
_NEVER_RESET: Final = (
    "no reset came before this on this socket: the session began with a seed that was drawn. So begins, unsaid, "
    "what a client that has lost its socket takes for the rest of its episode"
)
_SHARED: Final = "this environment is shared: a reset joins it where it stands, with the seed that it has"


class Live(Protocol):
    """A session of the server that goes on, or has ended by itself."""

    @property
    def environment(self) -> MCPEnvironment:
        """It, as its trainer plays it."""

    @property
    def channel(self) -> Channel:
        """What its trainer says."""

    @property
    def agent(self) -> Channel:
        """What an agent says: whatever comes of it has passed the wall."""

    @property
    def shared(self) -> bool:
        """Whether it is one for all."""

    def ended(self) -> str:
        """Why it has ended; "" while it goes on."""

    def end(self) -> None:
        """End it, or leave it if it is there for all. At once, and harmless again."""


class Stage(Protocol):
    """Where sessions come from: for one client, of one environment."""

    @property
    def env(self) -> str:
        """The environment's name."""

    async def open(self, seed: int | None) -> Live:
        """Begin a session and shake hands. Raises `Busy`, `StartError` or `UnknownEnvironment`."""

    def room(self) -> dict[str, int]:
        """How many sessions there are, and may be."""

    def catalogue(self) -> Tools | None:
        """The tools of the last session that anybody had of this environment, as it is configured now."""

    def remember(self, tools: Tools) -> None:
        """Those of a session that has begun."""


@dataclass
class _Episode:
    """A session, and what is known of how far it is."""

    live: Live
    tools: Tools
    id: str
    was_reset: bool
    steps: int = 0
    total: float | None = None
    ends: tuple[bool, bool] = (False, False)
    crossed: bool = False
    """Whether an agent has played too, whose calls tell nothing of what they earned."""

    @property
    def seed(self) -> int:
        return self.live.environment.seed


class Play:
    """One client's. Calls of one side come one after another; those of both sides may cross."""

    def __init__(self, id: str, stage: Stage) -> None:
        self.id = id
        self.over = False
        self._stage = stage
        self._episode: _Episode | None = None
        self._beginning = asyncio.Lock()

    def __repr__(self) -> str:
        return f"<Play of {self._stage.env}, {self._episode or 'nothing begun'}>"

    # ---- the trainer's side

    async def reset(self, wish: frames.Reset) -> Observed:
        """Begin an episode in a session of its own, and end the one before. Raises `Fault`."""
        async with self._beginning:
            self._end_episode()
            episode = await self._trainers(self._begin(wish.seed, wish.episode_id, was_reset=True))
        opened = episode.live.environment.opened
        state = opened.initial_state if isinstance(opened.initial_state, dict) else {}
        metadata = {
            **self._metadata(episode),
            "info": state.get("info") or {},
            "instructions": opened.instructions,
        }
        if episode.live.shared:
            metadata["warning"] = _SHARED
        shown = _shown(state.get("observation", opened.instructions))
        return Observed(_walled(shown), None, False, metadata)

    async def list_tools(self) -> Observed:
        """What tools there are. Raises `Fault`."""
        tools = await self._trainers(self._tools(lambda live: live.channel))
        observation = {"tools": _rows(tools, "input_schema")}
        episode = self._episode
        if episode is None:
            return Observed(observation, None, False, {"env": self._stage.env})
        return Observed(observation, None, any(episode.ends), self._metadata(episode))

    async def call(self, wish: frames.CallTool) -> Observed:
        """Make a call: a step of the episode, unless it is refused. Raises `Fault`."""
        return await self._trainers(self._step(wish))

    async def state(self) -> dict[str, Any]:
        """Where the episode is. Raises `Fault`."""
        episode = self._episode
        if episode is None:
            return {"episode_id": None, "step_count": 0, "metadata": {"env": self._stage.env}}
        if episode.crossed and not episode.live.ended():
            await self._look(episode)
        return {"episode_id": episode.id, "step_count": episode.steps, "metadata": self._metadata(episode)}

    def end(self) -> None:
        """End what goes on; nothing begins any more. At once, and harmless again."""
        self.over = True
        self._end_episode()

    # ---- the agent's side

    async def agent_tools(self) -> Raw:
        """What tools there are, as a result of ``tools/list``. Raises `Refused`."""
        tools = await _agents(self._tools(lambda live: live.agent))
        try:
            return Raw(msgspec.json.encode({"tools": tools.rows("inputSchema")}))
        except Withheld:
            raise Refused(INTERNAL_ERROR, _WITHHELD) from None

    async def agent_call(self, name: Any, arguments: Any) -> Raw:
        """Make a call for an agent. Raises `Refused`, also for what a tool says of its failure."""
        if not isinstance(name, str):
            raise Refused(INVALID_PARAMS, "name must be that of a tool")
        if not isinstance(arguments, dict | None):
            raise Refused(INVALID_PARAMS, "arguments must be an object")
        episode = await _agents(self._going())
        try:
            own = episode.tools.called(name)
        except LookupError as unknown:
            raise Refused(INVALID_PARAMS, str(unknown)) from None
        episode.crossed = True
        params = {"name": own, "arguments": arguments or {}}
        answer: Message = await _agents(ask(episode.live.agent, "tools/call", params, None))
        if answer.kind is Kind.ERROR:
            raise Refused(INTERNAL_ERROR, fault_of(answer).message)
        try:
            result, _ = read_result(answer.members["result"], 0.0)
            if result.is_error:
                raise Refused(INTERNAL_ERROR, frames.text_of(result.content) or "the tool has failed")
            return frames.result_of(result.content, result.structured, is_error=False)
        except (Malformed, Withheld) as fault:
            raise Refused(INTERNAL_ERROR, str(fault) or _WITHHELD) from None

    # ---- sessions

    async def _going(self) -> _Episode:
        """The episode; one begins if there was none."""
        episode = self._episode
        if episode is None:
            async with self._beginning:
                episode = self._episode or await self._begin(None, None, was_reset=False)
        if why := episode.live.ended():
            raise _Over(f"the session has ended: {why}; reset begins another", "the session has ended")
        return episode

    async def _begin(self, seed: int | None, episode_id: str | None, *, was_reset: bool) -> _Episode:
        if self.over:
            raise _Over("this session is closed")
        live = await self._stage.open(seed)
        if self.over:  # its client has gone meanwhile
            live.end()
            raise _Over("this session is closed")
        environment = live.environment
        tools = Tools.of(environment.opened.tools)
        self._stage.remember(tools)
        self._episode = _Episode(live, tools, episode_id or environment.id, was_reset)
        return self._episode

    def _end_episode(self) -> None:
        episode, self._episode = self._episode, None
        if episode is not None:
            episode.live.end()

    async def _tools(self, channel: Callable[[Live], Channel]) -> Tools:
        """Those of the session, as it has them now; where none goes on, of the last one of this environment."""
        episode = self._episode
        if episode is None or episode.live.ended():
            known = self._stage.catalogue()
            if known is not None:
                return known
            episode = await self._going()
            return episode.tools
        try:
            self._learn(episode, await list_tools(channel(episode.live), None))
        except Malformed as fault:
            raise _Over(str(fault)) from None
        return episode.tools

    def _learn(self, episode: _Episode, tools: tuple[Tool, ...]) -> None:
        episode.tools = Tools.of(tools)
        self._stage.remember(episode.tools)

    # ---- steps

    async def _step(self, wish: frames.CallTool) -> Observed:
        episode = await self._going()
        try:
            own = episode.tools.called(wish.name)
        except LookupError as unknown:
            return self._no_step(episode, wish.name, str(unknown))
        environment = episode.live.environment
        result = await environment.call(own, wish.arguments)
        if result.tools is not None:
            self._learn(episode, result.tools)
        self._count(episode, result)
        if episode.crossed or environment.untold:
            await self._look(episode)
        else:
            episode.total = await environment.earned()
        return self._observed(episode, wish.name, result)

    def _count(self, episode: _Episode, result: ToolResult) -> None:
        control = result.control
        if control is not None:
            episode.ends = control.terminated, control.truncated
        if control is not None and control.step is not None:
            episode.steps = control.step
        elif not result.is_error:
            episode.steps += 1

    async def _look(self, episode: _Episode) -> None:
        """Ask where an episode is in which not every call was a trainer's, or has told its reward."""
        episode.total = None
        status = await self._trainers(episode.live.environment.read("status"))
        if not isinstance(status, dict):
            return
        if (step := count_in(status.get(STEP))) is not None:
            episode.steps = step
        episode.total = number_in(status.get(TOTAL))
        episode.ends = status.get("terminated") is True, status.get("truncated") is True

    def _observed(self, episode: _Episode, name: str, result: ToolResult) -> Observed:
        try:
            said = frames.result_of(result.content, result.structured, is_error=result.is_error)
        except Withheld:
            raise Fault(frames.EXECUTION_ERROR, f"{name}: {_WITHHELD}") from None
        observation = {"tool_name": name, "result": said, "error": None}
        control = result.control
        metadata = {**self._metadata(episode), "info": {} if control is None else control.info}
        if control is not None and control.problem:
            metadata["problem"] = control.problem
        return Observed(observation, None if control is None else control.reward, any(episode.ends), metadata)

    def _no_step(self, episode: _Episode, name: str, text: str) -> Observed:
        error = {"error_type": "tool_not_found", "message": text}
        observation = {"tool_name": name, "result": None, "error": error}
        return Observed(observation, None, any(episode.ends), self._metadata(episode))

    def _metadata(self, episode: _Episode) -> dict[str, Any]:
        """What only a trainer may know of an episode."""
        terminated, truncated = episode.ends
        told = {
            "env": self._stage.env,
            "session": episode.live.environment.id,
            "seed": episode.seed,
            "step": episode.steps,
            "total_reward": episode.total,
            "terminated": terminated,
            "truncated": truncated,
            "end_reason": "terminated" if terminated else "truncated" if truncated else None,
        }
        return told if episode.was_reset else {**told, "warning": _NEVER_RESET}

    async def _trainers(self, doing: Awaitable[T]) -> T:
        """What comes of something, or the `Fault` that tells a trainer what became of it."""
        try:
            return await doing
        except Busy as busy:
            raise Fault(frames.CAPACITY_REACHED, str(busy), **self._stage.room()) from None
        except StartError as error:
            raise Fault(frames.FACTORY_ERROR, str(error), factory_name=self._stage.env) from None
        except MuxsimError as error:
            # An episode that broke has no last step: whoever is told of one with a reward of null counts it as 0.
            raise Fault(frames.EXECUTION_ERROR, with_unsaid(str(error), getattr(error, "stderr", ()))) from None


class _Over(MuxsimError):
    """There is no session to ask; an agent is told ``bare``, where that is less."""

    def __init__(self, text: str, bare: str = "") -> None:
        super().__init__(text)
        self.bare = bare or text


async def _agents(doing: Awaitable[T]) -> T:
    """What comes of something, or the `Refused` that tells an agent no more than that it went wrong."""
    try:
        return await doing
    except Busy as busy:
        raise Refused(_SERVER_ERROR, str(busy)) from None
    except StartError:
        raise Refused(_SERVER_ERROR, "the environment could not be started") from None
    except _Over as over:
        raise Refused(INTERNAL_ERROR, over.bare) from None
    except MuxsimError as error:
        raise Refused(INTERNAL_ERROR, str(error)) from None


def _rows(tools: Tools, schema: str) -> Raw:
    try:
        return tools.rows(schema)
    except Withheld:
        raise Fault(frames.EXECUTION_ERROR, f"tools/list: {_WITHHELD}") from None


def _shown(observation: Any) -> dict[str, Any]:
    """What an agent sees before its first move. It has no member that would make it one of a tool."""
    if isinstance(observation, str):
        return {"text": observation}
    if isinstance(observation, list) and all(isinstance(one, dict) and "type" in one for one in observation):
        return {"text": frames.text_of(observation), "content": observation}
    return {"text": msgspec.json.encode(observation).decode(), "value": observation}


def _walled(observation: dict[str, Any]) -> Raw:
    try:
        return frames.for_agents(observation)
    except Withheld:
        raise Fault(frames.EXECUTION_ERROR, f"control://initial_state: {_WITHHELD}") from None
