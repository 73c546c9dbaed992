"""Who wants a lease, who waits for one, and whose start is under way. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass


@dataclass(slots=True, eq=False)
class Wish:
    """One for a lease, which may be held already; ``asked`` is whether its backend has been asked for an answer."""

    number: int
    env: str
    client: str | None
    held: bool = False
    starting_until: float = 0.0
    asked: bool = False


class Starts:
    """Starts under way, as each client has to count them.

    One that is asked for its first answer keeps the machine busy, and so counts for all. One that waits for its client
    to ask counts for that client only: who opens and does not go on must not hold the turns of others.
    """

    def __init__(self) -> None:
        self._asked: set[Wish] = set()
        self._unasked: dict[str | None, set[Wish]] = {}

    def __len__(self) -> int:
        return len(self._asked) + sum(map(len, self._unasked.values()))

    def __iter__(self) -> Iterator[Wish]:
        yield from self._asked
        for wishes in self._unasked.values():
            yield from wishes

    def add(self, wish: Wish) -> None:
        """Count one, asked or not; again when that has changed."""
        self.discard(wish)
        (self._asked if wish.asked else self._unasked.setdefault(wish.client, set())).add(wish)

    def discard(self, wish: Wish) -> None:
        """Count one no more."""
        self._asked.discard(wish)
        own = self._unasked.get(wish.client)
        if own is not None:
            own.discard(wish)
            if not own:
                del self._unasked[wish.client]

    def __contains__(self, wish: Wish) -> bool:
        return wish in self._asked or wish in self._unasked.get(wish.client, ())

    def of_all(self) -> int:
        """Those that everybody has to count."""
        return len(self._asked)

    def for_client(self, client: str | None) -> int:
        """Those that this client has to count."""
        return len(self._asked) + len(self._unasked.get(client, ()))


class Queue:
    """Lines of those who wait, one for each environment and client. Environments take turns, and clients within one."""

    def __init__(self) -> None:
        self._lines: dict[str, dict[str | None, dict[int, Wish]]] = {}
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def environments(self) -> list[str]:
        return list(self._lines)

    def has(self, env: str) -> bool:
        return env in self._lines

    def all_of(self, env: str) -> list[Wish]:
        return [wish for line in self._lines[env].values() for wish in line.values()]

    def add(self, wish: Wish) -> None:
        self._lines.setdefault(wish.env, {}).setdefault(wish.client, {})[wish.number] = wish
        self._length += 1

    def remove(self, wish: Wish) -> None:
        lines = self._lines[wish.env]
        del lines[wish.client][wish.number]
        self._length -= 1
        if not lines[wish.client]:
            del lines[wish.client]
        if not lines:
            del self._lines[wish.env]

    def next(self, may_start: Callable[[Wish], bool]) -> Wish | None:
        """Whose turn it is among those who may start."""
        for lines in self._lines.values():
            for line in lines.values():
                wish = next(iter(line.values()))
                if may_start(wish):
                    return wish
        return None

    def take(self, wish: Wish) -> None:
        """Take out whose turn it was; its environment and client go to the end, until it is their turn again."""
        lines = self._lines[wish.env]
        lines[wish.client] = lines.pop(wish.client)
        self._lines[wish.env] = self._lines.pop(wish.env)
        self.remove(wish)

    def last_of_longest(self) -> Wish:
        """Who is last in the longest line; among lines as long, who came last of all."""
        lines = [line for lines in self._lines.values() for line in lines.values()]
        longest = max(lines, key=lambda line: (len(line), next(reversed(line))))
        return longest[next(reversed(longest))]
