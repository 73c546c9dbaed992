"""Which HTTP request a message came with, as its headers name it and the trace that it belongs to.

Any client can say anything in these, and they end in logs and at backends: what is not in the form of the header, or
too long, is taken for not being there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, NamedTuple

_MOST: Final = 128
# As W3C Trace Context has them.
TRACEPARENT: Final = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-.{0,64})?")
_MOST_STATE: Final = 512
_PRINTABLE: Final = re.compile(r"[\x21-\x7e]+")
_TEXT: Final = re.compile(r"[\x20-\x7e]+")


class Origin(NamedTuple):
    """A request by its X-Request-ID, and its caller's trace; None for what it does not name."""

    request: str | None = None
    traceparent: str | None = None
    tracestate: str | None = None


REQUEST_ID: Final = b"x-request-id"
PARENT: Final = b"traceparent"
_STATE: Final = b"tracestate"


def origin_of(headers: Iterable[tuple[bytes, bytes]]) -> Origin | None:
    """What these headers, names in lower case, say of where their request comes from; None if nothing."""
    found = {name: value.decode("latin-1").strip() for name, value in headers if name in (REQUEST_ID, PARENT, _STATE)}
    if not found:
        return None
    parent = traceparent_in(found.get(PARENT, ""))
    request = found.get(REQUEST_ID, "")
    state = found.get(_STATE, "")
    origin = Origin(
        request if len(request) <= _MOST and _PRINTABLE.fullmatch(request) else None,
        parent,
        state if parent and len(state) <= _MOST_STATE and _TEXT.fullmatch(state) else None,
    )
    return origin if any(origin) else None


def traceparent_in(text: str) -> str | None:
    """The text, if it is a traceparent."""
    return text if len(text) <= _MOST and TRACEPARENT.fullmatch(text) else None
