"""The control plane: what an environment says of reward and ends, put beside each result for those who may see it.

An environment publishes it as resources. After a call that asked for it the session reads them at once and adds them to
the result, so that a step costs its client one trip and nobody's next step can come between.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

import msgspec
from msgspec import Raw

from muxsim.session import uris
from muxsim.session.agent_answers import META_KEY
from muxsim.session.ledger import STEP, Ledger, Unknown, count_in, number_in
from muxsim.session.own_client import Answer, OwnClient
from transports.errors import INVALID_PARAMS, METHOD_NOT_FOUND
from transports.messages import Kind, Message, error_code, member, members_of

if TYPE_CHECKING:
    from muxsim.session.session import Session

SCHEME: Final = f"{uris.SCHEME}://"
PARTS: Final = ("reward", "status", "info", "initial_state")
_STEP_PARTS: Final = ("reward", "status", "info")
# Seconds; an environment that publishes its state answers from memory.
_PATIENCE: Final = 10.0

# MCP's codes for a resource that is not there, by revision, and for a server that has none at all. SDKs that have no
# code for it say it in words.
_NOT_THERE: Final = frozenset({-32002, INVALID_PARAMS, METHOD_NOT_FOUND})
_SAYS_NOT_THERE: Final = re.compile(
    r"(unknown|no such) resource|resource\b.*\b(not found|unknown|(does not|doesn't) exist)", re.IGNORECASE | re.DOTALL
)
_UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError, KeyError, IndexError, TypeError)

Parts = dict[str, Any]
Deliver = Callable[[Message], None]


class ControlUnreadable(Exception):
    """A control plane resource could not be read; the message says which and why."""


def asks_for_control(message: Message) -> bool:
    """Whether a request is a tool call that wants the control plane with its result."""
    if message.method != "tools/call":
        return False
    wish = message.meta.get(META_KEY)
    return wish is not None and bytes(wish) == b"true"


def asking_for_control(message: Message) -> Message:
    """The same tool call, wanting the control plane; a server that can add it itself is asked to."""
    params = members_of(message.params)
    meta = members_of(params.get("_meta"))
    return message.with_params({**params, "_meta": {**meta, META_KEY: True}})


def has_control(result: Message) -> bool:
    """Whether the server has put the control plane into a result itself."""
    return member(result.members.get("result"), "_meta", META_KEY) is not None


def with_control(result: Message, control: Mapping[str, Any]) -> Message:
    """A result with the control plane in its ``_meta``."""
    body = members_of(result.members["result"])
    meta = members_of(body.get("_meta"))
    body["_meta"] = Raw(msgspec.json.encode({**meta, META_KEY: control}))
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
    if answer.own or answer.message.kind is not Kind.ERROR:
        return False
    return error_code(answer.message) in _NOT_THERE or bool(_SAYS_NOT_THERE.search(_error_text(answer.message)))


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

    def __init__(self, session: Session) -> None:
        self._client = OwnClient(session, patience=_PATIENCE, aside=True)
        self._ledger = Ledger()
        self._seen = False
        self._filled = False
        self.absent = False
        """Whether the server has said that it has no control plane."""

    def passed_over(self) -> None:
        """A call was made whose earnings nobody is told, and that must not become the next one's."""
        self._ledger.age()

    def begin(self, envelope: Mapping[str, Any], start: Callable[[], None]) -> None:
        """Call ``start`` for a scored call, as soon as it is known how the counts stand before it."""
        if not self._ledger.stale or self.absent or self._filled:
            start()
            return

        def on_answer(answer: Answer) -> None:
            status = _read("status", answer, {})
            if isinstance(status, dict):
                self._ledger.begin(status)
            start()

        self._request("status", envelope, on_answer)

    def complete(self, result: Message, envelope: Mapping[str, Any], deliver: Deliver, *, crowded: bool) -> None:
        """Give ``deliver`` the result of a tool call with the control plane added, as soon as it has been read.

        A server without one gets its result delivered as it is; a part that cannot be read leaves the reward null.
        ``crowded``: a call that was given up may still be at work.
        """
        self._filled = has_control(result)
        if self.absent or result.kind is not Kind.RESULT or self._filled:
            self._ledger.age()
            deliver(result)
            return
        answers: dict[str, Answer] = {}

        def on_answer(part: str, answer: Answer) -> None:
            answers[part] = answer
            if len(answers) == len(_STEP_PARTS):
                deliver(self._combine(result, answers, crowded=crowded))

        for part in _STEP_PARTS:
            self._request(part, envelope, functools.partial(on_answer, part))

    async def read(self, part: str, envelope: Mapping[str, Any], timeout: float) -> Any:
        """One part of the control plane, now. Raises `ControlUnreadable`, also when it is late."""
        try:
            answer = await self._client.ask("resources/read", _params(part, envelope), timeout)
        except TimeoutError:
            raise ControlUnreadable(f"{SCHEME}{part}: no answer within {timeout:g} s") from None
        return resource_value(answer)

    def _request(self, part: str, envelope: Mapping[str, Any], on_answer: Callable[[Answer], None]) -> None:
        self._client.request("resources/read", _params(part, envelope), on_answer)

    def _combine(self, result: Message, answers: Mapping[str, Answer], *, crowded: bool) -> Message:
        problems: dict[str, str] = {}
        values = {part: _read(part, answer, problems) for part, answer in answers.items()}
        if not self._seen and all(map(is_not_there, answers.values())):
            self.absent = True
            return result
        self._seen = self._seen or len(problems) < len(answers)
        return with_control(result, self._control(result, values, problems, crowded=crowded))

    def _control(self, result: Message, values: Parts, problems: dict[str, str], *, crowded: bool) -> dict[str, Any]:
        status, info = values["status"], values["info"]
        if not isinstance(status, dict):
            _note(problems, "status", "not an object")
        counts: Parts = status if isinstance(status, dict) else {}
        reward = self._reward(result, values["reward"], status, problems, crowded=crowded)
        control: dict[str, Any] = {
            "reward": reward,
            "terminated": _flag("terminated", counts, problems),
            "truncated": _flag("truncated", counts, problems),
            "step": count_in(counts.get(STEP)),
            "info": info if isinstance(info, dict) else {},
        }
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
                status, last or 0.0, failed=failed is not None and bytes(failed) == b"true", crowded=crowded
            )
        except Unknown as unknown:
            _note(problems, "reward", str(unknown))
            return None
        return None if last is None else earned


def _read(part: str, answer: Answer, problems: dict[str, str]) -> Any:
    try:
        return resource_value(answer.message)
    except ControlUnreadable as error:
        _note(problems, part, str(error))
        return None


def _flag(name: str, status: Parts, problems: dict[str, str]) -> bool:
    value = status.get(name, False)
    if value in (True, False):
        return bool(value)
    _note(problems, "status", f"{name} is not true or false")
    return False


def _note(problems: dict[str, str], part: str, text: str) -> None:
    problems.setdefault(part, f"{SCHEME}{part}: {text}")


def _params(part: str, envelope: Mapping[str, Any]) -> dict[str, Any]:
    params: dict[str, Any] = {"uri": SCHEME + part}
    if envelope:
        params["_meta"] = dict(envelope)
    return params
