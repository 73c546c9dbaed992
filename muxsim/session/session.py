"""A session: what a client holds. It has a backend as long as it runs."""

from __future__ import annotations

import math
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Final, Protocol

import anyio
import trio

from muxsim.errors import Busy
from muxsim.observe.events import (
    BackendRejected,
    BackendStderr,
    ClientAttached,
    ClientDetached,
    Events,
    SessionCrashed,
    SessionEnded,
    SessionLimit,
    SessionReady,
    SessionStarted,
)
from muxsim.placement.backend import Backend, BackendExit
from muxsim.runtime.bell import Bell
from muxsim.session.attachment import Attachment
from muxsim.session.audience import Audience
from muxsim.session.control.control import ControlReader
from muxsim.session.control.tool_calls import ToolCalls
from muxsim.session.control.tool_news import ToolNews
from muxsim.session.control.turns import Key
from muxsim.session.exchange import NOTHING, Delivery, Routed
from muxsim.session.router import Router, RouterStatistics
from muxsim.spec import EnvSpec
from transports import messages
from transports.errors import INVALID_REQUEST, PARSE_ERROR, ReceiverBusy, RemoteProtocolError
from transports.messages import Kind, Message, member, text_of
from transports.unread import unread

# JSON-RPC codes that muxsim answers with itself, from the range left to implementations.
BACKEND_GONE: Final = -32000
CALL_TIMEOUT: Final = -32001
SESSION_ENDED: Final = -32002
BUSY: Final = -32003
_FAILED_STARTS: Final = frozenset({"backend_exited", "start_timeout"})
# A client of a shared session is cut when it has been behind for so many seconds, or by so many bytes more.
# One large answer, or a burst of them, puts any client behind for a moment.
_SHARED_PATIENCE: Final = 2.0
_SHARED_SLACK: Final = 8 * 2**20
_REPORTED_LINES: Final = 5
# Seconds after which a client may try again to attach where there was no room.
_ATTACH_RETRY: Final = 5.0
_REPORTED_LENGTH: Final = 200


@dataclass(slots=True)
class _Behind:
    """A client for whom more waits than may: since when, and how many bytes have come on top of that."""

    since: float
    size: int = 0


class State(Enum):
    """Where a session is in its life."""

    STARTED = "started"
    READY = "ready"
    ENDING = "ending"
    ENDED = "ended"


@dataclass(frozen=True)
class Ending:
    """Why a session ended: one of a few words, a sentence, and what the backend said last."""

    cause: str
    text: str
    exit: BackendExit | None = None

    def data(self) -> dict[str, Any]:
        """For the ``data`` of errors. Its cause is what tells muxsim's own from a server's of the same code."""
        return {"cause": self.cause, **(self.exit.data() if self.exit else {})}


@dataclass(frozen=True)
class SessionStatistics:
    """``in_flight`` and ``attachments`` are now; ``rejected_lines`` were no messages; the rest counts messages."""

    in_flight: int
    attachments: int
    rejected_lines: int
    router: RouterStatistics


class Progress(Protocol):
    """Who is told how far a session's start is. Calls may neither block nor raise."""

    def asked(self) -> None:
        """The backend has its first request."""

    def answered(self) -> None:
        """The backend has answered it."""


