"""How sessions have failed that are no more, for clients that come just too late to be answered by one."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import Final

from muxsim.observe.events import FAILURES
from muxsim.session.session import Session
from muxsim.session.states import Ending

# So many of the newest are remembered, each with so many characters of its last words: 512 KiB at most.
_MOST: Final = 128
_MOST_WORDS: Final = 4096


@dataclass(frozen=True, slots=True)
class Past:
    """A session that has ended: how it did, and whose it was."""

    owner: str | None
    shared: bool
    ending: Ending


class Endings:
    """The newest failures, by the session's id."""

    def __init__(self) -> None:
        self._past: OrderedDict[str, Past] = OrderedDict()

    def __len__(self) -> int:
        return len(self._past)

    def remember(self, session: Session) -> None:
        """Keep how ``session`` has ended, if nobody wished for that."""
        ending = session.ending
        if ending is None or ending.cause not in FAILURES:
            return
        self._past[session.id] = Past(session.owner, session.shared, _short(ending))
        while len(self._past) > _MOST:
            self._past.popitem(last=False)

    def of(self, id: str) -> Past | None:
        """How the session with this id ended, if it failed and not too long ago."""
        return self._past.get(id)


def _short(ending: Ending) -> Ending:
    if ending.exit is None:
        return ending
    room, lines = _MOST_WORDS, list[str]()
    for line in reversed(ending.exit.stderr):
        room -= len(line)
        if room < 0:
            break
        lines.append(line)
    return replace(ending, exit=replace(ending.exit, stderr=tuple(reversed(lines))))
