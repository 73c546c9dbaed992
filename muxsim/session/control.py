"""The control plane: what an environment says of reward and ends, put beside each result for those who may see it.

An environment publishes it as resources. After a call that asked for it the session reads them at once and adds them to
the result, so that a step costs its client one trip and nobody's next step can come between.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

import msgspec
from msgspec import Raw

from muxsim.session.own_client import OwnClient
from transports.messages import Kind, Message, member, members_of

if TYPE_CHECKING:
    from muxsim.session.session import Session

META_KEY: Final = "muxsim/control"
SCHEME: Final = "control://"
PARTS: Final = ("reward", "status", "info", "initial_state")
_STEP_PARTS: Final = ("reward", "status", "info")
# Seconds; an environment that publishes its state answers from memory.
_PATIENCE: Final = 10.0

Parts = dict[str, Any]


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
    except (msgspec.DecodeError, KeyError, IndexError, TypeError) as error:
        raise ControlUnreadable(f"the resource is not JSON text: {error}") from None


def _error_text(answer: Message) -> str:
    raw = member(answer.members.get("error"), "message")
    return "error" if raw is None else str(msgspec.json.decode(raw))


class ControlReader:
    """Reads one session's control plane, and keeps what is needed to tell what a single call has earned."""

    def __init__(self, session: Session) -> None:
        self._client = OwnClient(session, patience=_PATIENCE)
        self._absent = False
        self._step = 0
        self._total = 0.0

    def complete(self, result: Message, envelope: Mapping[str, Any], deliver: Callable[[Message], None]) -> None:
        """Give ``deliver`` the result of a tool call with the control plane added, as soon as it has been read.

        A server without one gets its result delivered as it is; a part that cannot be read leaves the reward null.
        """
        if self._absent or result.kind is not Kind.RESULT or has_control(result):
            deliver(result)
            return
        answers: dict[str, Message] = {}

        def on_answer(part: str, answer: Message) -> None:
            answers[part] = answer
            if len(answers) == len(_STEP_PARTS):
                control = self._combine(result, answers)
                deliver(result if control is None else with_control(result, control))

        for part in _STEP_PARTS:
            self._request(part, envelope, lambda answer, part=part: on_answer(part, answer))  # type: ignore[misc]

    async def read(self, part: str, envelope: Mapping[str, Any], timeout: float) -> Any:
        """One part of the control plane, now. Raises `ControlUnreadable`, also when it is late."""
        try:
            answer = await self._client.ask("resources/read", _params(part, envelope), timeout)
        except TimeoutError:
            raise ControlUnreadable(f"{SCHEME}{part}: no answer within {timeout:g} s") from None
        return resource_value(answer)

    def _request(self, part: str, envelope: Mapping[str, Any], on_answer: Callable[[Message], None]) -> None:
        self._client.request("resources/read", _params(part, envelope), on_answer)

    def _combine(self, result: Message, answers: Mapping[str, Message]) -> dict[str, Any] | None:
        values: Parts = {}
        problems: dict[str, str] = {}
        for part, answer in answers.items():
            try:
                values[part] = resource_value(answer)
            except ControlUnreadable as error:
                problems[part] = f"{SCHEME}{part}: {error}"
        if not values and all(answer.kind is Kind.ERROR for answer in answers.values()):
            self._absent = not self._client.session.ending
            if self._absent:
                return None
        return self._control(result, values, problems)

    def _control(self, result: Message, values: Parts, problems: dict[str, str]) -> dict[str, Any]:
        status, info = values.get("status"), values.get("info")
        if not isinstance(status, dict):
            problems.setdefault("status", f"{SCHEME}status: not an object")
            status = {}
        reward = self._reward(result, values.get("reward"), status, problems)
        control: dict[str, Any] = {
            "reward": reward,
            "terminated": bool(status.get("terminated", False)),
            "truncated": bool(status.get("truncated", False)),
            "step": status.get("step"),
            "info": info if isinstance(info, dict) else {},
        }
        if problems:
            control["problem"] = "; ".join(problems.values())
        return control

    def _reward(self, result: Message, reward: Any, status: Parts, problems: dict[str, str]) -> float | None:
        """What this call earned. ``control://reward`` is the last step's, and a call may take none, or several."""
        value = reward.get("reward") if isinstance(reward, dict) else None
        if isinstance(value, bool) or not isinstance(value, int | float):
            problems.setdefault("reward", f"{SCHEME}reward: no number in it")
            return None
        step, total = status.get("step"), status.get("total_reward")
        earned: float | None = value
        if isinstance(step, int):
            if step == self._step:
                failed = member(result.members["result"], "isError")
                earned = None if failed is not None and bytes(failed) == b"true" else 0.0
            elif step != self._step + 1 and isinstance(total, int | float):
                earned = total - self._total
            self._step = step
        if isinstance(total, int | float):
            self._total = total
        return earned


def _params(part: str, envelope: Mapping[str, Any]) -> dict[str, Any]:
    params: dict[str, Any] = {"uri": SCHEME + part}
    if envelope:
        params["_meta"] = dict(envelope)
    return params