class Session:
    """One running session. `run` carries it to its end; every other method is a plain call, from either loop.

    ``owner`` is the name of the principal who made it; None for a ``shared`` one, and where nobody has to have a name.
    """

    def __init__(
        self,
        id: str,
        spec: EnvSpec,
        seed: int,
        events: Events,
        *,
        ttl: float | None = None,
        lasting: bool = False,
        owner: str | None = None,
    ) -> None:
        self.id = id
        self.spec = spec
        self.seed = seed
        self.shared = lasting
        self.lasting = lasting
        self.owner = owner
        self.workspace: Path | None = None
        """Its folder, which is removed when the session has ended."""
        self.state = State.STARTED
        self.ending: Ending | None = None
        self._now = trio.lowlevel.current_clock().current_time
        self.created = self._now()
        self._events = events
        self._ttl = spec.limits.ttl if ttl is None else ttl
        self._router = Router(audience=Audience() if lasting else None)
        self._control = ControlReader(self)
        self._news = ToolNews()
        self._calls = ToolCalls(self._router, self._control, spec.control, self._carry_out, self._hand_over)
        self._backend: Backend
        self._attachments: set[Attachment] = set()
        self._slow: dict[Attachment, _Behind] = {}
        self._held: set[Attachment] = set()
        self._clients_bell = Bell()
        self._backend_bell = Bell()
        self._end_wanted = trio.Event()
        self._ended = trio.Event()
        self._timer = trio.CancelScope()
        self._last_activity = self.created
        self._had_listeners = False
        self._handshake_deadline = math.inf
        patience = None if lasting else spec.limits.handshake_timeout
        self._greeting_deadline = math.inf if patience is None else self.created + patience
        self._start_took = 0.0
        self._answered = False
        self._progress: Progress | None = None
        self._call_deadlines: dict[Key, float] = {}
        self._rejected_lines = 0
        self._waiting_messages = 0
        self._met: set[str] = set()

    def __repr__(self) -> str:
        return f"<Session {self.id[:8]} {self.spec.name} seed {self.seed} {self.state.value}>"

    @property
    def pid(self) -> int | None:
        """The backend's process id; None when it has gone."""
        return None if self.state is State.ENDED else self._backend.pid

    @property
    def last_words(self) -> tuple[str, ...]:
        """The last lines of the backend's stderr."""
        return self._backend.last_words

    @property
    def live(self) -> bool:
        """Whether messages still go through."""
        return self.ending is None

    @property
    def agreed_version(self) -> str:
        """The revision that its backend has answered the handshake with; "" before that."""
        return text_of(member(self._router.initialize_result, "protocolVersion"))

    @property
    def busy(self) -> bool:
        """Whether a call is waiting for its answer; a subscription's endless one does not count."""
        return self._router.calls > 0 or self._calls.waiting > 0

    @property
    def idle_since(self) -> float | None:
        """When something happened last, by the session's clock; None if something is happening, or it is to last."""
        if self.lasting or not self.live or self._router.in_flight:
            return None
        return self._last_activity

    def statistics(self) -> SessionStatistics:
        """A snapshot."""
        router = self._router
        return SessionStatistics(router.in_flight, router.attachments, self._rejected_lines, router.statistics())

    # ---- its life

    @property
    def failed_to_start(self) -> bool:
        """Whether it ended by its backend's fault before the first answer."""
        return not self._answered and self.ending is not None and self.ending.cause in _FAILED_STARTS

    def use(self, backend: Backend, progress: Progress | None = None) -> None:
        """Talk to ``backend``; called once, before `run`."""
        self._backend = backend
        self._progress = progress
        self._start_took = self._now() - self.created
        self._events.emit(SessionStarted(*self._who()))

    def end(self, cause: str, text: str, exit: BackendExit | None = None) -> None:
        """Begin the session's end: every request in flight gets an error now, the processes go in the background."""
        if self.ending is not None:
            return
        self.ending = Ending(cause, text, exit)
        self.state = State.ENDING
        self._end_wanted.set()  # first, so that the session ends even if something here fails
        code = BACKEND_GONE if exit else SESSION_ENDED
        unmade = self._calls.close()
        self._carry_out(self._router.fail_all(code, text, self.ending.data()))
        for key in unmade:
            key[0].tell(messages.error(key[1], code, text, self.ending.data()), key[1])
        for attachment in list(self._attachments):
            attachment.transport.close()
        self._clients_bell.ring()
        self._backend_bell.ring()

    def let_go(self) -> None:
        """Go on for the clients that are there, but no longer than they are: another session takes this one's place."""
        self.lasting = False
        self._touch()
        self._wake_timer_by(self._idle_deadline())
        self._end_if_left()

    def _end_if_left(self) -> None:
        if self.shared and not (self.lasting or self._attachments or self._router.in_flight):
            self.end("reloaded", "the config of this environment has changed; initialize again")

    async def wait_ended(self) -> None:
        """Wait until nothing of the session is left."""
        await self._ended.wait()

    async def run(self) -> None:
        """Carry the session until `end` is called, its backend ends or a time runs out; then end its processes."""
        try:
            with self._reporting_bugs():
                await self._live()
            with self._reporting_bugs():
                self.end("internal_error", "muxsim failed in this session; see its log")
        finally:
            try:
                await self._finish()
            finally:
                self._ended.set()

    async def _live(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._follow_backend)
            nursery.start_soon(self._keep_time)
            await self._end_wanted.wait()
            nursery.cancel_scope.cancel()

    async def _finish(self) -> None:
        with self._reporting_bugs():
            self.end("shutdown", "muxsim is shutting down")
        exit_status = None
        with self._reporting_bugs():
            exit_status = await self._backend.end()
        pid = self.pid
        self.state = State.ENDED
        with self._reporting_bugs():
            self._emit_end(pid, exit_status)

    @contextmanager
    def _reporting_bugs(self) -> Iterator[None]:
        """Go on after a bug in the block: it must neither take the other sessions with it, nor leave this one open."""
        try:
            yield
        except Exception:  # whatever it is, it is ours, and the log has it
            self._events.emit(SessionCrashed(*self._who(), traceback=traceback.format_exc()))

    async def _follow_backend(self) -> None:
        exit = await self._backend.run()
        if exit.limit:
            self._meet(exit.limit, text=exit.reason)
        self.end("backend_exited", exit.reason, exit)

    def _emit_end(self, pid: int | None, exit_status: int | None) -> None:
        assert self.ending is not None
        cause, text, exit = self.ending.cause, self.ending.text, self.ending.exit
        status, said = (exit_status, None) if exit is None else (exit.returncode, exit.stderr)
        seconds = round(self._now() - self.created, 3)
        self._events.emit(SessionEnded(self.id, self.spec.name, self.seed, pid, cause, text, status, said, seconds))

    # ---- time

    async def _keep_time(self) -> None:
        while True:
            with trio.CancelScope(deadline=self._next_deadline()) as self._timer:
                await trio.sleep_forever()
            self._check_times(self._now())

    def _next_deadline(self) -> float:
        calls = min(self._call_deadlines.values(), default=math.inf)
        return min(
            self._greeting_deadline, self._handshake_deadline, self._ttl_deadline(), self._idle_deadline(), calls
        )

    def _ttl_deadline(self) -> float:
        return math.inf if self._ttl is None else self.created + self._ttl

    def _idle_deadline(self) -> float:
        idle = self.spec.limits.idle_timeout
        if idle is None or self.lasting:
            return math.inf
        # A request in flight is activity, also that of an endless call.
        return idle + (self._now() if self._router.in_flight else self._last_activity)

    def _listening(self) -> bool:
        # A client that holds a stream open is there; the stream's pings find out when it is not.
        return any(attachment.transport.listening for attachment in self._attachments)

    def _check_times(self, now: float) -> None:
        limits = self.spec.limits
        if now >= self._handshake_deadline:
            self.end("start_timeout", f"no answer to initialize within {limits.start_timeout:g} s (start_timeout)")
        elif now >= self._greeting_deadline:
            text = f"no client shook hands within {limits.handshake_timeout:g} s (handshake_timeout)"
            self.end("handshake_timeout", text)
        elif now >= self._ttl_deadline():
            self.end("ttl", f"the session has lived its {self._ttl:g} s (ttl)")
        elif now >= self._idle_deadline():
            self._look_for_listeners()
        else:
            self._expire_calls(now)

    def _look_for_listeners(self) -> None:
        # Nobody tells when a stream is closed: a client that had one at the last look may have left just now.
        had_listeners, self._had_listeners = self._had_listeners, self._listening()
        if had_listeners or self._had_listeners:
            self._touch()
        else:
            idle = self.spec.limits.idle_timeout
            self.end("idle_timeout", f"nothing happened for {idle:g} s (idle_timeout)")

    def _expire_calls(self, now: float) -> None:
        for key in [key for key, deadline in self._call_deadlines.items() if deadline <= now]:
            del self._call_deadlines[key]
            self._touch()
            attachment, request_id = key
            self._meet("call_timeout")
            text = f"no answer within {attachment.patience:g} s (call_timeout)"
            self._carry_out(self._router.cancel(attachment, request_id))
            attachment.tell(messages.error(request_id, CALL_TIMEOUT, text, {"cause": "call_timeout"}), request_id)
            self._calls.give_up(key)
            self._news.given_up(*key)

    def _wake_timer_by(self, deadline: float) -> None:
        if deadline < self._timer.deadline:  # noqa: PLR1730 - setting a deadline costs more than comparing it
            self._timer.deadline = deadline

    def _touch(self) -> None:
        self._last_activity = self._now()

    # ---- clients

    def attach(self, attachment: Attachment) -> bool:
        """Let a client take part, and hear what is meant for everybody. Raises `Busy` past ``max_attachments``.

        Returns whether another had to make way, whose transport is closed now.
        """
        full = len(self._attachments) >= self.spec.limits.max_attachments
        if full:
            self._make_room()
        self._attachments.add(attachment)
        self._router.attach(attachment)
        self._touch()
        attachment.last_heard = self._last_activity
        self._events.emit(ClientAttached(*self._who(), transport=attachment.kind))
        return full

    def _make_room(self) -> None:
        """Let a client go that has been silent for long, where nothing else ends those that have left."""
        idle = self.spec.limits.idle_timeout if self.shared else None
        silent = [one for one in self._attachments if idle is not None and one.last_heard <= self._now() - idle]
        for one in sorted(silent, key=lambda one: one.last_heard):
            busy = self._router.awaits_any(one) or self._calls.any_of(one)
            if not busy and not one.transport.listening:
                one.transport.close()
                self.detach(one)
                return
        self._meet("max_attachments")
        text = f"{len(self._attachments)} clients are attached to this session, as many as may (max_attachments)"
        raise Busy(text, _ATTACH_RETRY)

    def detach(self, attachment: Attachment) -> None:
        """A client has gone for good. A session that its handshake made ends with it."""
        self._slow.pop(attachment, None)
        self._held.discard(attachment)
        self._clients_bell.ring()
        if not self.live:
            return
        self._carry_out(self._router.detach(attachment, cancel=attachment.cancels))
        self._touch()
        for key in [key for key in self._call_deadlines if key[0] is attachment]:
            del self._call_deadlines[key]
        self._calls.give_up_all(attachment)
        self._news.left(attachment)
        if attachment in self._attachments:
            self._attachments.discard(attachment)
            self._events.emit(ClientDetached(*self._who(), transport=attachment.kind))
        if attachment.ends_session:
            self.end("client_gone", "the client has gone")
        self._end_if_left()
        self._wake_timer_by(self._idle_deadline())

    def from_client(self, attachment: Attachment, message: Message) -> None:
        """Take one message from a client."""
        if attachment.cut:
            return
        if self.ending is not None:
            if message.kind is Kind.REQUEST:
                refusal = messages.error(
                    message.id, SESSION_ENDED, f"the session has ended: {self.ending.text}", self.ending.data()
                )
                attachment.tell(refusal, message.id)
            return
        self._last_activity = attachment.last_heard = self._now()
        if message.kind is Kind.REQUEST:
            self._take_request(attachment, message)
        elif (untaken := self._calls.taken_back(attachment, message)) is not None:
            self._call_deadlines.pop((attachment, untaken), None)
            self._news.given_up(attachment, untaken)
            attachment.transport.withdraw(untaken)
        else:
            self._carry_out(self._router.from_client(attachment, message))

    def refuse(self, attachment: Attachment, request: Message, code: int, text: str, data: Any = None) -> None:
        """Answer a request of a client with an error."""
        # About nothing if its id is another's, which is still waiting for its own answer.
        about = None if self._awaits(attachment, request.id) else request.id
        attachment.tell(messages.error(request.id, code, text, data), about)

    def _awaits(self, attachment: Attachment, id: messages.RequestId | None) -> bool:
        return self._router.awaits(attachment, id) or self._calls.holds((attachment, id))

    def _take_request(self, attachment: Attachment, message: Message) -> None:
        most = self.spec.limits.max_in_flight
        # What waits for its turn has not reached the backend, and must not keep from being scored what has.
        if self._router.in_flight + (0 if attachment.aside else self._calls.waiting) >= most:
            self._meet("max_in_flight")
            text = f"{most} requests of this session are in flight, as many as may (max_in_flight)"
            self.refuse(attachment, message, BUSY, text, {"cause": "max_in_flight"})
        elif self._awaits(attachment, message.id):
            self.refuse(attachment, message, INVALID_REQUEST, f"request id {message.id!r} is in flight already")
        else:
            self._news.requested(attachment, message)
            if attachment.patience is not None or self.state is State.STARTED:
                self._expect_answer(attachment, message)
            if message.method == "tools/call":
                self._calls.take(attachment, message, apart=self.shared)
            else:
                self._carry_out(self._router.from_client(attachment, message, aside=attachment.aside))

    def cancel(self, attachment: Attachment, request_id: messages.RequestId) -> None:
        """Give up a request of a client that has gone on without its answer."""
        self._call_deadlines.pop((attachment, request_id), None)
        if self.live:
            self._carry_out(self._router.cancel(attachment, request_id))
            self._calls.give_up((attachment, request_id))
            self._news.given_up(attachment, request_id)

    @property
    def control(self) -> ControlReader:
        """Reads the control plane."""
        return self._control

    def _expect_answer(self, attachment: Attachment, message: Message) -> None:
        limits, now = self.spec.limits, self._last_activity
        if self.state is State.STARTED:
            self._greeting_deadline = math.inf
            if self._progress is not None and self._handshake_deadline == math.inf:
                self._progress.asked()
            # It is for all of the start, a part of which the process has had before it could be asked anything.
            patience = max(0.0, limits.start_timeout - self._start_took)
            self._handshake_deadline = min(self._handshake_deadline, now + patience)
            self._wake_timer_by(self._handshake_deadline)
        elif attachment.patience is not None and message.method != "subscriptions/listen":
            assert message.id is not None
            self._call_deadlines[attachment, message.id] = now + attachment.patience
            self._wake_timer_by(now + attachment.patience)

    @property
    def backend_ready(self) -> bool:
        """Whether the backend keeps up with what clients send."""
        return not (self._backend.congested and self.live)

    async def wait_backend_ready(self) -> None:
        """Wait until it does."""
        while not self.backend_ready:
            await self._backend_bell.wait()

    async def wait_turn(self, patience: float | None) -> None:
        """Wait with one message until the backend takes it, for ``patience`` seconds. Raises `ReceiverBusy`."""
        if self._waiting_messages >= self.spec.limits.max_waiting:
            raise ReceiverBusy(BUSY, "the backend does not read, and as many messages wait as may", "max_waiting")
        self._waiting_messages += 1
        try:
            with anyio.move_on_after(patience):
                await self.wait_backend_ready()
                return
        finally:
            self._waiting_messages -= 1
        raise ReceiverBusy(CALL_TIMEOUT, f"the backend has read nothing for {patience:g} s", "call_timeout")

    def client_drained(self) -> None:
        """A client has caught up."""
        self._slow = {one: behind for one, behind in self._slow.items() if one.transport.congested}
        self._clients_bell.ring()

    # ---- the backend (muxsim.placement.backend.BackendListener)

    def from_backend(self, message: Message) -> None:
        """Take one message from the backend."""
        self._last_activity = self._now()
        if message.kind is Kind.REQUEST and self._router.asked >= self.spec.limits.max_in_flight:
            self._refuse_backend(message)
            return
        self._news.said(message)
        routed = self._router.from_backend(message)
        # What answers no request tells nothing of whether it can answer one.
        is_first_answer = self.state is State.STARTED and self._router.answered > 0
        if is_first_answer:
            self.state = State.READY
            self._answered = True
            self._handshake_deadline = math.inf
        self._carry_out(routed)
        if is_first_answer:  # the client need not wait for what others learn of it
            self._tell_ready()

    def _tell_ready(self) -> None:
        if self._progress is not None:
            self._progress.answered()
        self._events.emit(SessionReady(*self._who(), seconds=round(self._last_activity - self.created, 3)))

    def _refuse_backend(self, message: Message) -> None:
        """One more request of the backend's, none of which its clients answer."""
        self._meet("max_in_flight")
        text = "as many of this server's requests as may are waiting for its clients (max_in_flight)"
        self._backend.send(messages.error(message.id, BUSY, text))

    def unreadable(self, line: bytes, error: RemoteProtocolError) -> None:
        """Skip a line on the backend's stdout that is no message; the request it answers, if one, gets an error."""
        self._rejected_lines += 1
        if self._rejected_lines <= _REPORTED_LINES:
            text = line[:_REPORTED_LENGTH].decode("utf-8", "replace")
            self._events.emit(BackendRejected(*self._who(), line=text, error=error.message))
        for message in unread(line):
            if message.kind is Kind.REQUEST:
                text = f"the request could not be read: {error.message}"
                self._backend.send(messages.error(message.id, error.code, text))
            else:
                text = f"the backend's answer could not be read: {error.message}"
                data = {"cause": "unreadable_answer"}
                self._carry_out(self._router.fail_backend_id(message.id, PARSE_ERROR, text, data))

    def client_unreadable(
        self, attachment: Attachment, data: bytes, error: RemoteProtocolError
    ) -> list[messages.RequestId | None]:
        """Take bytes of a client's that are no message, and return the ids under which they are to be answered.

        No id that another request has in flight: the error would be taken for its answer. A request of the backend's
        that they answer gets an error.
        """
        found, ids = unread(data), list[messages.RequestId | None]()
        for message in found:
            if message.kind is Kind.RESULT:
                text = f"the client's answer could not be read: {error.message}"
                routed = self._router.fail_client_id(attachment, message.id, PARSE_ERROR, text)
                if routed is not NOTHING:
                    self._carry_out(routed)
                    continue
            ids.append(None if self._awaits(attachment, message.id) else message.id)
        return ids if found else [None]

    def stderr(self, line: str) -> None:
        """Pass on a line of the backend's stderr."""
        self._events.emit(BackendStderr(*self._who(), line=line))

    def backend_drained(self) -> None:
        """The backend has caught up."""
        self._backend_bell.ring()

    @property
    def clients_ready(self) -> bool:
        """Whether every client keeps up with the backend, where it has to wait for them."""
        return not (self._slow or self._held) or self.shared or not self.live

    def hold(self, attachment: Attachment) -> None:
        """Have the backend wait for a client whose connections hold too much that is not read, until `release`."""
        if attachment in self._attachments and attachment not in self._held and self.live:
            self._held.add(attachment)
            self._meet("max_buffered")

    def release(self, attachment: Attachment) -> None:
        """Let the backend go on: what was held up has been read, or is no more."""
        if attachment in self._held:
            self._held.discard(attachment)
            self._clients_bell.ring()

    async def wait_clients_ready(self) -> None:
        """Wait until they do."""
        while not self.clients_ready:
            await self._clients_bell.wait()

    # ---- doing what the router decided

    def _carry_out(self, routed: Routed) -> None:
        if routed is NOTHING:
            return
        for message in routed.to_backend:
            self._backend.send(message)
        for delivery in routed.to_clients:
            self._deliver(delivery)
        for withdrawer, request_id in routed.withdrawn:
            assert isinstance(withdrawer, Attachment)
            self._call_deadlines.pop((withdrawer, request_id), None)
            withdrawer.transport.withdraw(request_id)
            self._calls.give_up((withdrawer, request_id))
            self._news.given_up(withdrawer, request_id)

    def _deliver(self, delivery: Delivery) -> None:
        if delivery.message.is_answer and delivery.about is not None:
            key = (delivery.attachment, delivery.about)
            self._call_deadlines.pop(key, None)
            told = self._news.answered(*key, delivery.message)
            if told is not delivery.message:
                delivery = Delivery(delivery.attachment, told, delivery.about)
            self._calls.answered(key, delivery)
        else:
            self._hand_over(delivery)

    def _hand_over(self, delivery: Delivery) -> None:
        attachment = delivery.attachment
        assert isinstance(attachment, Attachment)
        if self.shared and self._is_too_slow(attachment, delivery.message):
            self._cut(attachment)
        if attachment.cut:
            return
        (attachment.tell if delivery.own else attachment.deliver)(delivery.message, delivery.about)
        if attachment.transport.congested and attachment not in self._slow:
            self._slow[attachment] = _Behind(self._now())
            if not self.shared:
                self._meet("max_buffered")

    def _is_too_slow(self, attachment: Attachment, message: Message) -> bool:
        """Whether a client of a session that many share reads so little that it cannot be waited for."""
        behind = self._slow.get(attachment)
        if behind is None:
            return False
        behind.size += len(message.encode())
        return behind.size > _SHARED_SLACK or self._now() - behind.since > _SHARED_PATIENCE

    def _cut(self, attachment: Attachment) -> None:
        """Go on without a client, so that nobody else has to wait for it; it may initialise again."""
        self._meet("max_buffered", text="a client of a shared session that did not read has been cut")
        attachment.cut = True
        attachment.transport.close()
        self.detach(attachment)

    def _meet(self, limit: str, text: str | None = None) -> None:
        """Report a bound that was met. It may be met with every message, so all but the first time is for counters."""
        again = limit in self._met or None
        self._met.add(limit)
        self._events.emit(SessionLimit(*self._who(), limit=limit, text=text, again=again))

    def _who(self) -> tuple[str, str, int, int | None]:
        """Whom an event is about."""
        return self.id, self.spec.name, self.seed, self.pid
