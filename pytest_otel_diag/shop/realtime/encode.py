"""Records of the shop as OTLP export requests, grouped by resource and scope, of bounded size.

A request holds at most ``max_records`` records and, unless a single record is larger, at most
``max_bytes`` bytes. Sums and histograms are cumulative. The resource of a service gets ``service.name`` if it
lacks it; resources without a service (a container, the broker) stay without. Fields follow
opentelemetry-proto 1.x.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from pytest_otel_diag.shop.realtime import packages
from pytest_otel_diag.shop.records import (
    Attributes,
    Batch,
    HistogramValue,
    Instrument,
    LogRecord,
    MetricPoint,
    Resource,
    Scope,
    SpanRecord,
)

Signal = Literal["traces", "logs", "metrics"]
SIGNALS: tuple[Signal, ...] = ("traces", "logs", "metrics")

MAX_RECORDS = 2_000
MAX_BYTES = 3 << 20  # gRPC servers refuse messages above 4 MiB by default

_KINDS = {"Internal": 1, "Server": 2, "Client": 3, "Producer": 4, "Consumer": 5}
_STATUS = {"Unset": 0, "Ok": 1, "Error": 2}
_CUMULATIVE = 2
_SAMPLED = 1

_Record = TypeVar("_Record", SpanRecord, LogRecord, MetricPoint)


@dataclass(frozen=True, slots=True)
class ExportRequest:
    """One message for a collector; ``message`` is an OTLP ``Export…ServiceRequest``."""

    signal: Signal
    records: int
    message: Any


def requests(
    batch: Batch, *, max_records: int = MAX_RECORDS, max_bytes: int = MAX_BYTES
) -> Iterator[ExportRequest]:
    """Yield requests with each record of *batch* once, in order within a resource and scope."""
    yield from _split("traces", batch.spans, _traces, max_records, max_bytes)
    yield from _split("logs", batch.logs, _logs, max_records, max_bytes)
    yield from _split("metrics", batch.metrics, _metrics, max_records, max_bytes)


def _split(
    signal: Signal,
    records: Sequence[_Record],
    encode: Callable[[Sequence[_Record]], Any],
    max_records: int,
    max_bytes: int,
) -> Iterator[ExportRequest]:
    for start in range(0, len(records), max_records):
        piece = records[start : start + max_records]
        message = encode(piece)
        if len(piece) == 1 or message.ByteSize() <= max_bytes:
            yield ExportRequest(signal, len(piece), message)
        else:
            yield from _split(signal, piece, encode, (len(piece) + 1) // 2, max_bytes)


def _grouped(records: Iterable[_Record]) -> Mapping[Resource, Mapping[Scope, list[_Record]]]:
    groups: dict[Resource, dict[Scope, list[_Record]]] = {}
    for record in records:
        groups.setdefault(record.resource, {}).setdefault(record.scope, []).append(record)
    return groups


def _traces(spans: Sequence[SpanRecord]) -> Any:
    message = packages.otlp().traces_request.ExportTraceServiceRequest()
    for resource, scopes in _grouped(spans).items():
        of_resource = message.resource_spans.add()
        _resource(of_resource.resource, resource)
        for scope, members in scopes.items():
            of_scope = of_resource.scope_spans.add()
            _scope(of_scope.scope, scope)
            for span in members:
                _span(of_scope.spans.add(), span)
    return message


def _logs(logs: Sequence[LogRecord]) -> Any:
    message = packages.otlp().logs_request.ExportLogsServiceRequest()
    for resource, scopes in _grouped(logs).items():
        of_resource = message.resource_logs.add()
        _resource(of_resource.resource, resource)
        for scope, members in scopes.items():
            of_scope = of_resource.scope_logs.add()
            _scope(of_scope.scope, scope)
            for log in members:
                _log(of_scope.log_records.add(), log)
    return message


def _metrics(points: Sequence[MetricPoint]) -> Any:
    message = packages.otlp().metrics_request.ExportMetricsServiceRequest()
    for resource, scopes in _grouped(points).items():
        of_resource = message.resource_metrics.add()
        _resource(of_resource.resource, resource)
        for scope, members in scopes.items():
            of_scope = of_resource.scope_metrics.add()
            _scope(of_scope.scope, scope)
            by_instrument: dict[Instrument, list[MetricPoint]] = {}
            for point in members:
                by_instrument.setdefault(point.instrument, []).append(point)
            for instrument, series in by_instrument.items():
                _metric(of_scope.metrics.add(), instrument, series)
    return message


def _resource(target: Any, resource: Resource) -> None:
    if resource.service and "service.name" not in resource.attributes:
        _attributes(target.attributes, {"service.name": resource.service})
    _attributes(target.attributes, resource.attributes)


def _scope(target: Any, scope: Scope) -> None:
    target.name = scope.name
    target.version = scope.version


def _attributes(target: Any, attributes: Attributes) -> None:
    for key, value in attributes.items():
        entry = target.add()
        entry.key = key
        if isinstance(value, str):
            entry.value.string_value = value
        elif isinstance(value, bool):  # before int: bool is a subclass
            entry.value.bool_value = value
        elif isinstance(value, int):
            entry.value.int_value = value
        else:
            entry.value.double_value = value


def _span(target: Any, span: SpanRecord) -> None:
    target.trace_id = bytes.fromhex(span.trace_id)
    target.span_id = bytes.fromhex(span.span_id)
    target.parent_span_id = bytes.fromhex(span.parent_id)
    target.flags = _SAMPLED
    target.name = span.name
    target.kind = _KINDS[span.kind]
    target.start_time_unix_nano = span.start_ns
    target.end_time_unix_nano = span.start_ns + span.duration_ns
    _attributes(target.attributes, span.attributes)
    if span.status != "Unset":
        target.status.code = _STATUS[span.status]
        target.status.message = span.message
    for event in span.events:
        of_event = target.events.add()
        of_event.time_unix_nano = event.time_ns
        of_event.name = event.name
        _attributes(of_event.attributes, event.attributes)
    for link in span.links:
        of_link = target.links.add()
        of_link.trace_id = bytes.fromhex(link.trace_id)
        of_link.span_id = bytes.fromhex(link.span_id)
        _attributes(of_link.attributes, link.attributes)


def _log(target: Any, log: LogRecord) -> None:
    target.time_unix_nano = log.time_ns
    target.observed_time_unix_nano = log.time_ns
    target.severity_number = log.severity_number
    target.severity_text = log.severity_text
    target.body.string_value = log.body
    _attributes(target.attributes, log.attributes)
    if log.trace_id:
        target.trace_id = bytes.fromhex(log.trace_id)
        target.span_id = bytes.fromhex(log.span_id)
        target.flags = _SAMPLED
    target.event_name = log.event_name


def _metric(target: Any, instrument: Instrument, points: Sequence[MetricPoint]) -> None:
    target.name = instrument.name
    target.unit = instrument.unit
    target.description = instrument.description
    data = getattr(target, instrument.kind)
    if instrument.kind != "gauge":
        data.aggregation_temporality = _CUMULATIVE
    if instrument.kind == "sum":
        data.is_monotonic = instrument.monotonic
    for point in points:
        _point(data.data_points.add(), point)


def _point(target: Any, point: MetricPoint) -> None:
    target.time_unix_nano = point.time_ns
    target.start_time_unix_nano = point.start_ns
    _attributes(target.attributes, point.attributes)
    value = point.value
    if isinstance(value, HistogramValue):
        target.count = value.count
        target.sum = value.sum
        target.bucket_counts.extend(value.counts)
        target.explicit_bounds.extend(value.bounds)
        if value.count:  # an empty histogram has no minimum
            target.min = value.minimum
            target.max = value.maximum
    elif isinstance(value, int):
        target.as_int = value
    else:
        target.as_double = value
