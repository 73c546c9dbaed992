"""Every refusal is JSON: also those that libraries write in front of and beside the application's own."""

from __future__ import annotations

from typing import Any, Final

from starlette.types import ASGIApp, Receive, Scope, Send

from transports.asgi import JSON_TYPE, Call, refuse
from transports.http_rules import HTTPRefusal, header

_OF_THE_BODY: Final = frozenset({b"content-type", b"content-length"})
_LONGEST: Final = 200
_FAILED: Final = HTTPRefusal(500, "muxsim failed; see its log", code=-32603, headers=[(b"connection", b"close")])


class JSONRefusals:
    """An application whose answers from 400 on are all JSON-RPC errors, an exception's too."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        answer = _Answer(Call(scope, receive, send))
        try:
            await self._app(scope, receive, answer.send)
        except ConnectionAbortedError:
            raise
        except Exception:
            if not answer.started:
                await refuse(Call(scope, receive, send), _FAILED)
            raise


class _Answer:
    """One answer on its way out; where it is a refusal in another form, it is put off until its text is there."""

    def __init__(self, call: Call) -> None:
        self.started = False
        self._call = call
        self._status = 0
        self._headers: list[tuple[bytes, bytes]] = []
        self._text = b""

    async def send(self, event: Any) -> None:
        if self._status:
            self._text = (self._text + event.get("body", b""))[:_LONGEST]
            if not event.get("more_body", False):
                await refuse(self._call, self._in_json())
            return
        if event["type"] == "http.response.start":
            self.started = True
            if event["status"] >= 400 and header(event["headers"], JSON_TYPE[0]) != JSON_TYPE[1].decode():
                self._status, self._headers = event["status"], list(event["headers"])
                return
        await self._call.send(event)

    def _in_json(self) -> HTTPRefusal:
        text = self._text.decode("utf-8", "replace")
        allowed = header(self._headers, b"allow")
        if self._status == 405:
            text = f"{self._call.scope['method']} is not for this URL; {allowed} is"
        kept = [(name, value) for name, value in self._headers if name not in _OF_THE_BODY]
        return HTTPRefusal(self._status, text, headers=kept)
