"""Takes out of text what nobody is to read in a log, a lock, a manifest or on a screen."""

from __future__ import annotations

import re
from typing import Final

# A user alone may be a token where it is one of the web; of git+ssh://git@… it is none.
_PASSWORD: Final = re.compile(r"(?i)(https?://)[^/\s\"'<>]*@|(://)[^/\s\"'<>@:]*:[^/\s\"'<>]*@")
_TOKEN: Final = re.compile(r"(://[^/\s\"']+)/t/[^/\s\"']+")
# Signed addresses have theirs there.
_QUERY: Final = re.compile(r"(://[^\s\"'?#<>]+)\?[^\s\"'#<>]*")


def without_secrets(text: str) -> str:
    """The text without the passwords, tokens and queries that addresses in it have."""
    bare = _PASSWORD.sub(lambda found: found[1] or found[2], text)
    return _TOKEN.sub(r"\1", _QUERY.sub(r"\1", bare))
