"""A running muxsim that is asked over HTTP what its operator's socket answers too.

With a token of the admin's it does what it is told; with another it tells what that token's scope may read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import httpx2
import trio

from muxsim.errors import MuxsimError, NotRunning

_UNIX: Final = "unix:"
_TIMEOUT: Final = 10.0
_FORBIDDEN: Final = 403
# Where others than the admin read the same, as far as they may.
_READ: Final = {"sessions": "/sessions", "environments": "/envs", "status": "/health"}
# What is in an answer of a muxsim's at least, by the command: anything else that speaks JSON has other words.
_STATUS: Final = frozenset({"pid", "version", "url", "config", "state", "sessions", "in_flight", "uptime", "limits"})
_TOLD: Final = {
    **dict.fromkeys(("status", "drain", "resume", "stop"), _STATUS),
    **dict.fromkeys(("inspect", "end"), frozenset({"id"})),
    "sessions": frozenset({"sessions", "next"}),
    "environments": frozenset({"environments"}),
    "reload": frozenset({"added", "changed", "removed", "applied", "tokens", "restart"}),
    "logs": frozenset({"session", "lines", "after", "more", "over"}),
    "loglevel": frozenset({"level", "environments"}),
}


@dataclass(frozen=True)
class OverHTTP:
    """One that serves at ``url``, or ``unix:PATH``."""

    url: str
    token: str | None

    @property
    def name(self) -> str:
        """What to call it."""
        return self.url

    def ask(self, command: str, *, timeout: float = _TIMEOUT, **arguments: Any) -> dict[str, Any]:
        """Its answer to a command. Raises `NotRunning` if it does not answer within ``timeout`` s."""
        headers = {} if self.token is None else {"authorization": f"Bearer {self.token}"}
        try:
            with self._client(timeout) as http:
                answer = http.post(f"/operate/{command}", json=arguments, headers=headers)
                if answer.status_code == _FORBIDDEN and command in _READ:
                    given = {name: str(value) for name, value in arguments.items()}
                    answer = http.get(_READ[command], params=given, headers=headers)
                    value = self._as_operator(command, answer.json())
                else:
                    value = answer.json()
        except httpx2.HTTPError as error:
            raise NotRunning(f"{self.url} does not answer as a muxsim: {self._why(error)}") from None
        except (httpx2.InvalidURL, ValueError, OSError) as error:
            raise NotRunning(f"{self.url} does not answer as a muxsim: {error}") from None
        refusal = value.get("error") if isinstance(value, dict) else None
        if not isinstance(value, dict) or (refusal is None and not _TOLD[command] <= value.keys()):
            raise NotRunning(f"{self.url} does not answer as a muxsim")
        return {"error": str(refusal["message"])} if isinstance(refusal, dict) and "message" in refusal else value

    def _why(self, error: httpx2.HTTPError) -> str:
        from muxsim.rollouts.environments.unreachable import why_unreachable  # noqa: PLC0415 - it imports much else

        if self.url.startswith(_UNIX):
            return str(error) or type(error).__name__
        return trio.run(why_unreachable, self.url, error)

    def _as_operator(self, command: str, value: Any) -> Any:
        """What the operator would have been told, with None for what is not told to others."""
        if not isinstance(value, dict):
            return value
        if command == "sessions" and "sessions" in value:
            return {**value, "sessions": [{"memory": None, **row} for row in value["sessions"]]}
        if command == "status" and "status" in value:
            state = "serving" if value["status"] == "ok" else f"{value['status']}: {value.get('reason')}"
            met = {name: count for name, count in value.get("limits", {}).items() if count}
            known = {"version": value.get("version"), "sessions": value.get("sessions")}
            unknown = dict.fromkeys(("pid", "config", "uptime", "left", "in_flight"))
            return {**unknown, **known, "url": self.url, "state": state, "limits": met}
        return value

    def _client(self, timeout: float) -> httpx2.Client:
        if self.url.startswith(_UNIX):
            path = self.url.removeprefix(_UNIX)
            if not path:
                raise MuxsimError("unix: needs the path of a socket, as in unix:/run/muxsim.sock")
            transport = httpx2.HTTPTransport(uds=path)
            return httpx2.Client(base_url="http://localhost", timeout=timeout, transport=transport)
        return httpx2.Client(base_url=self.url.rstrip("/"), timeout=timeout)
