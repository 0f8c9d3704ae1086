"""Converts OTLP export requests back to records of the shop, to compare with what was sent."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Literal

from pytest_otel_diag.shop.records import (
    AttributeValue,
    Batch,
    EventRecord,
    HistogramValue,
    Instrument,
    LinkRecord,
    LogRecord,
    MetricPoint,
    Resource,
    Scope,
    SpanKind,
    SpanRecord,
    StatusCode,
)

_KINDS: tuple[SpanKind, ...] = ("Internal", "Internal", "Server", "Client", "Producer", "Consumer")
_STATUS: tuple[StatusCode, ...] = ("Unset", "Ok", "Error")
_DATA: tuple[Literal["gauge", "sum", "histogram"], ...] = ("gauge", "sum", "histogram")


def decode(signal: str, message: Any, received_ns: int = 0) -> Batch:
    """Return the records of an ``Export…ServiceRequest``; ``exported_ns`` is *received_ns* for each.

    ``signal`` is traces, logs or metrics. Raises ValueError for data that the shop never sends: delta
    temporality, summaries, attributes that are lists.
    """
    if signal == "traces":
        return Batch(spans=list(_spans(message, received_ns)))
    if signal == "logs":
        return Batch(logs=list(_logs(message, received_ns)))
    if signal == "metrics":
        return Batch(metrics=list(_points(message, received_ns)))
    raise ValueError(f"signal {signal!r} is unknown; choose from traces, logs, metrics")


def _spans(message: Any, received_ns: int) -> Iterator[SpanRecord]:
    for resource_records in message.resource_spans:
        resource = _resource(resource_records.resource)
        for scope_records in resource_records.scope_spans:
            scope = Scope(scope_records.scope.name, scope_records.scope.version)
            for span in scope_records.spans:
                yield SpanRecord(
                    exported_ns=received_ns,
                    start_ns=span.start_time_unix_nano,
                    duration_ns=span.end_time_unix_nano - span.start_time_unix_nano,
                    trace_id=span.trace_id.hex(),
                    span_id=span.span_id.hex(),
                    parent_id=span.parent_span_id.hex(),
                    name=span.name,
                    kind=_KINDS[span.kind],
                    resource=resource,
                    scope=scope,
                    attributes=_attributes(span.attributes),
                    status=_STATUS[span.status.code],
                    message=span.status.message,
                    events=tuple(
                        EventRecord(event.time_unix_nano, event.name, _attributes(event.attributes))
                        for event in span.events
                    ),
                    links=tuple(
                        LinkRecord(link.trace_id.hex(), link.span_id.hex(), _attributes(link.attributes))
                        for link in span.links
                    ),
                )


def _logs(message: Any, received_ns: int) -> Iterator[LogRecord]:
    for resource_records in message.resource_logs:
        resource = _resource(resource_records.resource)
        for scope_records in resource_records.scope_logs:
            scope = Scope(scope_records.scope.name, scope_records.scope.version)
            for log in scope_records.log_records:
                yield LogRecord(
                    exported_ns=received_ns,
                    time_ns=log.time_unix_nano,
                    resource=resource,
                    scope=scope,
                    severity_text=log.severity_text,
                    severity_number=log.severity_number,
                    body=log.body.string_value,
                    attributes=_attributes(log.attributes),
                    trace_id=log.trace_id.hex(),
                    span_id=log.span_id.hex(),
                    event_name=log.event_name,
                )


def _points(message: Any, received_ns: int) -> Iterator[MetricPoint]:
    for resource_records in message.resource_metrics:
        resource = _resource(resource_records.resource)
        for scope_records in resource_records.scope_metrics:
            scope = Scope(scope_records.scope.name, scope_records.scope.version)
            for metric in scope_records.metrics:
                instrument, data = _instrument(metric)
                for point in data.data_points:
                    yield MetricPoint(
                        exported_ns=received_ns,
                        time_ns=point.time_unix_nano,
                        start_ns=point.start_time_unix_nano,
                        resource=resource,
                        scope=scope,
                        instrument=instrument,
                        attributes=_attributes(point.attributes),
                        value=_value(instrument, point),
                    )


def _instrument(metric: Any) -> tuple[Instrument, Any]:
    for kind in _DATA:
        if metric.HasField(kind):
            data = getattr(metric, kind)
            break
    else:
        raise ValueError(f"metric {metric.name!r} is neither gauge, sum nor histogram")
    if kind != "gauge" and data.aggregation_temporality != 2:
        raise ValueError(f"metric {metric.name!r} is not cumulative")
    monotonic = data.is_monotonic if kind == "sum" else True
    return Instrument(metric.name, kind, metric.unit, metric.description, monotonic), data


def _value(instrument: Instrument, point: Any) -> float | HistogramValue:
    if instrument.kind == "histogram":
        return HistogramValue(
            count=point.count,
            sum=point.sum,
            counts=tuple(point.bucket_counts),
            bounds=tuple(point.explicit_bounds),
            minimum=point.min,
            maximum=point.max,
        )
    number: float = point.as_int if point.HasField("as_int") else point.as_double
    return number


def _resource(resource: Any) -> Resource:
    attributes = {key: str(value) for key, value in _attributes(resource.attributes).items()}
    return Resource(attributes.get("service.name", ""), attributes)


def _attributes(entries: Iterable[Any]) -> dict[str, AttributeValue]:
    return {entry.key: _attribute(entry) for entry in entries}


def _attribute(entry: Any) -> AttributeValue:
    kind = entry.value.WhichOneof("value")
    if kind not in ("string_value", "bool_value", "int_value", "double_value"):
        raise ValueError(f"attribute {entry.key!r} is a {kind}, which records do not have")
    value: AttributeValue = getattr(entry.value, kind)
    return value
