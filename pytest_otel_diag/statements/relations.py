"""Relations over which statements are written, and which are put in front of a statement that reads them.

Beside ``spans``: ``placed`` has the spans of each trace as arrays, ``walked`` their critical paths,
``lines`` the log lines with their templates. The files of these relations say what their columns are.
"""

from __future__ import annotations

from collections.abc import Sequence

from pytest_otel_diag.errors import SchemaError
from pytest_otel_diag.model.telemetry import SPANS_TABLE, TelemetrySchema
from pytest_otel_diag.statements import Statement, in_front, load, over_spans

SHARED = frozenset({"spans", "placed", "walked", "lines"})
"""The relations of this package."""

PATHS = ("walked", "placed", "spans")
"""What the statements ``service_paths`` and ``critical_operations`` of this package read."""


def over(relations: Sequence[str], statement: Statement, schema: TelemetrySchema) -> Statement:
    """Return the statement after these relations, each named before those that it reads itself.

    Raises SchemaError when a table that they need is missing.
    """
    for name in relations:
        if name == "spans":
            require(schema, SPANS_TABLE if schema.has(SPANS_TABLE) else "otel_traces")
            statement = over_spans(statement, schema)
            continue
        if name == "lines":
            require(schema, "otel_logs")
        statement = in_front(name, load(__package__, f"relation_{name}"), statement)
    return statement


def require(schema: TelemetrySchema, table: str) -> None:
    """Raise SchemaError unless the database has the table."""
    if not schema.has(table):
        raise missing(schema, table)


def missing(schema: TelemetrySchema, table: str) -> SchemaError:
    """Return the error for a table that a question needs."""
    there = ", ".join(sorted(schema.tables)) or "none of the exporter's tables"
    return SchemaError(
        f"database {schema.database!r} has no table {table!r}, it has {there}; "
        "point the DSN at the database that the collector's ClickHouse exporter writes to"
    )
