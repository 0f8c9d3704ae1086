"""Every field of every table, from messages of the protocol to rows in the store."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from pytest_otel_diag.receiver.packages import SIGNALS, Signal
from pytest_otel_diag.receiver.rows import checks, tables
from pytest_otel_diag.shop.emission import rows as shop_rows
from pytest_otel_diag.shop.realtime.encode import requests
from pytest_otel_diag.shop.records import Batch
from pytest_otel_diag.telemetry import Store
from tests.support.otlp import T0_NS, ask, spans
from tests.support.shop_batches import batches

TRACE, SPAN, PARENT = bytes(range(1, 17)), bytes(range(1, 9)), bytes(range(11, 19))
TRACE_HEX, SPAN_HEX, PARENT_HEX = TRACE.hex(), SPAN.hex(), PARENT.hex()


def attribute(into: Any, key: str, **value: Any) -> None:
    into.add(key=key).value.CopyFrom(type(into.add().value)(**value))
    del into[-1]


def described(of_resource: Any, of_scope: Any) -> None:
    attribute(of_resource.resource.attributes, "service.name", string_value="checkout")
    attribute(of_resource.resource.attributes, "process.pid", int_value=7)
    of_resource.schema_url = "https://resource"
    of_scope.scope.name, of_scope.scope.version = "lib", "1.2"
    of_scope.scope.dropped_attributes_count = 3
    attribute(of_scope.scope.attributes, "short", bool_value=True)
    of_scope.schema_url = "https://scope"


COMMON = {
    "ServiceName": "checkout",
    "ResourceAttributes": {"service.name": "checkout", "process.pid": "7"},
    "ScopeName": "lib",
    "ScopeVersion": "1.2",
}
SCOPE = {
    "ResourceSchemaUrl": "https://resource",
    "ScopeSchemaUrl": "https://scope",
    "ScopeAttributes": {"short": "true"},
}


def stored(store: Store, database: str, signal: Signal, message: Any, table: str) -> list[dict[str, Any]]:
    """Return the rows that a message becomes in the store, times as nanoseconds; all columns are there."""
    (made,) = tables(signal, [message]).items()
    assert made[0] == table
    columns = {row[0]: row[1] for row in ask(store, database, f"DESCRIBE TABLE {table}")}
    assert set(made[1].column_names) == set(columns), "every column of the table gets a value, and no other"
    store.ingest_arrow(database, table, made[1])
    shown = [_shown(name, kind) for name, kind in columns.items()]
    found = ask(store, database, f"SELECT {', '.join(shown)} FROM {table} ORDER BY ServiceName")
    return [dict(zip(columns, row, strict=True)) for row in found]


def _shown(name: str, kind: str) -> str:
    if kind == "Array(DateTime64(9))":
        return f"arrayMap(t -> toUnixTimestamp64Nano(t), `{name}`)"
    return f"toUnixTimestamp64Nano(`{name}`)" if kind == "DateTime64(9)" else f"`{name}`"


def test_a_span_has_every_field(store: Store, database: str) -> None:
    request = ExportTraceServiceRequest()
    of_resource = request.resource_spans.add()
    of_scope = of_resource.scope_spans.add()
    described(of_resource, of_scope)
    span = of_scope.spans.add(
        trace_id=TRACE, span_id=SPAN, parent_span_id=PARENT, trace_state="a=1", name="Charge", kind=3,
        start_time_unix_nano=T0_NS + 1, end_time_unix_nano=T0_NS + 1_000_001,
    )  # fmt: skip
    span.status.code, span.status.message = 2, "declined"
    attribute(span.attributes, "amount", double_value=12.5)
    attribute(span.attributes, "tags", array_value={"values": [{"string_value": "x"}]})
    event = span.events.add(time_unix_nano=T0_NS + 9, name="exception")
    attribute(event.attributes, "type", string_value="CardError")
    span.events.add(time_unix_nano=T0_NS + 10, name="retry")
    link = span.links.add(trace_id=TRACE[::-1], span_id=SPAN[::-1], trace_state="b=2")
    attribute(link.attributes, "n", int_value=1)
    (row,) = stored(store, database, "traces", request, "otel_traces")
    assert row == COMMON | {
        "Timestamp": T0_NS + 1,
        "TraceId": TRACE_HEX,
        "SpanId": SPAN_HEX,
        "ParentSpanId": PARENT_HEX,
        "TraceState": "a=1",
        "SpanName": "Charge",
        "SpanKind": "Client",
        "SpanAttributes": {"amount": "12.5", "tags": '["x"]'},
        "Duration": 1_000_000,
        "StatusCode": "Error",
        "StatusMessage": "declined",
        "Events.Timestamp": [T0_NS + 9, T0_NS + 10],
        "Events.Name": ["exception", "retry"],
        "Events.Attributes": [{"type": "CardError"}, {}],
        "Links.TraceId": [TRACE[::-1].hex()],
        "Links.SpanId": [SPAN[::-1].hex()],
        "Links.TraceState": ["b=2"],
        "Links.Attributes": [{"n": "1"}],
    }
    slim = ask(
        store, database, "SELECT start_ns, duration_ns, service, operation, kind, error FROM otel_traces_slim"
    )
    assert slim == [(T0_NS + 1, 1_000_000, "checkout", "Charge", "Client", 1)]


KINDS = ("Unspecified", "Internal", "Server", "Client", "Producer", "Consumer", "")
STATUS = ("Unset", "Ok", "Error", "")


@pytest.mark.parametrize(
    ("fields", "column", "value"),
    [
        *(({"kind": kind}, "SpanKind", name) for kind, name in enumerate(KINDS)),
        *(({"status": {"code": code}}, "StatusCode", name) for code, name in enumerate(STATUS)),
        ({"trace_id": bytes(16)}, "TraceId", ""),
        ({"span_id": b""}, "SpanId", ""),
        ({"parent_span_id": bytes(8)}, "ParentSpanId", ""),
        ({"end_time_unix_nano": 1}, "Duration", 0),
        ({"start_time_unix_nano": 0, "end_time_unix_nano": 2**63 - 1}, "Duration", 2**63 - 1),
    ],
)  # fmt: skip
def test_fields_of_spans_at_their_edges(fields: dict[str, Any], column: str, value: object) -> None:
    data = tables("traces", [spans(1, **fields)])["otel_traces"]
    assert data[column].to_pylist() == [value]


def test_times_of_events_beyond_the_tables_wrap_as_in_the_exporter() -> None:
    request = spans(1)
    request.resource_spans[0].scope_spans[0].spans[0].events.add(time_unix_nano=2**64 - 5)
    column = tables("traces", [request])["otel_traces"]["Events.Timestamp"]
    assert column.combine_chunks().flatten().cast("int64").to_pylist() == [-5]


def test_a_log_record_has_every_field(store: Store, database: str) -> None:
    request = ExportLogsServiceRequest()
    of_resource = request.resource_logs.add()
    of_scope = of_resource.scope_logs.add()
    described(of_resource, of_scope)
    log = of_scope.log_records.add(
        time_unix_nano=T0_NS, observed_time_unix_nano=T0_NS + 5, trace_id=TRACE, span_id=SPAN, flags=0x101,
        severity_number=17, severity_text="ERROR", event_name="order.failed",
    )  # fmt: skip
    log.body.kvlist_value.values.add(key="order").value.int_value = 5
    attribute(log.attributes, "code", int_value=13)
    (row,) = stored(store, database, "logs", request, "otel_logs")
    assert row == COMMON | SCOPE | {
        "Timestamp": T0_NS,
        "TraceId": TRACE_HEX,
        "SpanId": SPAN_HEX,
        "TraceFlags": 1,
        "SeverityText": "ERROR",
        "SeverityNumber": 17,
        "Body": '{"order":5}',
        "LogAttributes": {"code": "13"},
        "EventName": "order.failed",
    }


def test_a_log_record_without_a_time_gets_its_observed_time() -> None:
    request = ExportLogsServiceRequest()
    request.resource_logs.add().scope_logs.add().log_records.add(observed_time_unix_nano=T0_NS)
    data = tables("logs", [request])["otel_logs"]
    assert data["Timestamp"].cast("int64").to_pylist() == [T0_NS]
    assert data["ServiceName"].to_pylist() == [""]


def metric_request(**metric: Any) -> Any:
    request = ExportMetricsServiceRequest()
    of_resource = request.resource_metrics.add()
    of_scope = of_resource.scope_metrics.add()
    described(of_resource, of_scope)
    of_scope.metrics.add(name="latency", description="how long", unit="ms", **metric)
    return request


def point(**fields: Any) -> dict[str, Any]:
    attributes = [{"key": "route", "value": {"string_value": "/"}}]
    return {
        "time_unix_nano": T0_NS + 60,
        "start_time_unix_nano": T0_NS,
        "attributes": attributes,
        "flags": 1,
        **fields,
    }


EXEMPLARS = [
    {"time_unix_nano": T0_NS + 1, "as_double": 2.5, "span_id": SPAN, "trace_id": TRACE,
     "filtered_attributes": [{"key": "user", "value": {"string_value": "u"}}]},
    {"time_unix_nano": T0_NS + 2, "as_int": 3},
]  # fmt: skip
COMMON_POINT = COMMON | SCOPE | {
    "ScopeDroppedAttrCount": 3,
    "MetricName": "latency",
    "MetricDescription": "how long",
    "MetricUnit": "ms",
    "Attributes": {"route": "/"},
    "StartTimeUnix": T0_NS,
    "TimeUnix": T0_NS + 60,
    "Flags": 1,
}  # fmt: skip
EXEMPLAR_COLUMNS = {
    "Exemplars.FilteredAttributes": [{"user": "u"}, {}],
    "Exemplars.TimeUnix": [T0_NS + 1, T0_NS + 2],
    "Exemplars.Value": [2.5, 3.0],
    "Exemplars.SpanId": [SPAN_HEX, "0" * 16],
    "Exemplars.TraceId": [TRACE_HEX, "0" * 32],
}


def test_a_gauge_has_every_field(store: Store, database: str) -> None:
    request = metric_request(gauge={"data_points": [point(as_int=-7, exemplars=EXEMPLARS)]})
    (row,) = stored(store, database, "metrics", request, "otel_metrics_gauge")
    assert row == COMMON_POINT | EXEMPLAR_COLUMNS | {"Value": -7.0}


def test_a_sum_has_every_field(store: Store, database: str) -> None:
    data = {
        "data_points": [point(as_double=0.5, exemplars=EXEMPLARS)],
        "aggregation_temporality": 1,
        "is_monotonic": True,
    }
    (row,) = stored(store, database, "metrics", metric_request(sum=data), "otel_metrics_sum")
    own = {"Value": 0.5, "AggregationTemporality": 1, "IsMonotonic": True}
    assert row == COMMON_POINT | EXEMPLAR_COLUMNS | own


def test_a_histogram_has_every_field(store: Store, database: str) -> None:
    given = point(
        count=3, sum=9.5, min=1.0, max=6.0, bucket_counts=[1, 2], explicit_bounds=[2.0], exemplars=EXEMPLARS
    )
    data = {"data_points": [given], "aggregation_temporality": 2}
    (row,) = stored(store, database, "metrics", metric_request(histogram=data), "otel_metrics_histogram")
    assert row == COMMON_POINT | EXEMPLAR_COLUMNS | {
        "Count": 3,
        "Sum": 9.5,
        "Min": 1.0,
        "Max": 6.0,
        "BucketCounts": [1, 2],
        "ExplicitBounds": [2.0],
        "AggregationTemporality": 2,
    }


def test_an_exponential_histogram_has_every_field(store: Store, database: str) -> None:
    given = point(
        count=2**40, sum=9.5, min=-1.0, max=6.0, scale=-2, zero_count=4, exemplars=EXEMPLARS,
        positive={"offset": -3, "bucket_counts": [1, 0, 2]}, negative={"offset": 5, "bucket_counts": [7]},
    )  # fmt: skip
    data = {"data_points": [given], "aggregation_temporality": 2}
    (row,) = stored(
        store,
        database,
        "metrics",
        metric_request(exponential_histogram=data),
        "otel_metrics_exponential_histogram",
    )
    assert row == COMMON_POINT | EXEMPLAR_COLUMNS | {
        "Count": 2**40,
        "Sum": 9.5,
        "Min": -1.0,
        "Max": 6.0,
        "Scale": -2,
        "ZeroCount": 4,
        "PositiveOffset": -3,
        "PositiveBucketCounts": [1, 0, 2],
        "NegativeOffset": 5,
        "NegativeBucketCounts": [7],
        "AggregationTemporality": 2,
    }


def test_a_summary_has_every_field(store: Store, database: str) -> None:
    quantiles = [{"quantile": 0.5, "value": 3.0}, {"quantile": 0.99, "value": 30.0}]
    data = {"data_points": [point(count=10, sum=50.0, quantile_values=quantiles)]}
    (row,) = stored(store, database, "metrics", metric_request(summary=data), "otel_metrics_summary")
    own = {
        "Count": 10,
        "Sum": 50.0,
        "ValueAtQuantiles.Quantile": [0.5, 0.99],
        "ValueAtQuantiles.Value": [3.0, 30.0],
    }
    assert row == COMMON_POINT | own


def test_a_histogram_without_sum_and_extremes_has_zeros() -> None:
    data = {"data_points": [point(count=1)], "aggregation_temporality": 2}
    made = tables("metrics", [metric_request(histogram=data)])["otel_metrics_histogram"]
    assert [made[name].to_pylist() for name in ("Sum", "Min", "Max", "BucketCounts")] == [
        [0.0],
        [0.0],
        [0.0],
        [[]],
    ]


def test_a_metric_without_data_and_an_empty_request_have_no_rows() -> None:
    assert tables("metrics", [metric_request()]) == {}
    assert tables("metrics", [metric_request(gauge={})]) == {}
    assert tables("traces", [ExportTraceServiceRequest()]) == {}


def comparable(column: str, value: Any) -> Any:
    """Return a cell so that both decoders' spellings of one value are equal: numbers as numbers."""
    if isinstance(value, list):
        return [comparable(column, item) for item in value]
    if isinstance(value, tuple):
        return tuple(comparable(column, item) for item in value)
    if isinstance(value, str) and column.endswith("Id") and not value.strip("0"):
        return ""
    if isinstance(value, str) and column.endswith("Attributes"):
        try:
            return value if math.isnan(float(value)) else float(value)
        except ValueError:
            return {
                "json: unsupported value: +Inf": math.inf,
                "json: unsupported value: -Inf": -math.inf,
            }.get(value, value)
    return value


