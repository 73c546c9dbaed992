"""The conversation of one session: its clients, their requests, and what the backend says to them.

It knows ids, exchanges and the handshake (`router`), calls that are scored (`control`), and who waits for whom
(`flow`). Which process is on the other side of the `seam` it does not know.
"""

from __future__ import annotations

import itertools
from typing import Any, Final

import trio

from muxsim.errors import Busy
from muxsim.observe.events import BackendRejected, BackendStderr, ClientAttached, ClientDetached
from muxsim.observe.traffic import OTHER, Traffic
from muxsim.placement.backend import Backend
from muxsim.session.attachment import Attachment, Host
from muxsim.session.audience import Audience
from muxsim.session.call_watch import CallWatch
from muxsim.session.codes import BACKEND_GONE, BUSY, CALL_TIMEOUT, KINDS, SESSION_ENDED
from muxsim.session.control.control import ControlReader, asks_for_control
from muxsim.session.control.tool_calls import ToolCalls
from muxsim.session.control.tool_news import ToolNews
from muxsim.session.control.turns import Key
from muxsim.session.exchange import NOTHING, Delivery, Routed
from muxsim.session.flow import Absent, Flow
from muxsim.session.life import Life
from muxsim.session.reports import Reports
from muxsim.session.router import LISTEN, Router
from muxsim.session.seam import Seam
from muxsim.session.states import Ending, State
from transports import messages
from transports.errors import INVALID_REQUEST, PARSE_ERROR, RemoteProtocolError
from transports.messages import Kind, Message, member, text_of
from transports.unread import unread

_REPORTED_LINES: Final = 5
_REPORTED_LENGTH: Final = 200
# Seconds after which a client may try again to attach where there was no room.
_ATTACH_RETRY: Final = 5.0


