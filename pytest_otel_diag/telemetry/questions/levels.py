"""The workflow's questions about single operations, metrics and logs of a few services."""

from __future__ import annotations

from collections.abc import Sequence

from pytest_otel_diag import statements
from pytest_otel_diag.errors import QueryRejected
from pytest_otel_diag.model.telemetry import LogCount, LogKind, MetricLevel, OperationHealth, Table
from pytest_otel_diag.model.windows import Window, seconds_to_ns
from pytest_otel_diag.telemetry.questions.asking import Asks, over_windows
from pytest_otel_diag.telemetry.questions.relations import missing, named
from pytest_otel_diag.telemetry.schema import EXPONENTIAL

KINDS = 20_000
"""Log templates that one answer holds at most."""

_METRICS = {
    "otel_metrics_gauge": ("metric_levels_gauge",),
    "otel_metrics_sum": ("metric_levels_sum", "metric_restarts"),
    "otel_metrics_histogram": ("metric_levels_histogram", "metric_restarts"),
    EXPONENTIAL: ("metric_levels_histogram", "metric_restarts"),
}


def bucket_of(bucket_s: float) -> int:
    """Return the bucket in nanoseconds; raises QueryRejected for one that is not positive."""
    bucket_ns = seconds_to_ns(bucket_s)
    if bucket_ns <= 0:
        raise QueryRejected(f"a bucket of {bucket_s} s cannot be counted; use a positive number of seconds")
    return bucket_ns


async def operation_health(
    telemetry: Asks, window: Window, bucket_s: float, services: Sequence[str]
) -> tuple[OperationHealth, ...]:
    """Return calls, errors and latency per operation and bucket of *bucket_s* seconds.

    Counted over spans of every kind that start in the window; a bucket without any has no row.
    """
    parameters = {"bucket_ns": bucket_of(bucket_s), "services": list(services)}
    answer = await over_windows(telemetry, "operation_health", [window], parameters)
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


async def metric_levels(
    telemetry: Asks, window: Window, bucket_s: float, services: Sequence[str]
) -> tuple[MetricLevel, ...]:
    """Return the metrics of the services per bucket, ordered by service, metric, kind and bucket.

    Rates need two points of a series in the window. Series of one source (instance, receiver) are
    added up at each of its instants, several sources averaged. Raises SchemaError without any of the
    exporter's metric tables.
    """
    schema = await telemetry.schema()
    tables = [table for table in _METRICS if schema.has(table)]
    if not tables:
        raise missing(schema, "otel_metrics_gauge")
    bucket_ns = bucket_of(bucket_s)
    found: list[MetricLevel] = []
    restarts: dict[tuple[str, int], int] = {}
    rows = await telemetry.rows_at_most(tables)
    for table in [table for table in tables if rows.get(table, 1)]:
        for name in _METRICS[table]:
            parameters = {"bucket_ns": bucket_ns, "services": list(services), "table": table}
            answer = await _over(telemetry, name, window, parameters)
            if name == "metric_restarts":
                for service, bucket, instances in answer.rows():
                    key = (service, bucket)
                    restarts[key] = max(restarts.get(key, 0), instances)
                continue
            found += [
                MetricLevel(service=service, metric=metric, kind=kind, bucket_start_ns=bucket, value=value)
                for service, metric, kind, bucket, value in answer.rows()
            ]
    found += [
        MetricLevel(service=service, metric="", kind="restarts", bucket_start_ns=bucket, value=instances)
        for (service, bucket), instances in restarts.items()
    ]
    return tuple(sorted(found, key=lambda row: (row.service, row.metric, row.kind, row.bucket_start_ns)))


async def _over(telemetry: Asks, name: str, window: Window, parameters: dict[str, object]) -> Table:
    if window.empty or not parameters["services"]:
        return Table((), ())
    statement = named(name, await telemetry.schema())
    return await telemetry.ask(statement, {**statements.window_parameters([window]), **parameters})


async def log_counts(
    telemetry: Asks, window: Window, bucket_s: float, services: Sequence[str]
) -> tuple[LogCount, ...]:
    """Return log lines per service and bucket; a bucket without any has no row."""
    parameters = {"bucket_ns": bucket_of(bucket_s), "services": list(services)}
    answer = await over_windows(telemetry, "log_counts", [window], parameters)
    return tuple(
        LogCount(service=service, bucket_start_ns=bucket, lines=lines, severe=severe)
        for service, bucket, lines, severe in answer.rows()
    )


async def log_kinds(
    telemetry: Asks, window: Window, bucket_s: float, services: Sequence[str]
) -> tuple[LogKind, ...]:
    """Return the log templates of the services, those in most buckets first; at most :data:`KINDS`."""
    parameters = {"bucket_ns": bucket_of(bucket_s), "services": list(services), "rows": KINDS}
    answer = await over_windows(telemetry, "log_kinds", [window], parameters)
    return tuple(
        LogKind(service=service, template=template, severe=bool(severe), lines=lines, buckets=buckets)
        for service, template, severe, lines, buckets in answer.rows()
    )
