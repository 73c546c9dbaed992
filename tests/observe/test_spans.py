"""Spans of sessions and calls, as an exporter gets them."""

from __future__ import annotations

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from session.fake_backend import fake_session

from muxsim.observe import events
from muxsim.observe.events import Events, PartFailed
from muxsim.observe.spans import Spans
from muxsim.session.attachment import Attachment
from transports import messages
from transports.memory import MemoryTransport
from transports.messages import member, text_of
from transports.origin import Origin

WHO = ("s" * 32, "fake", 7)
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"


class Traced:
    """A stream of events of which spans are made, and what an exporter has of them."""

    def __init__(self, stream=None):
        self.exporter = InMemorySpanExporter()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.stream = stream or Events()
        self.failures = []
        self.stream.subscribe(lambda event: self.failures.append(event) if isinstance(event, PartFailed) else None)
        self.spans = Spans(self.stream, provider)

    def open(self, **asked):
        self.stream.emit(events.SessionOpening(*WHO, None, **asked))

    def named(self, name):
        (span,) = [span for span in self.exporter.get_finished_spans() if span.name == name]
        return span

    @property
    def names(self):
        return [span.name for span in self.exporter.get_finished_spans()]


def ids(span):
    return f"{span.context.trace_id:032x}", f"{span.context.span_id:016x}"


def parent_of(span):
    return f"{span.parent.span_id:016x}" if span.parent else None


def seconds(span):
    return (span.end_time - span.start_time) / 1e9


def test_a_sessions_life_is_a_trace_of_its_opening_with_queue_and_start_and_of_its_close():
    traced = Traced()
    traced.open(principal="ada", peer="192.0.2.7")
    traced.stream.emit(events.OpenWaited("fake", 2.0, True, WHO[0]))
    traced.stream.emit(events.SessionStarted(*WHO, 4711, "fork", 0.25))
    traced.stream.emit(events.SessionEnded(*WHO, 4711, "ttl", "its time is over", 0, None, 9.0, closing=0.5))
    assert traced.names == ["queue fake", "start fake", "open fake", "close fake"]
    opened, close = traced.named("open fake"), traced.named("close fake")
    assert (opened.parent, opened.kind) == (None, SpanKind.SERVER)
    assert opened.attributes == {
        "mcp.session.id": WHO[0],
        "muxsim.env": "fake",
        "muxsim.seed": 7,
        "user.id": "ada",
        "client.address": "192.0.2.7",
    }
    for name, length in (("queue fake", 2.0), ("start fake", 0.25), ("close fake", 0.5)):
        assert parent_of(traced.named(name)) == ids(opened)[1]
        assert seconds(traced.named(name)) == pytest.approx(length, abs=0.001)
    assert traced.named("start fake").attributes["muxsim.start.way"] == "fork"
    assert (close.attributes["muxsim.end.cause"], close.status.status_code) == ("ttl", StatusCode.UNSET)
    assert not traced.spans._opening


def test_an_opening_goes_on_with_its_callers_trace_and_says_why_there_will_be_no_session():
    traced = Traced()
    traced.open(traceparent=TRACEPARENT, tracestate="lab=1")
    traced.stream.emit(events.SessionOpenFailed(*WHO, None, "there is no such file"))
    opened = traced.named("open fake")
    assert (ids(opened)[0], parent_of(opened), opened.parent.is_remote) == (TRACE, PARENT, True)
    assert opened.context.trace_state.to_header() == "lab=1"
    assert (opened.attributes["error.type"], opened.status.description) == ("open_failed", "there is no such file")
    assert not traced.spans._opening


def test_an_end_that_nobody_wished_for_is_an_error():
    traced = Traced()
    traced.open()
    traced.stream.emit(events.SessionEnded(*WHO, None, "backend_exited", "status 3", 3, None, 1.0))
    close = traced.named("close fake")
    assert (close.status.status_code, close.attributes["error.type"]) == (StatusCode.ERROR, "backend_exited")
    assert close.attributes["process.exit.code"] == 3


class Playing(Traced):
    """Likewise, with a session and a client of it."""

    def __init__(self, **answers):
        self.session, self.backend = fake_session({name.replace("_", "/"): answer for name, answer in answers.items()})
        super().__init__(self.session.conversation._events)
        self.open()
        self.client = Attachment(self.session, "streamable-http")
        self.client.principal = "ada"
        self.client.connect(MemoryTransport())
        self.session.attach(self.client)

    def ask(self, id, method, origin=None, **params):
        request = messages.request(id, method, params)
        request.origin = origin
        self.client.receive(request)
        return self.backend.sent[-1]

    def opened_in(self):
        context = self.spans._opening[WHO[0]].get_span_context()
        return f"{context.trace_id:032x}", f"{context.span_id:016x}"


