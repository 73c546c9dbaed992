"""Facts as they stand in an event stream."""

from __future__ import annotations

import json

import msgspec

from muxsim.serve.watch.feed import Fact
from transports.sse_codec import encode_event


def told(event: str, fact: Fact) -> bytes:
    """One event. A text may have half a surrogate pair, which is no UTF-8 but may be escaped."""
    try:
        data = msgspec.json.encode(fact)
    except UnicodeEncodeError:
        data = json.dumps(msgspec.to_builtins(fact)).encode()
    return encode_event(data, event=event.encode())
