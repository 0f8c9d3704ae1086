"""Metric instruments of a process, as in an SDK."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeAlias

from pytest_otel_diag.model.base import Nanos
from pytest_otel_diag.shop.records import (
    Attributes,
    AttributeValue,
    HistogramValue,
    Instrument,
    MetricPoint,
    Resource,
    Scope,
)

SDK_BOUNDS = (0.0, 5.0, 10.0, 25.0, 50.0, 75.0, 100.0, 250.0, 500.0, 750.0, 1e3, 2.5e3, 5e3, 7.5e3, 1e4)
"""Default histogram bounds of SDKs (OpenTelemetry metrics SDK specification)."""

SECONDS_BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
"""Recommended bounds of durations in seconds (semantic conventions of HTTP and RPC metrics)."""

Series: TypeAlias = tuple[tuple[str, AttributeValue], ...]
"""Attributes of a time series as hashable pairs in a fixed order, built once by the caller."""


@dataclass(frozen=True, eq=False, slots=True)
class MetricShape:
    """A metric of an instrumentation library, built once."""

    instrument: Instrument
    scope: Scope
    bounds: tuple[float, ...] = SDK_BOUNDS


Observation: TypeAlias = tuple[Series, float]
Callback: TypeAlias = Callable[[], Iterable[Observation]]


class Histogram:
    """The values of one series, counted by bucket."""

    __slots__ = ("bounds", "counts", "maximum", "minimum", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0
        self.minimum = float("inf")
        self.maximum = float("-inf")

    def record(self, value: float) -> None:
        """Count a value."""
        # upper bounds are inclusive, as in the data model: (lower, upper]
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value
        self.minimum = min(self.minimum, value)
        self.maximum = max(self.maximum, value)

    def value(self) -> HistogramValue:
        """Return the exported value."""
        return HistogramValue(
            count=sum(self.counts),
            sum=self.total,
            counts=tuple(self.counts),
            bounds=self.bounds,
            minimum=self.minimum,
            maximum=self.maximum,
        )


class Meter:
    """The instruments of one process or receiver, cumulative since ``start_ns``."""

    def __init__(self, resource: Resource, start_ns: Nanos) -> None:
        self.resource = resource
        self.start_ns = start_ns
        self._sums: dict[MetricShape, dict[Series, float]] = {}
        self._gauges: dict[MetricShape, dict[Series, float]] = {}
        self._histograms: dict[MetricShape, dict[Series, Histogram]] = {}
        self._callbacks: list[tuple[MetricShape, Callback]] = []
        self._attributes: dict[Series, Attributes] = {}

    def add(self, shape: MetricShape, value: float = 1.0, series: Series = ()) -> None:
        """Add to a counter or up-down counter."""
        cells = self._sums.get(shape)
        if cells is None:
            cells = self._sums[shape] = {}
        cells[series] = cells.get(series, 0.0) + value

    def set(self, shape: MetricShape, value: float, series: Series = ()) -> None:
        """Set a gauge."""
        self._gauges.setdefault(shape, {})[series] = value

    def observe(self, shape: MetricShape, value: float, series: Series = ()) -> None:
        """Record a value in a histogram."""
        self.histogram(shape, series).record(value)

    def histogram(self, shape: MetricShape, series: Series = ()) -> Histogram:
        """Return the histogram of a series, for callers that record often."""
        cells = self._histograms.get(shape)
        if cells is None:
            cells = self._histograms[shape] = {}
        cell = cells.get(series)
        if cell is None:
            cell = cells[series] = Histogram(shape.bounds)
        return cell

    def callback(self, shape: MetricShape, read: Callback) -> None:
        """Register an observable gauge or cumulative counter: *read* runs at every collection."""
        self._callbacks.append((shape, read))

    def collect(self, now_ns: Nanos, exported_ns: Nanos) -> list[MetricPoint]:
        """Return one point per series."""
        points: list[MetricPoint] = []
        for shape, read in self._callbacks:
            for series, value in read():
                points.append(self._point(shape, series, value, (now_ns, exported_ns)))
        for cells in (self._sums, self._gauges):
            for shape, values in cells.items():
                for series, value in values.items():
                    points.append(self._point(shape, series, value, (now_ns, exported_ns)))
        for shape, histograms in self._histograms.items():
            for series, histogram in histograms.items():
                points.append(self._point(shape, series, histogram.value(), (now_ns, exported_ns)))
        return points

    def _point(
        self, shape: MetricShape, series: Series, value: float | HistogramValue, times: tuple[Nanos, Nanos]
    ) -> MetricPoint:
        attributes = self._attributes.get(series)
        if attributes is None:
            attributes = self._attributes[series] = dict(series)
        return MetricPoint(
            exported_ns=times[1],
            time_ns=times[0],
            start_ns=self.start_ns,
            resource=self.resource,
            scope=shape.scope,
            instrument=shape.instrument,
            attributes=attributes,
            value=value,
        )
