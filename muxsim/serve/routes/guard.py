"""Who sent a request: asked before anything looks at it, and known afterwards to whoever serves it."""

from __future__ import annotations

from functools import partial
from typing import Final

from starlette.types import ASGIApp, Receive, Send
from starlette.types import Scope as ASGIScope

from muxsim.serve.auth.authenticator import Authenticator
from muxsim.serve.auth.callers import ANYONE, Caller, Scope, bearer_token, forbidden, needed_scopes
from muxsim.serve.http.unfinished import Unfinished
from muxsim.serve.http.unread import Reader, read_by
from transports.asgi import WAITING, Call, refuse
from transports.http_rules import HTTPRefusal, RawHeaders

_CALLER: Final = "muxsim.caller"


class Guard:
    """Lets a request through to an application if its token is good for its path; without tokens, every one."""

    def __init__(self, app: ASGIApp, auth: Authenticator | None, unfinished: Unfinished) -> None:
        self._app = app
        self._auth = auth
        self._unfinished = unfinished

    async def __call__(self, scope: ASGIScope, receive: Receive, send: Send) -> None:
        """Serve one request, or refuse it."""
        call = Call(scope, receive, send)
        try:
            scope[_CALLER] = caller = ANYONE if self._auth is None else await _admit(call, self._auth)
        except HTTPRefusal as refusal:
            await refuse(call, refusal)
            return
        share = caller.share(call.peer)
        read_by(call, Reader(share))
        scope[WAITING] = partial(self._unfinished.waiting, share)
        await self._app(scope, receive, send)


async def _admit(call: Call, auth: Authenticator) -> Caller:
    enough = needed_scopes(call.scope["method"], call.scope["path"])
    if Scope.NONE in enough:
        return auth.glance(call)
    caller = await auth.authenticate(call)
    if not any(scope in caller.scope for scope in enough):
        auth.fell_short(caller, call)
        raise forbidden(*enough, prefix=auth.scope_prefix)
    return caller


def caller_of(call: Call) -> Caller:
    """Who sent a request that `Guard` has let through."""
    caller: Caller = call.scope[_CALLER]
    return caller


def known_caller(auth: Authenticator | None, headers: RawHeaders) -> Caller | None:
    """Who sent these headers, if that can be told at once; raises a 401 for a malformed token."""
    if auth is None:
        return ANYONE
    token = bearer_token(headers)
    return None if token is None else auth.known(token)