def cells(made: Any, names: list[str]) -> list[tuple[Any, ...]]:
    columns = []
    for name in names:
        column = made[name].combine_chunks()
        if str(column.type).startswith("timestamp"):
            column = column.cast("int64")
        columns.append([comparable(name, value) for value in column.to_pylist()])
    return sorted(zip(*columns, strict=True), key=repr)


@settings(max_examples=30, deadline=None)
@given(batches)
def test_the_shops_otlp_becomes_the_rows_that_the_shop_writes_itself(batch: Batch) -> None:
    """Two ways to the same rows, written apart: records to Arrow, and records to OTLP to Arrow."""
    # the shop itself never has a number that a float cannot hold
    batch.metrics = [
        p._replace(value=float(p.value)) if isinstance(p.value, int) else p for p in batch.metrics
    ]
    own = shop_rows.tables(batch)
    by_signal: dict[Signal, list[Any]] = {signal: [] for signal in SIGNALS}
    for request in requests(batch):
        wire = request.message.SerializeToString()
        by_signal[request.signal].append(type(request.message).FromString(wire))
    received: dict[str, Any] = {}
    for signal, messages in by_signal.items():
        received |= tables(signal, messages)
    assert received.keys() == own.keys()
    for table, expected in own.items():
        names = [name for name in expected.column_names if name != "TraceFlags"]
        assert cells(received[table], names) == cells(expected, names)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), max_size=8), st.integers(0, 40))
