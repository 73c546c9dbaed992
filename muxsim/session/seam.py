"""The seam: the one place that every message passes which a backend is sent, or says. A journal will stand here.

Each backend has one of its own. It costs no call: `to_backend` and `from_backend` are the very functions of whoever
stands behind it, and whoever is to see all messages puts his own in their place, as `overhear` does for a witness.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeAlias

from muxsim.observe.traffic import Traffic
from muxsim.placement.backend import Backend, BackendEar
from muxsim.session.flow import Flow
from muxsim.session.rehearsal import Rehearsal
from transports.errors import RemoteProtocolError
from transports.messages import Message


class Ear(BackendEar, Protocol):
    """Who hears what a backend says, and who waits for whom there."""

    flow: Flow

    @property
    def traffic(self) -> Traffic | None:
        """Where what is said is counted, if it is."""


Pass: TypeAlias = Callable[[Message], None]


class Witness(Protocol):
    """Who is told of each message before it goes on. Calls may neither block nor raise."""

    def to_backend(self, message: Message) -> None:
        """Take note of what the backend is sent."""

    def from_backend(self, message: Message) -> None:
        """Take note of what the backend says."""


class Seam:
    """Between a conversation and one backend, for which it is the listener (`BackendListener`)."""

    __slots__ = (
        "_backend",
        "_cut",
        "_ear",
        "_flow",
        "_inward",
        "_onward",
        "_waiting",
        "from_backend",
        "to_backend",
        "witness",
    )

    def __init__(self, ear: Ear) -> None:
        self._ear = ear
        self._flow = ear.flow
        self._cut = False
        self._waiting: list[Message] = []
        self._backend: Backend | None = None
        self.witness: Witness | None = None
        self.to_backend: Pass
        self.from_backend: Pass
        self._lead(self._keep, ear.from_backend)

    def overhear(self, witness: Witness | None) -> None:
        """Tell a witness of all that goes through from now on, but for what a backend is rehearsed; None: nobody."""
        self.witness = witness
        self._lead(self._onward, self._inward)

    def _lead(self, onward: Pass, inward: Pass | None) -> None:
        """Have messages go on to these, past the witness if there is one; of None another takes what comes."""
        self._onward, self._inward = onward, inward
        witness = self.witness
        self.to_backend = onward if witness is None else _past(witness.to_backend, onward)
        if inward is not None:
            self.from_backend = inward if witness is None else _past(witness.from_backend, inward)

    def _keep(self, message: Message) -> None:
        """Keep what is for a backend that is not to have it yet; the answer to what it asks itself it is to have."""
        if message.is_answer and self._backend is not None:
            self._backend.send(message)
        else:
            self._waiting.append(message)

    def rehearse(self, backend: Backend) -> Rehearsal:
        """Have a backend told what the last one had been told, before anything goes through."""
        self._backend = backend
        rehearsal = Rehearsal(backend.send, self._ear.from_backend)
        self._lead(self._onward, None)
        self.from_backend = rehearsal.hear
        return rehearsal

    def open(self, backend: Backend) -> None:
        """Let everything through that is for the backend, and first what has been waiting for it."""
        self._lead(backend.send, self._ear.from_backend)
        self._flow.reader = backend
        waiting, self._waiting = self._waiting, []
        for message in waiting:
            backend.send(message)  # a witness has been told
        self._flow.reader_drained()

    def cut(self) -> None:
        """Nothing more goes through: another backend takes this one's place, with a seam of its own."""
        self._cut, self.witness = True, None
        self._lead(_drop, _drop)

    def unreadable(self, line: bytes, error: RemoteProtocolError) -> None:
        """A line on stdout that is no message."""
        if not self._cut:
            self._ear.unreadable(line, error)

    def stderr(self, line: str) -> None:
        """A line on stderr, as far as its rate allows."""
        if not self._cut:
            self._ear.stderr(line)

    def backend_drained(self) -> None:
        """The backend has caught up with its stdin."""
        self._flow.reader_drained()

    @property
    def traffic(self) -> Traffic | None:
        """Where what the backend writes on stderr is counted, if it is."""
        return self._ear.traffic

    @property
    def clients_ready(self) -> bool:
        """Whether the clients keep up with the backend."""
        return self._flow.clients_ready

    async def wait_clients_ready(self) -> None:
        """Wait until they do."""
        await self._flow.wait_clients_ready()


def _past(see: Pass, go_on: Pass) -> Pass:
    def tell_and_go_on(message: Message) -> None:
        see(message)
        go_on(message)

    return tell_and_go_on


def _drop(message: Message) -> None:
    """Nobody is there any more."""
