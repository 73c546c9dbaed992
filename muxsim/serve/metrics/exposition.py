"""What was measured, written by prometheus-client: in the format that a scraper accepts, compressed if it likes.

Imported with the first scrape: the library takes some time, which a start should not.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterable, Iterator
from itertools import accumulate
from typing import Final

from prometheus_client import GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector, CollectorRegistry

from muxsim.observe.distribution import Distribution
from muxsim.serve.metrics.families import Measured

# A scrape may come every second: a little smaller is not worth twice the time.
_LEVEL: Final = 3


class Exposition:
    """A registry of one server's own: of what muxsim measures, and of its process."""

    def __init__(self) -> None:
        self._measured = _Measured()
        self.registry = CollectorRegistry()
        self.registry.register(self._measured)
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self.registry)

    def write(self, measured: Iterable[Measured], accept: str, *, compressed: bool) -> tuple[bytes, str]:
        """All of it, and its content type; in a thread, for there may be much."""
        self._measured.now = list(measured)
        encode, content_type = choose_encoder(accept)
        body = encode(self.registry)
        return gzip.compress(body, _LEVEL) if compressed else body, content_type


class _Measured(Collector):
    def __init__(self) -> None:
        self.now: list[Measured] = []

    def describe(self) -> Iterable[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        return map(_metric_of, self.now)


def _metric_of(measured: Measured) -> Metric:
    name, kind, labels, help = measured.family
    if kind == "histogram":
        histogram = HistogramMetricFamily(name, help, labels=labels)
        for one, value in measured.values.items():
            assert isinstance(value, Distribution)
            histogram.add_metric(one, _buckets_of(value), value.sum)
        return histogram
    metric = (CounterMetricFamily if kind == "counter" else GaugeMetricFamily)(name, help, labels=labels)
    for one, value in measured.values.items():
        assert not isinstance(value, Distribution)
        metric.add_metric(one, value)
    return metric


def _buckets_of(distribution: Distribution) -> list[tuple[str, float]]:
    bounds = [*map(str, map(float, distribution.bounds)), "+Inf"]
    return list(zip(bounds, accumulate(distribution.counts), strict=True))
