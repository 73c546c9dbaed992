"""The SDK's spans, where somebody sees them: they are a tenth of the time of a call."""

from collections.abc import Sequence
from typing import Any

from mcp.server.context import CallNext, HandlerResult, ServerMiddleware, ServerRequestContext
from opentelemetry.trace import ProxyTracerProvider, get_tracer_provider

_SDKS_OWN = "OpenTelemetryMiddleware"
_PARENT = "traceparent"


def where_seen(middleware: Sequence[ServerMiddleware[Any]]) -> list[ServerMiddleware[Any]]:
    """The same, but for the SDK's tracing, which is left out of messages that it would do nothing for."""
    return [_Traced(one) if type(one).__name__ == _SDKS_OWN else one for one in middleware]


class _Traced(ServerMiddleware[Any]):
    def __init__(self, tracing: ServerMiddleware[Any]) -> None:
        self._tracing = tracing

    async def __call__(self, ctx: ServerRequestContext[Any, Any], call_next: CallNext) -> HandlerResult:
        # A client's own span is handed on to what tools call, whoever records spans here.
        if isinstance(get_tracer_provider(), ProxyTracerProvider) and _PARENT not in (ctx.meta or ()):
            return await call_next(ctx)
        return await self._tracing(ctx, call_next)
