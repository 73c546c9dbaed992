"""What a request names: found for who may see it, and refused alike where it never was, is over, or is another's."""

from __future__ import annotations

import time
from typing import Final

from muxsim.serve.auth.failures import FailureLimit
from muxsim.serve.routes.clients import Clients, HTTPClient, SSEClient
from muxsim.serve.routes.guard import caller_of
from muxsim.session.registry import Sessions
from muxsim.session.session import Session
from transports.asgi import Call
from transports.http_rules import SESSION_HEADER, HTTPRefusal, header

NO_CLIENT: Final = "no session has this Mcp-Session-Id; initialize again"
# Seconds for which whoever has asked for too many unknown sessions waits for each further answer.
_GUESS_DELAY: Final = 1.0
_CLOSE: Final = (b"connection", b"close")


class Lookup:
    """Finds sessions and clients. ``max_failures`` that are not there may be asked for by an address in a minute."""

    def __init__(self, sessions: Sessions, clients: Clients, max_failures: int) -> None:
        self._sessions = sessions
        self._clients = clients
        self._misses = FailureLimit(max_failures)

    def session(self, call: Call, id: str) -> Session:
        """The live session with this id. Raises a 404."""
        session = self._sessions.get(id)
        if session is None or not session.live or not caller_of(call).sees(session.owner, shared=session.shared):
            raise self.missing(call, "there is no such session")
        return session

    def client(self, call: Call, *, elsewhere: bool = False) -> HTTPClient:
        """The client that a request's session header names; ``elsewhere``, also on a path that is not the client's.

        Raises a 400 without the header, and a 404.
        """
        if header(call.headers, SESSION_HEADER) is None:
            raise HTTPRefusal(400, "the Mcp-Session-Id header is missing")
        client = self.client_here(call, elsewhere=elsewhere)
        if client is None:
            raise self.missing(call, NO_CLIENT)
        return client

    def client_here(self, call: Call, *, elsewhere: bool = False) -> HTTPClient | None:
        """The same, or None."""
        client = self._clients.http(header(call.headers, SESSION_HEADER) or "")
        here = client is not None and (elsewhere or call.scope["path"] in client.paths)
        return client if client is not None and here and client.admits(caller_of(call)) else None

    def stream(self, call: Call, id: str, *, session: str | None) -> SSEClient:
        """The client whose event stream has this id, if it is of this session. Raises a 404."""
        client = self._clients.sse(id)
        here = client is not None and session in (None, client.attachment.session.id)
        if client is None or not here or not client.admits(caller_of(call)):
            raise self.missing(call, "no SSE stream has this sessionId; open one first")
        return client

    def missing(self, call: Call, text: str) -> HTTPRefusal:
        """The refusal of what is not there for whoever asks."""
        peer, now = call.peer, time.monotonic()
        # A client whose session has ended goes by the status, whoever else is at its address: 404 makes it initialize
        # again. So a guesser gets that too, but slowly, and has to connect anew each time.
        if self._misses.wait_of(peer, now):
            return HTTPRefusal(404, text, headers=[_CLOSE], limit="max_failures", delay=_GUESS_DELAY)
        self._misses.failed(peer, now)
        return HTTPRefusal(404, text)
