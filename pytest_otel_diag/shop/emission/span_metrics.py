"""The collector's span metrics: calls and durations of the received spans."""

from __future__ import annotations

from collections.abc import Sequence

from pytest_otel_diag.model.base import Nanos
from pytest_otel_diag.shop.emission.instruments import Histogram, Meter, MetricShape, Series
from pytest_otel_diag.shop.records import Instrument, MetricPoint, Resource, Scope, SpanRecord

PERIOD_S = 60.0

_SCOPE = Scope("spanmetricsconnector")
_CALLS = MetricShape(Instrument("traces.span.metrics.calls", "sum", "", "", monotonic=True), _SCOPE)
_DURATION = MetricShape(
    Instrument("traces.span.metrics.duration", "histogram", "ms"),
    _SCOPE,
    (2, 4, 6, 8, 10, 50, 100, 200, 400, 800, 1000, 1400, 2000, 5000, 10_000, 15_000),
)
"""Default buckets of the spanmetrics connector."""


class SpanMetrics:
    """Counts spans by resource, name, kind and status, cumulative since the start of the collector."""

    def __init__(self, start_ns: Nanos) -> None:
        self._start_ns = start_ns
        self._collector: Series = ()
        self._meters: dict[Resource, Meter] = {}
        self._durations: dict[tuple[Resource, str, str, str], Histogram] = {}

    def label(self, collector: str) -> None:
        """Label all series with the id of the collector, as newer ones do; call it before :meth:`add`."""
        self._collector = (("collector.instance.id", collector),)

    def add(self, spans: Sequence[SpanRecord]) -> None:
        """Count a received batch."""
        known = self._durations
        for span in spans:
            key = (span.resource, span.name, span.kind, span.status)
            durations = known.get(key)
            if durations is None:
                durations = known[key] = self._first(*key)
            durations.record(span.duration_ns / 1e6)

    def _first(self, resource: Resource, name: str, kind: str, status: str) -> Histogram:
        meter = self._meters.get(resource)
        if meter is None:
            meter = self._meters[resource] = Meter(resource, self._start_ns)
        series = (*_labels(resource.service, name, kind, status), *self._collector)
        durations = meter.histogram(_DURATION, series)
        # every call has a duration, so the counter equals the histogram's count
        meter.callback(_CALLS, lambda: ((series, float(sum(durations.counts))),))
        return durations

    def collect(self, now_ns: Nanos, exported_ns: Nanos) -> list[MetricPoint]:
        """Return one point per series, in an order that does not depend on the time of batches."""
        points = [point for meter in self._meters.values() for point in meter.collect(now_ns, exported_ns)]
        points.sort(key=_order)
        return points


def _labels(service: str, name: str, kind: str, status: str) -> Series:
    return (
        ("service.name", service),
        ("span.kind", f"SPAN_KIND_{kind.upper()}"),
        ("span.name", name),
        ("status.code", f"STATUS_CODE_{status.upper()}"),
    )


def _order(point: MetricPoint) -> tuple[str, ...]:
    attributes = point.resource.attributes
    instance = str(attributes.get("service.instance.id") or attributes.get("container.id", ""))
    return (point.instrument.name, instance, *map(str, point.attributes.values()))
