"""What becomes of the requests of one session's clients, for whoever has asked to be told of calls."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

import msgspec

from muxsim.observe.events import CallBegan, CallEnded, CallTracer, Events
from muxsim.session.attachment import Attachment
from muxsim.session.control.turns import Key
from transports.messages import Kind, Message, RequestId, error_code, member, text_of
from transports.origin import traceparent_in

# As long as a name of a tool or a method, or an id, may stand in a log.
_LONGEST_NAME: Final = 128
_LONGEST_TEXT: Final = 1024
_TARGETED: Final = frozenset({"tools/call", "prompts/get"})
_IS_ERROR: Final = re.compile(rb'"isError"\s*:\s*true')


class _Watched(msgspec.Struct, eq=False):
    """One request under way; ``began`` by the session's clock. Its payload is not kept."""

    attachment: Attachment
    id: RequestId
    method: str
    target: str | None
    began: float
    received: int
    request: str | None
    traceparent: str | None
    span: Any


class CallWatch:
    """Made once there is somebody to tell. ``who`` says whom events are about; ``now`` is the session's clock."""

    __slots__ = ("_calls", "_events", "_now", "_who")

    def __init__(
        self, events: Events, who: Callable[[], tuple[str, str, int, int | None]], now: Callable[[], float]
    ) -> None:
        self._events = events
        self._who = who
        self._now = now
        self._calls: dict[Key, _Watched] = {}

    def __repr__(self) -> str:
        return f"<CallWatch of {len(self._calls)}>"

    def began(self, attachment: Attachment, request: Message, now: float) -> Message:
        """A request has been taken; returns it as it is to go on."""
        assert request.id is not None
        target, origin = None, request.origin
        if request.method in _TARGETED:
            target = text_of(member(request.params, "name"))[:_LONGEST_NAME] or None
        parent = traceparent_in(text_of(request.meta.get("traceparent")))
        if parent is None and origin is not None:
            parent = origin.traceparent
        call = _Watched(
            attachment,
            request.id,
            request.method[:_LONGEST_NAME],
            target,
            now,
            len(request.encode()),
            None if origin is None else origin.request,
            parent,
            None,
        )
        self._calls[attachment, request.id] = call
        return request if self._events.tracer is None else self._traced(self._events.tracer, call, request)

    def _traced(self, tracer: CallTracer, call: _Watched, request: Message) -> Message:
        client, (session, env, seed, _) = call.attachment, self._who()
        began = CallBegan(
            session,
            env,
            seed,
            call.method,
            call.target,
            _short(call.id),
            client.kind,
            client.session.agreed_version,
            client.number,
            client.principal,
        )
        request, call.span = tracer.call_began(began, request)
        return request

    def ended(self, key: Key, answer: Message | None, error: str | None = None) -> None:
        """A request is over: answered, or given up because of this ``error``."""
        call = self._calls.pop(key, None)
        if call is None:
            return
        told = CallEnded(
            *self._who(),
            method=call.method,
            target=call.target,
            id=_short(call.id),
            seconds=round(self._now() - call.began, 6),
            received=call.received,
            sent=0 if answer is None else len(answer.encode()),
            error=error if answer is None else _error_in(answer),
            attachment=call.attachment.number,
            principal=call.attachment.principal,
            request=call.request,
            traceparent=call.traceparent,
        )
        self._events.tell_call(told)
        if call.span is not None and self._events.tracer is not None:
            failed = answer is not None and answer.kind is Kind.ERROR
            message = text_of(member(answer.members["error"], "message")) if answer is not None and failed else None
            self._events.tracer.call_ended(call.span, told, message and message[:_LONGEST_TEXT])

    def left(self, attachment: Attachment) -> None:
        """A client has gone, and waits for nothing any more."""
        for key in [key for key in self._calls if key[0] is attachment]:
            self.ended(key, None, "client_gone")


def _short(id: RequestId) -> RequestId:
    return id if isinstance(id, int) else id[:_LONGEST_NAME]


def _error_in(answer: Message) -> str | None:
    """What an answer says went wrong: ``tool_error``, muxsim's own cause, or the code; None for a success."""
    if answer.kind is Kind.ERROR:
        cause = text_of(member(answer.members["error"], "data", "cause"))
        return cause[:_LONGEST_NAME] or str(error_code(answer))
    if _IS_ERROR.search(answer.encode()) is None:
        return None
    failed = member(answer.members["result"], "isError")
    return "tool_error" if failed is not None and bytes(failed) == b"true" else None
