"""A session whose backend is a Python object: what it is sent is answered by a table of functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from muxsim.observe.events import Events
from muxsim.session.session import Session
from muxsim.spec import EnvSpec, Limits
from transports import messages
from transports.messages import Kind, Message

Answer = Callable[[Message], Any]


class FakeBackend:
    """Stands for `muxsim.placement.backend.Backend`; answers at once, or keeps requests for the test to answer."""

    pid = 4711
    way = "fresh"
    congested = False

    def __init__(self, answers: dict[str, Answer]) -> None:
        self.sent: list[Message] = []
        self.session: Session
        self._answers = answers

    def send(self, message: Message) -> None:
        self.sent.append(message)
        if message.kind is Kind.REQUEST and message.method in self._answers:
            answer = self._answers[message.method](message)
            if answer is not None:
                self.session.seam.from_backend(answer)


def fake_session(
    answers: dict[str, Answer], *, limits: Limits | None = None, **spec: Any
) -> tuple[Session, FakeBackend]:
    """A session that has shaken hands, and its backend. Needs a running trio for its clock."""
    session = Session("s" * 32, EnvSpec(name="fake", command="fake", limits=limits or Limits(), **spec), 7, Events())
    backend = FakeBackend({"initialize": lambda request: messages.result(request.id, {}), **answers})
    backend.session = session
    session.use(backend)
    return session, backend
