"""What is really there: tables and columns from ``system.columns``, and the drift between releases.

Exporter releases differ in the type of ``TimeUnix`` (DateTime or DateTime64(9)), in columns of
``otel_logs`` (``TimestampTime``, ``EventName``), in the type of attributes (Map, or JSON; other writers
keep JSON as text), in the spelling of span kinds and status codes, and in the name of the
exponential-histogram table. Statements read what :func:`discover` found; :func:`evened_columns` are
the expressions with which views even the columns out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from pytest_otel_diag.errors import SchemaError
from pytest_otel_diag.model.telemetry import SIGNAL_TABLES, TelemetrySchema
from pytest_otel_diag.statements.spellings import KIND, STATUS
from pytest_otel_diag.telemetry.engine.connection import Connection

EXPONENTIAL = "otel_metrics_exponential_histogram"
ALIASES: Mapping[str, str] = {"otel_metrics_exp_histogram": EXPONENTIAL}
"""Names of tables in other releases → the name used here."""

_COLUMNS = """
SELECT table, name, type, default_kind
FROM system.columns
WHERE database = {database:String}
ORDER BY table, position
"""


def discover(connection: Connection, database: str) -> TelemetrySchema:
    """Return all tables of *database* whose name starts with ``otel_``."""
    tables: dict[str, dict[str, str]] = {}
    for table, name, kind, _ in connection.rows(_COLUMNS, {"database": database}):
        if table.startswith("otel_") and not table.endswith("_mv"):
            tables.setdefault(table, {})[name] = kind
    return TelemetrySchema(database=database, tables=tables)


def insertable(connection: Connection, database: str) -> dict[str, dict[str, str]]:
    """Return the columns of all tables of *database* that an INSERT may name, with their types."""
    found: dict[str, dict[str, str]] = {}
    for table, name, kind, default in connection.rows(_COLUMNS, {"database": database}):
        if default not in {"ALIAS", "MATERIALIZED"}:
            found.setdefault(table, {})[name] = kind
    return found


NEEDED: Mapping[str, tuple[str, ...]] = {
    "otel_traces": (
        *("Timestamp", "TraceId", "SpanId", "ParentSpanId", "ServiceName", "SpanName", "SpanKind"),
        *("Duration", "StatusCode", "ResourceAttributes"),
    ),
    "otel_logs": ("Timestamp", "ServiceName", "SeverityText", "SeverityNumber", "Body"),
    "otel_metrics_gauge": ("TimeUnix", "ServiceName", "MetricName", "Attributes", "Value"),
    "otel_metrics_sum": ("TimeUnix", "ServiceName", "MetricName", "Attributes", "Value", "IsMonotonic"),
}
"""Columns that statements of this package read."""

_ATTRIBUTES = ("ResourceAttributes", "ScopeAttributes", "SpanAttributes", "LogAttributes", "Attributes")
NESTED_ATTRIBUTES = ("Events.Attributes", "Links.Attributes", "Exemplars.FilteredAttributes")
_MAP = "Map(LowCardinality(String), String)"
_READABLE = re.compile(r"^(?:LowCardinality\(|Nullable\(|Array\()*(Map\(|JSON\b|String\b)")

# JSON holds the paths of objects in objects, which are the keys that OpenTelemetry writes with points.
_TO_MAP: Mapping[str, str] = {
    "JSON": f"CAST(mapFromArrays(JSONAllPaths({{0}}), JSONAllValues({{0}})), '{_MAP}')",
    "String": f"CAST(JSONExtractKeysAndValues(ifNull({{0}}, ''), 'String'), '{_MAP}')",
}
_JSON_REMEDY = (
    "this package reads attributes as Map(LowCardinality(String), String), and as JSON where it may make "
    "views and the server has JSONAllValues; set `json: false` in the Collector's clickhouse exporter, or "
    "point the DSN at a database of views that select mapFromArrays(JSONAllPaths(…), JSONAllValues(…))"
)


@dataclass(frozen=True, slots=True)
class EvenedColumns:
    """Expressions of a table's columns in views, by column; ``json`` are attributes that are no maps."""

    expressions: Mapping[str, str]
    json: tuple[str, ...]


def evened_columns(schema: TelemetrySchema, table: str) -> EvenedColumns:
    """Return how a view evens out a table; raises SchemaError for attributes of an unreadable type."""
    columns = schema.tables[table]
    found: dict[str, str] = {}
    for name in (*_ATTRIBUTES, *NESTED_ATTRIBUTES):
        kind = _kind_of_attributes(table, name, columns.get(name, "Map("))
        if kind in _TO_MAP:
            found[name] = _as_map(name, _TO_MAP[kind])
    json = tuple(found)
    if signal_of(table) == "traces":
        spelled = {"StatusCode": STATUS, "SpanKind": KIND}
        found |= {
            name: f"CAST({expression}, 'LowCardinality(String)')"
            for name, expression in spelled.items()
            if name in columns
        }
    if signal_of(table) == "metrics":
        for name in ("StartTimeUnix", "TimeUnix"):
            kind = columns.get(name, "")
            if kind.startswith("DateTime") and not kind.startswith("DateTime64"):
                found[name] = f"toDateTime64({name}, 9)"
    return EvenedColumns(found, json)


def _kind_of_attributes(table: str, column: str, kind: str) -> str:
    match = _READABLE.match(kind)
    if match is None:
        raise SchemaError(f"{table}: column {column} is {kind}; {_JSON_REMEDY}")
    return match.group(1).removesuffix("(")


def _as_map(column: str, expression: str) -> str:
    if column in NESTED_ATTRIBUTES:
        return f"arrayMap(one -> {expression.format('one')}, `{column}`)"
    return expression.format(column)


def json_columns(schema: TelemetrySchema) -> tuple[str, ...]:
    """Return ``table.column`` of all attributes that are no maps; raises SchemaError as above."""
    return tuple(
        f"{table}.{column}"
        for table in schema.tables
        if signal_of(table) is not None
        for column in evened_columns(schema, table).json
    )


def unreadable_json(columns: tuple[str, ...], reason: str) -> SchemaError:
    """Return the error for attributes in JSON that views cannot even out."""
    return SchemaError(f"attributes are no maps in {', '.join(columns)} ({reason}); {_JSON_REMEDY}")


def signal_of(table: str) -> str | None:
    """Return ``traces``, ``logs`` or ``metrics`` for an exporter table, None for others."""
    name = ALIASES.get(table, table)
    return next((signal for signal, names in SIGNAL_TABLES.items() if name in names), None)
