"""Converts OTLP metrics to rows of the exporter's five metric tables, one row per data point."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pytest_otel_diag.receiver.rows.columns import (
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
    """Data points of one kind, each with its metric and the metric's data (for example its ``Sum``)."""

    groups: Groups = field(default_factory=Groups)
    points: list[Any] = field(default_factory=list)
    metrics: list[Any] = field(default_factory=list)
    data: list[Any] = field(default_factory=list)

    def add(self, resource_metrics: Any, scope_metrics: Any, metric: Any, data: Any) -> None:
        points = data.data_points
        self.groups.add(resource_metrics, scope_metrics, len(points))
        self.points.extend(points)
        self.metrics.extend([metric] * len(points))
        self.data.extend([data] * len(points))


def metric_tables(messages: Sequence[Any]) -> Mapping[str, pyarrow.Table]:
    """Return the data points of ``ExportMetricsServiceRequest`` messages by table."""
    by_kind = {kind: _Points() for kind in _COLUMNS}
    for message in messages:
        for resource_metrics in message.resource_metrics:
            for scope_metrics in resource_metrics.scope_metrics:
                for metric in scope_metrics.metrics:
                    if kind := metric.WhichOneof("data"):
                        by_kind[kind].add(resource_metrics, scope_metrics, metric, getattr(metric, kind))
    return {
        f"otel_metrics_{kind}": table({**_common(found), **_COLUMNS[kind](found)})
        for kind, found in by_kind.items()
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
    nested = [point.quantile_values for point in found.points]
    return {
        "Count": _counts([point.count for point in found.points]),
        "Sum": numbers([point.sum for point in found.points]),
        "ValueAtQuantiles.Quantile": lists(nested, lambda flat: numbers([each.quantile for each in flat])),
        "ValueAtQuantiles.Value": lists(nested, lambda flat: numbers([each.value for each in flat])),
    }


def _distribution(found: _Points) -> Mapping[str, Column]:
    """Return the columns of both kinds of histograms; a missing sum, minimum or maximum is 0."""
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
    nested = [point.exemplars for point in found.points]
    return {
        "Exemplars.FilteredAttributes": lists(
            nested, lambda flat: maps([each.filtered_attributes for each in flat])
        ),
        "Exemplars.TimeUnix": lists(nested, lambda flat: instants([each.time_unix_nano for each in flat])),
        "Exemplars.Value": lists(nested, lambda flat: numbers([_number(each) for each in flat])),
        "Exemplars.SpanId": lists(nested, lambda flat: _full_ids([each.span_id for each in flat], 8)),
        "Exemplars.TraceId": lists(nested, lambda flat: _full_ids([each.trace_id for each in flat], 16)),
    }


def _full_ids(found: Sequence[bytes], size: int) -> Column:
    """Return ids of exemplars in hexadecimal; a missing id is all zeros, as the exporter writes it."""
    return texts([each.hex() or "00" * size for each in found])


def _number(point: Any) -> float:
    """Return the value of a data point or exemplar as a float, the only type of the tables."""
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