class Conversation:
    """Plain calls, from either loop, and what clients and backend wait with for each other."""

    def __init__(self, session: Host, life: Life, reports: Reports) -> None:
        self._life = life
        self._reports = reports
        self._events = reports.events
        self._watch: CallWatch | None = None
        self._limits = session.spec.limits
        self._shared = session.shared
        self._now = trio.lowlevel.current_clock().current_time
        self._times = life.deadlines
        self.router = Router(audience=Audience() if session.shared else None, traffic=reports.traffic)
        self.control = ControlReader(session, lambda: self.router.initialize_result)
        self.flow = Flow(shared=session.shared, max_waiting=self._limits.max_waiting)
        self.seam = Seam(self)
        self._lines_reported = 0
        self._news = ToolNews()
        self._calls = ToolCalls(self.router, self.control, session.spec.control, self._carry_out, self._hand_over)
        self._attachments: set[Attachment] = set()
        self.calls_made = 0
        """How many calls of tools clients have asked for."""
        self._numbers = itertools.count(1)

    def __repr__(self) -> str:
        return f"<Conversation {self.router!r}>"

    @property
    def clients(self) -> list[Attachment]:
        """Who takes part, in no order."""
        return list(self._attachments)

    @property
    def busy(self) -> bool:
        """Whether a call is waiting for its answer; a subscription's endless one does not count."""
        return self.router.calls > 0 or self._calls.waiting > 0

    @property
    def in_flight(self) -> int:
        """How many requests somebody still wants an answer to."""
        return self.router.in_flight

    @property
    def listening(self) -> bool:
        """Whether any client is there for certain although it says nothing: it holds a stream open, or subscribes.

        The stream's pings find out when it is not.
        """
        return self.in_flight > 0 or any(attachment.transport.listening for attachment in self._attachments)

    @property
    def agreed_version(self) -> str:
        """The revision that the handshake has settled on; "" before that."""
        return text_of(member(self.router.initialize_result, "protocolVersion"))

    @property
    def deserted(self) -> bool:
        """Whether no client is there, nor anything under way for one."""
        return not (self._attachments or self.router.in_flight)

    @property
    def traffic(self) -> Traffic | None:
        """Where what is said is counted, if it is."""
        return self._reports.traffic

    # ---- clients come and go

    def attach(self, attachment: Attachment) -> bool:
        """Let a client take part, and hear what is meant for everybody. Raises `Busy` past ``max_attachments``.

        Returns whether another had to make way, whose transport is closed now.
        """
        full = len(self._attachments) >= self._limits.max_attachments
        if full:
            self._make_room()
        self._attachments.add(attachment)
        attachment.number = next(self._numbers)
        self.router.attach(attachment)
        self._life.touch()
        attachment.last_heard = self._times.last_activity
        self._reports.emit(ClientAttached(*self._reports.who(), transport=attachment.kind, **attachment.named()))
        return full

    def _make_room(self) -> None:
        """Let a client go that has been silent for long, where nothing else ends those that have left."""
        idle = self._limits.idle_timeout if self._shared else None
        silent = [one for one in self._attachments if idle is not None and one.last_heard <= self._now() - idle]
        for one in sorted(silent, key=lambda one: one.last_heard):
            busy = self.router.awaits_any(one) or self._calls.any_of(one)
            if not busy and not one.transport.listening:
                one.transport.close()
                self.detach(one)
                return
        self._reports.meet("max_attachments")
        text = f"{len(self._attachments)} clients are attached to this session, as many as may (max_attachments)"
        raise Busy(text, _ATTACH_RETRY)

    def detach(self, attachment: Attachment) -> None:
        """A client has gone for good. A session that its handshake made ends with it."""
        self.flow.left(attachment)
        if self._life.ending is not None:
            return
        self._carry_out(self.router.detach(attachment, cancel=attachment.cancels))
        self._life.touch()
        self._times.forget_calls_of(attachment)
        self._calls.give_up_all(attachment)
        self._news.left(attachment)
        if self._watch is not None:
            self._watch.left(attachment)
        if attachment in self._attachments:
            self._attachments.discard(attachment)
            self._reports.emit(ClientDetached(*self._reports.who(), transport=attachment.kind, **attachment.named()))
        if attachment.ends_session:
            self._life.end("client_gone", "the client has gone")
        self._life.left()

    # ---- what clients say

    def from_client(self, attachment: Attachment, message: Message) -> None:
        """Take one message from a client."""
        if attachment.cut:
            return
        if self._life.ending is not None:
            self._answer_too_late(attachment, message, self._life.ending)
            return
        self.router.now = self._times.last_activity = attachment.last_heard = now = self._now()
        if not attachment.aside:
            self._times.renewed = now
        if message.kind is Kind.REQUEST:
            self._take_request(attachment, message)
        elif (untaken := self._calls.taken_back(attachment, message)) is not None:
            self._times.calls.pop((attachment, untaken), None)
            self._news.given_up(attachment, untaken)
            if self._watch is not None:
                self._watch.ended((attachment, untaken), None, "cancelled")
            attachment.transport.withdraw(untaken)
        else:
            self._carry_out(self.router.from_client(attachment, message))

    def _answer_too_late(self, attachment: Attachment, message: Message, ending: Ending) -> None:
        if message.kind is Kind.REQUEST:
            text = f"the session has ended: {ending.said}"
            self._tell(attachment, messages.error(message.id, SESSION_ENDED, text, ending.data()), message.id)

    def refuse(self, attachment: Attachment, request: Message, code: int, text: str, data: Any = None) -> None:
        """Answer a request of a client with an error."""
        # About nothing if its id is another's, which is still waiting for its own answer.
        about = None if self._awaits(attachment, request.id) else request.id
        self._tell(attachment, messages.error(request.id, code, text, data), about)

    def _awaits(self, attachment: Attachment, id: messages.RequestId | None) -> bool:
        return self.router.awaits(attachment, id) or self._calls.holds((attachment, id))

    def _take_request(self, attachment: Attachment, message: Message) -> None:
        most = self._limits.max_in_flight
        # What waits for its turn has not reached the backend, and must not keep from being scored what has.
        if self.router.in_flight + (0 if attachment.aside else self._calls.waiting) >= most:
            self._reports.meet("max_in_flight")
            text = f"{most} requests of this session are in flight, as many as may (max_in_flight)"
            self.refuse(attachment, message, BUSY, text, {"cause": "max_in_flight"})
        elif self._awaits(attachment, message.id):
            self.refuse(attachment, message, INVALID_REQUEST, f"request id {message.id!r} is in flight already")
        else:
            if (self._events.call_listeners or self._events.tracer is not None) and not attachment.aside:
                message = self._watched(attachment, message)
            if attachment.patience is not None or self._life.state is State.STARTED:
                self._expect_answer(attachment, message)
            if message.method == "tools/call":
                self.calls_made += 1
                asked = asks_for_control(message)
                if asked:
                    self._news.wanted(attachment, message.id)
                self._calls.take(attachment, message, asked=asked, apart=self._shared)
            else:
                if message.method == "tools/list":
                    self._news.listed(attachment)
                self._carry_out(self.router.from_client(attachment, message, aside=attachment.aside))

    def _watched(self, attachment: Attachment, request: Message) -> Message:
        if self._watch is None:
            self._watch = CallWatch(self._events, self._reports.who, self._now)
        return self._watch.began(attachment, request, self._times.last_activity)

    def _expect_answer(self, attachment: Attachment, message: Message) -> None:
        if self._life.state is State.STARTED:
            self._life.asked()
        elif attachment.patience is not None and message.method != LISTEN:
            self._times.calls[attachment, message.id] = late = self._times.last_activity + attachment.patience
            self._life.wake_by(late)

    def cancel(self, attachment: Attachment, request_id: messages.RequestId) -> None:
        """Give up a request of a client that has gone on without its answer."""
        self._times.calls.pop((attachment, request_id), None)
        if self._life.ending is None:
            self._carry_out(self.router.cancel(attachment, request_id))
            self._give_up(attachment, request_id)

    def _give_up(self, attachment: Attachment, request_id: messages.RequestId) -> None:
        if self._watch is not None:
            self._watch.ended((attachment, request_id), None, "cancelled")
        self._calls.give_up((attachment, request_id))
        self._news.given_up(attachment, request_id)

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
                routed = self.router.fail_client_id(attachment, message.id, PARSE_ERROR, text)
                if routed is not NOTHING:
                    self._carry_out(routed)
                    continue
            ids.append(None if self._awaits(attachment, message.id) else message.id)
        return ids if found else [None]

    # ---- what the backend says (muxsim.session.seam.Ear)

    def from_backend(self, message: Message) -> None:
        """Take one message from the backend."""
        self.router.now = self._times.last_activity = self._now()
        if message.kind is Kind.REQUEST and self.router.asked >= self._limits.max_in_flight:
            self._refuse_backend(message)
            return
        self._news.said(message)
        routed = self.router.from_backend(message)
        # What answers no request tells nothing of whether it can answer one.
        is_first_answer = self._life.state is State.STARTED and self.router.answered > 0
        if is_first_answer:
            self._life.answered()
        self._carry_out(routed)
        if is_first_answer:  # the client need not wait for what others learn of it
            self._life.tell_ready()

    def _refuse_backend(self, message: Message) -> None:
        """One more request of the backend's, none of which its clients answer."""
        self._reports.meet("max_in_flight")
        text = "as many of this server's requests as may are waiting for its clients (max_in_flight)"
        self.seam.to_backend(messages.error(message.id, BUSY, text))

    def unreadable(self, line: bytes, error: RemoteProtocolError) -> None:
        """Skip a line on the backend's stdout that is no message; the request it answers, if one, gets an error."""
        again = self._lines_reported >= _REPORTED_LINES or None
        self._lines_reported += not again
        text = line[:_REPORTED_LENGTH].decode("utf-8", "replace")
        self._reports.emit(BackendRejected(*self._reports.who(), line=text, error=error.message, again=again))
        for message in unread(line):
            if message.kind is Kind.REQUEST:
                text = f"the request could not be read: {error.message}"
                self.seam.to_backend(messages.error(message.id, error.code, text))
            else:
                text = f"the backend's answer could not be read: {error.message}"
                data = {"cause": "unreadable_answer"}
                self._carry_out(self.router.fail_backend_id(message.id, PARSE_ERROR, text, data))

    def stderr(self, line: str) -> None:
        """Pass on a line of the backend's stderr."""
        self._reports.emit(BackendStderr(*self._reports.who(), line=line))

    # ---- who waits for whom

    @property
    def backend_ready(self) -> bool:
        """Whether the backend keeps up with what clients send."""
        return not self.flow.reader.congested

    async def wait_backend_ready(self) -> None:
        """Wait until it does."""
        await self.flow.wait_reader()

    async def wait_turn(self, patience: float | None) -> None:
        """Wait with one message until the backend takes it, for ``patience`` seconds. Raises `ReceiverBusy`."""
        await self.flow.wait_turn(patience)

    def client_drained(self) -> None:
        """A client has caught up."""
        self.flow.drained()

    def hold(self, attachment: Attachment) -> None:
        """Have the backend wait for a client whose connections hold too much that is not read, until `release`."""
        if attachment in self._attachments and self.flow.hold(attachment):
            self._reports.meet("max_buffered")

    def release(self, attachment: Attachment) -> None:
        """Let the backend go on: what was held up has been read, or is no more."""
        self.flow.release(attachment)

    # ---- what its life tells it (muxsim.session.life.Carried)

    def expire(self, key: Key) -> None:
        """A call is out of time."""
        attachment, request_id = key
        self._reports.meet("call_timeout")
        text = f"no answer within {attachment.patience:g} s (call_timeout)"
        self._carry_out(self.router.cancel(attachment, request_id))
        if self._watch is not None:
            self._watch.ended(key, None, "call_timeout")
        self._tell(attachment, messages.error(request_id, CALL_TIMEOUT, text, {"cause": "call_timeout"}), request_id)
        self._give_up(attachment, request_id)

    def part(self, text: str) -> None:
        """Give the backend up for another: what it was to answer gets an error, what comes from now on waits."""
        witness = self.seam.witness
        self.seam.cut()
        self.seam = Seam(self)
        self.seam.overhear(witness)
        self.flow.reader = Absent()
        with self._calls.between_backends():
            self._carry_out(self.router.change_backend(BACKEND_GONE, text, {"cause": "backend_replaced"}))

    async def restore(self, backend: Backend) -> None:
        """Tell another backend what the last one had been told. Raises `NotRestored`."""
        await self.seam.rehearse(backend).play(self.router.standing(), self.agreed_version)

    def resume(self, backend: Backend) -> None:
        """Go on with this backend, and first with what has waited for it."""
        self.seam.open(backend)

    def close(self, code: int, ending: Ending) -> None:
        """Answer every request in flight with an error, and let the clients go."""
        unmade = self._calls.close()
        self._carry_out(self.router.fail_all(code, ending.said, ending.data()))
        for attachment, id in unmade:
            if self._watch is not None:
                self._watch.ended((attachment, id), None, ending.cause)
            self._tell(attachment, messages.error(id, code, ending.said, ending.data()), id)
        for attachment in list(self._attachments):
            attachment.transport.close()
        self.flow.end()

    # ---- doing what the router decided

    def _carry_out(self, routed: Routed) -> None:
        if routed is NOTHING:
            return
        for message in routed.to_backend:
            self.seam.to_backend(message)
        for delivery in routed.to_clients:
            self._deliver(delivery)
        for withdrawer, request_id in routed.withdrawn:
            assert isinstance(withdrawer, Attachment)
            self._times.calls.pop((withdrawer, request_id), None)
            withdrawer.transport.withdraw(request_id)
            self._give_up(withdrawer, request_id)

    def _deliver(self, delivery: Delivery) -> None:
        if delivery.message.is_answer and delivery.about is not None:
            key = (delivery.attachment, delivery.about)
            self._times.calls.pop(key, None)
            told = self._news.answered(*key, delivery.message)
            if told is not delivery.message:
                delivery = Delivery(delivery.attachment, told, delivery.about)
            self._calls.answered(key, delivery)
        else:
            self._hand_over(delivery)

    def _hand_over(self, delivery: Delivery) -> None:
        attachment = delivery.attachment
        assert isinstance(attachment, Attachment)
        if self._watch is not None and delivery.about is not None and delivery.message.is_answer:
            self._watch.ended((attachment, delivery.about), delivery.message)
        if self._shared and self.flow.is_too_slow(attachment, delivery.message):
            self._cut(attachment)
        if attachment.cut:
            return
        if delivery.own:
            self._tell(attachment, delivery.message, delivery.about)
        else:
            attachment.deliver(delivery.message, delivery.about)
        if attachment.transport.congested and self.flow.sent(attachment) and not self._shared:
            self._reports.meet("max_buffered")

    def _tell(self, attachment: Attachment, answer: Message, about: messages.RequestId | None) -> None:
        """Send a client an answer of muxsim's own."""
        if self._reports.traffic is not None and answer.kind is Kind.ERROR and not attachment.aside:
            self._reports.traffic.failed(KINDS.get(messages.error_code(answer), OTHER))
        attachment.tell(answer, about)

    def _cut(self, attachment: Attachment) -> None:
        """Go on without a client, so that nobody else has to wait for it; it may initialise again."""
        self._reports.meet("max_buffered", text="a client of a shared session that did not read has been cut")
        attachment.cut = True
        attachment.transport.close()
        self.detach(attachment)
