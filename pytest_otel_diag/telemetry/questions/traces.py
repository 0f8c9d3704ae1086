"""Questions about traces: self time, critical paths, service paths, exemplars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pytest_otel_diag import statements
from pytest_otel_diag.model.windows import Window
from pytest_otel_diag.statements.relations import require
from pytest_otel_diag.telemetry.questions.results import (
    CriticalOperation,
    Exemplar,
    Quantiles,
    Segment,
    SelfTime,
    ServicePath,
    TracePath,
)
from pytest_otel_diag.telemetry.questions.slices import merge, sliced
from pytest_otel_diag.telemetry.questions.statement_runner import StatementRunner, over_windows

ROWS = 100_000


async def self_times(
    telemetry: StatementRunner, windows: Sequence[Window], *, rows: int = ROWS
) -> tuple[SelfTime, ...]:
    """Return self time per window, service and operation: duration less the union of the children."""
    tables = await sliced(telemetry, "self_time", windows, {"rows": rows})
    return tuple(
        SelfTime(r["win"], r["service"], r["operation"], r["spans"], r["total_ms"], Quantiles(*r["self_ms"]))
        for r in merge(tables, ("win", "service", "operation"), quantiles={"self_ms": "spans"})
    )


async def critical_operations(
    telemetry: StatementRunner, windows: Sequence[Window], *, rows: int = ROWS
) -> tuple[CriticalOperation, ...]:
    """Return what operations contribute to the critical paths, largest first within a window."""
    tables = await sliced(telemetry, "critical_operations", windows, {"rows": rows})
    merged = merge(tables, ("win", "service", "operation"))
    totals: dict[int, float] = {}
    for row in merged:
        totals[row["win"]] = totals.get(row["win"], 0.0) + row["own_ms"]
    merged.sort(key=lambda row: (row["win"], -row["own_ms"], row["service"], row["operation"]))
    return tuple(
        CriticalOperation(
            row["win"],
            row["service"],
            row["operation"],
            row["on_path"],
            row["own_ms"],
            row["own_ms"] / totals[row["win"]] if totals[row["win"]] else 0.0,
        )
        for row in merged
    )


async def trace_paths(
    telemetry: StatementRunner, windows: Sequence[Window], *, rows: int = 100
) -> tuple[TracePath, ...]:
    """Return the critical paths of the *rows* longest roots, longest first."""
    tables = await sliced(telemetry, "critical_segments", windows, {"rows": rows})
    found = [row for table in tables for row in table.dicts()]
    found.sort(key=_longest_first)
    return tuple(
        TracePath(
            window=row["win"],
            trace=row["trace"],
            root=row["root_span"],
            service=row["service"],
            operation=row["operation"],
            start_ns=row["start_ns"],
            end_ns=row["end_ns"],
            segments=tuple(Segment(*segment) for segment in row["segments"]),
        )
        for row in found[:rows]
    )


def _longest_first(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return the key that the statement orders by; a broken SDK gives one id to several spans."""
    tie = (row["trace"], row["root_span"], row["start_ns"], row["service"], row["operation"], row["segments"])
    return (row["start_ns"] - row["end_ns"], *tie)


async def service_paths(
    telemetry: StatementRunner, windows: Sequence[Window], *, rows: int = 1000
) -> tuple[ServicePath, ...]:
    """Return the chains of services that decide the duration of requests, by total time."""
    tables = await sliced(telemetry, "service_paths", windows, {"rows": rows})
    merged = merge(tables, ("win", "services"), means={"mean_ms": "requests", "p99_ms": "requests"})
    merged.sort(key=lambda row: (row["win"], -row["total_ms"], row["services"]))
    return tuple(
        ServicePath(
            row["win"],
            tuple(row["services"]),
            row["requests"],
            row["errors"],
            row["mean_ms"],
            row["p99_ms"],
            row["total_ms"],
        )
        for row in merged[:rows]
    )


async def exemplars(
    telemetry: StatementRunner, window: Window, *, service: str = "", each: int = 3, rows: int = 1000
) -> tuple[Exemplar, ...]:
    """Return the *each* slowest and failing spans of every operation (of one *service*, '' for all).

    Needs ``otel_traces`` for the trace ids; raises SchemaError without it.
    """
    schema = await telemetry.schema()
    require(schema, "otel_traces")
    answer = await over_windows(
        telemetry, "exemplars", [window], {"service": service, "each": each, "rows": rows}
    )
    found = {
        (row["service"], row["operation"], *span): None  # a dictionary keeps order and drops doubles
        for row in answer.dicts()
        for span in (*row["slowest"], *row["failing"])
    }
    if not found:
        return ()
    names = await telemetry.run(
        statements.load(__package__, "trace_ids"),
        {
            "traces": sorted({span[3] for span in found}),
            "start_ns": window.start_ns,
            "end_ns": window.end_ns,
        },
    )
    ids = dict(names.rows())
    return tuple(
        Exemplar(ids.get(trace, ""), service_, operation, start_ns, -negative_ns / 1e6, bool(error))
        for service_, operation, negative_ns, trace, _, start_ns, error in found
    )
