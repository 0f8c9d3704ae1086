"""Telemetry of one session: the port's methods over a pool of clients."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cache, partial
from time import perf_counter
from typing import Any, TypeVar

from pytest_otel_diag.errors import SchemaError, TelemetryUnavailable
from pytest_otel_diag.model.base import Nanos
from pytest_otel_diag.model.questions import Question
from pytest_otel_diag.model.telemetry import SPANS_TABLE, QueryLimits, Table, TelemetrySchema
from pytest_otel_diag.ports import Telemetry
from pytest_otel_diag.statements import Statement, load
from pytest_otel_diag.telemetry import guard
from pytest_otel_diag.telemetry.engine.abandoned import finish
from pytest_otel_diag.telemetry.engine.connection import Connection, Engine
from pytest_otel_diag.telemetry.engine.failures import too_many_rows, translated
from pytest_otel_diag.telemetry.engine.workers import Workers
from pytest_otel_diag.telemetry.export import Exporter
from pytest_otel_diag.telemetry.questions.answering import answer
from pytest_otel_diag.telemetry.schema import discover
from pytest_otel_diag.telemetry.views import SessionViews

T = TypeVar("T")

_CHECKED_MAX = 512
_WRITING: Mapping[str, Any] = {
    "max_execution_time": 0,
    "max_memory_usage": 0,
    "max_result_rows": 0,
    "limit": 0,
    "max_rows_to_read": 0,
}

_USUAL = QueryLimits()
_EXPORTING = QueryLimits(time_s=600.0, result_rows=0)


@dataclass(frozen=True, slots=True)
class StoreResources:
    """What all sessions of a store use; ``readonly`` is its user's setting."""

    engine: Engine
    workers: Workers
    readonly: int
    parses: guard.Parses


