"""What a request names: found for who may see it, and refused alike where it never was, is over, or is another's."""

from __future__ import annotations

import time
from typing import Any, Final

from muxsim.observe.events import FAILURES
from muxsim.serve.auth.failures import FailureLimit
from muxsim.serve.routes.clients import Clients, HTTPClient, SSEClient
from muxsim.serve.routes.guard import caller_of
from muxsim.session.agent_view import BACKEND_ENDED
from muxsim.session.codes import BACKEND_GONE, SESSION_ENDED
from muxsim.session.endings import Past
from muxsim.session.registry import Sessions
from muxsim.session.session import Session
from muxsim.session.states import RESET, Ending
from transports.asgi import Call
from transports.http_rules import SESSION_HEADER, HTTPRefusal, header
from transports.messages import RequestId

NO_CLIENT: Final = "no session has this Mcp-Session-Id; initialize again"
NO_STREAM: Final = "no SSE stream has this sessionId; open one first"
# Seconds for which whoever has asked for too many unknown sessions waits for each further answer.
_GUESS_DELAY: Final = 1.0
_CLOSE: Final = (b"connection", b"close")


class Lookup:
    """Finds sessions and clients. ``max_failures`` that are not there may be asked for by an address in a minute."""

    def __init__(self, sessions: Sessions, clients: Clients, max_failures: int) -> None:
        self._sessions = sessions
        self._clients = clients
        self._misses = FailureLimit(max_failures)

    def session(self, call: Call, id: str, *, agent: bool = False) -> Session:
        """The live session with this id. Raises a 404, which says how it ended; to an ``agent`` no more than that."""
        session = self._sessions.get(id)
        if session is None or not session.live or not caller_of(call).sees(session.owner, shared=session.shared):
            raise self._over(call, id, agent=agent) or self.missing(call, "there is no such session")
        return session

    def client(self, call: Call, *, elsewhere: bool = False) -> HTTPClient:
        """The client that a request's session header names; ``elsewhere``, also on a path that is not the client's.

        Raises a 400 without the header, and a 404.
        """
        if header(call.headers, SESSION_HEADER) is None:
            raise HTTPRefusal(400, "the Mcp-Session-Id header is missing")
        client = self.client_here(call, elsewhere=elsewhere)
        if client is None:
            raise self.no_client(call, elsewhere=elsewhere)
        return client

    def no_client(self, call: Call, *, elsewhere: bool = False) -> HTTPRefusal:
        """The refusal of a request whose session header names no client, or one whose session has ended."""
        over = self._gone(call, header(call.headers, SESSION_HEADER) or "", elsewhere=elsewhere)
        return over or self.missing(call, NO_CLIENT)

    def client_here(self, call: Call, *, elsewhere: bool = False) -> HTTPClient | None:
        """The same, or None."""
        client = self._clients.http(header(call.headers, SESSION_HEADER) or "")
        here = client is not None and (elsewhere or call.scope["path"] in client.paths)
        return client if client is not None and here and client.admits(caller_of(call)) else None

    def was_reset(self, call: Call) -> bool:
        """Whether the session header names a client that has ended its session by a reset already."""
        client = self._clients.gone(header(call.headers, SESSION_HEADER) or "")
        past = None if client is None else self._sessions.past(client.session)
        return client is not None and client.admits(caller_of(call)) and past is not None and past.ending.cause == RESET

    def stream(self, call: Call, id: str, *, session: str | None) -> SSEClient:
        """The client whose event stream has this id, if it is of this session. Raises a 404."""
        client = self._clients.sse(id)
        here = client is not None and session in (None, client.attachment.session.id)
        if client is None or not here or not client.admits(caller_of(call)):
            raise self._gone(call, id) or self.missing(call, NO_STREAM)
        attachment = client.attachment
        if not attachment.session.live:  # its last event is being written, and no answer comes after that
            raise self._over(call, attachment.session.id, agent=attachment.is_agent) or self.missing(call, NO_STREAM)
        return client

    def _over(self, call: Call, id: str, *, agent: bool) -> HTTPRefusal | None:
        """The refusal of a session that has ended, with how it did; None for whoever could not see it."""
        past = self._sessions.past(id)
        if past is None or not caller_of(call).sees(past.owner, shared=past.shared):
            return None
        return self.over(call, past, agent=agent)

    def over(self, call: Call, past: Past, *, about: RequestId | None = None, agent: bool = False) -> HTTPRefusal:
        """The refusal of a session that has ended and could be seen, with how it did."""
        code = BACKEND_GONE if past.ending.exit else SESSION_ENDED
        text, data = _told_of(past.ending, agent=agent or not caller_of(call).controls)
        return HTTPRefusal(404, text, code=code, data=data, id=about)

    def _gone(self, call: Call, id: str, *, elsewhere: bool = False) -> HTTPRefusal | None:
        """Likewise, of the session of a client that is no more; None for whoever could not have gone on with it."""
        client = self._clients.gone(id)
        if client is None or not client.admits(caller_of(call)):
            return None
        here = elsewhere or client.paths is None or call.scope["path"] in client.paths
        return self._over(call, client.session, agent=client.is_agent) if here else None

    def missing(self, call: Call, text: str) -> HTTPRefusal:
        """The refusal of what is not there for whoever asks."""
        peer, now = call.peer, time.monotonic()
        # A client whose session has ended goes by the status, whoever else is at its address: 404 makes it initialize
        # again. So a guesser gets that too, but slowly, and has to connect anew each time.
        if self._misses.wait_of(peer, now):
            return HTTPRefusal(404, text, headers=[_CLOSE], limit="max_failures", delay=_GUESS_DELAY)
        self._misses.failed(peer, now)
        return HTTPRefusal(404, text)


def _told_of(ending: Ending, *, agent: bool) -> tuple[str, dict[str, Any]]:
    """Why a session ended, in words and as data; for an agent, nothing that a backend said, nor who it was."""
    if not agent:
        return ending.said, ending.data()
    return BACKEND_ENDED if ending.cause in FAILURES else ending.text, {"cause": ending.cause}
