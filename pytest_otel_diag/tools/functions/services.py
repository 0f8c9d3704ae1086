"""The tool ``list_services``: who there is, how much each does, and whom it calls."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from pydantic import Field

from pytest_otel_diag.model.base import Model
from pytest_otel_diag.model.telemetry import SPANS_TABLE, TelemetrySchema
from pytest_otel_diag.model.windows import Window
from pytest_otel_diag.statements import Statement
from pytest_otel_diag.statements.relations import over
from pytest_otel_diag.tools.contract import Tool, ToolContext, ToolError
from pytest_otel_diag.tools.functions.asking import own, run, tables_of
from pytest_otel_diag.tools.rows import Rows, figure, listed, per_minute, ratio
from pytest_otel_diag.tools.windows import WINDOW_TEXT, Shown, WindowArgument, seconds, shown, windows_of

_SUMS = ("spans", "requests", "errors", "operations", "instances", "lines", "severe", "metrics")
_COLUMNS = (
    "service",
    "requests",
    "requests_per_min",
    "error_ratio",
    "p95_ms",
    "spans",
    "operations",
    "instances",
    "log_lines",
    "severe_log_lines",
    "metrics",
    "calls",
)


class ServicesArguments(Model):
    """Arguments of ``list_services``."""

    window: WindowArgument = Field(default="incident", description=WINDOW_TEXT)


class Services(Model):
    """The services with telemetry in a window, by name."""

    window: Shown
    services: Rows


async def measured(context: ToolContext, windows: Sequence[Window]) -> dict[str, dict[str, Any]]:
    """Return what every service did in the windows; raises ToolError without any telemetry table."""
    schema = await context.investigation.telemetry.schema()
    parts = list(_parts(schema))
    if not parts:
        raise ToolError("there are no tables of telemetry")
    relations = [
        *(["lines"] if schema.has("otel_logs") else []),
        *(["spans"] if _has_spans(schema) else []),
    ]
    total = ", ".join(f"sum({name}) AS {name}_total" for name in _SUMS)
    found = "\nUNION ALL\n".join(parts)
    sql = (
        f"SELECT name, {total}, maxIf(p95_ms, requests > 0) AS p95_total "  # noqa: S608 - constants
        f"FROM ({found}) GROUP BY name ORDER BY name LIMIT {{rows:UInt64}}"
    )
    table = await run(context, over(relations, Statement("services", sql), schema), windows)
    return {str(name): dict(zip((*_SUMS, "p95_ms"), row, strict=True)) for name, *row in table.rows()}


def _has_spans(schema: TelemetrySchema) -> bool:
    return schema.has(SPANS_TABLE) or schema.has("otel_traces")


def _parts(schema: TelemetrySchema) -> Sequence[str]:
    metrics = [table for table, (signal, _) in tables_of(schema).items() if signal == "metrics"]
    return [
        *([own("services_traces").sql] if _has_spans(schema) else []),
        *([own("services_logs").sql] if schema.has("otel_logs") else []),
        *(own("services_metrics").sql.replace("TABLE_NAME", table) for table in metrics),
    ]


async def _callees(context: ToolContext, windows: Sequence[Window]) -> dict[str, list[str]]:
    """Return whom each service calls, the most called first; nothing without traces."""
    found: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    if _has_spans(await context.investigation.telemetry.schema()):
        for edge in await context.investigation.telemetry.call_edges(windows[-1]):
            found[edge.caller][edge.callee] += edge.calls
    return {
        caller: sorted(callees, key=lambda name: (-callees[name], name)) for caller, callees in found.items()
    }


async def list_services(context: ToolContext, arguments: ServicesArguments) -> Services:
    """Return the services of the window."""
    windows = windows_of(context.investigation, arguments.window)
    found = await measured(context, windows)
    callees = await _callees(context, windows) if any(one["spans"] for one in found.values()) else {}
    length = seconds(windows)
    rows = [
        (
            name,
            one["requests"],
            per_minute(one["requests"], length),
            ratio(one["errors"], one["requests"]),
            figure(one["p95_ms"]) if one["requests"] else None,
            one["spans"],
            one["operations"],
            one["instances"],
            one["lines"],
            one["severe"],
            one["metrics"],
            callees.get(name, []),
        )
        for name, one in found.items()
    ]
    return Services(
        window=shown(arguments.window, windows), services=listed(_COLUMNS, rows, context.caps, share=0.9)
    )


LIST_SERVICES = Tool(
    name="list_services",
    description=(
        "List every service with telemetry in a window: requests it answered (server, consumer and root "
        "spans), their error_ratio and p95_ms, spans, operations, instances, log lines (severe: warnings and "
        'worse), number of metrics, and the services it calls. Example: {"window": "incident"}'
    ),
    arguments=ServicesArguments,
    result=Services,
    run=list_services,
    signals=("traces", "logs", "metrics"),
)
