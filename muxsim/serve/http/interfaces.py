"""What a connection asks of whoever answers its requests, and what these may ask of it.

A request is served by an application, or on the short way, which costs no ASGI round. What has begun on the short way
may be left to the application, which then has only the rest of its answer to do.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeAlias

from starlette.types import Receive, Scope, Send

from muxsim.serve.http.incoming import Request
from muxsim.serve.http.unread import Reader
from transports.asgi import Call

Answer: TypeAlias = Callable[[Call], Awaitable[None]]
"""What is left to do of a request that has been taken already. May raise `HTTPRefusal` or `ClientGone`."""


class Application(Protocol):
    """What serves requests by ASGI."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""

    async def go_on(self, call: Call, answer: Answer) -> None:
        """Carry out the rest of one that was checked, and taken, on the short way."""


class Taker(Protocol):
    """What speaks another protocol on a connection that it has been handed over."""

    def came(self, data: bytes) -> None:
        """This has come."""

    def pause_writing(self) -> None:
        """The client does not read."""

    def resume_writing(self) -> None:
        """The client has read."""

    def lost(self) -> None:
        """The connection is no more."""

    def shutdown(self) -> None:
        """The server ends."""


class Surrendered(Protocol):
    """A connection that has been handed over, for its `Taker`."""

    reader: Reader
    """Whom what is written is for."""

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop that it runs on."""

    @property
    def transport(self) -> asyncio.Transport:
        """Where to write."""

    def hand_over(self, taker: Taker) -> None:
        """What comes from now on is this one's. Raises a 400 if more has come than one request."""

    def finish(self) -> None:
        """Nothing more is written, and nothing read: close, when the client has seen what was."""

    def await_goodbye(self) -> None:
        """Close before long, if the client does not."""


class ShortCall(Protocol):
    """A request under way on the short way."""

    @property
    def reader(self) -> Reader:
        """Whom its answer is for."""

    def lost(self) -> None:
        """The connection is no more."""


class Asker(Protocol):
    """A connection, for whoever takes its requests on the short way."""

    familiar: Familiar | None
    """What takes a request that is like one of before, without a look at its head."""

    def expect(self, call: ShortCall | None) -> None:
        """A call is under way, which will be answered by `respond` or `lengthen`; None if it is not, after all."""

    def respond(self, data: bytes, body: bytes, keep_alive: bool) -> None:
        """Write the answer of a request."""

    def lengthen(self, request: Request, answer: Answer) -> None:
        """The call takes longer, or streams: it goes on by ASGI."""


class Familiar(Protocol):
    """What was found out about a request's head, for others that repeat it."""

    @property
    def request(self) -> Request:
        """The first that had this head."""

    @property
    def principal(self) -> str | None:
        """The name of whoever sends it."""

    def take(self, asker: Asker, data: bytes) -> bool:
        """Take a whole request that has this head; False if ``data`` is anything else."""


class Usual(Protocol):
    """A request whose head passes every check."""

    @property
    def principal(self) -> str | None:
        """The name of whoever has sent it."""

    def take(self, asker: Asker, body: bytes, raw: bytes) -> bool:
        """Take it, unless the application has to look at it. ``raw`` is what was read with its end."""


class ShortWay(Protocol):
    """What may answer a request without ASGI."""

    def judge(self, request: Request) -> Usual | None:
        """What may take a request once its body is there; None if its head tells already that nothing may."""
