"""Tells a program, once for each, what the names that it uses have become."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from types import FrameType
from typing import Final

_FOLDER: Final = str(Path(__file__).parent)
_told: set[str] = set()


def renamed(old: str, new: str) -> None:
    """Warn that ``old`` is ``new`` now, the first time that it is used, where the program uses it."""
    if old not in _told:
        _told.add(old)
        text = f"{old} is reward-kit's: {new} (docs/from-reward-kit.md)"
        warnings.warn(text, DeprecationWarning, stacklevel=_frames_of_ours())


def _frames_of_ours() -> int:
    """How many frames up the first one is that is not this package's; warnings counts importlib's for nothing."""
    count = 0
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith((_FOLDER, "<frozen importlib")):
        count += not frame.f_code.co_filename.startswith("<frozen")
        frame = frame.f_back
    return count + 1
