"""The tool ``describe_tables``: tables, columns, what they mean, and a few values."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence

from pydantic import Field

from pytest_otel_diag.errors import nearest
from pytest_otel_diag.model.base import Model
from pytest_otel_diag.model.telemetry import SPANS_TABLE, TelemetrySchema
from pytest_otel_diag.model.windows import Window
from pytest_otel_diag.statements import Statement
from pytest_otel_diag.tools.cells import json_value
from pytest_otel_diag.tools.contract import Tool, ToolContext, ToolError
from pytest_otel_diag.tools.functions.asking import own, run, tables_of
from pytest_otel_diag.tools.functions.columns import MEANINGS
from pytest_otel_diag.tools.rows import Rows, listed

SAMPLED_ROWS = 2_000
"""Rows of the incident from which sample values are taken."""

_VALUES, _KEYS = 5, 40
_TEXT_CHARACTERS = 120
_PLAIN_NAME = re.compile(r"[A-Za-z_][\w.]*")
_TABLES = ("table", "signal", "rows_in_incident", "rows_in_baseline")
_COLUMNS = ("table", "column", "type", "meaning")
_SAMPLED = (*_COLUMNS, "samples")


class DescribeArguments(Model):
    """Arguments of ``describe_tables``."""

    tables: tuple[str, ...] = Field(
        default=(), description="Only these tables, then with sample values; default: all, without samples."
    )


class Description(Model):
    """The tables of telemetry."""

    tables: Rows = Field(description="rows_in_…: rows in that window; null where there is no such window.")
    columns: Rows = Field(
        description="samples: values of the incident, of maps their keys, of numbers smallest and largest."
    )


def described(schema: TelemetrySchema) -> dict[str, tuple[str, str]]:
    """Return the tables that hold telemetry: table → signal and column of time."""
    slim = {SPANS_TABLE: ("traces", "start_ns")} if schema.has(SPANS_TABLE, "start_ns") else {}
    return {**tables_of(schema), **slim}


async def describe_tables(context: ToolContext, arguments: DescribeArguments) -> Description:
    """Return tables and columns; raises ToolError for unknown tables."""
    schema = await context.investigation.telemetry.schema()
    known = described(schema)
    for name in arguments.tables:
        if name not in known:
            raise ToolError(
                f"there is no table {name!r}{nearest(name, known)}; known: {', '.join(known) or 'none'}"
            )
    if not known:
        raise ToolError("there are no tables of telemetry")
    wanted = {
        name: place for name, place in known.items() if not arguments.tables or name in arguments.tables
    }
    counts = await _counts(context, wanted)
    filled = {name for name, (incident, _) in counts.items() if incident}
    samples = {name: await _samples(context, name, schema) for name in arguments.tables if name in filled}
    rows = [
        (table, column, kind, MEANINGS.get(table, {}).get(column, ""))
        for table in wanted
        for column, kind in schema.tables[table].items()
        if arguments.tables or column in MEANINGS.get(table, {})
    ]
    shown = [(*row, samples.get(row[0], {}).get(row[1])) for row in rows] if arguments.tables else rows
    return Description(
        tables=listed(
            _TABLES, [(name, wanted[name][0], *counts[name]) for name in wanted], context.caps, share=0.2
        ),
        columns=listed(_SAMPLED if arguments.tables else _COLUMNS, shown, context.caps, share=0.75),
    )


async def _counts(
    context: ToolContext, tables: Mapping[str, tuple[str, str]]
) -> dict[str, tuple[int, int | None]]:
    """Return the rows of each table in incident and baseline."""
    incident, baseline = context.investigation.incident, context.investigation.baseline
    windows = [incident, *([baseline] if baseline else [])]
    parts = [
        own("table_rows")
        .sql.replace("TABLE_NAME", table)
        .replace("TIME_NS", _instant(time))
        .replace("WITHIN", _within(time))
        for table, (_, time) in tables.items()
    ]
    found = await run(context, Statement("table_rows", "\nUNION ALL\n".join(parts)), windows)
    return {str(table): (int(late), int(early) if baseline else None) for table, late, early in found.rows()}


def _instant(column: str) -> str:
    return column if column == "start_ns" else f"toUnixTimestamp64Nano(toDateTime64({column}, 9))"


def _within(column: str) -> str:
    """Return the condition that a row lies between the first start and the last end of the windows."""
    start, end = "arrayMin({window_starts:Array(Int64)})", "arrayMax({window_ends:Array(Int64)})"
    if column != "start_ns":
        start, end = f"fromUnixTimestamp64Nano({start})", f"fromUnixTimestamp64Nano({end})"
    return f"{column} >= {start} AND {column} < {end}"


async def _samples(context: ToolContext, table: str, schema: TelemetrySchema) -> dict[str, object]:
    """Return sample values of the columns that have some worth showing."""
    time = described(schema)[table][1]
    asked = dict(_expressions(schema.tables[table], time))
    if not asked:
        return {}
    selected = ", ".join(f"{expression} AS `{name}`" for name, expression in asked.items())
    inner = ", ".join(f"`{name}`" for name in asked)
    sql = (
        f"SELECT {selected} FROM "  # noqa: S608 - names of columns, checked
        f"(SELECT {inner} FROM {table} WHERE {_within(time)} LIMIT {{rows:UInt64}})"
    )
    windows: Sequence[Window] = [context.investigation.incident]
    found = await run(context, Statement("samples", sql), windows, {"rows": SAMPLED_ROWS})
    cells = next(found.rows(), ())
    return {
        name: value
        for name, cell in zip(found.names, cells, strict=False)
        if (value := json_value(cell, 10 * _TEXT_CHARACTERS)) not in (None, [], "", [""])
    }


def _expressions(columns: Mapping[str, str], time: str) -> Iterator[tuple[str, str]]:
    """Yield what to select of each column; ids, times and unusual names have no samples."""
    for name, kind in columns.items():
        if not _PLAIN_NAME.fullmatch(name) or name == time or name in {"TraceId", "SpanId", "ParentSpanId"}:
            continue
        if kind.startswith("Map("):
            yield name, f"arraySlice(arraySort(groupUniqArrayArray(mapKeys(`{name}`))), 1, {_KEYS})"
        elif "String" in kind and not kind.startswith(("Array(", "Tuple(", "Nested(")):
            text = f"substringUTF8(toString(`{name}`), 1, {_TEXT_CHARACTERS})"
            yield name, f"arraySlice(arraySort(groupUniqArray(50)({text})), 1, {_VALUES})"
        elif kind in {"Float64", "UInt64", "Int64", "Int32", "UInt32", "UInt8"}:
            yield name, f"[toString(min(`{name}`)), toString(max(`{name}`))]"


DESCRIBE_TABLES = Tool(
    name="describe_tables",
    description=(
        "List the tables that query can read: rows in incident and baseline, columns with ClickHouse type "
        f"and meaning. With tables, also sample values. Example: {json.dumps({'tables': ['otel_logs']})}"
    ),
    arguments=DescribeArguments,
    result=Description,
    run=describe_tables,
)
