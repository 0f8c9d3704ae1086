"""What telemetry answers: tables of results, limits, and rows of typed questions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from pytest_otel_diag.model.base import Model, Nanos

SIGNAL_TABLES: Mapping[str, tuple[str, ...]] = {
    "traces": ("otel_traces",),
    "logs": ("otel_logs",),
    "metrics": (
        "otel_metrics_gauge",
        "otel_metrics_sum",
        "otel_metrics_histogram",
        "otel_metrics_exponential_histogram",
        "otel_metrics_summary",
    ),
}
"""Tables of the OpenTelemetry Collector's ClickHouse exporter, by signal."""

SPANS_TABLE = "otel_traces_slim"
"""Trace-ordered companion of ``otel_traces`` with integer ids; optional."""


@dataclass(frozen=True, slots=True)
class Table:
    """Result of a query, column by column.

    ``names`` has one entry a column, ``columns`` one sequence a column, all of equal length.
    """

    names: tuple[str, ...]
    columns: tuple[Sequence[Any], ...]
    elapsed_s: float = 0.0

    def __len__(self) -> int:
        return len(self.columns[0]) if self.columns else 0

    def column(self, name: str) -> Sequence[Any]:
        """Return one column; raises KeyError naming the existing columns."""
        try:
            return self.columns[self.names.index(name)]
        except ValueError:
            raise KeyError(f"no column {name!r}; known: {', '.join(self.names)}") from None

    def rows(self) -> Iterator[tuple[Any, ...]]:
        """Iterate over rows as tuples in column order."""
        return zip(*self.columns, strict=True)

    def dicts(self) -> Iterator[dict[str, Any]]:
        """Iterate over rows as dictionaries."""
        return (dict(zip(self.names, row, strict=True)) for row in self.rows())


class QueryLimits(Model):
    """Limits of one query; the engine stops it at the first limit that it reaches."""

    time_s: float = 30.0
    result_rows: int = 100_000
    read_rows: int = 1_000_000_000
    memory_bytes: int = 2_000_000_000


@dataclass(frozen=True, slots=True)
class TelemetrySchema:
    """Tables and columns of the database, discovered from ``system.columns``.

    ``tables`` maps table name to {column: ClickHouse type}.
    """

    database: str
    tables: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def has(self, table: str, *columns: str) -> bool:
        """Whether the table exists and has all these columns."""
        present = self.tables.get(table)
        return present is not None and all(column in present for column in columns)

    def signals(self) -> tuple[str, ...]:
        """Return the signals that have at least one table."""
        return tuple(s for s, names in SIGNAL_TABLES.items() if any(n in self.tables for n in names))


class ServiceHealth(Model):
    """One service in one bucket of time, over its server, consumer and root spans."""

    service: str
    bucket_start_ns: Nanos
    requests: int
    errors: int
    p50_ms: float
    p95_ms: float
    p99_ms: float


class CallEdge(Model):
    """Calls from one service to another, counted over client → server (or producer → consumer) pairs."""

    caller: str
    callee: str
    calls: int
    errors: int
    p50_ms: float
    p99_ms: float


class OperationHealth(Model):
    """One operation (span name, of whatever kind) of one service in one bucket of time."""

    service: str
    operation: str
    bucket_start_ns: Nanos
    calls: int
    errors: int
    p95_ms: float
    max_ms: float


MetricKind = Literal["level", "rate", "count_rate", "sum_rate", "restarts"]


class MetricLevel(Model):
    """One metric of one service in one bucket of time, as one number.

    ``level`` is the value of a gauge or an up-and-down counter, ``rate`` what a counter grew by a
    second; a histogram has two: observations a second and what they add up to a second. ``restarts``
    counts the series that began anew since their last point.
    """

    service: str
    metric: str
    kind: MetricKind
    bucket_start_ns: Nanos
    value: float


class LogCount(Model):
    """Log lines of one service in one bucket of time; ``severe`` ones are warnings and worse."""

    service: str
    bucket_start_ns: Nanos
    lines: int
    severe: int


class LogKind(Model):
    """Lines of one template of one service in a window, and the number of its buckets that hold one."""

    service: str
    template: str
    severe: bool
    lines: int
    buckets: int


class FlagMention(Model):
    """How many rows name a flag, and where.

    ``kind`` is ``flag_service`` (spans of flagd and of calls to it), ``flag_events`` (span events),
    ``flag_attributes``, ``flag_metrics`` or ``flag_texts`` (names, messages and log lines). A row counts
    once.
    """

    kind: str
    rows: int
