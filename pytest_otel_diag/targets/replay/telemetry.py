"""Telemetry of a replayed session: what had happened by the virtual now, and the quiet reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pytest_otel_diag import statements
from pytest_otel_diag.model.base import Nanos
from pytest_otel_diag.model.telemetry import (
    SIGNAL_TABLES,
    CallEdge,
    LogCount,
    LogKind,
    MetricLevel,
    OperationHealth,
    QueryLimits,
    ServiceHealth,
    Table,
    TelemetrySchema,
)
from pytest_otel_diag.model.windows import Window, seconds_to_ns
from pytest_otel_diag.targets.clock import VirtualClock
from pytest_otel_diag.telemetry.session import StoreTelemetry
from pytest_otel_diag.telemetry.store import Store

DRAIN_S = 600.0
"""Once a session's time is over, what it had begun may end: nothing recorded lasts longer than this."""

_ROUNDING_NS = 1_000_000


class ReplayedTelemetry:
    """The Telemetry port over a recording, cut to one session.

    While the session runs, spans that have not ended are hidden, as they are in a live system. Once
    its time is over they become visible, as if the exporter had been waited for; what starts later
    never does. Reference windows are visible always, also where they lie in the session's future.
    """

    def __init__(self, inner: StoreTelemetry, clock: VirtualClock) -> None:
        self._inner = inner
        self._clock = clock

    @classmethod
    def open(
        cls,
        store: Store,
        database: str,
        *,
        clock: VirtualClock,
        own: Sequence[Window],
        reference: Sequence[Window],
    ) -> ReplayedTelemetry:
        """Open the view (blocking). *own* are the session's windows; the last one ends with the session."""
        over_ns = own[-1].end_ns

        def horizon() -> Nanos:
            now = clock.now()
            over = now >= over_ns - _ROUNDING_NS
            return max(now, over_ns + seconds_to_ns(DRAIN_S)) if over else now

        return cls(store.telemetry(database, now=horizon, visible=own, settled=reference), clock)

    @property
    def database(self) -> str:
        """The session's own database."""
        return self._inner.database

    async def query(
        self, sql: str, parameters: Mapping[str, Any] | None = None, limits: QueryLimits | None = None
    ) -> Table:
        """Run one SELECT; see the port."""
        return await self._inner.query(sql, parameters, limits)

    async def schema(self) -> TelemetrySchema:
        """Return the tables and columns that are there (cached)."""
        return await self._inner.schema()

    async def latest(self) -> Nanos | None:
        """Return the end of the newest telemetry up to now; reference in the future does not count."""
        schema, now = await self.schema(), self._clock.now()
        newest = [
            await self._newest(signal, table, now)
            for signal, tables in SIGNAL_TABLES.items()
            for table in tables
            if schema.has(table)
        ]
        return max((instant for instant in newest if instant is not None), default=None)

    async def service_health(self, window: Window, bucket_s: float) -> Sequence[ServiceHealth]:
        """Return requests, errors and latency per service and bucket."""
        return await self._inner.service_health(window, bucket_s)

    async def call_edges(self, window: Window) -> Sequence[CallEdge]:
        """Return the calls between services."""
        return await self._inner.call_edges(window)

    async def operation_health(
        self, window: Window, bucket_s: float, services: Sequence[str]
    ) -> Sequence[OperationHealth]:
        """Return calls, errors and latency per operation of the services and bucket."""
        return await self._inner.operation_health(window, bucket_s, services)

    async def metric_levels(
        self, window: Window, bucket_s: float, services: Sequence[str]
    ) -> Sequence[MetricLevel]:
        """Return the metrics of the services per bucket."""
        return await self._inner.metric_levels(window, bucket_s, services)

    async def log_counts(
        self, window: Window, bucket_s: float, services: Sequence[str]
    ) -> Sequence[LogCount]:
        """Return log lines of the services per bucket."""
        return await self._inner.log_counts(window, bucket_s, services)

    async def log_kinds(self, window: Window, bucket_s: float, services: Sequence[str]) -> Sequence[LogKind]:
        """Return the log templates of the services."""
        return await self._inner.log_kinds(window, bucket_s, services)

    def close(self) -> None:
        """Drop the session's view (blocking); a second call does nothing."""
        self._inner.close()

    async def _newest(self, signal: str, table: str, until_ns: Nanos) -> Nanos | None:
        statement = statements.load(__package__, f"newest_{signal}")
        answer = await self._inner.ask(statement, {"until_ns": until_ns, "table": table})
        return int(answer.column("newest_ns")[0]) if answer.column("rows")[0] else None
