"""Tells a program, once for each, what the names that it uses have become."""

from __future__ import annotations

import sys
import warnings
from types import FrameType

_PACKAGE = "muxsim.compat.reward_kit"
_told: set[str] = set()


def renamed(old: str, new: str) -> None:
    """Warn that ``old`` is ``new`` now, the first time that it is used, where the program uses it."""
    if old not in _told:
        _told.add(old)
        text = f"{old} is reward-kit's: {new} (docs/from-reward-kit.md)"
        warnings.warn(text, DeprecationWarning, stacklevel=_frames_of_ours())


def _frames_of_ours() -> int:
    """How many frames up the first one is that is not this package's; warnings leave out those of imports."""
    count = 0
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and (_imports(frame) or frame.f_globals.get("__name__", "").startswith(_PACKAGE)):
        count += not _imports(frame)
        frame = frame.f_back
    return count + 1


def _imports(frame: FrameType) -> bool:
    return frame.f_code.co_filename.startswith("<frozen importlib")
