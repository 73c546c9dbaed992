"""One way to write a JSON endpoint: a function that is given the call and what its path names, and returns a value."""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Any

import msgspec

from transports.asgi import Call, respond
from transports.http_rules import RawHeaders


@dataclass(frozen=True, slots=True)
class Answered:
    """An answer that is more than a value with the status 200."""

    value: Any
    status: int = 200
    headers: RawHeaders = ()


NOTHING = Answered(None, 204)
"""There is nothing to say but that it is done."""


async def answer_in_json(call: Call, answering: Awaitable[Any]) -> None:
    """Write what a function returns, a value or an `Answered`."""
    found = await answering
    answered = found if isinstance(found, Answered) else Answered(found)
    body = b"" if answered is NOTHING else msgspec.json.encode(answered.value)
    await respond(call, answered.status, body, answered.headers)
