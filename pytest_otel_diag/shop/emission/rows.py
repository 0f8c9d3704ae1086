"""Records as Arrow tables in the columns of the collector's ClickHouse exporter.

Columns are built at once: repeated objects (resources, scopes, instruments) are converted to a column of
distinct values first, from which rows take values by index.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import accumulate, chain
from typing import TYPE_CHECKING, Any, TypeVar

from pytest_otel_diag import arrow
from pytest_otel_diag.shop.records import (
    AttributeValue,
    Batch,
    HistogramValue,
    LogRecord,
    MetricPoint,
    Resource,
    SpanRecord,
)

if TYPE_CHECKING:
    import pyarrow

T = TypeVar("T")

CUMULATIVE = 2
"""AggregationTemporality.CUMULATIVE of OTLP."""

_SAMPLED = 1
_TRUTH = {True: "true", False: "false"}


def tables(batch: Batch) -> Mapping[str, pyarrow.Table]:
    """Return the batch as tables by name, without tables of signals without records."""
    by_kind: dict[str, list[MetricPoint]] = {"gauge": [], "sum": [], "histogram": []}
    for point in batch.metrics:
        by_kind[point.instrument.kind].append(point)
    made = {}
    if batch.spans:
        made["otel_traces"] = traces(batch.spans)
    if batch.logs:
        made["otel_logs"] = logs(batch.logs)
    for kind, points in by_kind.items():
        if points:
            made[f"otel_metrics_{kind}"] = metrics(kind, points)
    return made


def traces(spans: Sequence[SpanRecord]) -> pyarrow.Table:
    """Return ``otel_traces`` rows, one per span."""
    pa = arrow.arrow()
    columns = list(zip(*spans, strict=True))
    _, starts, durations, trace_ids, span_ids, parents, names, kinds, resources, scopes, attributes = columns[
        :11
    ]
    statuses, messages, events, links = columns[11:]
    resource = _Distinct(resources)
    scope = _Distinct(scopes)
    table = {
        "Timestamp": _instants(starts),
        "TraceId": pa.array(trace_ids, pa.string()),
        "SpanId": pa.array(span_ids, pa.string()),
        "ParentSpanId": pa.array(parents, pa.string()),
        "SpanName": _repeated(names),
        "SpanKind": _repeated(kinds),
        "ServiceName": resource.texts(_service),
        "ResourceAttributes": resource.maps(_resource_attributes),
        "ScopeName": scope.texts(_name),
        "ScopeVersion": scope.texts(_version),
        "SpanAttributes": _shared_maps(attributes),
        "Duration": _numbers(pa.uint64(), "Q", durations),
        "StatusCode": _repeated(statuses),
        "StatusMessage": _repeated(messages),
    }
    table.update(_event_columns(events))
    table.update(_link_columns(links))
    return pa.table(table)


def logs(records: Sequence[LogRecord]) -> pyarrow.Table:
    """Return ``otel_logs`` rows, one per record."""
    pa = arrow.arrow()
    columns = list(zip(*records, strict=True))
    _, times, resources, scopes, severities, numbers, bodies, attributes = columns[:8]
    trace_ids, span_ids, event_names = columns[8:]
    resource = _Distinct(resources)
    scope = _Distinct(scopes)
    return pa.table(
        {
            "Timestamp": _instants(times),
            "TraceId": pa.array(trace_ids, pa.string()),
            "SpanId": pa.array(span_ids, pa.string()),
            "TraceFlags": pa.array([_SAMPLED if trace else 0 for trace in trace_ids], pa.uint8()),
            "SeverityText": _repeated(severities),
            "SeverityNumber": _numbers(pa.uint8(), "B", numbers),
            "ServiceName": resource.texts(_service),
            "Body": pa.array(bodies, pa.string()),
            "ResourceAttributes": resource.maps(_resource_attributes),
            "ScopeName": scope.texts(_name),
            "ScopeVersion": scope.texts(_version),
            "LogAttributes": _maps(attributes),
            "EventName": _repeated(event_names),
        }
    )


def metrics(kind: str, points: Sequence[MetricPoint]) -> pyarrow.Table:
    """Return rows of the table of one kind of metric, one per data point."""
    pa = arrow.arrow()
    _, times, starts, resources, scopes, instruments, attributes, values = zip(*points, strict=True)
    resource = _Distinct(resources)
    scope = _Distinct(scopes)
    instrument = _Distinct(instruments)
    table = {
        "ResourceAttributes": resource.maps(_resource_attributes),
        "ScopeName": scope.texts(_name),
        "ScopeVersion": scope.texts(_version),
        "ServiceName": resource.texts(_service),
        "MetricName": instrument.texts(_name),
        "MetricDescription": instrument.texts(_description),
        "MetricUnit": instrument.texts(_unit),
        "Attributes": _shared_maps(attributes),
        "StartTimeUnix": _instants(starts),
        "TimeUnix": _instants(times),
    }
    if kind == "histogram":
        table.update(_histogram_columns(values))
    else:
        table["Value"] = _numbers(pa.float64(), "d", values)
    if kind != "gauge":
        size = len(points)
        table["AggregationTemporality"] = pa.array([CUMULATIVE] * size, pa.int32())
    if kind == "sum":
        table["IsMonotonic"] = pa.array([each.monotonic for each in instruments], pa.bool_())
    return pa.table(table)


def text(value: AttributeValue) -> str:
    """Return an attribute's value as the exporter writes it to a map of strings."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return _TRUTH[value]
    if isinstance(value, float):
        return repr(value).removesuffix(".0")
    return str(value)


