"""JSON as endpoints write it: with half an emoji here and there, and with what only Python calls JSON. Pure.

A stream is cut between tokens, and a token may be half of a character: half of a surrogate pair, as ``\\ud83d``, or
some of a character's bytes. Both are kept until the other half comes.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final

import msgspec

_PAIR: Final = re.compile("[\ud800-\udbff][\udc00-\udfff]")
# Halves that stand for no byte: those from 0xDC80 to 0xDCFF stand for one that was no UTF-8.
_ALONE: Final = re.compile("[\ud800-\udc7f\udd00-\udfff]")
_ANY_HALF: Final = re.compile("[\ud800-\udfff]")


def decoded(text: bytes) -> Any:
    """JSON that stands alone. Raises ValueError."""
    try:
        return msgspec.json.decode(text)  # which takes no halves, so that there are none to mend
    except (ValueError, RecursionError):
        return mended(decoded_piece(text))


def decoded_piece(text: bytes) -> Any:
    """JSON with halves of characters in it, whose other halves come with the next piece. Raises ValueError."""
    try:
        return msgspec.json.decode(text)
    except (ValueError, RecursionError):
        pass
    try:
        return json.loads(text.decode("utf-8", "surrogateescape"))
    except RecursionError:
        raise ValueError("nested too deep") from None


def mended(value: Any) -> Any:
    """JSON with the halves in its texts put together; one that is left alone becomes U+FFFD."""
    if isinstance(value, str):
        return _mended_text(value)
    if isinstance(value, list):
        return [mended(item) for item in value]
    if isinstance(value, dict):
        return {_mended_text(key): mended(item) for key, item in value.items()}
    return value


def is_json_object(text: Any) -> bool:
    """Whether a text, or None, is the JSON of an object."""
    try:
        return isinstance(msgspec.json.decode(text), dict)
    except (ValueError, TypeError, RecursionError):
        return False


def _mended_text(text: str) -> str:
    if text.isascii() or not _ANY_HALF.search(text):
        return text
    joined = _PAIR.sub(lambda pair: pair[0].encode("utf-16", "surrogatepass").decode("utf-16"), text)
    return _ALONE.sub("\ufffd", joined).encode("utf-8", "surrogateescape").decode("utf-8", "replace")
