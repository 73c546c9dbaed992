"""A running muxsim that is asked over HTTP what its operator's socket answers too, with a token of the admin's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import httpx2

from muxsim.errors import MuxsimError, NotRunning

_UNIX: Final = "unix:"
_TIMEOUT: Final = 10.0


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
                value = answer.json()
        except (httpx2.HTTPError, httpx2.InvalidURL, ValueError, OSError) as error:
            raise NotRunning(f"{self.url} does not answer as a muxsim: {error or type(error).__name__}") from None
        if not isinstance(value, dict):
            raise NotRunning(f"{self.url} does not answer as a muxsim")
        refusal = value.get("error")
        return {"error": str(refusal["message"])} if isinstance(refusal, dict) and "message" in refusal else value

    def _client(self, timeout: float) -> httpx2.Client:
        if self.url.startswith(_UNIX):
            path = self.url.removeprefix(_UNIX)
            if not path:
                raise MuxsimError("unix: needs the path of a socket, as in unix:/run/muxsim.sock")
            transport = httpx2.HTTPTransport(uds=path)
            return httpx2.Client(base_url="http://localhost", timeout=timeout, transport=transport)
        return httpx2.Client(base_url=self.url.rstrip("/"), timeout=timeout)
