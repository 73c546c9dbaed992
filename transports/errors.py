"""What can go wrong between two MCP peers, and whose fault it is."""

from __future__ import annotations

from typing import Any

PARSE_ERROR = -32700
INVALID_REQUEST = -32600
METHOD_NOT_FOUND = -32601
INVALID_PARAMS = -32602
INTERNAL_ERROR = -32603
# Those of revisions without a handshake.
HEADER_MISMATCH = -32020
MISSING_CAPABILITY = -32021
UNSUPPORTED_VERSION = -32022


class TransportError(Exception):
    """Anything that a transport raises."""


class RemoteProtocolError(TransportError):
    """The peer sent something that is not an MCP message.

    ``code`` is the JSON-RPC error code that answers it, and ``data`` the error's data member, if any.
    """

    def __init__(self, code: int, message: str, data: Any = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.data = data


class LineTooLong(RemoteProtocolError):
    """A line grew past the limit before its newline came."""

    def __init__(self, limit: int) -> None:
        super().__init__(INVALID_REQUEST, f"a line is longer than the limit of {limit} bytes (max_line)")
        self.limit = limit


class LineTorn(RemoteProtocolError):
    """The stream ended within a line; what there is of it is no message."""

    def __init__(self, cause: RemoteProtocolError) -> None:
        super().__init__(cause.code, f"the stream ended within a line: {cause.message}")


class ReceiverBusy(TransportError):
    """Whoever messages are for takes none for now, and no more may wait: ``setting`` is the bound that was met."""

    def __init__(self, code: int, message: str, setting: str) -> None:
        super().__init__(f"{message} ({setting})")
        self.code = code
        self.setting = setting
