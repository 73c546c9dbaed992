"""A session: what a client holds. Its conversation, and the life that it goes on in."""

from __future__ import annotations

from dataclasses import dataclass

from muxsim.errors import StartError
from muxsim.observe.events import Events, SessionStarted
from muxsim.placement.backend import Backend, BackendExit
from muxsim.session.attachment import Attachment
from muxsim.session.control.control import ControlReader
from muxsim.session.conversation import Conversation
from muxsim.session.held_folder import HeldFolder
from muxsim.session.life import Life, Progress, Start
from muxsim.session.reports import Reports
from muxsim.session.seam import Seam
from muxsim.session.states import Ending, State
from muxsim.spec import EnvSpec
from transports.origin import Origin


@dataclass(frozen=True)
class SessionStatistics:
    """What is so now, and how many calls of tools there have been."""

    in_flight: int
    attachments: int
    calls: int


class Session:
    """One running session. `run` carries it to its end; every other method is a plain call, from either loop.

    ``owner`` is the name of the principal who made it; None for a ``shared`` one, and where nobody has to have a name.
    ``peer`` is the address that it was asked for from; ``number`` is which it is of its registry's, from 1 on.
    ``start`` starts another backend for it, where that can be.
    """

    def __init__(
        self,
        id: str,
        spec: EnvSpec,
        seed: int,
        events: Events,
        *,
        ttl: float | None = None,
        lease: float | None = None,
        lasting: bool = False,
        owner: str | None = None,
        peer: str | None = None,
        start: Start | None = None,
    ) -> None:
        self.id = id
        self.spec = spec
        self.seed = seed
        self.shared = lasting
        self.owner = owner
        self.peer = peer
        self.number = 0
        self.named = False
        """Whether a URL has made it, which is not to make another with its id."""
        self.folder = HeldFolder()
        """Its workspace, which is removed when the session has ended and nobody holds it."""
        self._start = start
        self._reports = Reports(events, id, spec.name, seed, lambda: self.pid)
        self._life = Life(spec, self._reports, ttl=ttl, lasting=lasting, lease=lease)
        self.conversation = Conversation(self, self._life, self._reports)
        """What goes on in it."""
        self._life.carries(self.conversation)

    def __repr__(self) -> str:
        return f"<Session {self.id[:8]} {self.spec.name} seed {self.seed} {self.state.value}>"

    # ---- its conversation

    @property
    def seam(self) -> Seam:
        """What stands between the conversation and the backend: the listener that this is to be started with."""
        return self.conversation.seam

    @property
    def control(self) -> ControlReader:
        """Reads the control plane."""
        return self.conversation.control

    @property
    def agreed_version(self) -> str:
        """The revision that its backend has answered the handshake with; "" before that."""
        return self.conversation.agreed_version

    @property
    def busy(self) -> bool:
        """Whether a call is waiting for its answer; a subscription's endless one does not count."""
        return self.conversation.busy

    def statistics(self) -> SessionStatistics:
        """A snapshot."""
        router = self.conversation.router
        return SessionStatistics(router.in_flight, router.attachments, self.conversation.calls_made)

    def attach(self, attachment: Attachment) -> bool:
        """Let a client take part; returns whether another had to make way. Raises `Busy` past ``max_attachments``."""
        return self.conversation.attach(attachment)

    def detach(self, attachment: Attachment) -> None:
        """A client has gone for good. A session that its handshake made ends with it."""
        self.conversation.detach(attachment)

    # ---- its life

    @property
    def created(self) -> float:
        """When it was opened, by its clock."""
        return self._life.created

    @property
    def state(self) -> State:
        """Where it is in its life."""
        return self._life.state

    @property
    def ending(self) -> Ending | None:
        """Why it ends, once that has begun."""
        return self._life.ending

    @property
    def live(self) -> bool:
        """Whether messages still go through."""
        return self._life.ending is None

    @property
    def pid(self) -> int | None:
        """The backend's process id; None when it has gone."""
        return self._life.pid

    @property
    def last_words(self) -> tuple[str, ...]:
        """The last lines of the backend's stderr."""
        return self._life.backend.last_words

    @property
    def idle_since(self) -> float | None:
        """When something happened last, by the session's clock; None if something is happening, or it is to last."""
        times = self._life.deadlines
        return None if times.lasting or not self.live or self.conversation.in_flight else times.last_activity

    @property
    def lease(self) -> float | None:
        """Seconds for which it goes on without `renew`; None if it does not have to be renewed."""
        return self._life.deadlines.lease

    def lease_left(self, now: float) -> float | None:
        """Seconds until it ends unless it is renewed; None where that is not so."""
        times = self._life.deadlines
        return None if times.lease is None else max(0.0, times.leased() - now)

    def renew(self) -> None:
        """Let its lease count from now."""
        self._life.renew()

    @property
    def failed_to_start(self) -> bool:
        """Whether it ended by its backend's fault before the first answer."""
        return self._life.failed_to_start

    def use(self, backend: Backend, progress: Progress | None = None) -> None:
        """Have this backend to begin with; called once, before `run`."""
        self._life.use(backend, progress)
        self.seam.open(backend)
        self._reports.emit(SessionStarted(*self._reports.who(), backend.way, self._life.start_took))

    async def replace_backend(self) -> None:
        """Have another backend take the place of this one, under the conversation; returns when it has.

        Clients keep their ids, handshake and streams. What this backend has not answered yet gets an error; what comes
        meanwhile waits. Raises `Busy` if the session is not ready, and `StartError` if it ends instead.
        """
        if self._start is None:
            raise StartError("nothing is known of how to start another backend for this session")
        await self._life.replace_backend(self._start)

    def let_go(self) -> None:
        """Go on for the clients that are there, but no longer than they are: another session takes this one's place."""
        self._life.let_go()

    def end(
        self,
        cause: str,
        text: str,
        exit: BackendExit | None = None,
        *,
        by: str | None = None,
        origin: Origin | None = None,
    ) -> None:
        """Begin the session's end: every request in flight gets an error now, the processes go in the background.

        ``by`` is who wants it: the name of a principal, or what an operator is called; ``origin`` by which request.
        """
        self._life.end(cause, text, exit, by=by, origin=origin)

    async def run(self) -> None:
        """Carry the session until `end` is called, its backend ends or a time runs out; then end its processes."""
        await self._life.run()

    async def wait_ended(self) -> None:
        """Wait until nothing of the session is left."""
        await self._life.wait_ended()
