"""The tool ``critical_paths``: where the time of requests goes, before and after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field

from pytest_otel_diag import statements
from pytest_otel_diag.model.base import Model
from pytest_otel_diag.model.telemetry import Table
from pytest_otel_diag.model.windows import Window
from pytest_otel_diag.statements.relations import PATHS, over
from pytest_otel_diag.tools.contract import Tool, ToolContext, ToolError
from pytest_otel_diag.tools.functions.asking import over_relations, run, unknown_service
from pytest_otel_diag.tools.rows import Rows, figure, listed, ratio
from pytest_otel_diag.tools.windows import AGAINST_TEXT, WINDOW_TEXT, Shown, WindowArgument, compared

SPANS_MAX = 1_000_000
"""Spans that are held at once; of more, a random share of whole traces is read."""

_PATHS = (
    "services",
    "requests",
    "requests_before",
    "error_ratio",
    "error_ratio_before",
    "mean_ms",
    "mean_ms_before",
    "p99_ms",
    "p99_ms_before",
    "time_share",
    "time_share_before",
)
_OWN = (
    "service",
    "operation",
    "own_ms",
    "own_ms_before",
    "on_path",
    "on_path_before",
    "time_share",
    "time_share_before",
)


class PathsArguments(Model):
    """Arguments of ``critical_paths``."""

    window: WindowArgument = Field(default="incident", description=WINDOW_TEXT)
    against: WindowArgument | None = Field(default=None, description=AGAINST_TEXT)
    service: str = Field(default="", description="Only paths through this service; default: all.")


class Paths(Model):
    """The critical paths of two windows; the largest share of time comes first.

    ``sampled_ratio`` is the share of traces that was read.
    """

    window: Shown
    against: Shown
    paths: Rows = Field(
        description="Chains of services, from the entry down, that decide how long requests take; "
        "latencies and errors are those of the requests."
    )
    own_time: Rows = Field(
        description="Per operation its own time on these paths (mean per span), without that of its callees."
    )
    sampled_ratio: float = 1.0


def _merged(table: Table, keys: int, late: int) -> dict[tuple[Any, ...], tuple[list[Any], list[Any]]]:
    """Return the sums of each key in both parts; the first column is the window."""
    found: dict[tuple[Any, ...], tuple[list[Any], list[Any]]] = {}
    width = len(table.names) - 1 - keys
    for win, *row in table.rows():
        key = tuple(tuple(part) if isinstance(part, list) else part for part in row[:keys])
        sides = found.setdefault(key, ([0.0] * width, [0.0] * width))
        side = sides[0] if win <= late else sides[1]
        side[:] = [a + b for a, b in zip(side, row[keys:], strict=True)]
    return found


def _weighted(table: Table) -> Table:
    """Return the table of paths with p99 times requests in place of p99, so that windows can be added up."""
    columns = dict(zip(table.names, table.columns, strict=True))
    for name in ("mean_ms", "p99_ms"):
        columns[name] = [a * b for a, b in zip(columns[name], columns["requests"], strict=True)]
    return Table(table.names, tuple(columns.values()))


def _paths(table: Table, late: int) -> list[tuple[Any, ...]]:
    found = _merged(_weighted(table), 1, late)
    totals = [sum(sides[part][4] for sides in found.values()) for part in (0, 1)]
    ordered = sorted(found.items(), key=lambda item: (-item[1][0][4], -item[1][1][4], item[0]))
    rows = []
    for (services,), sides in ordered:
        (n, errors, mean, p99, total), (n0, errors0, mean0, p990, total0) = sides
        pairs = (
            (int(n), int(n0)),
            (ratio(errors, n), ratio(errors0, n0)),
            (ratio(mean, n), ratio(mean0, n0)),
            (ratio(p99, n), ratio(p990, n0)),
            (ratio(total, totals[0]), ratio(total0, totals[1])),
        )
        rows.append((list(services), *(figure_ for pair in pairs for figure_ in pair)))
    return rows


def _own(table: Table, late: int) -> list[tuple[Any, ...]]:
    found = _merged(table, 2, late)
    totals = [sum(sides[part][1] for sides in found.values()) for part in (0, 1)]
    ordered = sorted(found.items(), key=lambda item: (-item[1][0][1], -item[1][1][1], item[0]))
    return [
        (
            service,
            operation,
            ratio(own, on_path),
            ratio(own0, on_path0),
            int(on_path),
            int(on_path0),
            ratio(own, totals[0]),
            ratio(own0, totals[1]),
        )
        for (service, operation), ((on_path, own), (on_path0, own0)) in ordered
    ]


async def _shared(
    context: ToolContext, name: str, windows: Sequence[Window], keys: Mapping[str, int]
) -> Table:
    schema = await context.investigation.telemetry.schema()
    statement = over(PATHS, statements.load(statements.__name__, name), schema)
    return await run(context, statement, windows, keys)


async def critical_paths(context: ToolContext, arguments: PathsArguments) -> Paths:
    """Return paths and own times of both windows."""
    window, against, after, before = compared(context.investigation, arguments.window, arguments.against)
    windows, late = [*after, *before], len(after)
    counted = await over_relations(context, "span_count", ["spans"], windows)
    spans = int(counted.column("number")[0])
    sampled = min(1.0, SPANS_MAX / spans) if spans else 1.0
    keys = {"key_from": 0, "key_to": int(statements.KEY_MAX * sampled)} if sampled < 1 else {}
    if not spans:
        raise ToolError("no span starts in these windows, so there are no paths; see list_services")
    paths = _paths(await _shared(context, "service_paths", windows, keys), late)
    own = _own(await _shared(context, "critical_operations", windows, keys), late)
    if arguments.service:
        paths = [row for row in paths if arguments.service in row[0]]
        if not paths:
            raise await unknown_service(context, arguments.service, windows)
        there = {service for row in paths for service in row[0]}
        own = [row for row in own if row[0] in there]
    return Paths(
        window=window,
        against=against,
        paths=listed(_PATHS, paths, context.caps, share=0.43),
        own_time=listed(_OWN, own, context.caps, share=0.43),
        sampled_ratio=figure(sampled) or 1.0,
    )


CRITICAL_PATHS = Tool(
    name="critical_paths",
    description=(
        "Show where the time of requests goes, in a window and in an earlier one: the chains of services "
        "that decide the duration, and per operation the own time on them (own_ms: mean per span, without "
        "callees). "
        'Example: {"window": "incident", "service": "service-a"}'
    ),
    arguments=PathsArguments,
    result=Paths,
    run=critical_paths,
    signals=("traces",),
)
