"""What was found, in words for whoever runs muxsim. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

State = Literal["ok", "warning", "error"]

AREAS: Final = ("programs", "isolation", "room", "config")
"""What findings are about, in the order in which they are shown."""

_MOST_NAMES: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at: a warning where nothing of the config needs it, an error where something does."""

    area: str
    """One of `AREAS`."""

    name: str
    state: State
    found: str
    """What is there."""

    lost: str = ""
    """What will not work; "" if all does."""

    advice: str = ""
    """What to do about that."""


def there(area: str, name: str, found: str) -> Finding:
    """All is well."""
    return Finding(area=area, name=name, state="ok", found=found)


def lacking(area: str, name: str, found: str, *, lost: str, advice: str, users: Sequence[str] = ()) -> Finding:
    """Something is not there, or too old: an error if environments use it."""
    needed = f"{lost} (for {_listed(users)})" if users else lost
    state: State = "error" if users else "warning"
    return Finding(area=area, name=name, state=state, found=found, lost=needed, advice=advice)


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_MOST_NAMES])
    return shown if len(names) <= _MOST_NAMES else f"{shown} and {len(names) - _MOST_NAMES} more"
