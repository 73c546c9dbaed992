"""How a backend that takes another's place is told what that one had been told. Its answers are nobody else's."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import trio

from transports.messages import Kind, Message, RequestId, error_code, member, text_of

Send = Callable[[Message], None]


class NotRestored(Exception):
    """The backend does not stand where the last one stood; the message says why."""


class Rehearsal:
    """One backend's. Until it is over no request of a client's reaches the backend.

    What it says by the way is not for clients, who have been told it by the one before; what it asks them is, for it
    may wait for the answer.
    """

    def __init__(self, send: Send, pass_on: Send) -> None:
        self._send = send
        self._pass_on = pass_on
        self._awaited: RequestId | None = None
        self._answer: Message | None = None
        self._answered = trio.Event()

    def hear(self, message: Message) -> None:
        """Take what the backend says."""
        if message.is_answer:
            if self._awaited is not None and message.id == self._awaited:
                self._awaited, self._answer = None, message
                self._answered.set()
        elif message.kind is Kind.REQUEST:
            self._pass_on(message)

    async def play(self, told: Iterable[Message], version: str) -> None:
        """Tell it all, each after the answer to the one before. Raises `NotRestored`.

        ``version`` is the revision that the clients go by; another cannot be put under them.
        """
        for message in told:
            if message.kind is not Kind.REQUEST:
                self._send(message)
                continue
            answer = await self._ask(message)
            if message.method == "initialize":
                _check(answer, version)

    async def _ask(self, request: Message) -> Message:
        self._awaited, self._answered = request.id, trio.Event()
        self._send(request)
        await self._answered.wait()
        assert self._answer is not None
        return self._answer


def _check(answer: Message, version: str) -> None:
    if answer.kind is not Kind.RESULT:
        raise NotRestored(f"the new backend refuses the handshake of the last one, with error {error_code(answer)}")
    settled = text_of(member(answer.members["result"], "protocolVersion"))
    if settled != version:
        raise NotRestored(f"the new backend settles on revision {settled!r}, and its clients go by {version!r}")
