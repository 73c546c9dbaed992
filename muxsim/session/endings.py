"""How sessions have ended that are no more: for clients that come too late to be answered by one, and for operators."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from muxsim.observe.events import FAILURES
from muxsim.session.session import Session
from muxsim.session.states import Ending

KEPT: Final = 600.0
"""Seconds for which an end is remembered."""

# So many of the newest failures are remembered, each with so many characters of its last words: 512 KiB at most. The
# others are apart, so that many sessions that end as they should do not have one forgotten that failed.
_MOST_FAILURES: Final = 128
_MOST_OTHERS: Final = 4096
_MOST_WORDS: Final = 4096
# A URL that names a session may come for it long after its end, and is not to begin an episode anew unawares. Half a
# kilobyte each.
_MOST_NAMED: Final = 8192
_LONG_AGO: Final = "the session ended some time ago ({})"


@dataclass(frozen=True, slots=True)
class Past:
    """A session that has ended, or is about to: what it was, whose, and how it ended, at ``ended`` by its clock."""

    id: str
    number: int
    env: str
    seed: int
    owner: str | None
    peer: str | None
    shared: bool
    ending: Ending
    created: float
    ended: float
    began: bool = True
    """Whether its backend has answered anything, or at least has not failed to."""


class Endings:
    """The newest ends, by the session's id."""

    def __init__(self) -> None:
        self._failures: OrderedDict[str, Past] = OrderedDict()
        self._others: OrderedDict[str, Past] = OrderedDict()
        self._named: OrderedDict[str, Past] = OrderedDict()

    def __len__(self) -> int:
        return len(self._failures) + len(self._others)

    def remember(self, past: Past, *, named: bool = False) -> None:
        """Keep how a session has ended; for longer if it was ``named`` by the URL that made it."""
        self._named.pop(past.id, None)
        if named and past.began:
            self._named[past.id] = replace(past, ending=Ending(past.ending.cause, _LONG_AGO.format(past.ending.cause)))
            if len(self._named) > _MOST_NAMED:
                self._named.popitem(last=False)
        self._failures.pop(past.id, None)
        self._others.pop(past.id, None)
        failed = past.ending.cause in FAILURES
        kept, most = (self._failures, _MOST_FAILURES) if failed else (self._others, _MOST_OTHERS)
        kept[past.id] = past
        while len(kept) > most or next(iter(kept.values())).ended <= past.ended - KEPT:
            kept.popitem(last=False)

    def of(self, id: str, now: float) -> Past | None:
        """How the session with this id ended, if that is not too long ago."""
        past = self._failures.get(id) or self._others.get(id)
        return past if past is not None and now < past.ended + KEPT else None

    def named(self, id: str) -> Past | None:
        """That and whose it was, of one that a URL has named, however long ago; without what was said of its end."""
        return self._named.get(id)

    def all(self, now: float) -> Iterator[Past]:
        """Those that ended not too long ago, the latest last."""
        everything = [*self._failures.values(), *self._others.values()]
        return (past for past in sorted(everything, key=lambda past: past.ended) if now < past.ended + KEPT)


def past_of(session: Session, now: float) -> Past | None:
    """What is to be remembered of a session; None of one that lives."""
    ending = session.ending
    if ending is None:
        return None
    spec, whose = session.spec, (session.owner, session.peer)
    made = session.id, session.number, spec.name, session.seed
    began = not session.failed_to_start
    return Past(*made, *whose, session.shared, _short(ending), session.created, now, began)


def _short(ending: Ending) -> Ending:
    text = ending.text[:_MOST_WORDS]
    if ending.exit is None:
        return ending if text == ending.text else replace(ending, text=text)
    room, lines = _MOST_WORDS, list[str]()
    for line in reversed(ending.exit.stderr):
        room -= len(line)
        if room < 0:
            break
        lines.append(line)
    return replace(ending, text=text, exit=replace(ending.exit, stderr=tuple(reversed(lines))))
