"""The control plane: what an environment says of reward and ends, put beside each result for those who may see it.

An environment publishes it as resources. After a call that asked for it the session reads them at once and adds them to
the result, so that a step costs its client one trip and nobody's next step can come between.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import msgspec
import trio
from msgspec import UNSET, Raw, UnsetType

from muxsim.session import uris
from muxsim.session.agent_answers import META_KEY
from muxsim.session.attachment import Host
from muxsim.session.codes import BUSY
from muxsim.session.control.ledger import STEP, TOTAL, Ledger, Unknown, count_in, number_in
from muxsim.session.control.own_client import Answer, OwnClient
from muxsim.session.control.presence import Presence, Question, inquire, says_not_there
from muxsim.session.correlation import OWN_ENVELOPE
from transports.messages import Kind, Message, error_code, member, members_of

SCHEME: Final = f"{uris.SCHEME}://"
PARTS: Final = ("reward", "status", "info", "initial_state")
_STEP_PARTS: Final = ("reward", "status", "info")
_STATUS_MEMBERS: Final = frozenset({"terminated", "truncated", STEP, TOTAL, "failed"})
# Seconds; an environment that publishes its state answers from memory.
_PATIENCE: Final = 10.0

_UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError, KeyError, IndexError, TypeError)

Parts = dict[str, Any]
Deliver = Callable[[Message], None]


class _Meta(msgspec.Struct, gc=False, frozen=True):
    control: Raw | UnsetType = msgspec.field(name=META_KEY, default=UNSET)


class _Result(msgspec.Struct, gc=False):
    meta: _Meta = msgspec.field(name="_meta", default=_Meta())


_results: Final = msgspec.json.Decoder(_Result)


class ControlUnreadable(Exception):
    """A control plane resource could not be read; the message says which and why."""


def asks_for_control(message: Message) -> bool:
    """Whether a request is a tool call that wants the control plane with its result."""
    if message.method != "tools/call":
        return False
    wish = message.meta.get(META_KEY)
    # An object has wishes of its own, which the author kit knows and other servers pass over.
    return wish is not None and (bytes(wish) == b"true" or bytes(wish)[:1] == b"{")


def asking_for_control(message: Message) -> Message:
    """The same tool call, wanting the control plane; a server that can add it itself is asked to."""
    params = members_of(message.params)
    meta = members_of(params.get("_meta"))
    return message.with_params({**params, "_meta": {**meta, META_KEY: True}})


def has_control(result: Message) -> bool:
    """Whether the server has put the control plane into a result itself."""
    raw = result.members.get("result")
    try:
        return raw is not None and _results.decode(raw).meta.control is not UNSET
    except _UNREADABLE:  # by a reader of what is usual
        return member(raw, "_meta", META_KEY) is not None


def with_meta(result: Message, key: str, value: Any) -> Message:
    """A result with one more member in its ``_meta``."""
    body = members_of(result.members["result"])
    meta = members_of(body.get("_meta"))
    body["_meta"] = Raw(msgspec.json.encode({**meta, key: value}))
    members = {**result.members, "result": Raw(msgspec.json.encode(body))}
    return result.with_members(members)


def resource_value(answer: Message) -> Any:
    """The JSON in the answer to a ``resources/read``. Raises `ControlUnreadable`."""
    if answer.kind is not Kind.RESULT:
        raise ControlUnreadable(_error_text(answer))
    try:
        contents = msgspec.json.decode(answer.members["result"])["contents"]
        return msgspec.json.decode(contents[0]["text"])
    except _UNREADABLE as error:
        raise ControlUnreadable(f"the resource is not JSON text: {error}") from None


def is_not_there(answer: Answer) -> bool:
    """Whether the server itself says that it has no such resource; muxsim's own errors never say that."""
    return not answer.own and says_not_there(answer.message)


def _error_text(answer: Message) -> str:
    raw = member(answer.members.get("error"), "message")
    try:
        return "error" if raw is None else str(msgspec.json.decode(raw))
    except _UNREADABLE:
        return "error"


