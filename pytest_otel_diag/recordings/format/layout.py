"""Parquet files of a recording: their exporter tables, required and optional columns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from pytest_otel_diag import arrow

Family: TypeAlias = Literal["timestamp", "string", "integer", "number", "boolean", "map", "list"]

ROW_GROUP_ROWS = 65_536
"""Rows per row group: small enough to stream, close to the 100,000 at which inserts are cheapest."""

_RESOURCE: Mapping[str, Family] = {
    "ResourceAttributes": "map",
    "ScopeName": "string",
    "ScopeVersion": "string",
}
_SCHEMAS: Mapping[str, Family] = {
    "ResourceSchemaUrl": "string",
    "ScopeSchemaUrl": "string",
    "ScopeAttributes": "map",
}
_METRIC: Mapping[str, Family] = {
    **_RESOURCE,
    **_SCHEMAS,
    "ScopeDroppedAttrCount": "integer",
    "MetricDescription": "string",
    "MetricUnit": "string",
    "Attributes": "map",
    "StartTimeUnix": "timestamp",
    "Flags": "integer",
}
_EXEMPLARS: Mapping[str, Family] = {
    "Exemplars.FilteredAttributes": "list",
    "Exemplars.TimeUnix": "list",
    "Exemplars.Value": "list",
    "Exemplars.SpanId": "list",
    "Exemplars.TraceId": "list",
}
_POINT: Mapping[str, Family] = {"TimeUnix": "timestamp", "ServiceName": "string", "MetricName": "string"}


@dataclass(frozen=True, slots=True)
class FileLayout:
    """One kind of file: exporter table, time column, required columns and known optional columns."""

    name: str
    table: str
    time: str
    required: Mapping[str, Family]
    optional: Mapping[str, Family]


LAYOUTS: tuple[FileLayout, ...] = (
    FileLayout(
        "traces.parquet",
        "otel_traces",
        "Timestamp",
        {
            "Timestamp": "timestamp",
            "TraceId": "string",
            "SpanId": "string",
            "ParentSpanId": "string",
            "SpanName": "string",
            "ServiceName": "string",
            "Duration": "integer",
        },
        {
            **_RESOURCE,
            "SpanKind": "string",
            "TraceState": "string",
            "SpanAttributes": "map",
            "StatusCode": "string",
            "StatusMessage": "string",
            "Events.Timestamp": "list",
            "Events.Name": "list",
            "Events.Attributes": "list",
            "Links.TraceId": "list",
            "Links.SpanId": "list",
            "Links.TraceState": "list",
            "Links.Attributes": "list",
        },
    ),
    FileLayout(
        "logs.parquet",
        "otel_logs",
        "Timestamp",
        {"Timestamp": "timestamp", "ServiceName": "string", "Body": "string"},
        {
            **_RESOURCE,
            **_SCHEMAS,
            "TraceId": "string",
            "SpanId": "string",
            "TraceFlags": "integer",
            "SeverityText": "string",
            "SeverityNumber": "integer",
            "LogAttributes": "map",
            "EventName": "string",
        },
    ),
    FileLayout(
        "metrics_gauge.parquet",
        "otel_metrics_gauge",
        "TimeUnix",
        {**_POINT, "Value": "number"},
        {**_METRIC, **_EXEMPLARS},
    ),
    FileLayout(
        "metrics_sum.parquet",
        "otel_metrics_sum",
        "TimeUnix",
        {**_POINT, "Value": "number"},
        {**_METRIC, **_EXEMPLARS, "AggregationTemporality": "integer", "IsMonotonic": "boolean"},
    ),
    FileLayout(
        "metrics_histogram.parquet",
        "otel_metrics_histogram",
        "TimeUnix",
        {**_POINT, "Count": "integer", "Sum": "number", "BucketCounts": "list", "ExplicitBounds": "list"},
        {
            **_METRIC,
            **_EXEMPLARS,
            "Min": "number",
            "Max": "number",
            "AggregationTemporality": "integer",
        },
    ),
    FileLayout(
        "metrics_exponential_histogram.parquet",
        "otel_metrics_exponential_histogram",
        "TimeUnix",
        {**_POINT, "Count": "integer", "Sum": "number", "Scale": "integer"},
        {
            **_METRIC,
            **_EXEMPLARS,
            "ZeroCount": "integer",
            "PositiveOffset": "integer",
            "PositiveBucketCounts": "list",
            "NegativeOffset": "integer",
            "NegativeBucketCounts": "list",
            "Min": "number",
            "Max": "number",
            "AggregationTemporality": "integer",
        },
    ),
    FileLayout(
        "metrics_summary.parquet",
        "otel_metrics_summary",
        "TimeUnix",
        {**_POINT, "Count": "integer", "Sum": "number"},
        {**_METRIC, "ValueAtQuantiles.Quantile": "list", "ValueAtQuantiles.Value": "list"},
    ),
)

BY_NAME: Mapping[str, FileLayout] = {layout.name: layout for layout in LAYOUTS}
BY_TABLE: Mapping[str, FileLayout] = {layout.table: layout for layout in LAYOUTS}


def family(arrow_type: Any) -> Family | None:
    """Return the family of an Arrow type, None for types that columns never have."""
    types = arrow.arrow().types
    if types.is_dictionary(arrow_type):
        return family(arrow_type.value_type)
    checks: tuple[tuple[Any, Family], ...] = (
        (types.is_timestamp, "timestamp"),
        (types.is_string, "string"),
        (types.is_large_string, "string"),
        (types.is_integer, "integer"),
        (types.is_floating, "number"),
        (types.is_boolean, "boolean"),
        (types.is_map, "map"),
        (types.is_list, "list"),
        (types.is_large_list, "list"),
    )
    return next((name for check, name in checks if check(arrow_type)), None)


def fits(arrow_type: Any, wanted: Family) -> bool:
    """Return whether values of an Arrow type can be read as the wanted family (integers also as numbers)."""
    found = family(arrow_type)
    return found == wanted or (wanted == "number" and found == "integer")


def schema_mistakes(schema: Any, layout: FileLayout) -> list[tuple[str, str]]:
    """Return (column, message) for each missing, repeated or mistyped column of an Arrow schema."""
    counts = Counter(schema.names)
    mistakes = [
        (name, f"there are {count} columns of that name") for name, count in counts.items() if count > 1
    ]
    for column, wanted in {**layout.required, **layout.optional}.items():
        index = schema.get_field_index(column)
        if counts[column] > 1:
            continue
        if index < 0:
            if column in layout.required:
                mistakes.append((column, f"missing; it must be a {wanted}, found {', '.join(schema.names)}"))
        elif not fits(schema.field(index).type, wanted):
            mistakes.append((column, f"has type {schema.field(index).type}, must be a {wanted}"))
    return mistakes
