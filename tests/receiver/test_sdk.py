"""The official SDK as a client: everything it sends is in the store, once."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter as GrpcLogs
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter as GrpcMetrics
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcSpans
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter as HttpLogs
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter as HttpMetrics
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpSpans
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation, View
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Link, SpanKind, Status, StatusCode

from pytest_otel_diag.receiver import Limits, Receiver
from pytest_otel_diag.telemetry import Store
from tests.receiver.conftest import Start
from tests.support import otlp
from tests.support.deadlines import deadline_s, eventually

RESOURCE = Resource({"service.name": "sdk", "tags": ["a", "b"]})
SPANS = 1_500


def exporters(receiver: Receiver, protocol: str) -> tuple[Any, Any, Any]:
    """Return exporters of spans, logs and metrics."""
    timeout_s = deadline_s(10)  # the SDK gives up afterwards, retries included
    if protocol == "grpc":
        options = {
            "endpoint": receiver.addresses.grpc,
            "insecure": True,
            "compression": grpc.Compression.Gzip,
            "timeout": timeout_s,
        }
        return GrpcSpans(**options), GrpcLogs(**options), GrpcMetrics(**options)
    base = f"http://{receiver.addresses.http}/v1"
    compression = Compression.Gzip if protocol == "http gzip" else Compression.NoCompression
    return (
        HttpSpans(endpoint=f"{base}/traces", compression=compression, timeout=timeout_s),
        HttpLogs(endpoint=f"{base}/logs", compression=compression, timeout=timeout_s),
        HttpMetrics(endpoint=f"{base}/metrics", compression=compression, timeout=timeout_s),
    )


def make_spans(exporter: Any, number: int) -> list[str]:
    """Make spans with the SDK and return their ids."""
    provider = TracerProvider(resource=RESOURCE, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(exporter, max_queue_size=10_000, schedule_delay_millis=50))
    tracer = provider.get_tracer("shop", "1.0")
    made = []
    for index in range(number // 3):
        with tracer.start_as_current_span("root", kind=SpanKind.SERVER, attributes={"index": index}) as root:
            with tracer.start_as_current_span("call", kind=SpanKind.CLIENT) as call:
                call.record_exception(ValueError("no"))
                call.set_status(Status(StatusCode.ERROR, "it failed"))
            link = Link(call.get_span_context(), {"why": "batch"})
            with tracer.start_as_current_span("job", kind=SpanKind.CONSUMER, links=[link]) as job:
                job.set_status(StatusCode.OK)
        made += [f"{span.get_span_context().span_id:016x}" for span in (root, call, job)]
    provider.shutdown()
    return made


def make_logs(exporter: Any, number: int) -> None:
    provider = LoggerProvider(resource=RESOURCE, shutdown_on_exit=False)
    provider.add_log_record_processor(BatchLogRecordProcessor(exporter, max_queue_size=10_000))
    logger = provider.get_logger("shop")
    for index in range(number):
        logger.emit(
            LogRecord(
                timestamp=time.time_ns(),
                severity_number=SeverityNumber.WARN,
                severity_text="WARN",
                body=f"line {index}",
                attributes={"index": index},
                event_name="order.slow",
            )
        )
    provider.shutdown()


def make_metrics(exporter: Any) -> None:
    reader = PeriodicExportingMetricReader(exporter, export_interval_millis=3_600_000)
    view = View(instrument_name="sizes", aggregation=ExponentialBucketHistogramAggregation())
    provider = MeterProvider([reader], resource=RESOURCE, views=[view], shutdown_on_exit=False)
    meter = provider.get_meter("shop")
    meter.create_counter("orders").add(3, {"currency": "EUR"})
    meter.create_up_down_counter("in.flight").add(-2)
    meter.create_gauge("temperature").set(21.5)
    meter.create_histogram("latency", unit="ms").record(12.5)
    meter.create_histogram("sizes").record(100)
    provider.shutdown()


@pytest.mark.parametrize("protocol", ["http", "http gzip", "grpc"])
def test_everything_that_the_sdk_sends_is_stored_once(
    start: Start, store: Store, database: str, protocol: str
) -> None:
    receiver = start(http="127.0.0.1:0", grpc="127.0.0.1:0")
    of_spans, of_logs, of_metrics = exporters(receiver, protocol)
    made = make_spans(of_spans, SPANS)
    make_logs(of_logs, 300)
    make_metrics(of_metrics)
    assert receiver.flush()
    ask: Callable[[str], list[tuple[Any, ...]]] = lambda sql: otlp.ask(store, database, sql)  # noqa: E731
    assert sorted(row[0] for row in ask("SELECT SpanId FROM otel_traces")) == sorted(made)
    assert ask(
        "SELECT SpanName, SpanKind, StatusCode, StatusMessage, Events.Name, "
        "Events.Attributes[1]['exception.type'], length(Links.SpanId), "
        "ResourceAttributes['tags'], ScopeName, ScopeVersion, count() FROM otel_traces "
        "GROUP BY ALL ORDER BY SpanName"
    ) == [
        (
            "call",
            "Client",
            "Error",
            "it failed",
            ["exception"],
            "ValueError",
            0,
            '["a","b"]',
            "shop",
            "1.0",
            500,
        ),
        ("job", "Consumer", "Ok", "", [], "", 1, '["a","b"]', "shop", "1.0", 500),
        ("root", "Server", "Unset", "", [], "", 0, '["a","b"]', "shop", "1.0", 500),
    ]
    parents = "SELECT count() FROM otel_traces AS c JOIN otel_traces AS p ON c.ParentSpanId = p.SpanId"
    assert ask(parents) == [(1_000,)]
    assert ask(
        "SELECT count(), uniqExact(Body), any(SeverityText), any(SeverityNumber), any(EventName), "
        "any(ServiceName) FROM otel_logs"
    ) == [(300, 300, "WARN", 13, "order.slow", "sdk")]
    assert ask(
        "SELECT MetricName, Value, AggregationTemporality, IsMonotonic FROM otel_metrics_sum ORDER BY ALL"
    ) == [
        ("in.flight", -2.0, 2, False),
        ("orders", 3.0, 2, True),
    ]
    assert ask("SELECT MetricName, Value FROM otel_metrics_gauge") == [("temperature", 21.5)]
    assert ask("SELECT MetricUnit, Count, Sum, Min, arraySum(BucketCounts) FROM otel_metrics_histogram") == [
        ("ms", 1, 12.5, 12.5, 1)
    ]
    sizes = ask("SELECT Count, Sum, arraySum(PositiveBucketCounts) FROM otel_metrics_exponential_histogram")
    assert sizes == [(1, 100.0, 1)]
    counts = receiver.stop()
    assert (counts.traces.received, counts.logs.received, counts.metrics.received) == (SPANS, 300, 5)
    assert counts.lost == 0


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_the_sdk_retries_after_back_pressure(
    start: Start, store: Store, database: str, protocol: str
) -> None:
    gate = otlp.Gate(store)
    receiver = start(
        into=gate, http="127.0.0.1:0", grpc="127.0.0.1:0", limits=Limits(queue_records=400, batch_s=0.05)
    )
    of_spans, _, _ = exporters(receiver, protocol)
    made: list[str] = []
    with otlp.in_background(lambda: made.extend(make_spans(of_spans, 600))):
        assert eventually(lambda: receiver.counts().traces.rejected)
        gate.open()
    assert receiver.flush()
    assert sorted(row[0] for row in otlp.ask(store, database, "SELECT SpanId FROM otel_traces")) == sorted(
        made
    )
    counts = receiver.stop()
    assert counts.traces.stored == 600
    assert counts.lost == 0