class ControlReader:
    """Reads one session's control plane, and keeps what is needed to tell what a single call has earned.

    Between `begin` and what `complete` delivers, no other call of the session may be scored.
    """

    def __init__(self, session: Host, initialized: Callable[[], Raw | None] = lambda: None) -> None:
        """``initialized`` gives the result of the server's handshake, if there was one."""
        self._session = session
        self._initialized = initialized
        self._now = trio.lowlevel.current_clock().current_time
        self._ledger = Ledger()
        self._seen: set[str] = set()
        self._present = False
        self._filled = False
        self._backend = 0
        self.absent = False
        """Whether it is established that the server has no control plane."""
        self.on_scored: Callable[[Mapping[str, Any]], None] | None = None
        """Told what has been read for a call, before its client is; it may not raise."""

    @functools.cached_property
    def _client(self) -> OwnClient:
        return OwnClient(self._session, patience=_PATIENCE, aside=True)

    def passed_over(self) -> None:
        """A call was made whose earnings nobody is told, and that must not become the next one's."""
        self._ledger.age()

    @contextmanager
    def between_backends(self) -> Iterator[None]:
        """In the block the reads that are under way fail. How another backend counts is not known before it is read."""
        self._backend += 1
        yield
        self._ledger.age()
        self.absent = False

    def begin(self, envelope: Mapping[str, Any], start: Callable[[], None]) -> None:
        """Call ``start`` for a scored call, as soon as it is known how the counts stand before it."""
        if not self._ledger.stale or self.absent or self._filled:
            start()
            return

        asked_of = self._backend

        def on_answer(answer: Answer) -> None:
            if asked_of != self._backend:  # which has not made the call yet, and counts as it likes
                self.begin(envelope, start)
                return
            status = _read("status", answer, {})
            if isinstance(status, dict):
                self._ledger.begin(status)
            start()

        self._request("status", envelope, on_answer)

    def complete(self, result: Message, envelope: Mapping[str, Any], deliver: Deliver, *, crowded: bool) -> None:
        """Give ``deliver`` the result of a tool call with the control plane added, as soon as it has been read.

        A server without one gets its result delivered as it is. A part that could be read before is tried once more;
        what cannot be read then leaves the reward null, and an end that is not known is null too.
        ``crowded``: a call that was given up may still be at work.
        """
        self._filled = has_control(result)
        self._present = self._present or self._filled
        if self.absent or result.kind is not Kind.RESULT or self._filled:
            self._ledger.age()
            deliver(result)
            return

        def first(answers: dict[str, Answer]) -> None:
            problems: dict[str, str] = {}
            for part, answer in answers.items():
                _read(part, answer, problems)
            # Muxsim itself refuses several at once where few may be in flight: the second time each goes alone. For
            # what was late or has ended nobody waits twice.
            lost = [
                part for part in problems if (_is_refusal(answers[part]) if answers[part].own else part in self._seen)
            ]
            self._ask_in_turn(lost, envelope, answers, last)

        def last(answers: dict[str, Answer]) -> None:
            self._establish(answers, envelope, lambda: deliver(self._combined(result, answers, crowded=crowded)))

        self._ask(_STEP_PARTS, envelope, first)

    def _establish(self, answers: Mapping[str, Answer], envelope: Mapping[str, Any], then: Callable[[], None]) -> None:
        """Find out whether there is a control plane, where nothing has shown one yet; as long as nobody knows, there
        may be."""
        self._present = self._present or any(_shows_one(part, answer) for part, answer in answers.items())
        if self._present or any(answer.own for answer in answers.values()):
            then()
            return

        def found(presence: Presence) -> None:
            self._present = presence is Presence.PRESENT
            self.absent = presence is Presence.ABSENT
            then()

        initialized = self._initialized()
        capable = initialized is None or member(initialized, "capabilities", "resources") is not None
        own = {part: answer.message for part, answer in answers.items()}
        questions = inquire(own, declared=self._session.spec.control, capable=capable)
        self._inquire(questions, envelope, found, self._now() + _PATIENCE)

    def _inquire(
        self,
        questions: Generator[Question, Message, Presence],
        envelope: Mapping[str, Any],
        found: Callable[[Presence], None],
        until: float,
        answer: Message | None = None,
    ) -> None:
        try:
            method, params = next(questions) if answer is None else questions.send(answer)
        except StopIteration as end:
            found(end.value)
            return
        asked_of = self._backend

        def on_answer(answer: Answer) -> None:
            if answer.own or asked_of != self._backend or self._now() > until:
                found(Presence.UNKNOWN)
            else:
                self._inquire(questions, envelope, found, until, answer.message)

        self._client.request(method, _with_envelope(params, envelope), on_answer)

    def _ask(
        self, parts: Sequence[str], envelope: Mapping[str, Any], on_answers: Callable[[dict[str, Answer]], None]
    ) -> None:
        answers: dict[str, Answer] = {}

        def on_answer(part: str, answer: Answer) -> None:
            answers[part] = answer
            if len(answers) == len(parts):
                on_answers(answers)

        for part in parts:
            self._request(part, envelope, functools.partial(on_answer, part))

    def _ask_in_turn(
        self,
        parts: list[str],
        envelope: Mapping[str, Any],
        answers: dict[str, Answer],
        on_answers: Callable[[dict[str, Answer]], None],
    ) -> None:
        """Ask for parts once more, one after the other, and put what comes in the place of what has come."""
        if not parts:
            on_answers(answers)
            return
        part, *rest = parts

        def on_answer(answer: Answer) -> None:
            self._ask_in_turn(rest, envelope, {**answers, part: answer}, on_answers)

        self._request(part, envelope, on_answer)

    async def read(self, part: str, envelope: Mapping[str, Any], timeout: float) -> Any:
        """One part of the control plane, now. Raises `ControlUnreadable`, also when it is late."""
        if not envelope and self._initialized() is None:
            envelope = OWN_ENVELOPE
        try:
            answer = await self._client.ask("resources/read", _params(part, envelope), timeout)
        except TimeoutError:
            raise ControlUnreadable(f"{SCHEME}{part}: no answer within {timeout:g} s") from None
        return resource_value(answer)

    def _request(self, part: str, envelope: Mapping[str, Any], on_answer: Callable[[Answer], None]) -> None:
        self._client.request("resources/read", _params(part, envelope), on_answer)

    def _combined(self, result: Message, answers: Mapping[str, Answer], *, crowded: bool) -> Message:
        if self.absent:
            return result
        problems: dict[str, str] = {}
        values = {part: _read(part, answer, problems) for part, answer in answers.items()}
        self._seen |= values.keys() - problems.keys()
        if "info" not in self._seen and is_not_there(answers["info"]):
            problems.pop("info")  # an environment need not have any
        control = self._control(result, values, problems, crowded=crowded)
        if self.on_scored is not None:
            self.on_scored(control)
        return with_meta(result, META_KEY, control)

    def _control(self, result: Message, values: Parts, problems: dict[str, str], *, crowded: bool) -> dict[str, Any]:
        status, info = values["status"], values["info"]
        if fault := _fault_of(status):
            _note(problems, "status", fault)
            status = None
        counts: Parts = status or {}
        ends = {name: _flag(name, status, problems) for name in ("terminated", "truncated")}
        reward = self._reward(result, values["reward"], status, problems, crowded=crowded)
        control: dict[str, Any] = {
            "reward": None if None in ends.values() else reward,
            **ends,
            "step": count_in(counts.get(STEP)),
            "info": info if isinstance(info, dict) else {},
        }
        if counts.get("failed") is not None:
            control["failed"] = counts["failed"]
        if problems:
            control["problem"] = "; ".join(problems.values())
        return control

    def _reward(
        self, result: Message, reward: Any, status: Any, problems: dict[str, str], *, crowded: bool
    ) -> float | None:
        """What this call has earned; without a status nothing tells whether the last step was its own."""
        last = number_in(reward.get("reward")) if isinstance(reward, dict) else None
        if last is None:
            _note(problems, "reward", "no number in it")
        if not isinstance(status, dict):
            return None
        failed = member(result.members["result"], "isError")
        try:
            earned = self._ledger.earned(
                status, last, failed=failed is not None and bytes(failed) == b"true", crowded=crowded
            )
        except Unknown as unknown:
            _note(problems, "reward", str(unknown))
            return None
        if earned is not None:
            problems.pop("reward", None)  # the counts have told
        return earned


