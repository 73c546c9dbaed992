"""Tells a program, once for each, what the names that it uses have become."""

from __future__ import annotations

import warnings

_told: set[str] = set()


def renamed(old: str, new: str, *, level: int = 3) -> None:
    """Warn that ``old`` is ``new`` now, the first time that it is used; ``level`` is the caller's who wrote it."""
    if old not in _told:
        _told.add(old)
        warnings.warn(f"{old} is reward-kit's: {new} (docs/from-reward-kit.md)", DeprecationWarning, stacklevel=level)
