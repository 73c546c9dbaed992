"""The tool calls of a session: each has its turn, and its result what it has earned, where that is wanted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from muxsim.session.attachment import Attachment
from muxsim.session.control.control import ControlReader, asking_for_control
from muxsim.session.control.turns import Key, Phase, Turn, Turns
from muxsim.session.correlation import as_known, cancelled_by, envelope_of
from muxsim.session.exchange import Delivery, Routed
from muxsim.session.router import Router
from transports.messages import Message, RequestId


class ToolCalls:
    """Takes what clients call, hands it to the router when its turn has come, and gives on what comes of it.

    ``always``: every call is scored, not only those that ask for it.
    """

    def __init__(
        self,
        router: Router,
        control: ControlReader,
        always: bool,
        carry_out: Callable[[Routed], None],
        hand_over: Callable[[Delivery], None],
    ) -> None:
        self._router = router
        self._control = control
        self._always = always
        self._carry_out = carry_out
        self._hand_over = hand_over
        self._turns = Turns(self._begin)
        self._late_calls = 0

    def __repr__(self) -> str:
        return f"<ToolCalls {self._turns!r}>"

    @property
    def waiting(self) -> int:
        """How many the backend has not been asked for yet."""
        return self._turns.waiting

    def holds(self, key: tuple[Attachment, RequestId | None]) -> bool:
        """Whether this call waits, or is being scored; then the router may not know it."""
        return self._turns.get(key) is not None

    def any_of(self, attachment: Attachment) -> bool:
        """Whether any call of this client is under way."""
        return bool(self._turns.of(attachment))

    def take(self, attachment: Attachment, message: Message, *, asked: bool, apart: bool) -> None:
        """Make a call when it is its turn. ``asked``: its client wants to know what it has earned.

        ``apart``: on this session calls that are not scored wait for nobody.
        """
        scored = (asked or self._always) and not self._control.absent
        key = (attachment, message.id)
        if not asked and self._is_part_of_another(attachment):
            self._carry_out(self._router.from_client(attachment, message))
            return
        # What many share has no episode, and one client must not wait there for another.
        if not scored and (apart or self._turns.take_beside(key)):
            if apart:
                self._control.passed_over()
            self._carry_out(self._router.from_client(attachment, message))
            return
        if scored and not asked:
            message = asking_for_control(message)
        envelope = envelope_of(message) if scored else {}
        self._turns.take(Turn(key, message, envelope, scored=scored, crowded=apart))

    def _is_part_of_another(self, attachment: Attachment) -> bool:
        """Whether a client may be making a call to answer what the server asks it in the midst of one that is scored.

        That one would wait for it for ever; what it earns is the other's.
        """
        turn = self._turns.alone
        return turn is not None and turn.sent and turn.key[0] is attachment and self._router.asks(attachment)

    def taken_back(self, attachment: Attachment, message: Message) -> RequestId | None:
        """The id of the call that a message cancels before the backend has been asked for it, if it does that."""
        if message.method != "notifications/cancelled":
            return None
        id = as_known(cancelled_by(message), [key[1] for key in self._turns.of(attachment)])
        turn = self._turns.get((attachment, id))
        if turn is None or turn.sent:
            return None
        self._turns.leave(turn.key)
        return id

    def answered(self, key: Key, delivery: Delivery) -> None:
        """Hand over what may be the answer to a call: of one that is scored, once that has been done."""
        turn = self._turns.get(key)
        if turn is None or delivery.own:
            self._hand_over(delivery)
            self._leave(key)
            return

        def deliver(scored: Message) -> None:
            self._hand_over(Delivery(delivery.attachment, scored, delivery.about))
            if self._control.absent:
                self._turns.score_none()
            self._turns.leave(key)

        turn.phase = Phase.SCORING
        self._control.complete(delivery.message, turn.envelope, deliver, crowded=turn.crowded)

    def give_up(self, key: Key) -> None:
        """Let others go on instead of a call that is not to be answered; one that is being scored has been made."""
        if not self._is_scoring(key):
            self._leave(key)

    def give_up_all(self, attachment: Attachment) -> None:
        """As `give_up`, for all calls of a client, none of which is made any more."""
        self._leave(*(key for key in self._turns.of(attachment) if not self._is_scoring(key)))

    def _is_scoring(self, key: Key) -> bool:
        turn = self._turns.get(key)
        return turn is not None and turn.phase is Phase.SCORING

    @contextmanager
    def between_backends(self) -> Iterator[None]:
        """In the block the calls that have been made get their answers; what waits goes to another backend."""
        with self._turns.halted(), self._control.between_backends():
            yield

    def close(self) -> list[Key]:
        """Make no more calls; returns those that were not made."""
        return self._turns.close()

    def _leave(self, *keys: Key) -> None:
        """Let others go on after calls that were not scored. What these have earned must not become theirs."""
        if any(map(self._turns.is_made, keys)):
            self._control.passed_over()
        self._turns.leave(*keys)

    def _begin(self, turn: Turn) -> None:
        if turn.scored:
            if self._late_calls != self._router.late_calls:  # which has made its steps since the counts were read
                self._control.passed_over()
            self._late_calls = self._router.late_calls
            self._control.begin(turn.envelope, lambda: self._make(turn))
        else:
            self._carry_out(self._router.from_client(turn.key[0], turn.message))

    def _make(self, turn: Turn) -> None:
        if self._turns.get(turn.key) is not turn:
            return  # it was given up meanwhile
        turn.phase = Phase.SENT
        late = self._late_calls != self._router.late_calls  # it may have made them before the counts were read or after
        turn.crowded = turn.crowded or late or self._router.calls_given_up
        self._carry_out(self._router.from_client(turn.key[0], turn.message))
