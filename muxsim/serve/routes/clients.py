"""Who is a client of which session over HTTP, and who may go on as one."""

from __future__ import annotations

import secrets
from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import Final

from muxsim.errors import Busy
from muxsim.observe.events import Event, SessionEnded
from muxsim.serve.auth.callers import Caller
from muxsim.serve.http.unread import Reader, Unread
from muxsim.serve.routes.refusals import too_busy
from muxsim.session.agent_view import AgentAttachment
from muxsim.session.attachment import Attachment
from transports.sse import SSE
from transports.streamable_http import StreamableHTTP, StreamTimes

_ID_BYTES: Final = 16
# So many of those that have gone are remembered, for some minutes' worth of them who ask what became of their session.
_MOST_GONE: Final = 4096
# The causes of an end after which nobody wants to read what the session has said.
_UNWANTED: Final = frozenset({"deleted", "client_gone"})


@dataclass(slots=True)
class Client:
    """What stands behind a client's id, who made it, and whom its answers are for."""

    attachment: Attachment
    caller: Caller
    reader: Reader

    def admits(self, caller: Caller) -> bool:
        """Whether ``caller`` may go on with it: the same principal, and no more than it sees."""
        if caller is self.caller:
            return True
        return caller.sees(self.caller.name) and (caller.controls or self.attachment.is_agent)


@dataclass(slots=True)
class HTTPClient(Client):
    """One Mcp-Session-Id: its transport, and the paths it may be used on."""

    transport: StreamableHTTP
    paths: frozenset[str]
    alias: str = ""
    """What it goes by beside its id, if anything."""


@dataclass(slots=True)
class SSEClient(Client):
    """One event stream, and what its client posts beside it."""

    transport: SSE


@dataclass(frozen=True, slots=True)
class GoneClient:
    """What is remembered of a client's id: which session it was for, whose it was, and on which paths, if on some."""

    session: str
    name: str | None
    is_agent: bool
    paths: frozenset[str] | None

    def admits(self, caller: Caller) -> bool:
        """Whether ``caller`` could have gone on with it, as of a `Client`."""
        return caller.sees(self.name) and (caller.controls or self.is_agent)


def view_of(caller: Caller) -> type[Attachment]:
    """What this caller may see of a session."""
    return Attachment if caller.controls else AgentAttachment


def new_id() -> str:
    """An id that nobody can guess."""
    return secrets.token_hex(_ID_BYTES)


class Clients:
    """The clients of all sessions."""

    def __init__(self, times: StreamTimes, unread: Unread) -> None:
        self.times = times
        self._unread = unread
        self._http: dict[str, HTTPClient] = {}
        self._sse: dict[str, SSEClient] = {}
        self._aliases: dict[str, list[str]] = {}
        self._gone: OrderedDict[str, GoneClient] = OrderedDict()
        unread.ask(self.attachments_of)

    def http(self, id: str) -> HTTPClient | None:
        """The client behind a session header, if its session lives."""
        client = self._http.get(id)
        if client is None:
            return None
        if client.attachment.cut or not client.attachment.session.live:
            self._forget(client)
            return None
        return client

    def going_by(self, alias: str) -> list[HTTPClient]:
        """The clients that have named themselves so."""
        found = [self.http(id) for id in tuple(self._aliases.get(alias, ()))] if alias else []
        return [client for client in found if client is not None]

    def gone(self, id: str) -> GoneClient | None:
        """The client that had this id until some minutes ago, for a session header or an event stream."""
        return self._gone.get(id)

    def sse(self, id: str) -> SSEClient | None:
        """The client whose event stream has this id."""
        return self._sse.get(id)

    def join_by_http(
        self, attachment: Attachment, caller: Caller, path: str, peer: str, *, alias: str = ""
    ) -> HTTPClient:
        """Make a client of whoever asks, who may go by an ``alias`` too. Raises a refusal if there is no room."""
        session = attachment.session
        id = session.id if attachment.ends_session else new_id()
        transport = StreamableHTTP(id, attachment, self.times, lambda: session.agreed_version)
        attachment.connect(transport)
        attachment.principal, attachment.peer = caller.name, peer
        self._attach(attachment)
        paths = {path, f"/s/{session.id}/mcp"} if attachment.ends_session else {path}
        reader = Reader(caller.share(peer), attachment)
        client = self._http[id] = HTTPClient(attachment, caller, reader, transport, frozenset(paths), alias)
        if alias:
            self._aliases.setdefault(alias, []).append(id)
        self._unread.joined(reader)
        return client

    def join_by_sse(self, attachment: Attachment, caller: Caller, endpoint: str, peer: str) -> SSEClient:
        """Likewise, of one who is to post to ``endpoint``, with the id of its stream behind that."""
        id = new_id()
        transport = SSE(id, endpoint + id, attachment, self.times)
        attachment.connect(transport)
        attachment.principal, attachment.peer = caller.name, peer
        self._attach(attachment)
        client = self._sse[id] = SSEClient(attachment, caller, Reader(caller.share(peer), attachment), transport)
        self._unread.joined(client.reader)
        return client

    def _attach(self, attachment: Attachment) -> None:
        try:
            others_left = attachment.session.conversation.attach(attachment)
        except Busy as busy:
            raise too_busy(busy, None) from None
        if others_left:
            for client in [one for one in self._http.values() if one.transport.closed]:
                self._forget(client)

    def drop(self, client: HTTPClient) -> None:
        """End a client, and its session if it has made that."""
        self._forget(client)
        client.transport.close()
        client.attachment.disconnected()

    def left(self, client: SSEClient) -> None:
        """Forget one whose stream is over."""
        del self._sse[client.transport.id]
        self._keep(client.transport.id, client, None)

    def _forget(self, client: HTTPClient) -> None:
        self._http.pop(client.transport.id, None)
        ids = self._aliases.get(client.alias, [])
        if client.transport.id in ids:
            ids.remove(client.transport.id)
            if not ids:
                del self._aliases[client.alias]
        self._keep(client.transport.id, client, client.paths)

    def _keep(self, id: str, client: Client, paths: frozenset[str] | None) -> None:
        attachment, name = client.attachment, client.caller.name
        self._gone[id] = GoneClient(attachment.session.id, name, attachment.is_agent, paths)
        if len(self._gone) > _MOST_GONE:
            self._gone.popitem(last=False)

    def doubt(self) -> None:
        """Have each client's next request judged anew, by its token too."""
        # Whatever is remembered of a client's requests is remembered of this very object.
        self._http = {id: replace(client) for id, client in self._http.items()}

    def attachments_of(self, share: str) -> list[Attachment]:
        """The clients that count for a share."""
        all_clients: list[Client] = [*self._http.values(), *self._sse.values()]
        return [client.attachment for client in all_clients if client.reader.share == share]

    def on_event(self, event: Event) -> None:
        """Drop the clients of a session that has ended; a listener for `muxsim.observe.events.Events`."""
        if isinstance(event, SessionEnded):
            self._unread.end_session(event.session, at_once=event.cause in _UNWANTED)
            for client in [one for one in self._http.values() if one.attachment.session.id == event.session]:
                self._forget(client)
