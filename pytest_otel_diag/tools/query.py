"""The tool ``query``: SQL over the telemetry of the session."""

from __future__ import annotations

from typing import Any

from pydantic import Field, JsonValue

from pytest_otel_diag.model.base import Model
from pytest_otel_diag.model.telemetry import QueryLimits, Table
from pytest_otel_diag.tools.cells import LEAST, json_value, prefix, row_size, shortened, text_size
from pytest_otel_diag.tools.contract import Caps, Tool, ToolContext

_FRAME = 300
"""Characters of a result's JSON beside its columns and rows."""


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


class Rows(Model):
    """Rows of an answer; where ``truncated``, some rows or columns were left out."""

    columns: tuple[str, ...]
    rows: tuple[tuple[JsonValue, ...], ...]
    truncated: bool = False
    rows_left_out: int = 0
    columns_left_out: int = 0
    note: str = ""


def fitted(table: Table, caps: Caps) -> Rows:
    """Return the first columns and rows of the table that the caps allow; one row always fits."""
    room = caps.characters - _FRAME
    shown = [shortened(name, caps.cell_characters) for name in table.names]
    columns = prefix(shown, most=len(shown), characters=room, size=lambda name: text_size(name) + LEAST + 1)
    room -= sum(text_size(name) + 1 for name in columns)
    cell = min(caps.cell_characters, room // max(1, len(columns)) - 2)
    values = (tuple(json_value(value, cell) for value in row[: len(columns)]) for row in table.rows())
    rows = prefix(values, most=caps.rows, characters=room, size=row_size)
    left = len(table) - len(rows)
    dropped = len(table.names) - len(columns)
    return Rows(
        columns=tuple(columns),
        rows=tuple(rows),
        truncated=bool(left or dropped),
        rows_left_out=left,
        columns_left_out=dropped,
        note="select fewer columns, aggregate, or add LIMIT and OFFSET to see the rest"
        if left or dropped
        else "",
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
