"""The tool ``query``: SQL over the telemetry of the session."""

from __future__ import annotations

from typing import Any

from pydantic import Field, JsonValue

from pytest_otel_diag.model.base import Model
from pytest_otel_diag.model.telemetry import QueryLimits
from pytest_otel_diag.tools.contract import Tool, ToolContext
from pytest_otel_diag.tools.rows import Rows, fitted


class QueryArguments(Model):
    """Arguments of ``query``."""

    sql: str = Field(
        description="One ClickHouse SELECT. Restrict the time, for example "
        "WHERE Timestamp >= fromUnixTimestamp64Nano(1700000060000000000).",
        min_length=1,
    )
    parameters: dict[str, JsonValue] | None = Field(
        default=None,
        description='Values of {name:Type} in the SQL, for example {"service": "service-a"} for '
        "ServiceName = {service:String}.",
    )


async def query(context: ToolContext, arguments: QueryArguments) -> Rows:
    """Run the statement as the analyzer's own."""
    parameters: dict[str, Any] | None = arguments.parameters
    limits = QueryLimits(time_s=context.caps.time_s)
    return fitted(
        await context.investigation.telemetry.query(arguments.sql, parameters, limits), context.caps
    )


QUERY = Tool(
    name="query",
    description=(
        "Run one read-only ClickHouse SELECT over the telemetry of the incident. Tables: otel_traces, "
        "otel_logs, otel_metrics_gauge, otel_metrics_sum, otel_metrics_histogram (describe_tables lists "
        "columns). Times are UTC: Timestamp and TimeUnix come back as nanoseconds, Duration is in "
        "nanoseconds. now() is not the time of the incident: use its window. Long answers are truncated: "
        "aggregate in SQL. Example: "
        '{"sql": "SELECT ServiceName, count() AS spans, countIf(StatusCode = \'Error\') AS errors '
        'FROM otel_traces GROUP BY ServiceName ORDER BY errors DESC LIMIT 20"}'
    ),
    arguments=QueryArguments,
    result=Rows,
    run=query,
)
