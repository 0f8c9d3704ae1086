"""Statements are written over relations; this puts the relations a statement reads in front of it."""

from __future__ import annotations

from collections.abc import Mapping

from pytest_otel_diag import statements
from pytest_otel_diag.errors import SchemaError
from pytest_otel_diag.model.telemetry import SPANS_TABLE, TelemetrySchema
from pytest_otel_diag.statements import Statement

_READS: Mapping[str, tuple[str, ...]] = {
    "service_health": ("spans",),
    "span_count": ("spans",),
    "call_edges": ("calls", "spans"),
    "compare_operations": ("spans",),
    "compare_edges": ("calls", "spans"),
    "self_time": ("selves", "placed", "spans"),
    "compare_self_time": ("selves", "placed", "spans"),
    "critical_operations": ("walked", "placed", "spans"),
    "critical_segments": ("walked", "placed", "spans"),
    "service_paths": ("walked", "placed", "spans"),
    "exemplars": ("spans",),
    "log_templates": ("lines",),
    "compare_templates": ("lines",),
    "operation_health": ("spans",),
    "log_counts": ("lines",),
    "log_kinds": ("lines",),
    "metric_levels_gauge": ("points",),
    "metric_levels_sum": ("rates", "grown", "cumulative:sums", "points"),
    "metric_levels_histogram": ("rates", "grown", "cumulative:histograms", "points"),
    "metric_restarts": ("points",),
}
"""Relations of each statement, each before those it reads itself; ``name:file`` where they differ."""


def named(name: str, schema: TelemetrySchema) -> Statement:
    """Return the named statement with its relations; raises SchemaError when their table is missing."""
    statement = statements.load(__package__, name)
    for relation in _READS.get(name, ()):
        if relation == "spans":
            _require(schema, SPANS_TABLE if schema.has(SPANS_TABLE) else "otel_traces")
            statement = statements.over_spans(statement, schema)
        else:
            if relation == "lines":
                _require(schema, "otel_logs")
            statement = _in_front(relation, statement)
    return statement


def missing(schema: TelemetrySchema, table: str) -> SchemaError:
    """Return the error for a table that a question needs."""
    there = ", ".join(sorted(schema.tables)) or "none of the exporter's tables"
    return SchemaError(
        f"database {schema.database!r} has no table {table!r}, it has {there}; "
        "point the DSN at the database that the collector's ClickHouse exporter writes to"
    )


def _require(schema: TelemetrySchema, table: str) -> None:
    if not schema.has(table):
        raise missing(schema, table)


def _in_front(relation: str, statement: Statement) -> Statement:
    name, _, file = relation.partition(":")
    defined = f"WITH {name} AS (\n{statements.load(__package__, f'relation_{file or name}').sql}\n)"
    body = statement.sql
    joined = f",\n{body[4:].lstrip()}" if body[:4].upper() == "WITH" else f"\n{body}"
    return Statement(statement.name, defined + joined)
