"""The workflow's own questions: newest telemetry, service health, call edges."""

from __future__ import annotations

from pytest_otel_diag import statements
from pytest_otel_diag.model.base import Nanos
from pytest_otel_diag.model.telemetry import SPANS_TABLE, CallEdge, ServiceHealth, TelemetrySchema
from pytest_otel_diag.model.windows import Window
from pytest_otel_diag.statements import Statement
from pytest_otel_diag.telemetry.questions.asking import Asks, over_windows
from pytest_otel_diag.telemetry.questions.levels import bucket_of
from pytest_otel_diag.telemetry.questions.relations import missing
from pytest_otel_diag.telemetry.questions.slices import merge, sliced
from pytest_otel_diag.telemetry.schema import signal_of

LAST_NS = 2**63 - 1
"""The last instant there is, in nanoseconds."""


async def latest(telemetry: Asks, *, until_ns: Nanos | None = None) -> Nanos | None:
    """Return the end of the newest span, log line or metric point visible, None when there is none.

    What ended after *until_ns* does not count (settled windows may lie in a session's future).
    Raises SchemaError when none of the exporter's tables is there.
    """
    schema = await telemetry.schema()
    if not schema.signals():
        raise missing(schema, "otel_traces")
    parameters: dict[str, object] = {"until_ns": until_ns if until_ns is not None else LAST_NS}
    parts: list[str] = []
    for table in schema.tables:
        name = _latest_statement(table, schema)
        if name is not None:
            parameters[f"table_{len(parts)}"] = table
            part = statements.load(__package__, name).sql
            parts.append(part.replace("{table:", f"{{table_{len(parts)}:"))
    answer = await telemetry.ask(Statement("latest", "\nUNION ALL\n".join(parts)), parameters)
    return max((int(newest_ns) for newest_ns, rows in answer.rows() if rows), default=None)


async def service_health(telemetry: Asks, window: Window, bucket_s: float) -> tuple[ServiceHealth, ...]:
    """Return requests, errors and latency per service and bucket of *bucket_s* seconds.

    Counted over server, consumer and root spans that start in the window; a bucket without any has
    no row. Quantiles are exact. Raises QueryRejected for a bucket that is not positive.
    """
    bucket = {"bucket_ns": bucket_of(bucket_s)}
    answer = await over_windows(telemetry, "service_health", [window], bucket)
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


async def call_edges(telemetry: Asks, window: Window) -> tuple[CallEdge, ...]:
    """Return the calls between services whose both spans start in the window.

    Quantiles are exact up to two million spans, means of exact quantiles of slices beyond.
    """
    tables = await sliced(telemetry, "call_edges", [window], {})
    means = {"p50_ms": "calls", "p99_ms": "calls"}
    return tuple(CallEdge(**row) for row in merge(tables, ("caller", "callee"), means=means))


def _latest_statement(table: str, schema: TelemetrySchema) -> str | None:
    if table == SPANS_TABLE:
        return "latest_traces_slim"
    signal = signal_of(table)
    if signal == "traces" and schema.has(SPANS_TABLE):
        return None  # the companion answers the same from one eighth of the bytes
    return f"latest_{signal}" if signal else None
