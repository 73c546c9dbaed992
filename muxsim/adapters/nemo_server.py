"""Environments of muxsim for NeMo Gym: a resources server for its ``gymnasium_agent``.

    from muxsim.adapters.nemo_server import MuxsimServer

    MuxsimServer.run_webserver()  # app.py of a resources server, whose config has source and env

Each rollout is a session of its own with the row's ``seed``. The row's request has the tools, see `tools_of`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

import anyio
from pydantic import PrivateAttr
from starlette.requests import Request

from muxsim.adapters.needed import needed

with needed(__name__, "pip install nemo-gym"):
    from nemo_gym.base_resources_server import BaseResourcesServerConfig
    from nemo_gym.openai_utils import NeMoGymResponse
    from nemo_gym.server_utils import SESSION_ID_KEY
    from resources_servers.gymnasium import GymnasiumServer

from muxsim.adapters.dialogue import (
    DEFAULT_CALL_TIMEOUT,
    Dialogue,
    EpisodeOver,
    Terms,
    looked_at,
    of_its_own,
    open_dialogue,
    seed_in,
    text_of,
)
from muxsim.adapters.running import Running, kept, portable, running
from muxsim.adapters.written_calls import NoCall, arguments_in

Step = tuple[str | None, float, bool, bool, dict[str, Any]]

# What NeMo Gym's agent is told, from 0.7 on: that there is ``/close``, and that each step may have an id.
_OFFERS: Final = {"supports_explicit_close": True, "supports_step_idempotency": True}
_STEP_ID: Final = "_ng_step_request_id"


@dataclass
class _Episode:
    """An episode with its last step under its id: NeMo's client asks again when a connection breaks."""

    dialogue: Dialogue
    turn: anyio.Lock = field(default_factory=anyio.Lock)
    step_id: Any = None
    step: Step | None = None
    closed: bool = False


class MuxsimServerConfig(BaseResourcesServerConfig):
    """``source`` is a config file or a URL, ``env`` an environment's name there. Times are in seconds."""

    source: str
    env: str
    instructions: bool = True
    max_calls: int | None = None
    start_timeout: float | None = None
    call_timeout: float | None = DEFAULT_CALL_TIMEOUT
    token: str | None = None


class MuxsimServer(GymnasiumServer):
    """Plays the episodes of NeMo's sessions. A failure is an HTTP error, which fails the rollout: nothing becomes 0."""

    config: MuxsimServerConfig
    _episodes: dict[str, _Episode] = PrivateAttr(default_factory=dict)

    def setup_webserver(self) -> Any:
        """Serve ``/close`` too, by which the agent of NeMo Gym 0.7 ends each episode, also one that it gives up."""
        app = super().setup_webserver()
        app.post("/close")(self._close_endpoint)
        return app

    async def _close_endpoint(self, request: Request) -> dict[str, Any]:
        await self._forget(request.session.get(SESSION_ID_KEY))
        return {}

    async def reset(self, metadata: dict[str, Any], session_id: str | None = None) -> tuple[str | None, dict[str, Any]]:
        """Begin an episode with the row's seed; returns what the environment says at its start.

        Raises `StartError`, `Busy` or `ValueError`.
        """
        session = _known(session_id)
        await self._forget(session)
        config = self.config
        terms = Terms(max_calls=config.max_calls, start_timeout=config.start_timeout, call_timeout=config.call_timeout)
        held = await self._running()
        dialogue = await held.wait(open_dialogue, config.env, seed_in(metadata), terms)
        self._episodes[session] = _Episode(dialogue)
        if not dialogue.scored:
            await self.close_session(session)
            raise ValueError(f"{config.env} has no control plane, so that nobody knows what an episode has earned")
        told, parts = dialogue.beginning(instructions=config.instructions)
        observation = "\n\n".join(text for text in (told, text_of(parts)) if text) or None
        return observation, {"seed": dialogue.seed, **_OFFERS}

    async def step(self, action: NeMoGymResponse, metadata: dict[str, Any], session_id: str | None = None) -> Step:
        """Make the calls of a response; one without a call truncates the episode. Raises `EpisodeBroken`."""
        episode = self._episodes.get(_known(session_id))
        if episode is None:
            raise ValueError("there is no episode under way: reset first")
        step_id = metadata.get(_STEP_ID)
        async with episode.turn:
            if episode.step is None or step_id is None or step_id != episode.step_id:
                episode.step = await self._made(episode.dialogue, action)
                episode.step_id = step_id
            return episode.step

    async def _made(self, dialogue: Dialogue, action: NeMoGymResponse) -> Step:
        calls = [item for item in action.output if item.type == "function_call"]
        outputs = []
        held = await self._running()
        for call in calls:
            try:
                said = await held.wait(of_its_own(dialogue.call), call.name, arguments_in(call.arguments))
                outputs.append({"call_id": call.call_id, "output": said.text})
            except (NoCall, EpisodeOver) as error:
                outputs.append({"call_id": call.call_id, "output": str(error)})
        reward = await held.wait(of_its_own(dialogue.newly_earned))
        truncated = dialogue.truncated or (not calls and not dialogue.terminated)
        return None, reward, dialogue.terminated, truncated, {"tool_outputs": outputs}

    async def close_session(self, session_id: str | None) -> None:
        """End a session. Calling it again is harmless."""
        episode = self._episodes.get(session_id or "")
        if episode is None or episode.step_id is None:
            await self._forget(session_id)
        else:  # its last step may be asked again; whoever gives steps their ids calls ``/close``
            await self._end(episode)

    async def _forget(self, session_id: str | None) -> None:
        episode = self._episodes.pop(session_id or "", None)
        if episode is not None:
            await self._end(episode)

    async def _end(self, episode: _Episode) -> None:
        if not episode.closed:
            episode.closed = True
            held = await self._running()
            await held.wait(of_its_own(episode.dialogue.close))

    async def _running(self) -> Running:
        return await anyio.to_thread.run_sync(kept, portable(self.config.source), self.config.token)


def tools_of(source: str, env: str, *, token: str | None = None) -> list[dict[str, Any]]:
    """The tools of an environment as a row's ``responses_create_params.tools`` has them. Raises `StartError`."""
    held = running(source, token=token)
    try:
        tools, _ = held.call(looked_at, env, Terms())
    finally:
        held.release()
    return [
        {
            "type": "function",
            "name": tool.name,
            "description": tool.description,
            "parameters": tool.input_schema,
            "strict": False,
        }
        for tool in tools
    ]


def _known(session_id: str | None) -> str:
    if not session_id:
        raise ValueError("the request has no session: NeMo Gym's session middleware gives it one")
    return session_id
