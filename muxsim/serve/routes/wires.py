"""What the gateway serves beside muxsim's own endpoints: the wire of a trainer, below an environment's path.

Whoever starts a server hands these in (`muxsim.serve.operate.host.serve`), so that the server knows none of them. What
is served so has been judged as every request has: by Host, Origin and token.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from muxsim.admission.pool import Pool
from muxsim.observe.events import Events
from muxsim.runtime.guest import Guest
from muxsim.serve.auth.authenticator import Authenticator
from muxsim.serve.routes.bodies import Bodies
from muxsim.serve.routes.openings import Openings
from muxsim.session.registry import Sessions
from transports.asgi import Call


@dataclass(frozen=True, slots=True)
class Site:
    """What a wire is made on: the sessions of one server, and how they are asked for.

    What stays open is pinged each ``ping_interval`` seconds, and ends when ``auth`` would not let in its caller again.
    """

    sessions: Sessions
    pool: Pool
    bridge: Guest[Any]
    openings: Openings
    bodies: Bodies
    events: Events
    auth: Authenticator | None
    ping_interval: float


class Wire(Protocol):
    """What answers all that is asked for at ``/envs/<env>/<name>/<path>``."""

    async def answer(self, call: Call, env: str, path: str) -> None:
        """Serve one request. Raises `HTTPRefusal`."""


Load: TypeAlias = Callable[[], Callable[[Site], Wire]]
"""Imports what makes a wire, and returns that."""
Wires: TypeAlias = Mapping[str, Load]
"""Each by the name that it has in a path."""


class LateWire:
    """One that is made with the first request for it: to import it takes some 30 ms, which every session would wait."""

    def __init__(self, load: Load, site: Site) -> None:
        self._load = load
        self._site = site
        self._loading = asyncio.Lock()
        self._wire: Wire | None = None

    async def answer(self, call: Call, env: str, path: str) -> None:
        """Serve one request, as `Wire`."""
        if self._wire is None:
            async with self._loading:
                if self._wire is None:
                    self._wire = (await asyncio.to_thread(self._load))(self._site)
        await self._wire.answer(call, env, path)
