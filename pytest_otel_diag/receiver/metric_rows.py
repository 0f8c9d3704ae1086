"""Metrics of OTLP as rows of the exporter's five tables, one row a data point."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pytest_otel_diag.receiver.columns import (
    Column,
    Groups,
    booleans,
    instants,
    integers,
    lists,
    maps,
    numbers,
    table,
    texts,
)

if TYPE_CHECKING:
    import pyarrow


@dataclass(slots=True)
class _Points:
    """Data points of one kind, with the metric and the data that each comes from."""

    groups: Groups = field(default_factory=Groups)
    points: list[Any] = field(default_factory=list)
    metrics: list[Any] = field(default_factory=list)
    data: list[Any] = field(default_factory=list)

    def add(self, of_resource: Any, of_scope: Any, metric: Any, data: Any) -> None:
        points = data.data_points
        self.groups.add(of_resource, of_scope, len(points))
        self.points.extend(points)
        self.metrics.extend([metric] * len(points))
        self.data.extend([data] * len(points))


def metrics(messages: Sequence[Any]) -> Mapping[str, pyarrow.Table]:
    """Return the data points of ``ExportMetricsServiceRequest`` messages by table."""
    by_kind = {kind: _Points() for kind in _COLUMNS}
    for message in messages:
        for of_resource in message.resource_metrics:
            for of_scope in of_resource.scope_metrics:
                for metric in of_scope.metrics:
                    if kind := metric.WhichOneof("data"):
                        by_kind[kind].add(of_resource, of_scope, metric, getattr(metric, kind))
    return {
        f"otel_metrics_{kind}": table({**_common(found), **_COLUMNS[kind](found)})
        for kind, found in by_kind.items()
        if found.points
    }


def _common(found: _Points) -> Mapping[str, Column]:
    points = found.points
    return {
        **found.groups.columns(),
        "MetricName": texts([metric.name for metric in found.metrics]),
        "MetricDescription": texts([metric.description for metric in found.metrics]),
        "MetricUnit": texts([metric.unit for metric in found.metrics]),
        "Attributes": maps([point.attributes for point in points]),
        "StartTimeUnix": instants([point.start_time_unix_nano for point in points]),
        "TimeUnix": instants([point.time_unix_nano for point in points]),
        "Flags": integers([point.flags for point in points], "u4"),
    }


def _gauge(found: _Points) -> Mapping[str, Column]:
    return {"Value": numbers([_number(point) for point in found.points]), **_exemplars(found)}


def _sum(found: _Points) -> Mapping[str, Column]:
    return {
        **_gauge(found),
        **_temporality(found),
        "IsMonotonic": booleans([data.is_monotonic for data in found.data]),
    }


def _histogram(found: _Points) -> Mapping[str, Column]:
    points = found.points
    return {
        **_distribution(found),
        "BucketCounts": lists([point.bucket_counts for point in points], _counts),
        "ExplicitBounds": lists([point.explicit_bounds for point in points], numbers),
    }


def _exponential_histogram(found: _Points) -> Mapping[str, Column]:
    points = found.points
    return {
        **_distribution(found),
        "Scale": integers([point.scale for point in points], "i4"),
        "ZeroCount": _counts([point.zero_count for point in points]),
        "PositiveOffset": integers([point.positive.offset for point in points], "i4"),
        "PositiveBucketCounts": lists([point.positive.bucket_counts for point in points], _counts),
        "NegativeOffset": integers([point.negative.offset for point in points], "i4"),
        "NegativeBucketCounts": lists([point.negative.bucket_counts for point in points], _counts),
    }


def _summary(found: _Points) -> Mapping[str, Column]:
    of_points = [point.quantile_values for point in found.points]
    return {
        "Count": _counts([point.count for point in found.points]),
        "Sum": numbers([point.sum for point in found.points]),
        "ValueAtQuantiles.Quantile": lists(of_points, lambda flat: numbers([each.quantile for each in flat])),
        "ValueAtQuantiles.Value": lists(of_points, lambda flat: numbers([each.value for each in flat])),
    }


def _distribution(found: _Points) -> Mapping[str, Column]:
    """Return what both kinds of histograms have; sum, least and most are 0 where a client leaves them out."""
    points = found.points
    return {
        "Count": _counts([point.count for point in points]),
        "Sum": numbers([point.sum for point in points]),
        "Min": numbers([point.min for point in points]),
        "Max": numbers([point.max for point in points]),
        **_temporality(found),
        **_exemplars(found),
    }


def _temporality(found: _Points) -> Mapping[str, Column]:
    return {"AggregationTemporality": integers([data.aggregation_temporality for data in found.data], "i4")}


def _exemplars(found: _Points) -> Mapping[str, Column]:
    of_points = [point.exemplars for point in found.points]
    return {
        "Exemplars.FilteredAttributes": lists(
            of_points, lambda flat: maps([each.filtered_attributes for each in flat])
        ),
        "Exemplars.TimeUnix": lists(of_points, lambda flat: instants([each.time_unix_nano for each in flat])),
        "Exemplars.Value": lists(of_points, lambda flat: numbers([_number(each) for each in flat])),
        "Exemplars.SpanId": lists(of_points, lambda flat: _full_ids([each.span_id for each in flat], 8)),
        "Exemplars.TraceId": lists(of_points, lambda flat: _full_ids([each.trace_id for each in flat], 16)),
    }


def _full_ids(found: Sequence[bytes], size: int) -> Column:
    """Return ids of exemplars as text; without one there are zeros, as the exporter writes them."""
    return texts([each.hex() or "00" * size for each in found])


def _number(point: Any) -> float:
    """Return the number of a data point or an exemplar; the tables have floats only."""
    return float(point.as_int) if point.WhichOneof("value") == "as_int" else float(point.as_double)


def _counts(items: Sequence[int]) -> Column:
    return integers(items, "u8")


_COLUMNS: Mapping[str, Callable[[_Points], Mapping[str, Column]]] = {
    "gauge": _gauge,
    "sum": _sum,
    "histogram": _histogram,
    "exponential_histogram": _exponential_histogram,
    "summary": _summary,
}
