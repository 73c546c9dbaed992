"""One way to write a JSON endpoint: a function that is given the call and what its path names, and returns a value."""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

from transports.asgi import Call, read_body, respond
from transports.http_rules import HTTPRefusal, RawHeaders, check_json_content

T = TypeVar("T")


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


async def read_json(call: Call, decoder: msgspec.json.Decoder[T], form: str, longest: int, timeout: float) -> T:
    """What a request has in a body of this ``form``; nothing at all is an empty object."""
    check_json_content(call.headers)
    body = await read_body(call, longest, timeout)
    try:
        return decoder.decode(body or b"{}")
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise HTTPRefusal(400, f"the body must be {form}: {error}") from None
