"""A backend, as whoever holds sessions knows it: something that is sent messages, says some, and ends."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from muxsim.observe.traffic import Traffic
from muxsim.processes.process import Way
from transports.errors import RemoteProtocolError
from transports.messages import Message

GUARDIAN_DIED: Final = "guardian_died"
"""The cause of an exit, and of its session's end, that is muxsim's own fault."""


@dataclass(frozen=True)
class BackendExit:
    """How a backend ended: ``returncode`` as subprocess gives it, None if it had to be ended, and its last words."""

    reason: str
    returncode: int | None
    stderr: tuple[str, ...]
    limit: str = ""
    """The setting whose bound it went past, if that was why."""
    cause: str = "status"
    """One word of a few for the same: see `muxsim.observe.events.BackendExited`."""

    def data(self) -> dict[str, object]:
        """For the ``data`` member of the errors that go to clients."""
        return {"exit_status": self.returncode, "stderr": list(self.stderr)}


class BackendEar(Protocol):
    """Who hears what a backend says. Calls may neither block nor raise."""

    def from_backend(self, message: Message) -> None:
        """Take a message."""

    def unreadable(self, line: bytes, error: RemoteProtocolError) -> None:
        """Take a line on stdout that is no message."""

    def stderr(self, line: str) -> None:
        """Take a line on stderr, as far as its rate allows."""


class BackendListener(BackendEar, Protocol):
    """Who is told what a backend does, and keeps it waiting."""

    @property
    def traffic(self) -> Traffic | None:
        """Where what it writes on stderr is counted; None where nobody wants to know."""

    def backend_drained(self) -> None:
        """The backend has caught up with what it is sent."""

    @property
    def clients_ready(self) -> bool:
        """Whether the clients keep up with the backend."""

    async def wait_clients_ready(self) -> None:
        """Wait until they do."""


class Backend(Protocol):
    """What serves one session, wherever it runs."""

    workspace: Path | None
    """Its folder, which outlives it."""

    @property
    def pid(self) -> int:
        """Its process id, for people."""

    @property
    def way(self) -> Way:
        """How its process was had."""

    @property
    def congested(self) -> bool:
        """Whether it is far behind in reading what it is sent."""

    @property
    def last_words(self) -> tuple[str, ...]:
        """The last lines of its stderr, oldest first."""

    def send(self, message: Message) -> None:
        """Send it one message, or queue it; dropped once it has gone."""

    async def run(self) -> BackendExit:
        """Hear it until it exits, says no more, or breaks the line limit; returns how it ended. `end` it then."""

    async def end(self) -> int:
        """End it and everything that it started; returns its exit status. Bounded, and not to be cancelled."""
