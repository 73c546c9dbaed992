"""JSON-RPC codes that muxsim answers with itself, from the range left to implementations."""

from __future__ import annotations

from typing import Final

BACKEND_GONE: Final = -32000
CALL_TIMEOUT: Final = -32001
SESSION_ENDED: Final = -32002
BUSY: Final = -32003
