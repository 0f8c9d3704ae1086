"""A session in the simulated shop: clock, traffic, telemetry."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import add, attrgetter
from typing import Any, TypeVar, cast

from pytest_otel_diag.errors import ConfigurationError
from pytest_otel_diag.model.base import Nanos
from pytest_otel_diag.model.questions import Latest, Question, WindowQuestion
from pytest_otel_diag.model.scenario import Disturbance
from pytest_otel_diag.model.telemetry import SIGNAL_TABLES, QueryLimits, Table, TelemetrySchema
from pytest_otel_diag.model.windows import seconds_to_ns
from pytest_otel_diag.ports import Telemetry
from pytest_otel_diag.shop.emission import rows
from pytest_otel_diag.shop.records import Batch
from pytest_otel_diag.shop.simulation import Shop
from pytest_otel_diag.targets.shop.answers import Answers
from pytest_otel_diag.telemetry.export import Exporter
from pytest_otel_diag.telemetry.session import StoreTelemetry
from pytest_otel_diag.telemetry.store import Store

T = TypeVar("T")

STEP_NS = seconds_to_ns(20.0)
"""Step of virtual time; other tasks run between steps."""

_STARTED, _LASTED, _TIMED = attrgetter("start_ns"), attrgetter("duration_ns"), attrgetter("time_ns")


class ShopClock:
    """Virtual time: sleeping runs the simulation."""

    def __init__(self, shop: Shop) -> None:
        self._shop = shop
        self._now_ns = shop.now_ns

    def now(self) -> Nanos:
        """Return the virtual instant in UTC nanoseconds."""
        return self._now_ns

    async def sleep(self, seconds: float) -> None:
        """Run the simulation for *seconds*; raises ConfigurationError for an invalid duration."""
        if not 0 <= seconds < float("inf"):
            raise ConfigurationError(f"cannot sleep {seconds} s; give a finite number of seconds from 0")
        await self.sleep_until(self._now_ns + seconds_to_ns(seconds))

    async def sleep_until(self, instant_ns: Nanos) -> None:
        """Run the simulation up to the instant; does nothing when it has passed."""
        while self._now_ns < instant_ns:
            step_ns = min(self._now_ns + STEP_NS, instant_ns)
            self._shop.advance(step_ns)
            self._now_ns = step_ns
            await asyncio.sleep(0)
        await asyncio.sleep(0)


class ShopTraffic:
    """Traffic in addition to that of the users."""

    def __init__(self, shop: Shop) -> None:
        self._shop = shop
        self._made = 0

    async def drive(self, services: Sequence[str], calls: int) -> int:
        """Schedule requests that reach the services, ignoring unknown ones; return their number."""
        known = [name for name in services if name in self._shop.services]
        made = self._shop.drive(known, calls)
        self._made += made
        return made

    def made(self) -> int:
        """Return how many requests were scheduled: the simulated users make each."""
        return self._made

    async def disturb(self, disturbance: Disturbance) -> None:
        """Make a harmless change now."""
        self._shop.disturb(disturbance)


@dataclass(frozen=True, slots=True)
class TelemetryWriter:
    """Writes what the shop emits to the database of its session."""

    store: Store
    database: str

    def write(self, tables: Mapping[str, Any]) -> None:
        """Append Arrow tables to the tables of these names (blocking)."""
        for name, table in tables.items():
            self.store.ingest_arrow(self.database, name, table)


class ShopTelemetry(Telemetry):
    """The Telemetry port over the database of a session.

    What has become visible is written to the store when a question needs its signal, all at once: many
    small writes would cost more than the simulation. Telemetry that is not visible yet is never in the
    store. An answer is kept until telemetry is written that may change it.
    """

    def __init__(self, shop: Shop, clock: ShopClock, writer: TelemetryWriter, inner: StoreTelemetry) -> None:
        self._shop = shop
        self._clock = clock
        self._writer = writer
        self._inner = inner
        self._lock = asyncio.Lock()
        self._waiting = Batch()
        self._newest_ns: Nanos | None = None
        self._answers = Answers()
        self._writes = 0
        self._writing: asyncio.Future[None] | None = None

    async def settle(self, *signals: str) -> None:
        """Write the records that became visible since the last call, of these signals or of all."""
        async with self._lock:
            self._receive()
            batch = _taken(self._waiting, signals or tuple(SIGNAL_TABLES))
            tables = rows.tables(batch)
            if tables:
                self._writes += 1
                self._answers.written(batch)
                # a started write must end even under cancellation, since its rows exist only here
                self._writing = asyncio.ensure_future(asyncio.to_thread(self._writer.write, tables))
                await asyncio.shield(self._writing)

    def _receive(self) -> None:
        """Take the records that became visible since the last call."""
        visible, waiting = self._shop.take(self._clock.now()), self._waiting
        waiting.spans += visible.spans
        waiting.logs += visible.logs
        waiting.metrics += visible.metrics
        ends_ns = [
            max(map(add, map(_STARTED, visible.spans), map(_LASTED, visible.spans)), default=None),
            max(map(_TIMED, visible.logs), default=None),
            max(map(_TIMED, visible.metrics), default=None),
            self._newest_ns,
        ]
        self._newest_ns = max((end_ns for end_ns in ends_ns if end_ns is not None), default=None)

    async def query(
        self, sql: str, parameters: Mapping[str, Any] | None = None, limits: QueryLimits | None = None
    ) -> Table:
        """Run one SELECT; see the port."""
        await self.settle()
        return await self._inner.query(sql, parameters, limits)

    async def schema(self) -> TelemetrySchema:
        """Return the existing tables and columns (cached)."""
        return await self._inner.schema()

    async def ask(self, question: Question[T]) -> T:
        """Answer a typed question; see the port."""
        if isinstance(question, Latest):
            return cast("T", self._latest(question))
        await self.settle(*question.signals)
        if not isinstance(question, WindowQuestion):
            return await self._inner.ask(question)
        known = self._answers.get(question)
        if known is not None:
            return cast("T", known)
        writes = self._writes
        answer: T = await self._inner.ask(question)
        if writes == self._writes:
            self._answers.keep(question, answer)
        return answer

    def _latest(self, question: Latest) -> Nanos | None:
        """Return the end of the newest telemetry, at most now: clocks of hosts run a little ahead."""
        self._receive()
        now_ns = self._clock.now() if question.until_ns is None else question.until_ns
        return None if self._newest_ns is None else min(self._newest_ns, now_ns)

    async def exporter(self) -> Exporter:
        """Return an exporter of whole tables after all visible records are written."""
        await self.settle()
        return await self._inner.exporter()

    async def close(self) -> None:
        """Close the view of the database once no write is under way."""
        if self._writing is not None:
            await asyncio.wait([self._writing])
        self._inner.close()


def _taken(waiting: Batch, signals: Sequence[str]) -> Batch:
    """Remove and return the waiting records of these signals."""
    taken = Batch()
    if "traces" in signals:
        taken.spans, waiting.spans = waiting.spans, []
    if "logs" in signals:
        taken.logs, waiting.logs = waiting.logs, []
    if "metrics" in signals:
        taken.metrics, waiting.metrics = waiting.metrics, []
    return taken
