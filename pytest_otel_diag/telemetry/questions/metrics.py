"""Answers the question about metric levels."""

from __future__ import annotations

from collections.abc import Mapping

from pytest_otel_diag import statements
from pytest_otel_diag.model.questions import MetricLevels
from pytest_otel_diag.model.telemetry import MetricLevel, Table
from pytest_otel_diag.model.windows import Window
from pytest_otel_diag.statements.relations import missing
from pytest_otel_diag.telemetry.questions.relations import named
from pytest_otel_diag.telemetry.questions.statement_runner import StatementRunner, bucket_ns_of
from pytest_otel_diag.telemetry.schema import EXPONENTIAL

_STATEMENTS = {
    "otel_metrics_gauge": ("metric_levels_gauge",),
    "otel_metrics_sum": ("metric_levels_sum", "metric_restarts"),
    "otel_metrics_histogram": ("metric_levels_histogram", "metric_restarts"),
    EXPONENTIAL: ("metric_levels_histogram", "metric_restarts"),
}


async def metric_levels(telemetry: StatementRunner, question: MetricLevels) -> tuple[MetricLevel, ...]:
    """Return the metrics of the services per bucket, ordered by service, metric, kind and bucket.

    Rates need two points of a series in the window. Series of one source (instance, receiver) are
    added up at each of its instants, several sources averaged. Raises SchemaError without any of the
    exporter's metric tables.
    """
    schema = await telemetry.schema()
    tables = [table for table in _STATEMENTS if schema.has(table)]
    if not tables:
        raise missing(schema, "otel_metrics_gauge")
    parameters = {"bucket_ns": bucket_ns_of(question.bucket_s), "services": list(question.services)}
    found: list[MetricLevel] = []
    restarts: dict[tuple[str, int], int] = {}
    rows = await telemetry.rows_at_most(tables)
    for table in [table for table in tables if rows.get(table, 1)]:
        for name in _STATEMENTS[table]:
            answer = await _read(telemetry, name, question.window, {**parameters, "table": table})
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


async def _read(
    telemetry: StatementRunner, name: str, window: Window, parameters: Mapping[str, object]
) -> Table:
    if window.empty or not parameters["services"]:
        return Table((), ())
    statement = named(name, await telemetry.schema())
    return await telemetry.run(statement, {**statements.window_parameters([window]), **parameters})
