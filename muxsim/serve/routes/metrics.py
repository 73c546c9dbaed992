"""``GET /metrics``, for Prometheus."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from muxsim.serve.metrics.families import Measured, Sources, measure
from transports.asgi import Call, respond
from transports.http_rules import HTTPRefusal, header

if TYPE_CHECKING:
    from muxsim.serve.metrics.exposition import Exposition

_OFF = "there are no metrics here: metrics = false in [server]"


class Metrics:
    """Answers a scrape; ``sources`` is None where metrics are switched off."""

    def __init__(self, sources: Sources | None) -> None:
        self._sources = sources
        self._exposition: Exposition | None = None
        self._writing = asyncio.Lock()  # two would only make each other later

    async def answer(self, call: Call) -> None:
        """Everything as it is now."""
        if self._sources is None:
            raise HTTPRefusal(404, _OFF)
        self._sources.sampler.look()
        accept = header(call.headers, b"accept") or ""
        compressed = "gzip" in (header(call.headers, b"accept-encoding") or "")
        async with self._writing:
            # Here, where nothing changes meanwhile; what takes longer is done where nobody has to wait for it.
            measured = measure(self._sources)
            body, content_type = await asyncio.to_thread(self._write, measured, accept, compressed=compressed)
        encoding = [(b"content-encoding", b"gzip")] if compressed else []
        await respond(call, 200, body, [(b"vary", b"accept, accept-encoding"), *encoding], content_type.encode())

    def _write(self, measured: list[Measured], accept: str, *, compressed: bool) -> tuple[bytes, str]:
        if self._exposition is None:
            from muxsim.serve.metrics.exposition import Exposition  # noqa: PLC0415 - see there

            self._exposition = Exposition()
        return self._exposition.write(measured, accept, compressed=compressed)
