from types import SimpleNamespace

import pytest
from opentelemetry import trace
from opentelemetry.trace import NoOpTracerProvider, ProxyTracerProvider

from muxsim.mcpgym import tracing
from muxsim.mcpgym.protocol import Endpoint

PARENT = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}


class OpenTelemetryMiddleware:
    """Stands for the SDK's, of this name."""

    def __init__(self):
        self.traced = 0

    async def __call__(self, ctx, call_next):
        self.traced += 1
        return await call_next(ctx)


async def answer(ctx):
    return {"meta": ctx.meta}


@pytest.mark.parametrize(
    ("provider", "meta", "traced"),
    [
        (ProxyTracerProvider(), None, 0),
        (ProxyTracerProvider(), {"progressToken": 1}, 0),
        (ProxyTracerProvider(), PARENT, 1),
        (NoOpTracerProvider(), None, 1),
        (NoOpTracerProvider(), PARENT, 1),
    ],
)
async def test_a_message_is_traced_where_somebody_sees_the_span(monkeypatch, provider, meta, traced):
    monkeypatch.setattr(tracing, "get_tracer_provider", lambda: provider)
    sdks = OpenTelemetryMiddleware()
    (middleware,) = tracing.where_seen([sdks])
    assert await middleware(SimpleNamespace(meta=meta), answer) == {"meta": meta}
    assert sdks.traced == traced


def test_no_provider_is_there_unless_somebody_sets_one():
    assert isinstance(trace.get_tracer_provider(), ProxyTracerProvider)


def test_what_others_put_in_the_way_of_messages_stays_as_it_is():
    async def audit(ctx, call_next):
        return await call_next(ctx)

    assert tracing.where_seen([audit]) == [audit]


def test_the_sdk_has_this_tracing_and_no_more():
    """What this module leaves out has that name; where it has another, calls are only slower."""
    (middleware,) = Endpoint("server").server.middleware
    assert type(middleware._tracing).__name__ == "OpenTelemetryMiddleware"
