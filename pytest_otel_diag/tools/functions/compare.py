"""The tool ``compare_windows``: figures of operations, metrics and logs in two windows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from pytest_otel_diag.model.base import Model
from pytest_otel_diag.model.windows import Window
from pytest_otel_diag.tools.contract import Tool, ToolContext, ToolError
from pytest_otel_diag.tools.functions import change
from pytest_otel_diag.tools.functions.asking import over_relations, unknown_service
from pytest_otel_diag.tools.functions.metrics import COLUMNS as METRIC_COLUMNS
from pytest_otel_diag.tools.functions.metrics import metric_changes
from pytest_otel_diag.tools.functions.services import measured
from pytest_otel_diag.tools.rows import Rows, figure, listed, per_minute, ratio
from pytest_otel_diag.tools.windows import AGAINST_TEXT, WINDOW_TEXT, Shown, WindowArgument, compared, seconds

SignalName = Literal["traces", "logs", "metrics"]
_OPERATIONS = (
    "service",
    "operation",
    "calls",
    "calls_before",
    "calls_per_min",
    "calls_per_min_before",
    "error_ratio",
    "error_ratio_before",
    "p95_ms",
    "p95_ms_before",
)
_LOGS = (
    "service",
    "lines_per_min",
    "lines_per_min_before",
    "severe_per_min",
    "severe_per_min_before",
)


class CompareArguments(Model):
    """Arguments of ``compare_windows``."""

    window: WindowArgument = Field(default="incident", description=WINDOW_TEXT)
    against: WindowArgument | None = Field(default=None, description=AGAINST_TEXT)
    services: tuple[str, ...] = Field(default=(), description="Only these services; default: all.")
    signals: tuple[SignalName, ...] = Field(
        default=("traces", "logs", "metrics"), description="Only these signals; default: all three."
    )


class Comparison(Model):
    """What differs between two windows; in all tables the largest change comes first.

    Figures named ``…_before`` are those of the window compared with.
    """

    window: Shown
    against: Shown
    operations: Rows | None = Field(default=None, description="Spans of every kind, per service and name.")
    logs: Rows | None = Field(default=None, description="Log lines; severe: warnings and worse.")
    metrics: Rows | None = Field(
        default=None,
        description="Mean over the window, of several the newest three; kind rate: growth per second.",
    )


async def _operations(
    context: ToolContext, after: Sequence[Window], before: Sequence[Window], services: Sequence[str]
) -> list[tuple[object, ...]]:
    table = await over_relations(
        context, "compare_operations", ["spans"], [*after, *before], late=len(after), services=list(services)
    )
    lengths = seconds(after), seconds(before)
    rows: list[tuple[float, tuple[object, ...]]] = []
    for service, operation, calls, calls_before, errors, errors_before, p95, p95_before in table.rows():
        size = max(
            change.of_counts(calls, calls_before, *lengths),
            change.of_ratios(errors, calls, errors_before, calls_before),
            change.of_latencies(p95, p95_before, calls, calls_before),
        )
        shown = (
            service,
            operation,
            calls,
            calls_before,
            per_minute(calls, lengths[0]),
            per_minute(calls_before, lengths[1]),
            ratio(errors, calls),
            ratio(errors_before, calls_before),
            figure(p95),
            figure(p95_before),
        )
        rows.append((size, shown))
    return _by_size(rows)


async def _logs(
    context: ToolContext, after: Sequence[Window], before: Sequence[Window], services: Sequence[str]
) -> list[tuple[object, ...]]:
    table = await over_relations(
        context, "compare_logs", ["lines"], [*after, *before], late=len(after), services=list(services)
    )
    late, early = seconds(after), seconds(before)
    rows: list[tuple[float, tuple[object, ...]]] = []
    for service, lines, lines_before, severe, severe_before in table.rows():
        size = max(
            change.of_counts(lines, lines_before, late, early),
            change.of_counts(severe, severe_before, late, early),
        )
        figures = (
            per_minute(lines, late),
            per_minute(lines_before, early),
            per_minute(severe, late),
            per_minute(severe_before, early),
        )
        rows.append((size, (service, *figures)))
    return _by_size(rows)


def _by_size(rows: list[tuple[float, tuple[object, ...]]]) -> list[tuple[object, ...]]:
    return [shown for _, shown in sorted(rows, key=lambda row: -row[0])]


async def compare_windows(context: ToolContext, arguments: CompareArguments) -> Comparison:
    """Return the figures of both windows."""
    investigation = context.investigation
    window, against, after, before = compared(investigation, arguments.window, arguments.against)
    schema = await investigation.telemetry.schema()
    there = set(schema.signals()) & set(arguments.signals)
    if not there:
        raise ToolError(
            f"there is no telemetry of {', '.join(arguments.signals) or 'no signal'}; "
            f"this session has {', '.join(schema.signals()) or 'none'}"
        )
    found: dict[str, Rows] = {}
    names, both = arguments.services, [*after, *before]
    known = await measured(context, both) if there & {"logs", "metrics"} else {}
    if "traces" in there:
        rows = await _operations(context, after, before, names)
        found["operations"] = listed(_OPERATIONS, rows, context.caps, share=0.42)
    if "logs" in there and any(one["lines"] for one in known.values()):
        found["logs"] = listed(_LOGS, await _logs(context, after, before, names), context.caps, share=0.13)
    if "metrics" in there and any(one["metrics"] for one in known.values()):
        changes = await metric_changes(context, after, before, names or sorted(known))
        shown = [tuple(figure(x) if isinstance(x, float) else x for x in one.row()) for one in changes]
        found["metrics"] = listed(METRIC_COLUMNS, shown, context.caps, share=0.3)
    if names and not any(rows.rows for rows in found.values()):
        raise await unknown_service(context, names[0], both)
    return Comparison(window=window, against=against, **found)


COMPARE_WINDOWS = Tool(
    name="compare_windows",
    description=(
        "Compare a window with an earlier one: per service and operation calls, error_ratio and p95_ms; log "
        "lines per minute; metrics. The largest changes come first, which says nothing about their cause: a "
        "fault also shows in every service that waits for the faulty one. Example: "
        '{"window": "incident", "against": "baseline", "services": ["service-a"], "signals": ["traces"]}'
    ),
    arguments=CompareArguments,
    result=Comparison,
    run=compare_windows,
)
