"""The tables: the collector's ClickHouse exporter layout and the slim companion of ``otel_traces``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from string import Template

from pytest_otel_diag import statements
from pytest_otel_diag.errors import ConfigurationError
from pytest_otel_diag.telemetry.engine.connection import quote

_STATEMENTS = (
    "ddl_traces",
    "ddl_traces_slim",
    "ddl_traces_slim_mv",
    "ddl_logs",
    "ddl_metrics_gauge",
    "ddl_metrics_sum",
    "ddl_metrics_histogram",
    "ddl_metrics_exponential_histogram",
    "ddl_metrics_summary",
)
_INSTANTS = {
    "traces": "toDateTime(Timestamp)",
    "traces_slim": "toDateTime(intDiv(start_ns, 1000000000))",
    "logs": "toDateTime(Timestamp)",
    "metrics": "toDateTime(TimeUnix)",
}
_RETRIES_KNOWN = 1_000
"""Inserts that a table remembers with ``Layout.knows_retries``."""

_MEMORY = "Memory SETTINGS compress = 1"
_INDEX = re.compile(r",\n\s+INDEX .*")


@dataclass(frozen=True, slots=True)
class Layout:
    """How tables are made.

    ``engine`` is the table engine with its arguments (``ReplicatedMergeTree`` on clusters),
    ``cluster`` adds ``ON CLUSTER``, ``ttl_hours`` drops rows that old (0 keeps everything, the
    embedded default: a recording may be years old). With ``in_memory`` the same columns live in the
    engine's memory in the order they were written: right for databases that live for minutes and are written
    in small steps, each of which would cost a MergeTree more than the queries save. Such tables have no
    order, no TTL and no PREWHERE. With ``knows_retries`` tables recognise an insert that is sent again, and
    drop its rows; see :meth:`Store.ingest_arrow`.
    """

    engine: str = "MergeTree"
    cluster: str | None = None
    ttl_hours: int = 0
    in_memory: bool = False
    knows_retries: bool = False

    def __post_init__(self) -> None:
        if self.in_memory and self.ttl_hours:
            raise ConfigurationError("tables in memory forget nothing by age: leave ttl_hours at 0")

    def ddl(self, database: str) -> Iterator[str]:
        """Yield the statements that make the tables of *database*."""
        values = {
            "database": quote(database),
            "engine": self.engine,
            "on_cluster": f" ON CLUSTER {quote(self.cluster)}" if self.cluster else "",
        }
        for signal, instant in _INSTANTS.items():
            ttl = f"TTL {instant} + toIntervalHour({self.ttl_hours})" if self.ttl_hours else ""
            values[f"ttl_{signal}"] = ttl
        for name in _STATEMENTS:
            statement = Template(statements.load(__package__, name).sql).substitute(values).strip()
            yield self._as_asked(statement)

    def _as_asked(self, statement: str) -> str:
        if self.in_memory:
            return _unordered(statement)
        return _remembering(statement) if self.knows_retries else statement

    def create_database(self, database: str) -> str:
        """Return the statement that makes the database (chDB's default engine has no views)."""
        cluster = f" ON CLUSTER {quote(self.cluster)}" if self.cluster else ""
        return f"CREATE DATABASE IF NOT EXISTS {quote(database)}{cluster} ENGINE = Atomic"


def _unordered(statement: str) -> str:
    """Return the statement that makes the same columns in memory; a view stays as it is."""
    columns, engine, _ = statement.partition("\nENGINE = ")
    return f"{_INDEX.sub('', columns)}{engine}{_MEMORY}" if engine else statement


def _remembering(statement: str) -> str:
    """Return the statement that makes a table which recognises inserts; a view stays as it is."""
    if "\nENGINE = " not in statement:
        return statement
    return f"{statement}\nSETTINGS non_replicated_deduplication_window = {_RETRIES_KNOWN}"
