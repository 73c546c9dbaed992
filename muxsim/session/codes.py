"""JSON-RPC codes that muxsim answers with itself, from the range left to implementations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from transports.errors import INVALID_REQUEST, PARSE_ERROR

BACKEND_GONE: Final = -32000
CALL_TIMEOUT: Final = -32001
SESSION_ENDED: Final = -32002
BUSY: Final = -32003

KINDS: Final[Mapping[int | None, str]] = {
    BACKEND_GONE: "backend_gone",
    CALL_TIMEOUT: "call_timeout",
    SESSION_ENDED: "session_ended",
    BUSY: "busy",
    INVALID_REQUEST: "invalid_request",
    PARSE_ERROR: "unreadable",
}
"""What errors of muxsim's own are counted as; others are "other"."""
