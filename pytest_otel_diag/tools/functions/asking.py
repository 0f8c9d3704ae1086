"""Runs the statements of the tools over the telemetry of an investigation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pytest_otel_diag.errors import nearest
from pytest_otel_diag.model.telemetry import SIGNAL_TABLES, QueryLimits, Table, TelemetrySchema
from pytest_otel_diag.model.windows import Window
from pytest_otel_diag.statements import KEY_MAX, Statement, load, window_parameters
from pytest_otel_diag.statements.relations import over
from pytest_otel_diag.tools.contract import ToolContext, ToolError

MOST_ROWS = 5_000
"""Rows that a statement of a tool returns at most, of which the caps then keep some."""

_TIME = {"traces": "Timestamp", "logs": "Timestamp", "metrics": "TimeUnix"}
_SHOWN_SERVICES = 60


async def run(
    context: ToolContext,
    statement: Statement,
    windows: Sequence[Window],
    parameters: Mapping[str, Any] | None = None,
) -> Table:
    """Run a statement over *windows*, as the analyzer's own query."""
    values = {
        **window_parameters(windows),
        "key_from": 0,
        "key_to": KEY_MAX,
        "rows": MOST_ROWS,
        **(parameters or {}),
    }
    limits = QueryLimits(time_s=context.caps.time_s)
    return await context.investigation.telemetry.query(statement.sql, values, limits)


def own(name: str) -> Statement:
    """Return a statement of this package."""
    return load(__package__, name)


async def over_relations(
    context: ToolContext, name: str, relations: Sequence[str], windows: Sequence[Window], **parameters: Any
) -> Table:
    """Run a statement of this package over relations; raises SchemaError when their table is missing."""
    schema = await context.investigation.telemetry.schema()
    return await run(context, over(relations, own(name), schema), windows, parameters)


def tables_of(schema: TelemetrySchema) -> dict[str, tuple[str, str]]:
    """Return the exporter's tables that there are: table → its signal and its column of time."""
    return {
        table: (signal, _TIME[signal])
        for signal, tables in SIGNAL_TABLES.items()
        for table in tables
        if schema.has(table, _TIME[signal])
    }


async def unknown_service(context: ToolContext, name: str, windows: Sequence[Window]) -> ToolError:
    """Return the error for a service without telemetry in the windows, with the nearest spelling."""
    schema = await context.investigation.telemetry.schema()
    parts = [
        own("names").sql.replace("TABLE_NAME", table).replace("TIME", time)
        for table, (_, time) in tables_of(schema).items()
    ]
    if not parts:
        return ToolError(f"there is no telemetry, so none of the service {name!r}")
    found = await run(context, Statement("names", "\nUNION DISTINCT\n".join(parts)), windows)
    services = sorted(str(one) for one in found.column("service") if one)
    if name in services:
        return ToolError(
            f"the service {name!r} has no such telemetry in this window; try another window or tool"
        )
    known = ", ".join(services[:_SHOWN_SERVICES]) or "none"
    return ToolError(
        f"no service {name!r} in this window{nearest(name, services)}; services with telemetry: {known}"
    )
