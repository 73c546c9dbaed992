"""What the two ways to a serving muxsim have in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import anyio
import anyio.abc
import httpx2

from muxsim.rollouts.environments.environment import EnvironmentGone, MachineryFailed
from muxsim.rollouts.environments.mcp_environment import raise_if_muxsims
from transports.errors import RemoteProtocolError
from transports.messages import Kind, Message, decode

CLOSE_TIMEOUT: Final = 10.0
_LOOK_TIMEOUT: Final = 10.0
CONNECT_TIMEOUT: Final = 10.0
# What a muxsim answers to a token that is not, or not any more, good for what is asked.
REFUSALS: Final = frozenset({401, 403})
HEADERS: Final = {
    "accept": "application/json, text/event-stream",
    "accept-encoding": "identity",
    "content-type": "application/json",
}


def decoded(payload: bytes) -> Message | None:
    """A message; None for what is none."""
    try:
        return decode(payload).well_formed()
    except RemoteProtocolError:
        return None


async def delete(http: httpx2.AsyncClient, url: str, headers: dict[str, str] | None = None) -> None:
    """End what a URL stands for, if that can be done in time."""
    with anyio.move_on_after(CLOSE_TIMEOUT, shield=True):
        try:
            await http.delete(url, headers=headers)
        except httpx2.HTTPError:
            # Whoever serves the session is gone, and with it the session.
            return


def why(error: BaseException) -> str:
    """What an error says; what it came of where it says nothing, as those of TLS do."""
    said: BaseException | None = error
    while said is not None and not str(said):
        said = said.__cause__ or said.__context__
    return str(said) if said is not None else type(error).__name__


class SessionURL:
    """Where to look at a session, and to end it."""

    def __init__(
        self, http: httpx2.AsyncClient, url: str, *, shared: bool, on_end: Callable[[], None] = lambda: None
    ) -> None:
        self._http = http
        self._url = url
        self._on_end = on_end
        self.shared = shared

    async def end(self) -> None:
        """End it; but one that is there for all is nobody's to end."""
        self._on_end()
        if not self.shared:
            await delete(self._http, self._url)

    async def why_gone(self, text: str) -> Exception:
        """What to raise for a session that is there no more: what muxsim says of its end, or else ``text``."""
        try:
            with anyio.fail_after(_LOOK_TIMEOUT):
                response = await self._http.get(self._url)
            told = decoded(response.content) if response.status_code == 404 else None
            if told is not None and told.kind is Kind.ERROR:
                raise_if_muxsims(told)
        except (EnvironmentGone, MachineryFailed) as ending:
            return ending
        except (TimeoutError, httpx2.HTTPError):
            pass
        return MachineryFailed(text)
