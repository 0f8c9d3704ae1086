"""The ports to telemetry: questions to it, what its answers held, and whole tables."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from pytest_otel_diag.model.base import Nanos
from pytest_otel_diag.model.questions import (
    CallEdges,
    Latest,
    LogCounts,
    LogKinds,
    MetricLevels,
    OperationHealthOf,
    Question,
    ServiceHealthOf,
)
from pytest_otel_diag.model.telemetry import (
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
from pytest_otel_diag.model.windows import Window

T = TypeVar("T")


class Telemetry(Protocol):
    """SQL over ClickHouse, cut to what has happened so far. Read-only.

    Implementations subclass this class and provide ``query``, ``schema`` and ``ask``; the methods named
    after questions are provided. Every method raises a TelemetryError subclass; none blocks the event loop.
    """

    @abstractmethod
    async def query(
        self, sql: str, parameters: Mapping[str, Any] | None = None, limits: QueryLimits | None = None
    ) -> Table:
        """Run one SELECT with server-side parameters ``{name:Type}``."""
        ...

    @abstractmethod
    async def schema(self) -> TelemetrySchema:
        """Return the tables and columns of the database (cached)."""
        ...

    @abstractmethod
    async def ask(self, question: Question[T]) -> T:
        """Answer a typed question, a subclass of :class:`.Question`."""
        ...

    async def latest(self) -> Nanos | None:
        """Ask :class:`.Latest`: the end of the newest telemetry visible, None without any."""
        return await self.ask(Latest())

    async def service_health(self, window: Window, bucket_s: float) -> Sequence[ServiceHealth]:
        """Ask :class:`.ServiceHealthOf`: requests, errors and latency per service and bucket."""
        return await self.ask(ServiceHealthOf(window, bucket_s))

    async def call_edges(self, window: Window) -> Sequence[CallEdge]:
        """Ask :class:`.CallEdges`: the calls between services."""
        return await self.ask(CallEdges(window))

    async def operation_health(
        self, window: Window, bucket_s: float, services: Sequence[str]
    ) -> Sequence[OperationHealth]:
        """Ask :class:`.OperationHealthOf`: calls, errors and latency per operation and bucket."""
        return await self.ask(OperationHealthOf(window, bucket_s, tuple(services)))

    async def metric_levels(
        self, window: Window, bucket_s: float, services: Sequence[str]
    ) -> Sequence[MetricLevel]:
        """Ask :class:`.MetricLevels`: metrics per bucket, counters as rates within the window."""
        return await self.ask(MetricLevels(window, bucket_s, tuple(services)))

    async def log_counts(
        self, window: Window, bucket_s: float, services: Sequence[str]
    ) -> Sequence[LogCount]:
        """Ask :class:`.LogCounts`: log lines per bucket."""
        return await self.ask(LogCounts(window, bucket_s, tuple(services)))

    async def log_kinds(self, window: Window, bucket_s: float, services: Sequence[str]) -> Sequence[LogKind]:
        """Ask :class:`.LogKinds`: log templates, those in most buckets first."""
        return await self.ask(LogKinds(window, bucket_s, tuple(services)))


class Sightings(Protocol):
    """The ids and names that the answers to an analyzer's queries held; upper and lower case are the same.

    ``complete`` is False where the answers held more than is kept.
    """

    complete: bool

    def saw(self, text: str) -> bool:
        """Whether an answer held this id or name."""
        ...

    def queries_that_saw(self, name: str) -> frozenset[int]:
        """Return the indexes into :attr:`JudgeFacts.queries` of the queries that read this name."""
        ...


class TableExporter(Protocol):
    """Reads whole tables of telemetry, without the limits of a query; methods block."""

    def tables(self) -> Mapping[str, Mapping[str, str]]:
        """Return the tables: exporter table → {column: ClickHouse type}; raises TelemetryError."""
        ...

    def batches(self, table: str, columns: Sequence[str], windows: Sequence[Window]) -> Iterator[Any]:
        """Yield the Arrow record batches of *table* within *windows* in order of time.

        Missing columns are left out; a missing table has no rows. Raises TelemetryError.
        """
        ...
