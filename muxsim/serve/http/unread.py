"""What clients have not read yet of what was written to them: how long it may wait, and how much for whom.

An event stream's messages wait in front of its connection, where they are bounded one by one. A plain answer is written
as a whole, whatever its size: it waits in the connection, and is seen here as soon as more waits than is read at once.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from muxsim.observe.events import Events, HTTPLimit
from muxsim.runtime.clock import STOOD_STILL
from muxsim.session.attachment import Attachment
from transports.asgi import Call

# Seconds between two looks at whether a client has read something.
_TICK: Final = 0.25
# Seconds in which who has too much unread on a shared session, or some of a session that has ended, has to read on:
# no fewer than the session gives to one that is behind on its event stream.
_HASTE: Final = 2.0
_TELL: Final = "muxsim.reader"


@dataclass(frozen=True, slots=True)
class Reader:
    """Whom an answer is for: whose share of the memory it counts for, and which client of a session asked, if any."""

    share: str
    attachment: Attachment | None = None


class Written(Protocol):
    """A connection that something waits in."""

    reader: Reader

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop that it runs on."""

    @property
    def transport(self) -> asyncio.Transport:
        """Where it waits."""


@dataclass(slots=True)
class _Waiting:
    """So many bytes for somebody who has read nothing of them since, and may go on so for so long."""

    reader: Reader
    since: float
    patience: float
    size: int = 0


class Unread:
    """The connections whose client does not keep up.

    Who takes nothing for ``stall`` seconds is cut off. Past ``buffered`` bytes for one client of a session, its backend
    has to wait; past ``most`` bytes for one share, those of all its clients. On a shared session nobody waits
    for the one who does not read: that connection is cut.
    """

    def __init__(self, stall: float, buffered: int, most: int, events: Events) -> None:
        self._stall = stall
        self._buffered = buffered
        self._most = most
        self._most_of: Mapping[str, int] = {}
        self._events = events
        self._waiting: dict[Written, _Waiting] = {}
        self._of_share: Counter[str] = Counter()
        self._of_attachment: Counter[Attachment] = Counter()
        self._over: set[str] = set()
        self._attachments_of: Callable[[str], Iterable[Attachment]] = lambda share: ()
        self._ticking = False
        self._due = 0.0

    def __repr__(self) -> str:
        return f"<Unread {self.bytes} bytes in {len(self._waiting)} connections>"

    @property
    def bytes(self) -> int:
        """How many bytes wait, as of the last look."""
        return sum(self._of_share.values())

    def ask(self, attachments_of: Callable[[str], Iterable[Attachment]]) -> None:
        """Ask this for the clients whose backends are to wait for a share."""
        self._attachments_of = attachments_of

    def use(self, most: int, most_of: Mapping[str, int]) -> None:
        """Have this bound for each share from now on, and these for some."""
        self._most, self._most_of = most, most_of

    def begin(self, connection: Written) -> None:
        """Something waits in a connection's buffer."""
        loop = connection.loop
        waiting = self._waiting.get(connection)
        if waiting is None:
            waiting = self._waiting[connection] = _Waiting(connection.reader, loop.time(), self._stall)
        self._weigh(connection, waiting, connection.transport.get_write_buffer_size())
        if not self._ticking:
            self._ticking = True
            self._tick_later(loop)

    def end(self, connection: Written) -> None:
        """It has been read, or its connection is no more."""
        waiting = self._waiting.pop(connection, None)
        if waiting is not None:
            self._weigh(connection, waiting, 0)

    def joined(self, reader: Reader) -> None:
        """There is one more client; if its share has too much unread, its backend has to wait from the beginning."""
        if reader.share in self._over:
            self._hold(reader.attachment)

    def end_session(self, id: str, *, at_once: bool) -> None:
        """A session has ended: what it has said is read soon, or dropped; ``at_once`` if nobody is to want it."""
        for connection, waiting in list(self._waiting.items()):
            attachment = waiting.reader.attachment
            if attachment is not None and attachment.session.id == id:
                waiting.patience = min(waiting.patience, _HASTE)
                if at_once:
                    self._cut(connection)

    # ---- how much

    def _weigh(self, connection: Written, waiting: _Waiting, size: int) -> None:
        more, waiting.size = size - waiting.size, size
        share, attachment = waiting.reader.share, waiting.reader.attachment
        self._add(self._of_share, share, more)
        if attachment is not None:
            self._add(self._of_attachment, attachment, more)
        self._judge_share(share)
        if attachment is not None:
            self._judge_client(connection, waiting, attachment)

    @staticmethod
    def _add(counts: Counter[Any], key: Hashable, more: int) -> None:
        counts[key] += more
        if not counts[key]:
            del counts[key]

    def _judge_share(self, share: str) -> None:
        most = self._most_of.get(share, self._most)
        if share not in self._over and self._of_share[share] > most:
            self._over.add(share)
            self._events.emit(HTTPLimit("max_unread"))
            for attachment in self._attachments_of(share):
                self._hold(attachment)
        elif share in self._over and self._of_share[share] <= most // 4:
            self._over.discard(share)
            for attachment in self._attachments_of(share):
                self._release(attachment)

    def _judge_client(self, connection: Written, waiting: _Waiting, attachment: Attachment) -> None:
        share, too_much = waiting.reader.share, self._of_attachment[attachment] > self._buffered
        if attachment.session.shared:
            if too_much:
                waiting.patience = min(waiting.patience, _HASTE)
            if share in self._over and connection in self._waiting:
                self._cut(connection)
        elif too_much or share in self._over:
            self._hold(attachment)
        else:
            self._release(attachment)

    def _hold(self, attachment: Attachment | None) -> None:
        if attachment is not None and not attachment.session.shared:
            attachment.session.conversation.hold(attachment)

    def _release(self, attachment: Attachment) -> None:
        if self._of_attachment[attachment] <= self._buffered // 4:
            attachment.session.conversation.release(attachment)

    # ---- how long

    def _tick_later(self, loop: asyncio.AbstractEventLoop) -> None:
        self._due = loop.time() + _TICK
        loop.call_at(self._due, self._tick, loop)

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        stood_still = now - self._due if now - self._due > STOOD_STILL else 0.0
        for connection, waiting in list(self._waiting.items()):
            waiting.since += stood_still
            if connection in self._waiting:
                self._look(connection, waiting, now)
        self._ticking = bool(self._waiting)
        if self._ticking:
            self._tick_later(loop)

    def _look(self, connection: Written, waiting: _Waiting, now: float) -> None:
        size = connection.transport.get_write_buffer_size()
        if size < waiting.size:
            waiting.since = now
        self._weigh(connection, waiting, size)
        if now - waiting.since >= waiting.patience:
            self._cut(connection)

    def _cut(self, connection: Written) -> None:
        self._events.emit(HTTPLimit("stall_timeout"))
        connection.transport.abort()
        self.end(connection)


def tell_reader_to(scope: MutableMapping[str, Any], tell: Callable[[Reader], None]) -> None:
    """Have `read_by` call this for a request."""
    scope[_TELL] = tell


def read_by(call: Call, reader: Reader) -> None:
    """Say whom the answer to a request is for."""
    tell = call.scope.get(_TELL)
    if tell is not None:
        tell(reader)
