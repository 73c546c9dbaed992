"""Images in messages: taken out of the JSON that they come in, to be shown as such. Pure."""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from typing import Any, Final

import msgspec

# What a browser shows and cannot be made to run anything by; whatever else calls itself an image is sent as bytes.
SHOWN: Final = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp", "image/avif", "image/bmp"})
MOST_PICTURES: Final = 16
"""Of one message. More than these nobody looks at; they stay in what it says."""
_SIGN: Final = b"image"
# How deep a result is looked into: content, block, resource.
_DEEPEST: Final = 6
_MIME: Final = re.compile(r"image/[a-z0-9.+-]{1,64}")


@dataclass(frozen=True, slots=True)
class Picture:
    """An image: its base64 as it came, and in which block of the content it was, from 0."""

    mime: str
    data: str
    block: int

    @property
    def size(self) -> int:
        """Bytes."""
        return len(self.data) * 3 // 4 - self.data.count("=", -2)

    def decoded(self) -> bytes:
        """The bytes; none if it is no base64."""
        try:
            return base64.b64decode(self.data)
        except (binascii.Error, ValueError):
            return b""


def taken_out(payload: bytes) -> tuple[bytes, list[Picture]]:
    """A payload with empty data in the place of each image, and the images. What cannot be read stays as it is."""
    if _SIGN not in payload:
        return payload, []
    try:
        value = msgspec.json.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return payload, []
    found: list[Picture] = []
    _look(value, 0, 0, found)
    return (msgspec.json.encode(value), found) if found else (payload, [])


def _look(value: Any, block: int, depth: int, found: list[Picture]) -> None:
    if depth > _DEEPEST or len(found) >= MOST_PICTURES:
        return
    if isinstance(value, list):
        for index, one in enumerate(value):
            _look(one, index, depth + 1, found)
    elif isinstance(value, dict):
        mime = value.get("mimeType")
        for name in ("data", "blob"):
            data = value.get(name)
            if isinstance(data, str) and data and isinstance(mime, str) and _MIME.fullmatch(mime):
                found.append(Picture(mime, data, block))
                value[name] = ""
        for one in value.values():
            if isinstance(one, dict | list):
                _look(one, block, depth + 1, found)
