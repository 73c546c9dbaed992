"""What whoever runs a muxsim may ask of it, over HTTP: ``POST /operate/<command>``, for a token of the admin's."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, TypeAlias

import msgspec

from muxsim.errors import NotDone, NotThere
from muxsim.serve.auth.callers import Scope, forbidden
from muxsim.serve.routes.guard import caller_of
from transports.asgi import Call, read_body
from transports.http_rules import HTTPRefusal, check_json_content

Answering: TypeAlias = Callable[[str, Mapping[str, Any], str], Awaitable[dict[str, Any]]]
"""Gives the answer to a command, what came with it, and who asks, in words. Raises `NotDone`."""

_MAX_BODY: Final = 4096
_BODY_TIMEOUT: Final = 10.0
_decoder: Final = msgspec.json.Decoder(dict[str, str | int | float | bool | None])


class Operating:
    """The endpoint; it has nobody to ask before `answer` is set."""

    def __init__(self) -> None:
        self.answer: Answering | None = None

    async def do(self, call: Call, command: str) -> Any:
        """``POST /operate/<command>``, with an object of what the command needs."""
        caller = caller_of(call)
        if Scope.ADMIN not in caller.scope:
            raise forbidden(Scope.ADMIN)
        if caller.name is None:
            # Any process of this machine may call then, a session's backend too: that must not stop muxsim.
            raise HTTPRefusal(403, "this needs a token of the admin's ([server.auth]); without tokens: muxsim ctl")
        check_json_content(call.headers)
        try:
            arguments = _decoder.decode(await read_body(call, _MAX_BODY, _BODY_TIMEOUT) or b"{}")
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise HTTPRefusal(400, f"the body must be an object of names and values: {error}") from None
        if self.answer is None:
            raise HTTPRefusal(503, "muxsim is only starting")
        try:
            return _unless_refused(await self.answer(command, arguments, f"{caller.name} from {call.peer}"))
        except NotThere as error:
            raise HTTPRefusal(404, str(error)) from None
        except NotDone as error:
            raise HTTPRefusal(409, str(error)) from None


def _unless_refused(answer: dict[str, Any]) -> dict[str, Any]:
    if isinstance(problem := answer.get("error"), str):
        raise HTTPRefusal(409, problem)
    return answer
