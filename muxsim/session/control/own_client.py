"""muxsim as a client of its own sessions: it asks for the control plane, tool schemas, and plays rollouts."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import anyio
import sniffio
import trio

from muxsim.session.agent_view import AgentAttachment
from muxsim.session.attachment import Attachment, Host
from muxsim.session.unattended import answer_to
from transports import messages
from transports.messages import Kind, Message, RequestId
from transports.origin import Origin


class Answer(NamedTuple):
    """What came of a request; ``own`` if it is an error of muxsim's, and not what the backend said."""

    message: Message
    own: bool


OnAnswer = Callable[[Answer], None]


class OwnClient:
    """A transport whose client is this process. Answers come to a callback, or to whoever waits on either loop.

    ``aside``: it only reads, for muxsim itself; whatever the backend asks its clients is not for this one.
    ``agent``: it asks for an agent, and hears no more than that may. ``kind`` is how whoever it asks for has come.
    """

    congested = False
    single_file = False

    def __init__(
        self,
        session: Host,
        *,
        patience: float | None = None,
        aside: bool = False,
        agent: bool = False,
        kind: str = "own",
    ) -> None:
        self.listening = False
        """Whether it is there for certain although it says nothing."""
        self.session = session
        """The session that is asked."""
        view = _OwnAgent if agent else _Own
        self._attachment = view(self, session, kind, cancels=True, patience=patience, aside=aside)
        self._attachment.connect(self)
        self._numbers = itertools.count(1)
        self._waiting: dict[RequestId, OnAnswer] = {}

    def join(self, principal: str | None, peer: str, origin: Origin | None) -> None:
        """Be one of the session's clients, for somebody: others see that until it leaves. Raises `Busy`."""
        attachment = self._attachment
        attachment.principal, attachment.peer, attachment.origin = principal, peer or None, origin
        attachment.session.conversation.attach(attachment)

    def request(self, method: str, params: Any, on_answer: OnAnswer) -> RequestId:
        """Send a request; ``on_answer`` gets its result or error, which comes even if the backend dies."""
        number = next(self._numbers)
        self._waiting[number] = on_answer
        self._attachment.receive(messages.request(number, method, params))
        return number

    def notify(self, method: str) -> None:
        """Send a notification."""
        self._attachment.receive(messages.notification(method))

    async def ask(self, method: str, params: Any, timeout: float | None = None) -> Message:
        """Send a request and wait for its answer. Raises TimeoutError, and cancels the request, when it is late."""
        with anyio.fail_after(timeout):
            return await self.ask_patiently(method, params)

    async def ask_patiently(self, method: str, params: Any) -> Message:
        """Send a request and wait for its answer, which the session itself gives where the backend's is late.

        No scope and no deadline of its own: that is a seventh of what a step of a rollout costs.
        """
        # Through anyio each loop's own costs twice as much.
        loop: Any = trio if sniffio.current_async_library() == "trio" else asyncio
        answered, answers = loop.Event(), list[Message]()

        def on_answer(answer: Answer) -> None:
            answers.append(answer.message)
            answered.set()

        number = self.request(method, params, on_answer)
        try:
            await answered.wait()
        except BaseException:
            self._waiting.pop(number, None)
            self.session.conversation.cancel(self._attachment, number)
            raise
        return answers[0]

    def be_patient(self, seconds: float | None) -> None:
        """Have the session wait no longer than this for the answer to each request from now on, nor than it does."""
        limit = self.session.spec.limits.call_timeout
        self._attachment.patience = seconds if limit is None or (seconds is not None and seconds < limit) else limit

    def leave(self) -> None:
        """Stop being a client; what is under way is cancelled."""
        self._waiting.clear()
        self._attachment.disconnected()

    # ---- what the session sends (transports.interfaces.Transport)

    def send(self, message: Message, about: RequestId | None = None) -> None:
        """Take what the backend says."""
        self.take(message, own=False)

    def take(self, message: Message, *, own: bool) -> None:
        """Hand an answer over; a request of the server's gets that of a client whom nobody watches."""
        if message.is_answer and message.id is not None:
            on_answer = self._waiting.pop(message.id, None)
            if on_answer is not None:
                on_answer(Answer(message.well_formed(), own))
        elif message.kind is Kind.REQUEST:
            self._attachment.receive(answer_to(message))

    def withdraw(self, about: RequestId) -> None:
        """Nothing: whoever cancelled no longer waits."""

    def close(self) -> None:
        """Nothing: requests under way have been answered with errors before."""


class _Own(Attachment):
    """Keeps apart what the backend has said and what muxsim says in its place."""

    def __init__(self, client: OwnClient, session: Host, kind: str, **options: Any) -> None:
        super().__init__(session, kind, **options)
        self._client = client

    def tell(self, error: Message, about: RequestId | None = None) -> None:
        """Hand an error of muxsim's over as such."""
        self._client.take(error, own=True)


class _OwnAgent(AgentAttachment, _Own):
    """Likewise, behind the wall that agents have."""
