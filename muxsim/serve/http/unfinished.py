"""What clients have sent that no backend has taken: how much of it there may be for one client.

Past the bound only the oldest of a client's bodies is read on, until it is complete, and none while as much waits for
backends that do not read: so a client waits for itself. What is small is read on all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from muxsim.observe.events import Events, HTTPLimit

# As much of a body as the short way takes of each connection (`muxsim.serve.routes.fast_lane`).
_SMALL: Final = 64 * 1024


class Unfinished:
    """The bodies that are arriving, and the messages that wait, by whose they are.

    A client's may hold ``most`` bytes together; a single one may always.
    """

    def __init__(self, most: int, events: Events) -> None:
        self._most = most
        self._events = events
        self._of_share: dict[str, _OfOne] = {}

    def __repr__(self) -> str:
        return f"<Unfinished {self.bytes} bytes of {len(self._of_share)} clients>"

    @property
    def bytes(self) -> int:
        """How many there are."""
        return sum(one.bytes for one in self._of_share.values())

    def use(self, most: int) -> None:
        """Have this bound from now on."""
        self._most = most
        for of_one in list(self._of_share.values()):
            self._tell(of_one)

    def begin(self, share: str) -> Arriving:
        """One more body of a client begins to arrive."""
        of_one = self._one(share)
        arriving = Arriving(self, of_one)
        of_one.arriving[arriving] = None
        return arriving

    @contextmanager
    def waiting(self, share: str, size: int) -> Iterator[None]:
        """In the block a message of a client's waits to be taken."""
        of_one = self._one(share)
        of_one.waiting += size
        self._weigh(of_one, size)
        try:
            yield
        finally:
            of_one.bytes -= size
            of_one.waiting -= size
            self._tell(of_one)

    def _one(self, share: str) -> _OfOne:
        known = self._of_share.get(share)
        return known if known is not None else self._of_share.setdefault(share, _OfOne(share))

    def _tell(self, of_one: _OfOne) -> None:
        """There is more room for what this client sends."""
        if not of_one.arriving and not of_one.waiting:
            self._of_share.pop(of_one.share, None)
        for other in list(of_one.arriving):
            if other.on_room is not None and other.may_go_on:
                other.on_room()

    def may_go_on(self, arriving: Arriving, of_one: _OfOne) -> bool:
        """Whether more of a body is to be read: all that its client has is within the bound, or it is the oldest."""
        if arriving not in of_one.arriving or of_one.bytes <= self._most or arriving.size < _SMALL:
            return True
        return of_one.waiting <= self._most and next(iter(of_one.arriving)) is arriving

    def add(self, of_one: _OfOne, size: int) -> None:
        """So much more of a body has come, or less is left of it."""
        self._weigh(of_one, size)
        if size < 0:  # a part of it was complete by itself
            self._tell(of_one)

    def _weigh(self, of_one: _OfOne, more: int) -> None:
        was_within = of_one.bytes <= self._most
        of_one.bytes += more
        if was_within and of_one.bytes > self._most:
            self._events.emit(HTTPLimit("max_unfinished"))

    def end(self, arriving: Arriving, of_one: _OfOne) -> None:
        """It is complete, or nobody wants it any more."""
        del of_one.arriving[arriving]
        of_one.bytes -= arriving.size
        self._tell(of_one)


class _OfOne:
    """What one client has: the bodies that arrive, the oldest first, the bytes of messages that wait, and of all."""

    def __init__(self, share: str) -> None:
        self.share = share
        self.arriving: dict[Arriving, None] = {}
        self.waiting = 0
        self.bytes = 0


class Arriving:
    """One body, or one text of a WebSocket, of a client's ``share``; made by `Unfinished.begin`.

    ``on_room`` is called when it may go on again; it may be called when it could before.
    """

    def __init__(self, unfinished: Unfinished, of_one: _OfOne) -> None:
        self._unfinished = unfinished
        self._of_one = of_one
        self.share = of_one.share
        self.size = 0
        self.on_room: Callable[[], None] | None = None

    @property
    def may_go_on(self) -> bool:
        """Whether more of it is to be read."""
        return self._unfinished.may_go_on(self, self._of_one)

    def add(self, size: int) -> None:
        """So much more of it has come, or less is left of it; nothing once it has ended."""
        if self in self._of_one.arriving:
            self.size += size
            self._unfinished.add(self._of_one, size)

    def end(self) -> None:
        """It is complete, or nobody wants it any more. Calling it again is harmless."""
        self.on_room = None
        if self in self._of_one.arriving:
            self._unfinished.end(self, self._of_one)
