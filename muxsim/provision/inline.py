"""What a Python script says itself that it needs: inline script metadata, as PEP 723 defines it."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any, Final

import msgspec

_BLOCK: Final = re.compile(r"(?m)^# /// (?P<type>[a-zA-Z0-9-]+)$\s(?P<content>(^#(| .*)$\s)+)^# ///$")


class Metadata(msgspec.Struct, frozen=True, rename="kebab"):
    """What the block of a script, or a project, says that is needed."""

    dependencies: tuple[str, ...] = ()
    requires_python: str = ""

    tool: dict[str, Any] = {}
    """What tools are told, by name."""


def has_metadata(script: Path) -> bool:
    """Whether a file is there and has a block of metadata in it, right or wrong."""
    try:
        return "\n# /// script" in "\n" + _text_of(script)
    except (OSError, UnicodeDecodeError):
        return False  # its interpreter will tell


def block_of(script: Path) -> str:
    """The blocks as they stand there. Raises ValueError and OSError where they cannot be read."""
    return "".join(match[0] for match in _BLOCK.finditer(_text_of(script)) if match["type"] == "script")


def read_metadata(script: Path) -> Metadata:
    """What the script says. Raises ValueError, which says what is wrong with it, and OSError."""
    return parse_metadata(_text_of(script))


def parse_metadata(text: str) -> Metadata:
    """What the text of a script says. Raises ValueError, which says what is wrong with it."""
    blocks = [match for match in _BLOCK.finditer(text) if match["type"] == "script"]
    if not blocks:
        raise ValueError("its `# /// script` has no end: close it with a line `# ///`")
    if len(blocks) > 1:
        raise ValueError("it has several `# /// script` blocks: make one of them")
    lines = blocks[0]["content"].splitlines()
    content = "\n".join(line[2:] if line.startswith("# ") else line[1:] for line in lines)
    try:
        return msgspec.convert(tomllib.loads(content), Metadata)
    except ValueError as error:
        raise ValueError(f"its `# /// script` cannot be read: {error}") from error


def _text_of(script: Path) -> str:
    return script.read_text(encoding="utf-8-sig").replace("\r\n", "\n")
