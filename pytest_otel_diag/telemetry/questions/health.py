"""Answers the questions about traces: newest telemetry, health of services and operations, call edges."""

from __future__ import annotations

from pytest_otel_diag import statements
from pytest_otel_diag.model.base import Nanos
from pytest_otel_diag.model.questions import CallEdges, Latest, OperationHealthOf, ServiceHealthOf
from pytest_otel_diag.model.telemetry import (
    SPANS_TABLE,
    CallEdge,
    OperationHealth,
    ServiceHealth,
    TelemetrySchema,
)
from pytest_otel_diag.statements import Statement
from pytest_otel_diag.statements.relations import missing
from pytest_otel_diag.telemetry.questions.slices import merge, sliced
from pytest_otel_diag.telemetry.questions.statement_runner import StatementRunner, bucket_ns_of, over_windows
from pytest_otel_diag.telemetry.schema import signal_of

LAST_NS = 2**63 - 1
"""The last instant a signed 64-bit number of nanoseconds can name."""


async def latest(telemetry: StatementRunner, question: Latest) -> Nanos | None:
    """Return the end of the newest span, log line or metric point visible, None without any.

    What ended after ``question.until_ns`` or, where that is None, after the session's time does not count:
    settled windows may lie in a session's future. Raises SchemaError without any of the exporter's tables.
    """
    schema = await telemetry.schema()
    if not schema.signals():
        raise missing(schema, "otel_traces")
    until_ns = question.until_ns if question.until_ns is not None else telemetry.now()
    parameters: dict[str, object] = {"until_ns": until_ns if until_ns is not None else LAST_NS}
    parts: list[str] = []
    for table in schema.tables:
        name = _latest_statement(table, schema)
        if name is not None:
            parameters[f"table_{len(parts)}"] = table
            part = statements.load(__package__, name).sql
            parts.append(part.replace("{table:", f"{{table_{len(parts)}:"))
    answer = await telemetry.run(Statement("latest", "\nUNION ALL\n".join(parts)), parameters)
    return max((int(newest_ns) for newest_ns, rows in answer.rows() if rows), default=None)


async def service_health(telemetry: StatementRunner, question: ServiceHealthOf) -> tuple[ServiceHealth, ...]:
    """Return requests, errors and latency per service and bucket; quantiles are exact.

    Counted over server, consumer and root spans that start in the window. Raises QueryRejected for a
    bucket that is not positive.
    """
    bucket = {"bucket_ns": bucket_ns_of(question.bucket_s)}
    answer = await over_windows(telemetry, "service_health", [question.window], bucket)
    return tuple(
        ServiceHealth(
            service=service,
            bucket_start_ns=bucket,
            requests=requests,
            errors=errors,
            p50_ms=latency[0],
            p95_ms=latency[1],
            p99_ms=latency[2],
        )
        for service, bucket, requests, errors, latency in answer.rows()
    )


async def call_edges(telemetry: StatementRunner, question: CallEdges) -> tuple[CallEdge, ...]:
    """Return the calls between services whose both spans start in the window.

    Quantiles are exact up to two million spans, means of exact quantiles of slices beyond.
    """
    tables = await sliced(telemetry, "call_edges", [question.window], {})
    means = {"p50_ms": "calls", "p99_ms": "calls"}
    return tuple(CallEdge(**row) for row in merge(tables, ("caller", "callee"), means=means))


async def operation_health(
    telemetry: StatementRunner, question: OperationHealthOf
) -> tuple[OperationHealth, ...]:
    """Return calls, errors and latency per operation and bucket, over spans of every kind."""
    parameters = {"bucket_ns": bucket_ns_of(question.bucket_s), "services": list(question.services)}
    answer = await over_windows(telemetry, "operation_health", [question.window], parameters)
    return tuple(
        OperationHealth(
            service=service,
            operation=operation,
            bucket_start_ns=bucket,
            calls=calls,
            errors=errors,
            p95_ms=p95_ms,
            max_ms=max_ms,
        )
        for service, operation, bucket, calls, errors, p95_ms, max_ms in answer.rows()
    )


def _latest_statement(table: str, schema: TelemetrySchema) -> str | None:
    if table == SPANS_TABLE:
        return "latest_traces_slim"
    signal = signal_of(table)
    if signal == "traces" and schema.has(SPANS_TABLE):
        return None  # the companion gives the same answer from one eighth of the bytes
    return f"latest_{signal}" if signal else None