class _Distinct:
    """A column of few distinct objects; derived values are computed once per object."""

    def __init__(self, objects: Sequence[Any]) -> None:
        pa = arrow.arrow()
        # by identity: the objects stay alive while the column is built
        keys = list(map(id, objects))
        by_id = dict(zip(keys, objects, strict=True))
        numbers = dict(zip(by_id, range(len(by_id)), strict=True))
        self._objects = list(by_id.values())
        self._indices = _numbers(pa.int32(), "i", map(numbers.__getitem__, keys))

    def texts(self, derive: Callable[[Any], str]) -> pyarrow.Array:
        pa = arrow.arrow()
        return pa.array([derive(each) for each in self._objects], pa.string()).take(self._indices)

    def maps(self, derive: Callable[[Any], Mapping[str, AttributeValue]]) -> pyarrow.Array:
        return _maps([derive(each) for each in self._objects]).take(self._indices)


def _shared_maps(mappings: Sequence[Mapping[str, AttributeValue]]) -> pyarrow.Array:
    """Return a map column; a mapping that spans or points share is converted once."""
    return _Distinct(mappings).maps(_itself)


def _maps(mappings: Sequence[Mapping[str, AttributeValue]]) -> pyarrow.Array:
    pa = arrow.arrow()
    offsets = list(accumulate(map(len, mappings), initial=0))
    keys = list(chain.from_iterable(mappings))
    values = list(chain.from_iterable(mapping.values() for mapping in mappings))
    texts = [value if value.__class__ is str else text(value) for value in values]
    return pa.MapArray.from_arrays(
        _numbers(pa.int32(), "i", offsets), pa.array(keys, pa.string()), pa.array(texts, pa.string())
    )


def _event_columns(events: Sequence[Sequence[tuple[Any, ...]]]) -> dict[str, pyarrow.Array]:
    offsets, flat = _flattened(events)
    return {
        "Events.Timestamp": _lists(offsets, _instants([event[0] for event in flat])),
        "Events.Name": _lists(offsets, _repeated([event[1] for event in flat])),
        "Events.Attributes": _lists(offsets, _maps([event[2] for event in flat])),
    }


def _link_columns(links: Sequence[Sequence[tuple[Any, ...]]]) -> dict[str, pyarrow.Array]:
    offsets, flat = _flattened(links)
    return {
        "Links.TraceId": _lists(offsets, _repeated([link[0] for link in flat])),
        "Links.SpanId": _lists(offsets, _repeated([link[1] for link in flat])),
        "Links.TraceState": _lists(offsets, _repeated([""] * len(flat))),
        "Links.Attributes": _lists(offsets, _maps([link[2] for link in flat])),
    }


def _histogram_columns(values: Sequence[HistogramValue]) -> dict[str, pyarrow.Array]:
    pa = arrow.arrow()
    counts, every_count = _flattened([value.counts for value in values])
    bounds, every_bound = _flattened([value.bounds for value in values])
    return {
        "Count": pa.array([value.count for value in values], pa.uint64()),
        "Sum": pa.array([value.sum for value in values], pa.float64()),
        "BucketCounts": _lists(counts, _numbers(pa.uint64(), "Q", every_count)),
        "ExplicitBounds": _lists(bounds, _numbers(pa.float64(), "d", every_bound)),
        "Min": pa.array([value.minimum for value in values], pa.float64()),
        "Max": pa.array([value.maximum for value in values], pa.float64()),
    }


def _flattened(nested: Sequence[Sequence[T]]) -> tuple[list[int], list[T]]:
    return list(accumulate(map(len, nested), initial=0)), list(chain.from_iterable(nested))


def _lists(offsets: list[int], items: pyarrow.Array) -> pyarrow.Array:
    pa = arrow.arrow()
    return pa.ListArray.from_arrays(_numbers(pa.int32(), "i", offsets), items)


def _instants(instants: Iterable[int]) -> pyarrow.Array:
    return _numbers(arrow.arrow().timestamp("ns", tz="UTC"), "q", instants)


def _numbers(kind: Any, code: str, numbers: Iterable[float]) -> pyarrow.Array:
    """Return a column of the Arrow type *kind*; *code* is that of the numbers in the module ``array``.

    Arrow takes over a buffer as it is, whereas it looks at each number of a list.
    """
    pa = arrow.arrow()
    buffer = array(code, numbers)
    return pa.Array.from_buffers(kind, len(buffer), [None, pa.py_buffer(buffer)])


def _repeated(texts: Sequence[str]) -> pyarrow.Array:
    pa = arrow.arrow()
    return pa.array(texts, pa.string())


def _itself(mapping: Mapping[str, AttributeValue]) -> Mapping[str, AttributeValue]:
    return mapping


def _service(resource: Resource) -> str:
    return resource.service


def _resource_attributes(resource: Resource) -> Mapping[str, str]:
    return resource.attributes


def _name(named: Any) -> str:
    return str(named.name)


def _version(versioned: Any) -> str:
    return str(versioned.version)


def _description(instrument: Any) -> str:
    return str(instrument.description)


def _unit(instrument: Any) -> str:
    return str(instrument.unit)