def _is_refusal(answer: Answer) -> bool:
    return answer.message.kind is Kind.ERROR and error_code(answer.message) == BUSY


def _read(part: str, answer: Answer, problems: dict[str, str]) -> Any:
    try:
        return resource_value(answer.message)
    except ControlUnreadable as error:
        _note(problems, part, str(error))
        return None


def _shows_one(part: str, answer: Answer) -> bool:
    """Whether what was read can only be of a control plane: servers may have some answer for any URI."""
    value = _read(part, answer, {})
    if not isinstance(value, dict):
        return False
    return "reward" in value if part == "reward" else part == "status" and not _STATUS_MEMBERS.isdisjoint(value)


def _fault_of(status: Any) -> str:
    """What is wrong with a status as a whole, whose every word is then in doubt; "" if nothing is."""
    if not isinstance(status, dict):
        return "not an object"
    if status.get(STEP) is not None and count_in(status[STEP]) is None:
        return f"{STEP} is not a whole number"
    if status.get(TOTAL) is not None and number_in(status[TOTAL]) is None:
        return f"{TOTAL} is not a number"
    return "" if isinstance(status.get("failed"), str | None) else "failed is not text"


def _flag(name: str, status: Any, problems: dict[str, str]) -> bool | None:
    """An end; None if it is not known, which is not the same as not reached."""
    if not isinstance(status, dict):
        return None
    value = status.get(name, False)
    if value is True or value is False:
        return bool(value)
    _note(problems, "status", f"{name} is not true or false")
    return None


def _note(problems: dict[str, str], part: str, text: str) -> None:
    problems.setdefault(part, f"{SCHEME}{part}: {text}")


def _params(part: str, envelope: Mapping[str, Any]) -> dict[str, Any]:
    return _with_envelope({"uri": SCHEME + part}, envelope)


def _with_envelope(params: dict[str, Any], envelope: Mapping[str, Any]) -> dict[str, Any]:
    return {**params, "_meta": dict(envelope)} if envelope else params
