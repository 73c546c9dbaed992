"""What single calls have earned, told from what an environment says after them. Pure.

``control://reward`` is the last step's, and a call may take none, one or several; ``control://status`` has the counts
that tell. Nothing is ever credited that they do not tell.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

STEP: Final = "step"
TOTAL: Final = "total_reward"
# Of the size of a total.
_ROUNDING: Final = 1e-5


class Unknown(Exception):
    """What a call has earned cannot be told; the message says why."""


class Ledger:
    """The counts of one session, as of the last time that they could be read."""

    def __init__(self) -> None:
        self._step: int | None = 0
        self._total: float | None = 0.0
        self.stale = False
        """Whether calls that are nobody's to score may have changed the counts."""

    def age(self) -> None:
        """A call was made after which the counts were not read, and whose earnings must not be the next one's."""
        self.stale = True

    def begin(self, status: Mapping[str, Any]) -> None:
        """Take the counts from before a call."""
        self._step, self._total = count_in(status.get(STEP)), number_in(status.get(TOTAL))
        self.stale = False

    def earned(self, status: Mapping[str, Any], last: float | None, *, failed: bool, crowded: bool) -> float | None:
        """What the call has earned before this status, where the last step's reward is ``last``, None if not known.

        None for a call that failed and took no step. ``crowded``: another call may have made steps meanwhile.
        Raises `Unknown`. What cannot be read at one call is part of the next one's difference.
        """
        stale, step, total = self.stale, self._step, self._total
        self.begin(status)
        moved = _difference(self._step, step)
        gained = _difference(self._total, total)
        if moved is None and gained is None:
            return None if failed else last  # it counts nothing: its last step is taken for the call's
        if stale:
            raise Unknown("what calls before this one have earned is not known")
        if moved == 1 and last is not None:
            if gained is not None and not is_close(gained, last, total or 0.0):
                raise Unknown(f"{last:g}, and by control://status the total has grown by {gained:g}")
            return last
        return _by_difference(moved, gained, failed=failed, crowded=crowded)


def _by_difference(moved: float | None, gained: float | None, *, failed: bool, crowded: bool) -> float | None:
    """What a call has earned that took another number of steps than one."""
    if moved is not None and moved < 0:
        raise Unknown("the count of steps went back")
    if not moved and not gained:
        return None if failed else 0.0
    if crowded:
        raise Unknown("a call that was given up may have made some of the steps")
    if gained is None:
        raise Unknown(f"{moved} steps, and no {TOTAL} to tell what they have earned")
    if not math.isfinite(gained):
        raise Unknown(f"the difference of {TOTAL} is out of range")
    return gained


def is_close(gained: float, said: float, total: float) -> bool:
    """Whether the two are the same, but for what adding up in float32 leaves."""
    return abs(gained - said) <= _ROUNDING * max(1.0, abs(total), abs(said))


def _difference(now: float | None, before: float | None) -> float | None:
    return None if now is None or before is None else now - before


def number_in(value: Any) -> float | None:
    """A finite number, or None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def count_in(value: Any) -> int | None:
    """A whole number, or None."""
    number = number_in(value)
    return None if number is None or not number.is_integer() else int(value)
