"""What one session may see: a private database of views over the exporter's tables.

A span is visible when it starts in a visible window and has ended by *now*; a log line or metric
point when its time lies in a visible window and not after *now*. The windows are literals of the
views; *now* lies in a one-column table that the views read as a scalar, so moving it costs one small
insert and no DDL. The views also even out exporter releases: metric times are ``DateTime64(9)``,
attributes are maps, span kinds and status codes have one spelling, the exponential histogram has one
name, ``otel_logs`` always has ``EventName``. They show nothing that is :class:`.Hidden` from the session.

Over MergeTree tables the condition is a PREWHERE. As a WHERE, the engine would merge it with the conditions
of the statement and evaluate those on the smallest columns first: on hidden rows too, whose values would then
show in the engine's errors.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from pytest_otel_diag.model.base import Nanos
from pytest_otel_diag.model.telemetry import SPANS_TABLE, TelemetrySchema
from pytest_otel_diag.model.windows import Window
from pytest_otel_diag.telemetry.engine.connection import Connection, quote
from pytest_otel_diag.telemetry.leaks import NOTHING_HIDDEN, Hidden
from pytest_otel_diag.telemetry.schema import ALIASES, evened_columns, signal_of

NOW_TABLE = "_now"
_ENGINES = "SELECT name, engine FROM system.tables WHERE database = {database:String}"


@dataclass(frozen=True, slots=True)
class SessionViews:
    """A private database: its name, the base it looks at, and the windows that may be seen (None: all)."""

    name: str
    base: TelemetrySchema
    windows: tuple[Window, ...] | None
    bounded: bool
    settled: tuple[Window, ...] = ()
    hidden: Hidden = NOTHING_HIDDEN

    def create(self, connection: Connection) -> None:
        """Make database, clock table and views; nothing is left behind when this fails."""
        connection.command(f"CREATE DATABASE {quote(self.name)} ENGINE = Atomic")
        try:
            connection.command(
                f"CREATE TABLE {self._table(NOW_TABLE)} (step UInt64, now Int64) ENGINE = Memory"
            )
            engines = dict(connection.rows(_ENGINES, {"database": self.base.database}))
            for table in self.base.tables:
                for sql in self._view(
                    table, "PREWHERE" if "MergeTree" in engines.get(table, "") else "WHERE"
                ):
                    connection.command(sql)
        except BaseException:
            self.drop(connection)
            raise

    def move(self, connection: Connection, step: int, now: Nanos) -> None:
        """Let the views end at *now*; *step* counts moves, the highest one counts."""
        connection.command(f"INSERT INTO {self._table(NOW_TABLE)} SELECT {int(step)}, {int(now)}")

    def drop(self, connection: Connection) -> None:
        """Remove everything."""
        connection.command(f"DROP DATABASE IF EXISTS {quote(self.name)} SYNC")

    def _table(self, name: str) -> str:
        return f"{quote(self.name)}.{quote(name)}"

    def _view(self, table: str, clause: str) -> Iterator[str]:
        columns = self.base.tables[table]
        if table == SPANS_TABLE:
            start, end = "start_ns", "start_ns + duration_ns"
        elif signal_of(table) == "traces":
            start, end = "Timestamp", "toUnixTimestamp64Nano(toDateTime64(Timestamp, 9)) + toInt64(Duration)"
        elif signal_of(table) == "logs":
            start, end = "Timestamp", ""
        elif signal_of(table) == "metrics":
            start, end = "TimeUnix", ""
        else:
            return
        seen = self._finished(start, end), _inside(start, self.windows)
        where = " AND ".join(condition for condition in seen if condition) or "1"
        if self.settled:
            where = f"({where}) OR {_inside(start, self.settled)}"
        if kept := self.hidden.conditions(columns):
            where = f"({where}) AND {' AND '.join(kept)}"
        # views take no parameters: names are quoted, instants are integers
        yield (
            f"CREATE VIEW {self._table(ALIASES.get(table, table))} AS SELECT {self._select(table)} "  # noqa: S608
            f"FROM {quote(self.base.database)}.{quote(table)} AS t {clause} {where}"
        )

    def _select(self, table: str) -> str:
        columns = self.base.tables[table]
        evened = evened_columns(self.base, table)
        replaced = {**evened.expressions, **self.hidden.replacements(table, columns, evened)}
        every = ", ".join(f"{expression} AS {quote(name)}" for name, expression in replaced.items())
        extra = self._missing_log_columns(columns) if signal_of(table) == "logs" else []
        return ", ".join([f"* REPLACE ({every})" if every else "*", *extra])

    def _finished(self, start: str, end: str) -> str:
        if not self.bounded:
            return ""
        now = f"(SELECT argMax(now, step) FROM {self._table(NOW_TABLE)})"  # noqa: S608
        if start == "start_ns":
            return f"start_ns <= {now} AND {end} <= {now}"
        starts = f"{start} <= fromUnixTimestamp64Nano({now})"
        return f"{starts} AND {end} <= {now}" if end else starts

    def _missing_log_columns(self, columns: Mapping[str, str]) -> list[str]:
        missing = {"EventName": "''", "TimestampTime": "toDateTime(Timestamp)"}
        return [f"{value} AS {name}" for name, value in missing.items() if name not in columns]


def _inside(column: str, windows: Sequence[Window] | None) -> str:
    if windows is None:
        return ""
    ranges = [
        f"({column} >= {_at(column, w.start_ns)} AND {column} < {_at(column, w.end_ns)})" for w in windows
    ]
    return f"({' OR '.join(ranges)})" if ranges else "0"


def _at(column: str, instant_ns: Nanos) -> str:
    return str(instant_ns) if column == "start_ns" else f"fromUnixTimestamp64Nano({instant_ns})"


def merged(windows: Sequence[Window]) -> tuple[Window, ...]:
    """Return the same instants in the fewest windows, in order of time."""
    result: list[Window] = []
    for window in sorted((w for w in windows if not w.empty), key=lambda w: w.start_ns):
        if result and window.start_ns <= result[-1].end_ns:
            end_ns = max(result[-1].end_ns, window.end_ns)
            result[-1] = Window(start_ns=result[-1].start_ns, end_ns=end_ns)
        else:
            result.append(window)
    return tuple(result)
