"""Telemetry out of the store again: rows of a table in order of time, as Arrow, in bounded memory.

The engine is asked for slices of time that hold about as many rows each. So the same code serves the
embedded engine and a server, sorting never sees more than one slice, and a reader may stop between two.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from pytest_otel_diag.model.base import Nanos
from pytest_otel_diag.model.telemetry import TelemetrySchema
from pytest_otel_diag.model.windows import NANOS_PER_SECOND, Window
from pytest_otel_diag.telemetry.engine.connection import Connection, quote
from pytest_otel_diag.telemetry.engine.failures import translated
from pytest_otel_diag.telemetry.schema import ALIASES, discover, signal_of
from pytest_otel_diag.telemetry.views import merged

if TYPE_CHECKING:
    import pyarrow

SLICE_ROWS = 100_000
"""Rows asked for at once; a single second that holds more is one slice all the same."""

_TIES = ("ServiceName", "TraceId", "SpanId", "MetricName", "SeverityNumber")
"""Columns that order rows of the same instant, where a table has them."""


class Exporter:
    """Reads tables of one database. Methods block; every one raises a TelemetryError subclass.

    *lend* lends a connection for a block. Rows are those that the session's telemetry shows when they are
    read, so a table may grow between two calls.
    """

    def __init__(
        self,
        database: str,
        lend: Callable[[], AbstractContextManager[Connection]],
        *,
        slice_rows: int = SLICE_ROWS,
    ) -> None:
        self._database = database
        self._lend = lend
        self._slice_rows = slice_rows
        self._schema: TelemetrySchema | None = None

    def tables(self) -> Mapping[str, Mapping[str, str]]:
        """Return the exporter's tables that are there: name of this package → {column: ClickHouse type}."""
        return {
            ALIASES.get(name, name): columns
            for name, columns in self._discovered().tables.items()
            if signal_of(name) is not None
        }

    def batches(
        self, table: str, columns: Sequence[str], windows: Sequence[Window]
    ) -> Iterator[pyarrow.RecordBatch]:
        """Yield the rows of *table* whose time lies in the windows, in order of time.

        Columns that the table does not have are left out. Times are ``timestamp[ns, UTC]`` whatever the
        exporter's release wrote. A table that is not there has no rows.
        """
        known = self.tables().get(table)
        if known is None:
            return
        time = "Timestamp" if "Timestamp" in known else "TimeUnix"
        chosen = [column for column in columns if column in known]
        ties = [column for column in _TIES if column in known]
        select = ", ".join(_read(column, known[column]) for column in chosen)
        order = ", ".join(quote(column) for column in (time, *ties))
        inner = ", ".join(quote(column) for column in dict.fromkeys((*chosen, time, *ties)))
        # names are quoted identifiers; instants are parameters
        sql = (
            f"SELECT {select} FROM (SELECT {inner} FROM {self._place(table)} WHERE {_within(time)} "  # noqa: S608
            f"ORDER BY {order})"
        )
        for window in merged(windows):
            for piece in self._slices(table, time, window):
                with self._lend() as connection, translated(what=f"reading {table}"):
                    rows = connection.arrow(sql, _bounds(piece))
                yield from rows.to_batches()

    def _slices(self, table: str, time: str, window: Window) -> Iterator[Window]:
        """Yield pieces of the window of about ``slice_rows`` rows, cut at whole seconds."""
        second = f"intDiv(toUnixTimestamp64Nano(toDateTime64({quote(time)}, 9)), {NANOS_PER_SECOND})"
        sql = (
            f"SELECT {second} AS second, count() AS rows FROM {self._place(table)} "  # noqa: S608
            f"WHERE {_within(time)} GROUP BY second ORDER BY second"
        )
        with self._lend() as connection, translated(what=f"counting the rows of {table}"):
            counted = [(int(row[0]), int(row[1])) for row in connection.rows(sql, _bounds(window))]
        if not counted:
            return
        start_ns: Nanos = window.start_ns
        rows = 0
        for second_number, more in counted:
            if rows and rows + more > self._slice_rows:
                end_ns = second_number * NANOS_PER_SECOND
                yield Window(start_ns=start_ns, end_ns=end_ns)
                start_ns, rows = end_ns, 0
            rows += more
        yield Window(start_ns=start_ns, end_ns=window.end_ns)

    def _discovered(self) -> TelemetrySchema:
        if self._schema is None:
            with self._lend() as connection, translated(what="looking up the tables"):
                self._schema = discover(connection, self._database)
        return self._schema

    def _place(self, table: str) -> str:
        there = self._discovered().tables
        name = next(name for name in there if ALIASES.get(name, name) == table)
        return f"{quote(self._database)}.{quote(name)}"


def _read(column: str, kind: str) -> str:
    """Return the expression that reads a column; old releases kept metric times in whole seconds."""
    name = quote(column)
    if kind.startswith("DateTime") and not kind.startswith("DateTime64"):
        return f"toDateTime64({name}, 9, 'UTC') AS {name}"
    return name


def _within(time: str) -> str:
    return (
        f"{quote(time)} >= fromUnixTimestamp64Nano({{start_ns:Int64}}) "
        f"AND {quote(time)} < fromUnixTimestamp64Nano({{end_ns:Int64}})"
    )


def _bounds(window: Window) -> dict[str, Nanos]:
    return {"start_ns": window.start_ns, "end_ns": window.end_ns}
