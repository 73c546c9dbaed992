"""Where two JSON values first differ, and what stands around it. Pure."""

from __future__ import annotations

from itertools import zip_longest
from typing import Any, Final

import msgspec

# Characters that are shown on either side of a difference.
_AROUND: Final = 30
_ABSENT: Final = object()


def first_difference(one: Any, other: Any) -> str | None:
    """Where they differ, and how: ``at content[0].text: "…at 4, 2" and "…at 4, 3"``; None if they are the same."""
    return _difference(one, other, "")


def _difference(one: Any, other: Any, path: str) -> str | None:
    if isinstance(one, dict) and isinstance(other, dict):
        pairs = ((f"{path}.{key}", one.get(key, _ABSENT), other.get(key, _ABSENT)) for key in one | other)
    elif isinstance(one, list) and isinstance(other, list):
        items = enumerate(zip_longest(one, other, fillvalue=_ABSENT))
        pairs = ((f"{path}[{index}]", mine, theirs) for index, (mine, theirs) in items)
    elif one == other and isinstance(one, bool) is isinstance(other, bool):
        return None
    else:
        where = f"at {path.lstrip('.')}: " if path else ""
        return f"{where}{' and '.join(_surroundings(one, other))}"
    return next((found for at, mine, theirs in pairs if (found := _difference(mine, theirs, at)) is not None), None)


def _surroundings(one: Any, other: Any) -> tuple[str, str]:
    """Both values, as far as they lie around their first difference."""
    first, second = _text(one), _text(other)
    at = next((index for index, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), 0)
    return _around(first, at), _around(second, at)


def _text(value: Any) -> str:
    return "nothing" if value is _ABSENT else msgspec.json.encode(value).decode()


def _around(text: str, at: int) -> str:
    start, end = max(0, at - _AROUND), at + _AROUND
    return f"{'…' if start else ''}{text[start:end]}{'…' if end < len(text) else ''}"