def test_only_records_that_cannot_be_stored_are_rejected(
    faults: list[tuple[bool, bool]], described_bytes: int
) -> None:
    request = spans(len(faults), service="s" * described_bytes)
    of_scope = request.resource_spans[0].scope_spans[0]
    for span, (late, odd) in zip(of_scope.spans, faults, strict=True):
        span.start_time_unix_nano = 2**63 if late else 5
        span.span_id = b"odd" if odd else SPAN
    shared = request.resource_spans[0].resource.ByteSize()
    found = checks.check("traces", request, expanded_bytes=200)
    if len(faults) * shared > 200:
        assert found.rejected == {checks.EXPANDED: len(faults)}
        assert (found.accepted, found.weight, len(of_scope.spans)) == (0, 0, 0)
    else:
        good = [span.name for span in of_scope.spans]
        assert good == [f"span {index}" for index, fault in enumerate(faults) if not any(fault)]
        assert sum(found.rejected.values()) == len(faults) - len(good)
        assert found.rejected.get(checks.BAD_TIME, 0) == sum(late for late, _ in faults)
        assert found.weight == len(good) * shared


def test_logs_and_points_beyond_the_range_of_the_tables_are_rejected() -> None:
    request = ExportLogsServiceRequest()
    of_scope = request.resource_logs.add().scope_logs.add()
    of_scope.log_records.add(observed_time_unix_nano=2**63)
    of_scope.log_records.add(time_unix_nano=1, trace_id=b"short")
    of_scope.log_records.add(time_unix_nano=1)
    found = checks.check("logs", request, 1000)
    assert (found.accepted, found.rejected) == (1, {checks.BAD_TIME: 1, checks.BAD_ID: 1})
    metrics = metric_request(gauge={"data_points": [point(), {"time_unix_nano": 2**64 - 1}]})
    found = checks.check("metrics", metrics, 10_000)
    assert (found.records, found.rejected) == (2, {checks.BAD_TIME: 1})
