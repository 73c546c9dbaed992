"""Spans on their way out of a muxsim that serves: to a collector that takes OTLP over HTTP, and to one that fails."""

from __future__ import annotations

import gzip
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
import trio
from harness import MUXSIM, serving
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from .conftest import environment
from .machine import eventually, log_lines
from .wire import ask, shake_hands, tool_call

pytestmark = pytest.mark.children

TRACING = "[server]\ntracing = true\n"
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SOON = {"OTEL_BSP_SCHEDULE_DELAY": "50"}


class Collector:
    """What has been sent: requests as they came, and spans by name."""

    def __init__(self):
        self.status = 200
        self.requests = []
        self.url = ""

    def take(self, path, headers, body):
        if headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        sent = ExportTraceServiceRequest()
        sent.ParseFromString(body)
        self.requests.append((path, headers, sent))

    @property
    def spans(self):
        sent = [one for _, _, request in self.requests for one in request.resource_spans]
        return {span.name: span for one in sent for scope in one.scope_spans for span in scope.spans}

    @property
    def resource(self):
        return values(self.requests[0][2].resource_spans[0].resource.attributes)


def values(attributes):
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in attributes}


@contextmanager
def collecting():
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            collector.take(self.path, self.headers, self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(collector.status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    collector.url = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield collector
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


async def play(muxsim):
    """A session with one call, in a trace of its client's."""
    client = await shake_hands(muxsim.url, "/envs/naughty/mcp?seed=5")
    call = tool_call(7, "echo", {})
    call["params"]["_meta"] = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
    params = (await client.post(call)).json()["result"]["params"]
    await client.delete()
    return client, params


async def test_a_collector_gets_the_spans_of_a_session_and_the_backend_the_context_of_its_call(tmp_path):
    with collecting() as collector:
        env = {**SOON, "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_RESOURCE_ATTRIBUTES": "lab=b"}
        async with serving(tmp_path, TRACING + environment("naughty"), env=env) as muxsim:
            client, params = await play(muxsim)
            await eventually(lambda: "close naughty" in collector.spans)
        names = {"open naughty", "start naughty", "initialize", "tools/call echo", "close naughty"}
        assert names <= collector.spans.keys()
        assert {"service.name": "muxsim", "lab": "b"}.items() <= collector.resource.items()
        path, headers, _ = collector.requests[0]
        assert (path, headers["Content-Type"]) == ("/v1/traces", "application/x-protobuf")
        call, opened = collector.spans["tools/call echo"], collector.spans["open naughty"]
        assert (call.trace_id.hex(), call.parent_span_id.hex()) == (TRACE, PARENT)
        assert params["_meta"]["traceparent"] == f"00-{TRACE}-{call.span_id.hex()}-01"
        shaken = collector.spans["initialize"]
        assert (shaken.trace_id, shaken.parent_span_id) == (opened.trace_id, opened.span_id)
        told = values(call.attributes)
        assert (told["mcp.session.id"], told["gen_ai.tool.name"], told["muxsim.seed"]) == (client.id, "echo", 5)
        assert told["mcp.protocol.version"] == "2025-11-25"


@pytest.mark.parametrize("status", [500, None], ids=["refuses", "is not there"])
async def test_a_collector_that_fails_harms_no_session_and_keeps_no_muxsim_from_ending(tmp_path, status):
    with collecting() as collector:
        collector.status = status
        url = "http://127.0.0.1:1" if status is None else collector.url
        env = {**SOON, "OTEL_EXPORTER_OTLP_ENDPOINT": url}
        async with serving(tmp_path, TRACING + environment("naughty"), env=env) as muxsim:
            for _ in range(3):
                await play(muxsim)
            await eventually(lambda: collector.requests or status is None)
            assert (await ask(muxsim.url, "GET", "/health")).json()["status"] == "ok"
            assert await trio.to_thread.run_sync(muxsim.stop) == 0
        assert not log_lines(muxsim, event="muxsim.part_failed")


async def test_nothing_is_handed_on_that_the_client_did_not_say_where_nobody_traces(tmp_path):
    async with serving(tmp_path, environment("naughty")) as muxsim:
        client = await shake_hands(muxsim.url)
        assert "_meta" not in (await client.post(tool_call(7, "echo", {}))).json()["result"]["params"]


async def test_tracing_without_what_sends_spans_is_refused_with_what_to_install(tmp_path):
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text("import sys\nsys.modules['opentelemetry.sdk'] = None\n")
    (tmp_path / "muxsim.toml").write_text(TRACING + environment("naughty"))
    for option in ((), ("--check",)):
        done = await trio.run_process(
            [*MUXSIM, "serve", "--port", "0", *option],
            cwd=tmp_path,
            env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(tmp_path / "site")},
            capture_stdout=True,
            capture_stderr=True,
            check=False,
        )
        assert done.returncode == 2
        assert "pip install 'mcp-muxsim[otel]'" in done.stderr.decode()
