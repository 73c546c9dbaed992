"""The life of a session: its states by the table of `states`, its deadlines, and the backend that it has."""

from __future__ import annotations

import math
from typing import Final, Protocol

import trio

from muxsim.errors import Busy, StartError
from muxsim.observe.events import BackendExited, SessionEnded, SessionReady, SessionRestored
from muxsim.placement.backend import GUARDIAN_DIED, Backend, BackendExit, BackendListener
from muxsim.placement.last_words import with_last_said
from muxsim.session.codes import BACKEND_GONE, SESSION_ENDED
from muxsim.session.control.turns import Key
from muxsim.session.deadlines import IDLE, Deadlines
from muxsim.session.rehearsal import NotRestored
from muxsim.session.reports import Reports
from muxsim.session.states import FAILED_STARTS, FIRST, Ending, Happening, State, after
from muxsim.spec import EnvSpec
from transports.origin import Origin

# Seconds after which another backend may be asked for again.
_REPLACE_RETRY: Final = 1.0


class Progress(Protocol):
    """Who is told how far a session's start is. Calls may neither block nor raise."""

    def asked(self) -> None:
        """The backend has its first request."""

    def answered(self) -> None:
        """The backend has answered it."""


class Start(Protocol):
    """How another backend is started for a session."""

    async def __call__(self, *, listener: BackendListener) -> Backend:
        """Start it. Raises `StartError` or `Busy`."""


class Carried(Protocol):
    """What a life does with the conversation that goes on in it."""

    @property
    def busy(self) -> bool:
        """Whether a call is waiting for its answer."""

    @property
    def listening(self) -> bool:
        """Whether any client is there for certain although it says nothing."""

    @property
    def deserted(self) -> bool:
        """Whether no client is there, nor anything under way for one."""

    def expire(self, key: Key) -> None:
        """A call is out of time."""

    @property
    def seam(self) -> BackendListener:
        """What a backend for it is started with."""

    def part(self, text: str) -> None:
        """Give the backend up for another."""

    async def restore(self, backend: Backend) -> None:
        """Tell another backend what the last one had been told. Raises `NotRestored`."""

    def resume(self, backend: Backend) -> None:
        """Go on with this backend."""

    def close(self, code: int, ending: Ending) -> None:
        """Answer every request in flight with an error, and let the clients go."""


