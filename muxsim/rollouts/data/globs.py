"""Patterns for the paths of files, walked name by name: a folder in which nothing can match is not looked into.

``*``, ``?`` and ``[a-z]`` stand for parts of one name, ``**`` for any number of folders, none included. A pattern with
``**`` or ``/`` at its end is for everything below.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable
from typing import Final

_ANY_FOLDERS: Final = None
_Part = re.Pattern[str] | None


class Globs:
    """Several patterns. What remains of them below a folder is a state, which only they can read."""

    State = frozenset[tuple[int, int]]

    def __init__(self, patterns: Iterable[str]) -> None:
        self._patterns = [_parts(pattern) for pattern in patterns]
        self.start: Globs.State = self._closed((pattern, 0) for pattern in range(len(self._patterns)))

    def below(self, state: State, name: str) -> State:
        """What remains behind one more name."""
        behind = []
        for pattern, at in state:
            parts = self._patterns[pattern]
            if at == len(parts):
                continue
            part = parts[at]
            if part is _ANY_FOLDERS:
                behind.append((pattern, at))
            elif part.fullmatch(name):
                behind.append((pattern, at + 1))
        return self._closed(behind)

    def matches(self, state: State) -> bool:
        """Whether a file here is meant."""
        return any(at == len(self._patterns[pattern]) for pattern, at in state)

    def leads_on(self, state: State) -> bool:
        """Whether a file below here may be meant."""
        return any(at < len(self._patterns[pattern]) for pattern, at in state)

    def _closed(self, state: Iterable[tuple[int, int]]) -> State:
        closed: set[tuple[int, int]] = set()
        for pattern, at in state:
            parts = self._patterns[pattern]
            last = at
            while last < len(parts) and parts[last] is _ANY_FOLDERS:
                last += 1
            closed.update((pattern, one) for one in range(at, last + 1))
        return frozenset(closed)


def _parts(pattern: str) -> list[_Part]:
    names = [name for name in pattern.split("/") if name not in ("", ".")]
    if pattern.endswith("/"):
        names.append("**")
    if names[-1:] == ["**"]:
        names.append("*")
    return [_ANY_FOLDERS if name == "**" else re.compile(fnmatch.translate(name)) for name in names]
