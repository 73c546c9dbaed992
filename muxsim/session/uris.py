"""What a URI resolves to, as far as that decides who may have it. Pure.

Servers read the same text in different ways. What parses as a browser does (pydantic's AnyUrl, JavaScript's `URL`)
drops control characters and spaces around a URL, and tabs and line ends anywhere in it; others trim more, or nothing.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final
from urllib.parse import unquote

SCHEME: Final = "control"
_AROUND: Final = "".join(map(chr, range(0x21)))
_ANYWHERE: Final = str.maketrans("", "", "\t\n\r")
_WITH_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):[^\x00-\x1f\x7f-\x9f]*")
_PREFIX: Final = f"{SCHEME}:"
# What names another URL by putting a scheme before it (``url:``, ``view-source:``, ``jar:``) resolves to that.
_WRAPPED: Final = re.compile(rf"(?:[a-z][a-z0-9+.-]*:)+{SCHEME}:/")
# What a decoder puts for half of a surrogate pair; it is no part of any scheme.
_REPLACEMENT: Final = "\ufffd"
_SCORING: Final = ("reward", "status")
# As often as somebody may have encoded an encoded text; more is no URI of anybody's.
_DECODINGS: Final = 3


def plain(uri: str) -> str | None:
    """The form in which every parser sees the same URL outside of the control plane; None if there is none.

    What has no scheme that is written out is no such URL: it may resolve to anything.
    """
    normal = uri.strip(_AROUND).translate(_ANYWHERE)
    found = _WITH_SCHEME.fullmatch(normal)
    return None if found is None or is_control(normal) else normal


def is_control(uri: str) -> bool:
    """Whether some reader may take this for a URI of the control plane."""
    folded = _folded(uri)
    return folded.startswith(_PREFIX) or _WRAPPED.match(folded) is not None


def scores(uri: str) -> bool:
    """Whether a URI, or what a template begins with, is of the reward or the status, or may become one of them."""
    folded = _folded(uri)
    part, variable, _ = folded.removeprefix(_PREFIX).strip("/").partition("{")
    if not folded.startswith(_PREFIX):
        return False
    return any(name.startswith(part) if variable else name == part for name in _SCORING)


def may_become_control(template: str) -> bool:
    """Whether a URI template has expansions on the control plane."""
    fixed, variable, _ = template.partition("{")
    beginning = _folded(fixed)
    return is_control(fixed) or (bool(variable) and _PREFIX.startswith(beginning))


def _folded(text: str) -> str:
    """The text in lower case, without what cannot be seen, and with every encoding taken off."""
    for _ in range(_DECODINGS):
        if "%" not in text:
            break
        text = unquote(text)
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    return "".join(one for one in text if _is_seen(one)).casefold()


def _is_seen(one: str) -> bool:
    return one != _REPLACEMENT and not unicodedata.category(one).startswith(("C", "Z"))
