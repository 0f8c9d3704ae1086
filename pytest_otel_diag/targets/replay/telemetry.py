"""Telemetry of a replayed session: events until the virtual now, and the quiet reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, cast

from pytest_otel_diag.model.base import Nanos
from pytest_otel_diag.model.questions import Latest, Question
from pytest_otel_diag.model.telemetry import QueryLimits, Table, TelemetrySchema
from pytest_otel_diag.model.windows import Window, seconds_to_ns
from pytest_otel_diag.ports import Telemetry
from pytest_otel_diag.targets.clock import VirtualClock
from pytest_otel_diag.telemetry.leaks import NOTHING_HIDDEN, Hidden
from pytest_otel_diag.telemetry.session import StoreTelemetry
from pytest_otel_diag.telemetry.store import Store

T = TypeVar("T")

DRAIN_S = 600.0
"""How long spans that started in a session may last beyond its end; no recorded span lasts longer."""

_ROUNDING_NS = 1_000_000


class ReplayedTelemetry(Telemetry):
    """The Telemetry port over a recording, restricted to one session.

    While the session runs, spans that have not ended are hidden, as in a live system. After its end they
    become visible, as after waiting for the exporter; later spans stay hidden. Reference windows are always
    visible, even in the session's future.
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
        hidden: Hidden = NOTHING_HIDDEN,
    ) -> ReplayedTelemetry:
        """Open the view (blocking); *own* are the session's windows, of which the last ends with it."""
        over_ns = own[-1].end_ns

        def horizon() -> Nanos:
            now = clock.now()
            over = now >= over_ns - _ROUNDING_NS
            return max(now, over_ns + seconds_to_ns(DRAIN_S)) if over else now

        view = store.telemetry(database, now=horizon, visible=own, settled=reference, hidden=hidden)
        return cls(view, clock)

    @property
    def database(self) -> str:
        """The database of the session."""
        return self._inner.database

    async def query(
        self, sql: str, parameters: Mapping[str, Any] | None = None, limits: QueryLimits | None = None
    ) -> Table:
        """Run one SELECT; see the port."""
        return await self._inner.query(sql, parameters, limits)

    async def schema(self) -> TelemetrySchema:
        """Return the existing tables and columns (cached)."""
        return await self._inner.schema()

    async def ask(self, question: Question[T]) -> T:
        """Answer a typed question; the newest telemetry excludes reference windows in the future."""
        if isinstance(question, Latest) and question.until_ns is None:
            return cast("T", await self._inner.ask(Latest(until_ns=self._clock.now())))
        return await self._inner.ask(question)

    def close(self) -> None:
        """Drop the session's view (blocking); a second call does nothing."""
        self._inner.close()