class StoreTelemetry(Telemetry):
    """Implements the Telemetry port. Made by :meth:`Store.telemetry`; ``close()`` drops what it made.

    Every method raises a TelemetryError subclass: SchemaError, QueryRejected, QueryFailed,
    QueryLimitExceeded or TelemetryUnavailable.
    """

    def __init__(
        self,
        resources: StoreResources,
        *,
        database: str,
        visibility: SessionViews | None,
        now: Callable[[], Nanos] | None,
        threads: int = 0,
    ) -> None:
        self._engine = resources.engine
        self._workers = resources.workers
        self._readonly = resources.readonly
        self._parses = resources.parses
        self._database = database
        self._visibility = visibility
        self._clock = now
        self._threads = threads
        self._lock = threading.Lock()
        self._now_shown: Nanos | None = None
        self._steps = 0
        self._schema: TelemetrySchema | None = None
        self._checked: dict[tuple[str, tuple[str, ...]], guard.Parsed] = {}
        self._tables: frozenset[str] | None = None
        self._closed = False

    @property
    def database(self) -> str:
        """Database that statements run in."""
        return self._visibility.name if self._visibility else self._database

    def now(self) -> Nanos | None:
        """Return the session's time, None where telemetry is not bound to a clock."""
        return self._clock() if self._clock else None

    async def query(
        self, sql: str, parameters: Mapping[str, Any] | None = None, limits: QueryLimits | None = None
    ) -> Table:
        """Run one SELECT of an analyzer; see :mod:`.guard` for what is allowed.

        DateTime64 values come back as integers in ticks of their scale, which for the exporter's
        columns are UTC nanoseconds.
        """
        guard.check_text(sql, parameters or {})
        values, bounds = dict(parameters or {}), limits or QueryLimits()
        now = self.now()
        return await self._workers.run(lambda: self._guarded(sql, values, bounds, now), time_s=bounds.time_s)

    async def run(
        self,
        statement: Statement,
        parameters: Mapping[str, Any] | None = None,
        limits: QueryLimits | None = None,
    ) -> Table:
        """Run a statement of this package: same limits, same visibility, no check of its text.

        An answer without rows may come without columns.
        """
        values, bounds = dict(parameters or {}), limits or QueryLimits()
        now = self.now()
        return await self._workers.run(
            lambda: self._ran(statement, values, bounds, now), time_s=bounds.time_s
        )

    async def spans_at_most(self) -> int | None:
        """Return how many spans the whole database holds, None where its engine keeps no count."""
        table = SPANS_TABLE if (await self.schema()).has(SPANS_TABLE) else "otel_traces"
        return (await self.rows_at_most([table])).get(table)

    async def rows_at_most(self, tables: Sequence[str]) -> Mapping[str, int]:
        """Return how many rows the tables hold; tables whose engine keeps no count are left out."""
        wanted = {"database": self._database, "tables": list(tables)}
        found = await self.run(load(__package__, "table_rows"), wanted)
        return {str(table): int(rows) for table, rows in found.rows() if rows is not None}

    async def schema(self) -> TelemetrySchema:
        """Return the tables and columns that are there (cached)."""
        if self._schema is None:
            return await self._workers.run(self._discover, time_s=_USUAL.time_s)
        return self._schema

    async def ask(self, question: Question[T]) -> T:
        """Answer a typed question; see :mod:`.questions`."""
        return await answer(self, question)

    async def exporter(self) -> Exporter:
        """Return what reads whole tables, without a query's limits; each read shows what is visible then."""
        return Exporter(self.database, self._exporting)

    @contextmanager
    def _exporting(self) -> Iterator[Connection]:
        now = self.now()
        with self._open(_EXPORTING, now) as connection:
            yield connection

    def close(self) -> None:
        """Drop the session's private database; a second call does nothing."""
        if self._closed:
            return
        self._closed = True
        if self._visibility:
            finish(partial(self._drop, self._visibility), "otel-diag drop")

    def _drop(self, visibility: SessionViews) -> None:
        with (
            self._engine.connection(settings=writing(self._readonly)) as connection,
            translated(what="dropping the session's views"),
        ):
            visibility.drop(connection)

    @contextmanager
    def _open(self, limits: QueryLimits, now: Nanos | None, *, sealed: bool = False) -> Iterator[Connection]:
        """Lend a client that shows this session's database up to *now*, within *limits*.

        A *sealed* client can neither write nor change a setting; see :meth:`Engine.connection`.
        """
        if self._closed:
            raise TelemetryUnavailable("this session's telemetry is closed")
        if now is not None:
            self._show(now)
        settings = {} if self._readonly == 1 else _settings(limits)
        if self._engine.embedded:
            settings["max_threads"] = self._threads
        elif self._readonly == 0:
            settings["readonly"] = 2
            settings["distributed_product_mode"] = "global"  # right wherever the shards keep a trace
        with (
            self._engine.connection(self.database, settings, sealed=sealed) as connection,
            translated(limits=limits, schema=self._schema),
        ):
            yield connection

    def _show(self, now: Nanos) -> None:
        """Move the views to *now* when it changed."""
        with self._lock:
            if now == self._now_shown or self._visibility is None:
                return
            with (
                self._engine.connection(settings=writing(self._readonly)) as connection,
                translated(what="moving the clock"),
            ):
                self._visibility.move(connection, self._steps, now)
            self._steps += 1
            self._now_shown = now

    def _guarded(self, sql: str, parameters: dict[str, Any], limits: QueryLimits, now: Nanos | None) -> Table:
        statement = self._checked_statement(sql, parameters)
        if statement.kind == "show tables":
            return self._ran(load(__package__, "show_tables"), {}, limits, now)
        if statement.kind == "show columns":
            return self._ran(load(__package__, "show_columns"), {"table": statement.table}, limits, now)
        if statement.kind == "explain":  # it would tell the engine's limit of rows as if it were written
            limits = limits.model_copy(update={"result_rows": 0})
        with self._open(limits, now, sealed=True) as connection:
            return self._timed(connection, statement.text, guard.used(statement.text, parameters), limits)

    def _ran(
        self,
        statement: Statement,
        parameters: dict[str, Any],
        limits: QueryLimits,
        now: Nanos | None,
    ) -> Table:
        with self._open(limits, now) as connection:
            return self._timed(
                connection, statement.sql, guard.used(statement.sql, parameters), limits, named=False
            )

    def _timed(
        self,
        connection: Connection,
        sql: str,
        parameters: dict[str, Any],
        limits: QueryLimits,
        *,
        named: bool = True,
    ) -> Table:
        started = perf_counter()
        names, columns = connection.query(sql, parameters, named=named)
        table = Table(names, tuple(columns), perf_counter() - started)
        if limits.result_rows and len(table) > limits.result_rows:
            raise too_many_rows(limits)
        return table

    def _checked_statement(self, sql: str, parameters: dict[str, Any]) -> guard.Parsed:
        """Return an allowed statement; the check runs under separate limits."""
        key = (sql, tuple(sorted(parameters)))
        known = self._checked.get(key)
        if known is not None:
            return known
        if self._schema is None:
            self._discover()  # so that errors can name tables and columns
        statement = self._parses.parsed(self._checking, sql, parameters)
        try:
            self._check(statement)
        except SchemaError:
            self._tables = None  # the exporter may have made the table since
            self._check(statement)
        if len(self._checked) >= _CHECKED_MAX:
            self._checked.clear()
        self._checked[key] = statement
        return statement

    def _check(self, statement: guard.Parsed) -> None:
        scope = guard.StatementScope(self.database, self._known_tables, cache(self._databases))
        guard.check(statement, scope)

    def _checking(self) -> AbstractContextManager[Connection]:
        return self._open(_USUAL, None, sealed=True)

    def _known_tables(self) -> frozenset[str]:
        if self._tables is None:
            self._tables = self._listed("SELECT name FROM system.tables WHERE database = currentDatabase()")
        return self._tables

    def _databases(self) -> frozenset[str]:
        return self._listed("SELECT name FROM system.databases")

    def _listed(self, sql: str) -> frozenset[str]:
        with self._checking() as connection:
            return frozenset(str(row[0]) for row in connection.rows(sql))

    def _discover(self) -> TelemetrySchema:
        with self._open(_USUAL, None) as connection:
            self._schema = discover(connection, self.database)
            return self._schema


def _settings(limits: QueryLimits) -> dict[str, Any]:
    """Return the engine settings of *limits*."""
    return {
        "max_execution_time": limits.time_s,
        "max_memory_usage": limits.memory_bytes,
        "max_result_rows": limits.result_rows,
        # max_result_rows counts whole blocks, and one row can become a block of any size (arrayJoin)
        "limit": limits.result_rows + 1 if limits.result_rows else 0,
        "max_rows_to_read": limits.read_rows,
        "result_overflow_mode": "throw",
        "read_overflow_mode": "throw",
        "timeout_overflow_mode": "throw",
    }


def writing(readonly: int) -> dict[str, Any]:
    """Return the settings of the package's own statements: none of a query's limits.

    *readonly* is the user's setting: a user who may not change settings gets none.
    """
    return {} if readonly == 1 else dict(_WRITING)
