"""Sessions of a serving muxsim for clients of OpenEnv: among all others, with whose they are, and where from."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from muxsim.adapters.openenv_frames import Tools
from muxsim.placement.backend import GUARDIAN_DIED
from muxsim.rollouts.environments.environment import EnvironmentGone, MachineryFailed
from muxsim.rollouts.environments.mcp_environment import MCPEnvironment, closed_on_failure, shake_hands
from muxsim.runtime.soon import begin
from muxsim.serve.auth.callers import Caller
from muxsim.serve.routes.wires import Site
from muxsim.session.control.own_client import OwnClient
from muxsim.session.session import Session
from muxsim.spec import EnvSpec
from transports.messages import Message
from transports.origin import Origin

_KIND: Final = "openenv"


class Catalogues:
    """The tools of each environment, by the last session that anybody had of it."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[EnvSpec, Tools]] = {}

    def of(self, spec: EnvSpec) -> Tools | None:
        """Those of one that is still configured so."""
        known = self._known.get(spec.name)
        return known[1] if known is not None and known[0] == spec else None

    def remember(self, spec: EnvSpec, tools: Tools) -> None:
        """Those of a session that has begun."""
        self._known[spec.name] = spec, tools


class ServedStage:
    """For one client; `muxsim.adapters.openenv_play.Stage`."""

    def __init__(
        self, site: Site, catalogues: Catalogues, env: str, caller: Caller, peer: str, origin: Origin | None
    ) -> None:
        self.env = env
        self._listening = False
        self._spec: EnvSpec | None = None
        self._clients: list[OwnClient] = []
        self._site = site
        self._catalogues = catalogues
        self._caller = caller
        self._peer = peer
        self._origin = origin

    async def open(self, seed: int | None) -> ServedLive:
        self._spec = spec = self._site.sessions.spec(self.env)
        wish = self._site.openings.session_for(self._caller, self._peer, spec, seed=seed, origin=self._origin)
        soon = begin(wish)
        session = soon.value if soon.ready else await self._site.bridge.call(soon.wait)
        self._clients.clear()
        channel, agent = self._channel(session), self._channel(session, agent=True)
        async with closed_on_failure(channel, self.env):
            channel.join()
            opened = replace(await shake_hands(channel, spec.limits.start_timeout), shared=session.shared)
        return ServedLive(MCPEnvironment(session.id, self.env, session.seed, channel, opened), channel, agent)

    def room(self) -> dict[str, int]:
        leases = self._site.pool.statistics().leases
        return {"active_sessions": leases.held, "max_sessions": leases.most}

    def catalogue(self) -> Tools | None:
        return self._catalogues.of(self._site.sessions.spec(self.env))

    def remember(self, tools: Tools) -> None:
        if self._spec is not None:
            self._catalogues.remember(self._spec, tools)

    def _channel(self, session: Session, *, agent: bool = False) -> ServedChannel:
        return ServedChannel(session, self, self._site, agent=agent)

    def listen(self, listening: bool) -> None:
        """Whether somebody is there who will be known to have gone when he has, however long he says nothing."""
        self._listening = listening
        for client in self._clients:
            client.listening = listening

    def introduce(self, client: OwnClient) -> None:
        """Have it take part for whoever this is for. Raises `Busy`."""
        client.listening = self._listening
        self._clients.append(client)
        client.join(self._caller.name, self._peer, self._origin)


class ServedChannel:
    """One side of a session, without a transport in between; `…mcp_environment.Channel`."""

    def __init__(self, session: Session, stage: ServedStage, site: Site, *, agent: bool) -> None:
        self.session = session
        self._stage = stage
        self._site = site
        self._client = OwnClient(session, agent=agent, kind=_KIND)
        self._joined = False

    def join(self) -> None:
        """Take part. Raises `Busy`."""
        self._joined = True
        self._stage.introduce(self._client)

    async def ask(self, method: str, params: Any, timeout: float | None) -> Message:
        if not self.session.live:
            raise _gone(self.session)
        if not self._joined:
            self.join()
        if method == "initialize":  # for which the session waits as long as for its start
            return await self._client.ask(method, params, timeout)
        self._client.be_patient(timeout)
        return await self._client.ask_patiently(method, params)

    async def notify(self, method: str) -> None:
        self._client.notify(method)

    def end(self) -> None:
        """End the session, or leave it if it is there for all."""
        if self.session.shared:
            self._client.leave()
        else:
            self.session.end("client_gone", "the client has gone")

    async def finish(self) -> None:
        self.end()
        if not self.session.shared:
            await self._site.bridge.call(self.session.wait_ended)

    async def close(self) -> None:
        await self.finish()

    def last_words(self) -> tuple[str, ...]:
        return self.session.last_words


class ServedLive:
    """A session; `muxsim.adapters.openenv_play.Live`."""

    def __init__(self, environment: MCPEnvironment, channel: ServedChannel, agent: ServedChannel) -> None:
        self.environment = environment
        self.channel = channel
        self.agent = agent
        self.shared = channel.session.shared

    def ended(self) -> str:
        ending = self.channel.session.ending
        return "" if ending is None else ending.said

    def end(self) -> None:
        self.channel.end()
        if self.shared:
            self.agent.end()


def _gone(session: Session) -> EnvironmentGone | MachineryFailed:
    ending = session.ending
    if ending is None or ending.exit is None or ending.cause == GUARDIAN_DIED:  # that is not the environment's fault
        return MachineryFailed("the session has ended" if ending is None else ending.text)
    return EnvironmentGone(ending.text, stderr=ending.exit.stderr)