class Life:
    """One session's, from the start of its process to its end. `run` carries it; the rest are plain calls."""

    def __init__(
        self, spec: EnvSpec, reports: Reports, *, ttl: float | None, lasting: bool, lease: float | None = None
    ) -> None:
        self._now = trio.lowlevel.current_clock().current_time
        self.created = self._now()
        self.state = FIRST
        self.ending: Ending | None = None
        self._ends_since = 0.0
        self.deadlines = Deadlines(spec.limits, self.created, ttl, lasting=lasting, lease=lease)
        self._reports = reports
        self._conversation: Carried
        self.backend: Backend
        """The one that it has, or had last."""
        self._has_backend = True
        self._following = trio.CancelScope()
        self._start: Start | None = None
        self._restored = trio.Event()
        self._progress: Progress | None = None
        self.start_took = 0.0
        """Seconds until it had a process."""
        self._asked_at = 0.0
        self._answered = False
        self._had_listeners = False
        self._let_go = False
        self._living = trio.CancelScope()
        self._ended = trio.Event()
        self._timer = trio.CancelScope()

    def __repr__(self) -> str:
        return f"<Life {self.state.value}>"

    def carries(self, conversation: Carried) -> None:
        """This is the conversation that goes on in it; called once, before anything else."""
        self._conversation = conversation

    def use(self, backend: Backend, progress: Progress | None) -> None:
        """Have this backend to begin with."""
        self.backend = backend
        self._progress = progress
        self.start_took = round(self._now() - self.created, 4)
        self.deadlines.greeting += self.start_took  # before that, no client could have asked it anything
        self.renew()  # nor have known of what to renew

    @property
    def pid(self) -> int | None:
        """The backend's process id; None when it has gone."""
        return self.backend.pid if self._has_backend else None

    @property
    def failed_to_start(self) -> bool:
        """Whether it ended by its backend's fault before the first answer."""
        return not self._answered and self.ending is not None and self.ending.cause in FAILED_STARTS

    def _go(self, happening: Happening) -> None:
        self.state = after(self.state, happening)

    # ---- what the conversation tells

    def asked(self) -> None:
        """The backend, which has not answered anything yet, is being asked."""
        times = self.deadlines
        times.greeting = math.inf
        if times.first_answer == math.inf:
            self._asked_at = times.last_activity
            if self._progress is not None:
                self._progress.asked()
        # It is for all of the start, a part of which the process has had before it could be asked anything.
        patience = max(0.0, times.limits.start_timeout - self.start_took)
        times.first_answer = min(times.first_answer, times.last_activity + patience)
        self.wake_by(times.first_answer)

    def answered(self) -> None:
        """The backend has given its first answer."""
        self._go(Happening.ANSWERED)
        self._answered = True
        self.deadlines.first_answer = math.inf

    def tell_ready(self) -> None:
        """Let others know of the first answer."""
        if self._progress is not None:
            self._progress.answered()
        answered_at = self.deadlines.last_activity
        self._reports.emit(
            SessionReady(
                *self._reports.who(),
                seconds=round(answered_at - self.created, 3),
                way=self.backend.way,
                start=round(self.start_took + answered_at - self._asked_at, 4),
            )
        )

    def touch(self) -> None:
        """Something happens."""
        self.deadlines.last_activity = self._now()

    def renew(self) -> None:
        """Whoever has it on lease still wants it."""
        self.deadlines.renewed = self._now()

    def wake_by(self, deadline: float) -> None:
        """Look at the deadlines no later than this."""
        if deadline < self._timer.deadline:  # noqa: PLR1730 - setting a deadline costs more than comparing it
            self._timer.deadline = deadline

    def left(self) -> None:
        """A client has gone, for whom alone it may have been."""
        self._end_if_let_go()
        self.wake_by(self.deadlines.idle())

    def let_go(self) -> None:
        """Last no longer than the clients that are there."""
        self.deadlines.lasting = False
        self._let_go = True
        self.touch()
        self.left()

    def _end_if_let_go(self) -> None:
        if self._let_go and self._conversation.deserted:
            self.end("reloaded", "the config of this environment has changed; initialize again")

    # ---- its end

    def end(
        self,
        cause: str,
        text: str,
        exit: BackendExit | None = None,
        *,
        by: str | None = None,
        origin: Origin | None = None,
    ) -> None:
        """Begin the session's end: every request in flight gets an error now, the processes go in the background."""
        if self.ending is not None:
            return
        self.ending = Ending(cause, text, exit, by, origin)
        self._ends_since = self._now()
        self._go(Happening.ENDS)
        self._living.cancel()  # first, so that the session ends even if something here fails
        self._restored.set()
        self._conversation.close(BACKEND_GONE if exit else SESSION_ENDED, self.ending)

    async def wait_ended(self) -> None:
        """Wait until nothing of the session is left."""
        await self._ended.wait()

    async def run(self) -> None:
        """Carry the session until `end` is called, its backend ends or a time runs out; then end its processes."""
        try:
            with self._reports.of_bugs():
                await self._live()
            with self._reports.of_bugs():
                self.end("internal_error", "muxsim failed in this session; see its log")
        finally:
            try:
                await self._finish()
            finally:
                self._ended.set()

    async def _live(self) -> None:
        async with trio.open_nursery() as nursery:
            self._living = nursery.cancel_scope
            if self.ending is None:
                nursery.start_soon(self._follow_backends, nursery)
                await self._keep_time()

    # ---- one backend after another

    async def _follow_backends(self, nursery: trio.Nursery) -> None:
        """Each until it exits, or another is to take its place."""
        while self.ending is None:
            if self._start is None:
                with trio.CancelScope() as self._following:
                    self._exited(await self.backend.run())
            if self._start is not None:
                await self._start_another(self._start, nursery)

    def _exited(self, exit: BackendExit) -> None:
        if self.ending is None:
            self._reports.emit(BackendExited(*self._reports.who(), exit.cause))
        if exit.limit:
            self._reports.meet(exit.limit, text=exit.reason)
        # Whoever shakes hands has seen nothing of it yet; later, its log and the error's data have all that it said.
        text = exit.reason if self._answered else with_last_said(exit.reason, exit.stderr)
        self.end(exit.cause if exit.cause == GUARDIAN_DIED else "backend_exited", text, exit)

    async def replace_backend(self, start: Start) -> None:
        """Have another backend take the place of this one. Raises `Busy`, or `StartError` if the session ends."""
        if self.state is not State.READY:
            raise Busy(f"a session that is {self.state.value} cannot have another backend now", _REPLACE_RETRY)
        self._go(Happening.REPLACED)
        self.touch()
        self.deadlines.restored = self.deadlines.last_activity + self.deadlines.limits.start_timeout
        self.wake_by(self.deadlines.restored)
        self._start, self._restored = start, trio.Event()
        self._conversation.part("another backend takes the place of the one that was asked")
        self._following.cancel()
        await self._restored.wait()
        if self.ending is not None:
            raise StartError(self.ending.text)

    async def _start_another(self, start: Start, nursery: trio.Nursery) -> None:
        self._start = None
        await self.backend.end()
        self._has_backend = False
        try:
            self.backend = await start(listener=self._conversation.seam)
        except (StartError, Busy) as error:
            self.end("restore_failed", str(error))
        else:
            self._has_backend = True
            nursery.start_soon(self._restore)

    async def _restore(self) -> None:
        try:
            await self._conversation.restore(self.backend)
        except NotRestored as error:
            self.end("restore_failed", str(error))
            return
        self._go(Happening.RESTORED)
        self.touch()
        self.deadlines.restored = math.inf
        self._conversation.resume(self.backend)
        self._reports.emit(SessionRestored(*self._reports.who()))
        self._restored.set()

    async def _finish(self) -> None:
        with self._reports.of_bugs():
            self.end("shutdown", "muxsim is shutting down")
        exit_status = None
        with self._reports.of_bugs():
            exit_status = await self.backend.end() if self._has_backend else None
        with self._reports.of_bugs():
            self._emit_end(exit_status)
        self._has_backend = False
        self._go(Happening.GONE)

    def _emit_end(self, exit_status: int | None) -> None:
        assert self.ending is not None
        cause, text, exit, by = self.ending.cause, self.ending.text, self.ending.exit, self.ending.by
        status, said = (exit_status, None) if exit is None else (exit.returncode, exit.stderr)
        seconds, closing = round(self._now() - self.created, 3), round(self._now() - self._ends_since, 3)
        origin, who = self.ending.origin or Origin(), self._reports.who()
        request, parent = origin.request, origin.traceparent
        self._reports.emit(
            SessionEnded(*who, cause, text, status, said, seconds, by, closing, request=request, traceparent=parent)
        )

    # ---- time

    async def _keep_time(self) -> None:
        while True:
            with trio.CancelScope(deadline=self._next_deadline()) as self._timer:
                await trio.sleep_forever()
            self._check_times(self._now())

    def _next_deadline(self) -> float:
        if self._conversation.busy:  # is activity, however long it takes
            self.touch()
        return self.deadlines.next()

    def _check_times(self, now: float) -> None:
        if self._conversation.busy:
            self.touch()
        passed = self.deadlines.passed(now)
        if passed is None:
            for key in self.deadlines.take_late(now):
                self.touch()
                self._conversation.expire(key)
        elif passed is IDLE and self._has_listeners():
            self.deadlines.last_listened = now
        else:
            self.end(passed.setting, passed.says(self.deadlines))

    def _has_listeners(self) -> bool:
        # Nobody tells when a stream is closed: a client that had one at the last look may have left just now.
        had_listeners, self._had_listeners = self._had_listeners, self._conversation.listening
        return had_listeners or self._had_listeners
