"""What a backend said last, in one line that can be shown anywhere. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

# Of one line in a message; the whole is in the log.
_LONGEST: Final = 300
_NODES_LAST: Final = re.compile(r"Node\.js v\S+")
# What terminals take for colours, titles and moves of the cursor (ECMA-48), up to where it ends or the line does.
_ESCAPES: Final = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]?|[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)?|[ -/]*[0-~]?)")


def last_said(lines: Sequence[str]) -> str:
    """The last line that says something; "" if none does. Node's ends with its version, behind the error's trace."""
    said = [line for line in lines if line.strip()]
    if said and _NODES_LAST.fullmatch(said[-1]):
        said = [line for line in said if line[0] not in " }"][:-1] or said
    return said[-1].strip() if said else ""


def plain(line: str) -> str:
    """A line as text and nothing else: no colours, no control characters, one space for many, and not too long."""
    text = " ".join("".join(char if char.isprintable() else " " for char in _ESCAPES.sub("", line)).split())
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def with_last_said(reason: str, lines: Sequence[str]) -> str:
    """Why a backend has ended, and the last line that it said, if it said any."""
    said = plain(last_said([_ESCAPES.sub("", line) for line in lines]))
    return f"{reason}; its last line on stderr: {said}" if said else reason


def with_unsaid(text: str, lines: Sequence[str]) -> str:
    """A text with a backend's last lines behind it, but for those that stand at the end of one of its own."""
    ends = tuple(f": {line}" for line in text.split("\n"))
    unsaid = [line for line in lines if not any(end.endswith(f": {plain(line)}") for end in ends)]
    return "\n".join((text, *unsaid))
