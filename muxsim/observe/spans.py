"""Spans of sessions and of their calls for OpenTelemetry, with the conventions for GenAI and MCP.

A client's W3C context is continued, and handed to the backend in ``_meta``. Whatever fails here is told once, and makes
no more spans.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import msgspec
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode, TracerProvider, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from muxsim import __version__
from muxsim.observe import events
from muxsim.observe.events import FAILURES, CallEnded, Event, Events
from transports.messages import Message, member, members_of, text_of

_SECOND: Final = 10**9
_LONGEST_URI: Final = 512
_TARGETS: Final = {"tools/call": "gen_ai.tool.name", "prompts/get": "gen_ai.prompt.name"}
_NETWORKS: Final = {"streamable-http": ("tcp", "http"), "sse": ("tcp", "http"), "stdio": ("pipe", None)}
_context: Final = TraceContextTextMapPropagator()


class Spans:
    """Listens to a stream of events, and is its `muxsim.observe.events.CallTracer`, until it is stopped or fails."""

    def __init__(self, stream: Events, provider: TracerProvider) -> None:
        self._stream = stream
        self._tracer = provider.get_tracer("muxsim", __version__)
        self._opening: dict[str, Span] = {}
        """The span that each live session was opened in, which is over when it has started."""
        stream.subscribe(self)
        stream.tracer = self

    def __repr__(self) -> str:
        return f"<Spans of {len(self._opening)} sessions>"

    def stop(self) -> None:
        """Trace no more."""
        if self._stream.tracer is self:
            self._stream.tracer = None
        self._stream.listeners = tuple(one for one in self._stream.listeners if one is not self)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # it is what tells about sessions, and no session may notice
            self.stop()
            self._stream.part_failed("tracing", error)

    # ---- sessions

    def __call__(self, event: Event) -> None:
        """Take an event in."""
        with self._alone():
            self._take(event)

    def _take(self, event: Event) -> None:
        match event:
            case events.SessionOpening():
                self._begin_opening(event)
            case events.OpenWaited(session=str(session), seconds=seconds):
                self._part(session, f"queue {event.env}", seconds, {"muxsim.admitted": event.admitted})
            case events.SessionStarted(session=session, seconds=seconds):
                began = {"muxsim.start.way": event.way, "process.pid": event.pid}
                self._part(session, f"start {event.env}", seconds, began)
                if session in self._opening:
                    self._opening[session].end()
            case events.SessionOpenFailed(session=session) if session in self._opening:
                span = self._opening.pop(session)
                _fail(span, "open_failed", event.error)
                span.end()
            case events.SessionEnded(session=session):
                self._close(event)
                self._opening.pop(session, None)

    def _begin_opening(self, event: events.SessionOpening) -> None:
        parent = _parent(event.traceparent, event.tracestate)
        attributes = {**_about(event), "user.id": event.principal, "client.address": event.peer}
        span = self._tracer.start_span(f"open {event.env}", parent, SpanKind.SERVER, _known(attributes))
        self._opening[event.session] = span

    def _part(self, session: str, name: str, seconds: float, attributes: Mapping[str, Any]) -> None:
        """A part of an opening that is over, and took so many seconds."""
        if session in self._opening:
            now = time.time_ns()
            self._span_of(session, name, now - int(seconds * _SECOND), attributes).end(now)

    def _span_of(self, session: str, name: str, began: int, attributes: Mapping[str, Any]) -> Span:
        opening = self._opening[session]
        return self._tracer.start_span(
            name,
            set_span_in_context(opening, Context()),
            attributes=_known({"mcp.session.id": session, **attributes}),
            start_time=began,
        )

    def _close(self, event: events.SessionEnded) -> None:
        if event.session not in self._opening:
            return
        now = time.time_ns()
        ended = {**_about(event), "muxsim.end.cause": event.cause, "process.exit.code": event.exit_status}
        began = now - int((event.closing or 0.0) * _SECOND)
        span = self._span_of(event.session, f"close {event.env}", began, ended)
        if event.cause in FAILURES:
            _fail(span, event.cause, event.text)
        span.end(now)

    # ---- calls

    def call_began(self, call: events.CallBegan, request: Message) -> tuple[Message, Any]:
        """Begin the span of a call; returns the request with the span's context, and the span. None for no span."""
        with self._alone():
            meta = request.meta
            parent, state = text_of(meta.get("traceparent")), text_of(meta.get("tracestate"))
            if not parent and request.origin is not None:
                parent, state = request.origin.traceparent or "", request.origin.tracestate or ""
            context, opening = _parent(parent, state), self._opening.get(call.session)
            links = []
            if opening is not None and context:
                links.append(Link(opening.get_span_context()))
            elif opening is not None:
                context = set_span_in_context(opening, Context())
            name = f"{call.method} {call.target}" if call.target else call.method
            span = self._tracer.start_span(name, context, SpanKind.SERVER, _of_call(call, request), links)
            return _with_context(request, span), span
        return request, None

    def call_ended(self, span: Any, call: CallEnded, message: str | None) -> None:
        """End it; ``message`` is what the answer says of an error."""
        with self._alone():
            if call.error is not None:
                _fail(span, call.error, message or "")
                if call.error.lstrip("-").isdigit():
                    span.set_attribute("rpc.response.status_code", call.error)
            span.end()


def _of_call(call: events.CallBegan, request: Message) -> dict[str, Any]:
    transport, protocol = _NETWORKS.get(call.transport, (None, None))
    uri = text_of(member(request.params, "uri")) if request.method.startswith("resources/") else ""
    attributes = {
        "mcp.method.name": call.method,
        "mcp.session.id": call.session,
        "mcp.protocol.version": call.version or None,
        "mcp.resource.uri": uri[:_LONGEST_URI] or None,
        "jsonrpc.request.id": str(call.id),
        "gen_ai.operation.name": "execute_tool" if call.method == "tools/call" else None,
        "network.transport": transport,
        "network.protocol.name": protocol,
        "user.id": call.principal,
        "muxsim.env": call.env,
        "muxsim.seed": call.seed,
        "muxsim.attachment": call.attachment,
    }
    if call.method in _TARGETS:
        attributes[_TARGETS[call.method]] = call.target
    return _known(attributes)


def _about(event: events.SessionEvent) -> dict[str, Any]:
    return {"mcp.session.id": event.session, "muxsim.env": event.env, "muxsim.seed": event.seed}


def _known(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in attributes.items() if value is not None}


def _fail(span: Span, kind: str, text: str) -> None:
    span.set_attribute("error.type", kind)
    span.set_status(Status(StatusCode.ERROR, text))


def _parent(traceparent: str | None, tracestate: str | None) -> Context:
    """The context of whoever asks: an empty one, if none was said."""
    carrier = {"traceparent": traceparent or "", "tracestate": tracestate or ""}
    return _context.extract({name: text for name, text in carrier.items() if text}, Context())


def _with_context(request: Message, span: Span) -> Message:
    """The request with this span as what its backend's work is a part of."""
    if not span.get_span_context().is_valid:
        return request
    carrier: dict[str, str] = {}
    _context.inject(carrier, trace.set_span_in_context(span, Context()))
    meta = {name: raw for name, raw in request.meta.items() if name not in ("traceparent", "tracestate")}
    carried = {**meta, **{name: msgspec.Raw(msgspec.json.encode(text)) for name, text in carrier.items()}}
    changed = request.with_params({**members_of(request.params), "_meta": carried})
    changed.origin = request.origin
    return changed
