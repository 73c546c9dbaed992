"""Who reads an answer that goes on: how many may at once, whose share of that is whose, and until when. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

from muxsim.serve.auth.callers import Caller, Scope
from transports.http_rules import HTTPRefusal

# Of the places, what one principal may have, so that it takes at least four to take them from all others ...
_SHARE: Final = 4
# ... and what nobody else may have, so that who is to see what goes on always can.
_KEPT: Final = 8
_COME_BACK: Final = (b"retry-after", b"10")


class Reading:
    """One reader of such an answer, whose place is free again when this is left."""

    def __init__(self, readers: Readers, caller: Caller, share: str, era: int) -> None:
        self.caller = caller
        self._readers = readers
        self._share = share
        self._era = era

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._readers.leave(self._share)

    @property
    def goes_on(self) -> bool:
        """Whether its token is still good, as far as anybody knows."""
        return self._era == self._readers.era and self.left > 0

    @property
    def left(self) -> float:
        """Seconds until its token expires."""
        return self.caller.expires - self._readers.now()


class Readers:
    """Hands places out. ``now`` gives the seconds since 1970."""

    def __init__(self, what: str, most: int, now: Callable[[], float]) -> None:
        """``what`` is in a refusal: "feeds of the server"."""
        self.most = most
        self.now = now
        self.era = 0
        self._what = what
        self._held: Counter[str] = Counter()

    def __repr__(self) -> str:
        return f"<Readers of {self._what}: {self._held.total()} of {self.most}>"

    def doubt(self) -> None:
        """Other tokens are good from now on: who reads has to ask again, and shows who that is."""
        self.era += 1

    def admit(self, caller: Caller, peer: str) -> Reading:
        """Give ``caller`` a place. Raises a 429 if it has its share, and a 503 if there is none for it."""
        share, held = caller.share(peer), self._held.total()
        # Without tokens nobody is told from anybody else on this machine.
        if caller.name is not None and self._held[share] >= max(1, self.most // _SHARE):
            text = (
                f"{self._held[share]} {self._what} are open for {share}, as many as one principal may have: close one"
            )
            raise HTTPRefusal(429, text, headers=[_COME_BACK])
        looks_after_it = Scope.MONITOR in caller.scope
        if held >= (self.most if looks_after_it else self.most - self.most // _KEPT):
            kept = "" if looks_after_it else "; more are kept for tokens of the scopes monitor and admin"
            text = f"{held} {self._what} are open, as many as may{kept}: have one closed, or try again later"
            raise HTTPRefusal(503, text, headers=[_COME_BACK])
        self._held[share] += 1
        return Reading(self, caller, share, self.era)

    def leave(self, share: str) -> None:
        """A reader of this share is gone."""
        self._held[share] -= 1
        if not self._held[share]:
            del self._held[share]

    def __bool__(self) -> bool:
        return bool(self._held)
