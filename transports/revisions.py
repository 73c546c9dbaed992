"""The revisions of MCP that there are. Pure.

They are the official SDK's, which tests compare with them; it takes too long to import for a server to start with.
"""

from __future__ import annotations

from typing import Final

HANDSHAKE_VERSIONS: Final = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")
"""Those that begin with a handshake, oldest first."""
MODERN_VERSIONS: Final = ("2026-07-28",)
"""Those without one: each request says what a handshake would."""
KNOWN_VERSIONS: Final = (*HANDSHAKE_VERSIONS, *MODERN_VERSIONS)

PROTOCOL_VERSION_KEY: Final = "io.modelcontextprotocol/protocolVersion"
CLIENT_CAPABILITIES_KEY: Final = "io.modelcontextprotocol/clientCapabilities"
"""What a request of the latter has to have in its `_meta`."""
