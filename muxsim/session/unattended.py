"""What a client says to its server's requests when nobody sits in front of it. Pure.

Every request gets an answer in the protocol's words: a server that is told nothing waits, and its tool call with it.
"""

from __future__ import annotations

from typing import Any, Final

from transports import messages
from transports.errors import METHOD_NOT_FOUND
from transports.messages import Message

# MCP's code for a person who does not want a model to be asked.
_REJECTED: Final = -1
_RESULTS: Final[dict[str, Any]] = {
    "ping": {},
    "roots/list": {"roots": []},
    "elicitation/create": {"action": "decline"},
}


def answer_to(request: Message) -> Message:
    """The answer to a server's request: no folders are open, nobody fills in a form, and no model may be asked."""
    assert request.id is not None
    if request.method in _RESULTS:
        return messages.result(request.id, _RESULTS[request.method])
    if request.method == "sampling/createMessage":
        return messages.error(request.id, _REJECTED, "User rejected sampling request")
    return messages.error(request.id, METHOD_NOT_FOUND, f"this client has no {request.method}")
