"""Whether spans are made of what happens, and where they go: by OTLP over HTTP, as the ``OTEL_…`` variables say.

What is not wanted is not imported either.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from muxsim import __version__
from muxsim.errors import ConfigError
from muxsim.observe.events import Events

# For a collector that is slow, at the end.
_LAST_SPANS: Final = 2.0


@contextmanager
def tracing(wanted: bool, stream: Events) -> Iterator[None]:
    """Make spans of what ``stream`` tells in a block, if that is wanted. Raises `ConfigError` without the extra."""
    if not wanted:
        yield
        return
    provider = _provider()
    from muxsim.observe.spans import Spans  # noqa: PLC0415 - see above

    spans = Spans(stream, provider)
    try:
        yield
    finally:
        spans.stop()
        # It waits for a collector that may not answer.
        ending = threading.Thread(target=provider.shutdown, name="muxsim's last spans", daemon=True)
        ending.start()
        ending.join(_LAST_SPANS)


def check_tracing(wanted: bool) -> None:
    """Raise `ConfigError` if spans are wanted and could not be sent."""
    if wanted:
        _sdk()


def _sdk() -> Any:
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415 - an extra
        from opentelemetry.sdk import resources  # noqa: PLC0415
        from opentelemetry.sdk import trace as sdk  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
    except ImportError as error:
        text = f"needs what is not installed ({error}): pip install 'mcp-muxsim[otel]'"
        raise ConfigError(text, table="server", key="tracing") from None
    return resources, sdk, BatchSpanProcessor, OTLPSpanExporter


def _provider() -> Any:
    """What records spans and sends them by OTLP over HTTP, as the variables have it."""
    resources, sdk, batches, exporter = _sdk()
    resource = resources.Resource.create({"service.version": __version__})
    if str(resource.attributes["service.name"]).startswith("unknown_service"):
        resource = resource.merge(resources.Resource({"service.name": "muxsim"}))
    provider = sdk.TracerProvider(resource=resource)
    provider.add_span_processor(batches(exporter()))
    return provider
