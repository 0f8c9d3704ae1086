"""What is really there: tables and columns from ``system.columns``, and the drift between releases.

Exporter releases differ in the type of ``TimeUnix`` (DateTime or DateTime64(9)), in columns of
``otel_logs`` (``TimestampTime``, ``EventName``), in the spelling of span kinds and status codes, and
in the name of the exponential-histogram table. Statements read what :func:`discover` found.
"""

from __future__ import annotations

from collections.abc import Mapping

from pytest_otel_diag.model.telemetry import SIGNAL_TABLES, TelemetrySchema
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


def signal_of(table: str) -> str | None:
    """Return ``traces``, ``logs`` or ``metrics`` for an exporter table, None for others."""
    name = ALIASES.get(table, table)
    return next((signal for signal, names in SIGNAL_TABLES.items() if name in names), None)