def carried(message, name="traceparent"):
    return text_of(member(message.params, "_meta", name))


def done(request):
    return messages.result(request.id, {"content": []})


async def test_a_call_is_a_span_with_the_conventions_of_mcp_whose_context_the_backend_gets():
    playing = Playing(tools_call=done)
    sent = playing.ask("one", "tools/call", name="move", arguments={"to": 3})
    span = playing.named("tools/call move")
    assert span.kind is SpanKind.SERVER
    assert span.attributes == {
        "mcp.method.name": "tools/call",
        "mcp.session.id": WHO[0],
        "jsonrpc.request.id": "one",
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": "move",
        "network.transport": "tcp",
        "network.protocol.name": "http",
        "user.id": "ada",
        "muxsim.env": "fake",
        "muxsim.seed": 7,
        "muxsim.attachment": 1,
    }
    trace, own = ids(span)
    assert (trace, parent_of(span)) == playing.opened_in(), "without a trace of the client's it is of its session's"
    assert carried(sent).startswith(f"00-{trace}-{own}-")
    assert bytes(member(sent.params, "arguments")) == b'{"to":3}'
    assert text_of(member(sent.params, "name")) == "move"


@pytest.mark.parametrize("by_header", [False, True], ids=["in _meta", "in headers"])
async def test_a_clients_own_trace_goes_on_through_the_call_to_the_backend(by_header):
    playing = Playing(tools_call=done)
    if by_header:
        sent = playing.ask(1, "tools/call", Origin(None, TRACEPARENT, "lab=1"), name="move")
    else:
        meta = {"traceparent": TRACEPARENT, "tracestate": "lab=1", "baggage": "k=v", "progressToken": 5}
        sent = playing.ask(
            1, "tools/call", Origin(None, "00-" + "1" * 32 + "-" + "2" * 16 + "-01"), name="move", _meta=meta
        )
        assert carried(sent, "baggage") == "k=v"
    span = playing.named("tools/call move")
    assert (ids(span)[0], parent_of(span), span.parent.is_remote) == (TRACE, PARENT, True)
    assert carried(sent) == f"00-{TRACE}-{ids(span)[1]}-01"
    assert carried(sent, "tracestate") == "lab=1"
    (link,) = span.links
    assert f"{link.context.span_id:016x}" == playing.opened_in()[1]


@pytest.mark.parametrize(
    ("answer", "kind", "code", "text"),
    [
        (lambda request: messages.error(request.id, -32602, "no such tool"), "-32602", "-32602", "no such tool"),
        (lambda request: messages.result(request.id, {"isError": True}), "tool_error", None, None),
    ],
)
async def test_a_call_that_has_failed_says_how(answer, kind, code, text):
    playing = Playing(tools_call=answer)
    playing.ask(1, "tools/call", name="move")
    span = playing.named("tools/call move")
    assert (span.status.status_code, span.status.description or None) == (StatusCode.ERROR, text)
    assert (span.attributes["error.type"], span.attributes.get("rpc.response.status_code")) == (kind, code)


async def test_other_requests_have_what_they_name_and_a_hostile_context_is_none():
    playing = Playing(resources_read=done, prompts_get=done, ping=done)
    playing.ask(1, "resources/read", uri="game://" + "x" * 9999)
    playing.ask(2, "prompts/get", name="greeting")
    sent = playing.ask(3, "ping", _meta={"traceparent": "nonsense\r\nX: y", "tracestate": "\x1b[31m"})
    assert playing.names == ["resources/read", "prompts/get greeting", "ping"]
    assert len(playing.named("resources/read").attributes["mcp.resource.uri"]) == 512
    assert playing.named("prompts/get greeting").attributes["gen_ai.prompt.name"] == "greeting"
    ping = playing.named("ping")
    assert (ids(ping)[0], parent_of(ping)) == playing.opened_in()
    assert carried(sent).startswith("00-{}-{}-".format(*ids(ping)))
    assert carried(sent, "tracestate") == ""


async def test_a_span_that_cannot_be_made_harms_no_call_and_is_the_last(monkeypatch):
    """H15."""
    playing = Playing(tools_call=done)
    monkeypatch.setattr("muxsim.observe.spans._of_call", lambda *args: 1 / 0)
    for id in (1, 2):
        playing.ask(id, "tools/call", name="move")
    assert [message.id for message, _ in playing.client.transport.sent] == [1, 2]
    assert [event.part for event in playing.failures] == ["tracing"]
    assert playing.stream.tracer is None
    playing.stream.emit(events.SessionEnded(*WHO, None, "ttl", "text", 0, None, 1.0))
    assert playing.names == []
