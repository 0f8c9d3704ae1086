"""Before against after: every operation, edge, self time and log template, one pass a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pytest_otel_diag.model.windows import Window
from pytest_otel_diag.telemetry.questions.results import (
    EdgeChange,
    LogTemplate,
    OperationChange,
    Quantiles,
    SelfTimeChange,
    TelemetryChanges,
    TemplateChange,
)
from pytest_otel_diag.telemetry.questions.slices import Row, merge, sliced
from pytest_otel_diag.telemetry.questions.statement_runner import StatementRunner, over_windows
from pytest_otel_diag.telemetry.views import merged

ROWS = 100_000


async def compare(
    telemetry: StatementRunner, before: Sequence[Window], after: Window, *, rows: int = ROWS
) -> TelemetryChanges:
    """Return everything of *after* beside all windows of *before* together.

    Missing tables leave their part empty; raises SchemaError without either
    traces nor logs. Where windows overlap, the earlier in the list has the telemetry.
    """
    schema = await telemetry.schema()
    signals = schema.signals()
    traces, logs = "traces" in signals, "logs" in signals
    windows = (*before, after)
    return TelemetryChanges(
        seconds_before=sum(window.duration_s for window in merged(before)),
        seconds_after=after.duration_s,
        operations=await operation_changes(telemetry, windows, rows=rows) if traces or not logs else (),
        edges=await edge_changes(telemetry, windows, rows=rows) if traces else (),
        self_times=await self_time_changes(telemetry, windows, rows=rows) if traces else (),
        templates=await template_changes(telemetry, windows, rows=rows) if logs else (),
    )


async def operation_changes(
    telemetry: StatementRunner, windows: Sequence[Window], *, rows: int = ROWS
) -> tuple[OperationChange, ...]:
    """Return spans, errors and durations per operation; the last window is after."""
    answer = await over_windows(telemetry, "compare_operations", windows, {"rows": rows})
    return tuple(OperationChange(**_quantiled(row)) for row in answer.dicts())


async def edge_changes(
    telemetry: StatementRunner, windows: Sequence[Window], *, rows: int = ROWS
) -> tuple[EdgeChange, ...]:
    """Return calls, errors and latency per pair of services; the last window is after."""
    tables = await sliced(telemetry, "compare_edges", windows, {"rows": rows})
    quantiles = {"ms_before": "calls_before", "ms_after": "calls_after"}
    return tuple(
        EdgeChange(**_quantiled(row)) for row in merge(tables, ("caller", "callee"), quantiles=quantiles)
    )


async def self_time_changes(
    telemetry: StatementRunner, windows: Sequence[Window], *, rows: int = ROWS
) -> tuple[SelfTimeChange, ...]:
    """Return self time per operation; the last window is after."""
    tables = await sliced(telemetry, "compare_self_time", windows, {"rows": rows})
    quantiles = {"ms_before": "spans_before", "ms_after": "spans_after"}
    return tuple(
        SelfTimeChange(**_quantiled(row))
        for row in merge(tables, ("service", "operation"), quantiles=quantiles)
    )


async def template_changes(
    telemetry: StatementRunner, windows: Sequence[Window], *, rows: int = ROWS
) -> tuple[TemplateChange, ...]:
    """Return lines per log template; the last window is after."""
    answer = await over_windows(telemetry, "compare_templates", windows, {"rows": rows})
    return tuple(TemplateChange(**row) for row in answer.dicts())


async def log_templates(
    telemetry: StatementRunner, windows: Sequence[Window], *, rows: int = ROWS
) -> tuple[LogTemplate, ...]:
    """Return the log templates of each window, most frequent first."""
    answer = await over_windows(telemetry, "log_templates", windows, {"rows": rows})
    return tuple(
        LogTemplate(window=row.pop("win"), **row) for row in (dict(found) for found in answer.dicts())
    )


def _quantiled(row: Row) -> Mapping[str, Any]:
    return {
        **row,
        "ms_before": Quantiles(*row["ms_before"]),
        "ms_after": Quantiles(*row["ms_after"]),
    }
