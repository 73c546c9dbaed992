"""What clients have sent of bodies and texts that are not complete: how much of it there may be for one client.

Nobody is refused for it: past the bound only the oldest of a client's bodies is read on, until it is complete. So the
client waits for itself, and always gets on.
"""

from __future__ import annotations

from collections.abc import Callable

from muxsim.observe.events import Events, HTTPLimit


class Unfinished:
    """The bodies that are arriving, by whose they are. A client's may hold ``most`` bytes together; one may always."""

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

    def begin(self, share: str) -> Arriving:
        """One more body of a client begins to arrive."""
        of_one = self._of_share.setdefault(share, _OfOne())
        arriving = Arriving(self, share)
        of_one.arriving[arriving] = None
        return arriving

    def may_go_on(self, arriving: Arriving) -> bool:
        """Whether more of a body is to be read: all of its client's are within the bound, or it is the oldest."""
        of_one = self._of_share.get(arriving.share)
        if of_one is None or arriving not in of_one.arriving:
            return True
        return of_one.bytes <= self._most or next(iter(of_one.arriving)) is arriving

    def add(self, arriving: Arriving, size: int) -> None:
        """So much more of it has come."""
        of_one = self._of_share.get(arriving.share)
        if of_one is None or arriving not in of_one.arriving:
            return
        was_within = of_one.bytes <= self._most
        of_one.bytes += size
        if was_within and of_one.bytes > self._most and len(of_one.arriving) > 1:
            self._events.emit(HTTPLimit("max_unfinished"))

    def end(self, arriving: Arriving) -> None:
        """It is complete, or nobody wants it any more."""
        of_one = self._of_share.get(arriving.share)
        if of_one is None or arriving not in of_one.arriving:
            return
        del of_one.arriving[arriving]
        of_one.bytes -= arriving.size
        if not of_one.arriving:
            del self._of_share[arriving.share]
        for other in list(of_one.arriving):
            if other.on_room is not None and self.may_go_on(other):
                other.on_room()


class _OfOne:
    """What one client has, the oldest first."""

    def __init__(self) -> None:
        self.arriving: dict[Arriving, None] = {}
        self.bytes = 0


class Arriving:
    """One body, or one text of a WebSocket, of a client's ``share``; made by `Unfinished.begin`.

    ``on_room`` is called when it may go on again; it may be called when it could before.
    """

    def __init__(self, unfinished: Unfinished, share: str) -> None:
        self._unfinished = unfinished
        self.share = share
        self.size = 0
        self.on_room: Callable[[], None] | None = None

    @property
    def may_go_on(self) -> bool:
        """Whether more of it is to be read."""
        return self._unfinished.may_go_on(self)

    def add(self, size: int) -> None:
        """So much more of it has come."""
        self._unfinished.add(self, size)
        self.size += size

    def end(self) -> None:
        """It is complete, or nobody wants it any more. Calling it again is harmless."""
        self._unfinished.end(self)
        self.on_room = None
